"""The test: images that were kept out of the training (chapter 5, "Prediction Test data set").

    python evaluate.py

loads what train.py saved and prints

    cifar_net.pth on the test set of CIFAR-10, 10,000 images

    the first four
      ground truth:       cat    ship    ship   plane
      prediction:         cat    ship    ship    ship
      its logit:         3.67    8.89    3.49    1.80

    accuracy on CIFAR-10: 61.8 % (guessing: 10 %)

    accuracy of each class
        plane   63.0 %
          car   72.3 %
      ...

then which classes it takes for which (the confusion matrix), and draws predictions.png,
mistakes.png, confusion.png, feature_maps.png, filters.png and convolution.png. For photos of your
own:

    python evaluate.py --image cat.jpg
"""
import math
import os
import pickle

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize, to_pil_image

import data
from lenet5 import LeNet5, trace


def load_checkpoint(path, device="cpu"):
    """A LeNet5 with the parameters saved in path. Raises UserError if path holds none."""
    net = LeNet5()
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FILE_ERRORS as error:
        raise data.UserError(f"{path} {problem(path, error)}")
    return net.to(device).eval()


def predict(net, testloader, device="cpu"):
    """Inference: the logits (N, 10) of net for all images of the loader, and their labels (N,)."""
    all_outputs, all_labels = [], []
    net.eval()  # dropout off, BatchNorm with its stored averages; LeNet-5 has neither, yours may
    # For the backward pass PyTorch keeps what each layer will need then. no_grad: don't keep it,
    # there is no backward pass. That saves memory and some time.
    with torch.no_grad():
        for images, labels in testloader:
            outputs = net(images.to(device))  # (N, 3, 32, 32) -> (N, 10)
            all_outputs.append(outputs.cpu())
            all_labels.append(labels)
    return torch.cat(all_outputs), torch.cat(all_labels)


def accuracy(outputs, labels):
    """Percent of the images whose prediction, the class with the greatest logit, is right."""
    _, predicted = torch.max(outputs, 1)
    return 100 * (predicted == labels).sum().item() / len(labels)


def run(args):
    """The tutorial's chapter 5, top to bottom, and then what we add to it."""
    testset = data.load(train=False, dataset=args.dataset, root=args.data_dir)
    testloader = DataLoader(testset, batch_size=250, shuffle=False)
    net, classes = load_checkpoint(args.checkpoint, args.device), testset.classes
    name = testset.name + (data.WITH_MIRROR if args.mirror else "")  # stands beside each result

    print(f"{args.checkpoint} on the test set of {name}, {len(testset):,} images")
    outputs, labels = predict(Mirrored(net) if args.mirror else net, testloader, args.device)
    check_outputs(args, outputs)
    values, predicted = torch.max(outputs, 1)  # of each row: the greatest logit, and its place
    wide = max(7, *map(len, classes))
    print("\nthe first four")
    print("  ground truth:  ", " ".join(f"{classes[label]:>{wide}}" for label in labels[:4]))
    print("  prediction:    ", " ".join(f"{classes[label]:>{wide}}" for label in predicted[:4]))
    print("  its logit:     ", " ".join(f"{value:{wide}.2f}" for value in values[:4]))

    percent = accuracy(outputs, labels)
    print(f"\naccuracy on {name}: {percent:.1f} % (guessing: 10 %)")

    print("\naccuracy of each class")
    for k in range(len(classes)):
        of_class = labels == k  # True for the images of class k
        print(f"  {classes[k]:>{wide}}  {accuracy(outputs[of_class], labels[of_class]):5.1f} %")

    matrix = confusion_matrix(outputs, labels)
    print_confusions(matrix, classes)
    draw_all(net, testset, outputs, matrix, name)
    if percent < 15:
        print(f"\n{percent:.1f} % is {data.GUESSING}")


# ==== Beyond the tutorial =========================================================================


class Mirrored(nn.Module):
    """A network that looks at each image and at its mirror image: the mean of the logits of both.

    A cat is a cat in the mirror too, and a mistake made in only one of the two looks counts half.
    It takes two forward passes. This is test-time augmentation (the mirror half of what
    KellerJordan/cifar10-airbench does).
    """

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        # flip(3): the columns, from the last to the first.
        return (self.net(x) + self.net(x.flip(3))) / 2


def confusion_matrix(outputs, labels):
    """How many images of each class got which prediction: (classes, classes), int64.

    Row: what an image is; column: what the network says. Right answers are on the diagonal, and a
    row adds up to the images of that class.
    """
    _, predicted = torch.max(outputs, 1)
    n = max(outputs.shape[1], labels.max().item() + 1)
    matrix = torch.zeros(n, n, dtype=torch.int64)
    for label, prediction in zip(labels.tolist(), predicted.tolist()):
        matrix[label, prediction] += 1
    return matrix


def most_confused(matrix, n=3):
    """The n pairs (a, b), a < b, of classes most often taken for each other, the worst first."""
    pairs = [(a, b) for a in range(len(matrix)) for b in range(a + 1, len(matrix))]
    return sorted(pairs, key=lambda pair: matrix[pair] + matrix[pair[::-1]], reverse=True)[:n]


def print_confusions(matrix, classes):
    """The confusion matrix, and the pairs of classes most often taken for each other."""
    wide = max(len(str(matrix.max().item())), *map(len, classes))
    print("\nconfusion matrix: what an image is (row), what the network says (column)")
    print(" " * (wide + 3) + " ".join(f"{label:>{wide}}" for label in classes))
    for k in range(len(classes)):
        print(f"  {classes[k]:>{wide}} " + " ".join(f"{count:{wide}d}" for count in matrix[k]))
    print("\nmost often taken for each other")
    for a, b in most_confused(matrix):
        one, other = classes[a], classes[b]
        print(f"  {one} and {other}: {matrix[a, b] + matrix[b, a]} times "
              f"({other} for {one} {matrix[a, b]}, {one} for {other} {matrix[b, a]})")


# ---- Photos of your own ----


def classify(args):
    """What --image does: the three most probable classes of each photo, and images.png."""
    name, classes, _, _ = data.DATASETS[args.dataset]
    looks = data.WITH_MIRROR if args.mirror else ""
    net = load_checkpoint(args.checkpoint, args.device)
    images = torch.stack([read_image(path, args.dataset) for path in args.image])
    one_batch = [(images, torch.zeros(len(images)))]  # the true classes are not known
    outputs, _ = predict(Mirrored(net) if args.mirror else net, one_batch, args.device)
    check_outputs(args, outputs)
    probabilities = F.softmax(outputs, 1)             # they add up to 1
    if args.assumed:
        knows = f"may know other classes: these are {name}'s, since no --dataset is given."
    else:
        knows = f"knows the ten classes of {name}: whatever an image shows, it gets one of them."
    print(f"{args.checkpoint}{looks} {knows}")
    tiles = []
    for path, image, row in zip(args.image, images, probabilities):
        answers = [f"{classes[k]} {100 * row[k]:.1f} %" for k in row.argsort(descending=True)]
        print(f"  {repr(path)[1:-1]}:", ", ".join(answers[:3]))
        tiles.append((data.imshow(image), "black", answers))
    draw_sheet([(f"what the network saw, and its ten probabilities{looks}", tiles)], "images.png")
    print("images.png shows what the network saw, 32x32 pixels, and the ten probabilities")


def read_image(path, dataset="cifar10"):
    """A photo as a network for this dataset needs it, (3, 32, 32) in [-1, 1].

    For CIFAR-10 its middle square, shrunk; for MNIST and Fashion-MNIST, what like_grey() makes.

    Raises UserError if path holds no image, a damaged one, or one of more pixels than Pillow takes.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:  # of an animation, the first frame
            image = ImageOps.exif_transpose(image)        # cameras note which side is up
    except Exception as error:
        raise data.UserError(f"{path!r} can't be read as an image of {', '.join(FORMATS)} "
                             f"({type(error).__name__}: {error}).")
    if image.mode.startswith("I"):  # grey values of 16 bits, 0 to 65535
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:  # what is clear becomes white
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    if dataset in ("mnist", "fashion"):
        image = like_grey(image.convert("L"), dataset, path)
    image = resize(center_crop(image.convert("RGB"), min(image.size)), [32, 32])
    # The same Compose as the test set's. (v2 returns an Image, torchvision's kind of tensor.)
    return data.transform(image).as_subclass(torch.Tensor)


def like_grey(image, dataset, path):
    """A grey photo as the images of MNIST or Fashion-MNIST are: bright on black, 28x28, padded.

    If the border of the photo is bright, its negative is taken. A digit is 20 pixels long, and its
    centre of mass lies in the middle; of clothes the whole photo is shrunk. A file of 28x28 with a
    dark border stays as it is. Raises UserError if there is nothing on the photo.
    """
    pixels = pil_to_tensor(image)[0].float()  # (H, W), 0 to 255
    border = torch.cat([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).median()
    low, high = pixels.min(), pixels.max()
    negative = high - border < border - low
    # Light on paper is seldom even: at a pixel, the paper is about as bright as the brightest pixel
    # of its row, times that of its column, over that of all. Ink is darker than that.
    paper = pixels.amax(1, keepdim=True) * pixels.amax(0, keepdim=True) / high.clamp(min=1)
    ink = (1 - pixels / paper.clamp(min=1)).clamp(min=0) if negative else (pixels - low) / 255
    if ink.max() < 0.08:
        raise data.UserError(f"{path!r} shows nothing: its greys are {low:.0f} to {high:.0f}.")
    if image.size == (28, 28) and not negative:
        return ImageOps.expand(image, 2)
    if dataset == "fashion":
        image = ImageOps.autocontrast(ImageOps.invert(image) if negative else image)
        return ImageOps.expand(ImageOps.pad(image, (28, 28)), 2)

    rows, columns = (ink > ink.max() / 2).nonzero().unbind(1)
    digit = ink[rows.min():rows.max() + 1, columns.min():columns.max() + 1] / ink.max()
    size = [max(1, round(20 * side / max(digit.shape))) for side in digit.shape[::-1]]
    digit = to_pil_image(digit).resize(size)
    mass = pil_to_tensor(digit)[0].float()
    y, x = (mass.sum(1 - k) @ torch.arange(0.5, mass.shape[k]) / mass.sum() for k in (0, 1))
    padded = Image.new("L", (32, 32))
    padded.paste(digit, (round(16 - x.item()), round(16 - y.item())))
    return padded


def check_outputs(args, outputs):
    """Raise UserError if the network has another number of outputs than the dataset has classes."""
    name, classes, _, _ = data.DATASETS[args.dataset]
    if outputs.shape[1] != len(classes):
        raise data.UserError(f"{args.checkpoint} has {outputs.shape[1]} outputs, and {name} has "
                             f"{len(classes)} classes: they do not belong together.")


# ---- Drawings ----


def draw_all(net, testset, outputs, matrix, name):
    """The pictures of python evaluate.py, under the name of the dataset."""
    classes, (images, labels) = testset.classes, testset[:]
    first = [tile(testset, outputs, k) for k in range(min(32, len(labels)))]
    right = (outputs[:32].argmax(1) == labels[:32]).sum()
    heading = f"{name}: {accuracy(outputs, labels):.1f} % right, {right} of these {len(first)}"
    draw_sheet([(heading, first)], "predictions.png")
    mistakes = []
    for a, b in most_confused(matrix):
        tiles = [tile(testset, outputs, k) for k in most_confident_mistakes(outputs, labels, a, b)]
        mistakes.append((f"{name}: {classes[a]} and {classes[b]}, most confident mistakes", tiles))
    draw_sheet(mistakes, "mistakes.png")
    draw_confusion(matrix, classes, name, "confusion.png")
    image = images[0].to(next(net.parameters()).device)
    draw_feature_maps(net, image, "feature_maps.png")
    print("\ndrawn: predictions.png, mistakes.png, confusion.png, feature_maps.png")
    _, conv, relu, *_ = trace(net, image[None])
    if ((conv.name, relu.name) == ("conv1", "relu") and conv.size.startswith("(32 - ")
            and "/" not in conv.size and net.conv1.groups == 1):  # no padding, no stride
        draw_filters(net, "filters.png")
        draw_convolution(net.conv1, image, "convolution.png")
        print("       filters.png, convolution.png")
    else:
        print("not filters.png, convolution.png: conv1 and its ReLU are not as in LeNet-5")


def draw_curve(history, title, path=None, split="test"):
    """Draw accuracies and losses over the epochs. Returns a PIL image.

    history: (training loss, training accuracy, test loss, test accuracy) for each epoch; split:
    "test" or "validation". A gap between the lines is normal. Where the training loss still falls,
    and the other one does not, or rises, the network is overfitting: it learns the training images
    by heart, and what it learns no longer generalises to others.
    """
    epochs = range(1, len(history) + 1)
    train_loss, train_accuracy, test_loss, test_accuracy = zip(*history)
    accuracies = {"training": (epochs, train_accuracy), split: (epochs, test_accuracy)}
    losses = {"training": (epochs, train_loss), split: (epochs, test_loss)}
    panels = [("accuracy, %", "epoch", None, accuracies), ("loss", "epoch", None, losses)]
    return plot(panels, title, path)


COLORS = "blue", "red", "green", "orange", "purple", "brown", "deepskyblue", "hotpink"


def plot(panels, title, path=None):
    """Draw lines over x, in panels side by side. Returns a PIL image; path, if given, is written.

    panels: [(name of y, name of x, (lowest y, highest y), {name of a line: (xs, ys), ...}), ...].
    None in place of the lowest and highest y: from the lines, in tens if "accuracy" is in the name
    of y (it is in percent), else from 0 on. What lies beyond them is drawn at the edge.
    """
    head = 76 + 40 * title.count("\n")
    top = head + 48 + 36 * max(len(lines) for *_, lines in panels)      # below the lines' names
    sheet = Image.new("RGB", (1000 * len(panels), top + 680), "white")  # halved at the end: smooth
    draw = ImageDraw.Draw(sheet)
    draw.text((120, 16), title, "black", font_size=32)
    for n, (y_name, x_name, limits, lines) in enumerate(panels):
        left = 120 + 1000 * n
        lowest, highest = limits or limits_of(y_name, lines)
        every_x = sorted({x for xs, _ in lines.values() for x in xs})
        width = max(every_x) - min(every_x) or 1
        # The column and the row of the picture for an x and a y.
        column = lambda x: left + 800 * (x - min(every_x)) / width
        row = lambda y: top + 580 * (highest - min(max(y, lowest), highest)) / (highest - lowest)
        draw.text((left, head), y_name, "black", font_size=32)
        draw.text((left + 400, top + 636), x_name, "black", font_size=28, anchor="mt")
        for y in (lowest + (highest - lowest) * step / 10 for step in range(11)):
            draw.line((left, row(y), left + 800, row(y)), "lightgray", width=2)
            draw.text((left - 16, row(y)), f"{y:.3g}", "black", font_size=28, anchor="rm")
        for x in every_x[::math.ceil((len(every_x) - 1) / 10) or 1]:
            draw.text((column(x), top + 596), f"{x:.3g}", "black", font_size=28, anchor="mt")
        for k, (name, (xs, ys)) in enumerate(lines.items()):
            points = [(column(x), row(y)) for x, y in zip(xs, ys) if math.isfinite(y)]
            color = COLORS[k % len(COLORS)]  # after the last one, from the first again
            draw.text((left, head + 40 + 36 * k), name, color, font_size=32)
            draw.line(points, color, width=4, joint="curve")
            for x, y in points if len(points) <= 30 else []:
                draw.ellipse((x - 7, y - 7, x + 7, y + 7), color)
    return data.save_png(ImageOps.scale(sheet, 0.5, Image.Resampling.LANCZOS), path)


def limits_of(y_name, lines):
    """The lowest and highest y for these lines: tens for an accuracy, otherwise from 0 on."""
    ys = [y for _, ys in lines.values() for y in ys if math.isfinite(y)] or [0]
    accuracy = "accuracy" in y_name
    lowest, highest = min(ys) if accuracy else min(0, *ys), max(ys)
    step = 10 if accuracy else 10 ** math.floor(math.log10(highest - lowest or 1))
    lowest = step * math.floor(lowest / step)
    return lowest, max(step * math.ceil(highest / step), lowest + step)


def tile(dataset, outputs, k):
    """Image k of the dataset for draw_sheet(), framed green if the network is right, else red."""
    image, label = dataset[k]
    probability, predicted = F.softmax(outputs[k], 0).max(0)
    answer = f"{dataset.classes[predicted]} {100 * probability:.0f} %"
    color = "green" if predicted == label else "red"
    return data.imshow(image), color, (answer, f"truth: {dataset.classes[label]}")


def most_confident_mistakes(outputs, labels, a, b, n=8):
    """The places of the n images of classes a and b most surely taken for the other of the two."""
    probabilities, predicted = torch.max(F.softmax(outputs, 1), 1)
    wrong = ((labels == a) & (predicted == b)) | ((labels == b) & (predicted == a))
    return sorted(wrong.nonzero().flatten().tolist(), key=lambda k: -probabilities[k])[:n]


def draw_sheet(groups, path=None):
    """Draw tiles under headings, eight in a row. Returns a PIL image.

    groups: [(heading, [(PIL image, colour of its frame, lines of text under it), ...]), ...].
    """
    rows = [(heading if k == 0 else "", tiles[k:k + 8])
            for heading, tiles in groups for k in range(0, len(tiles), 8)]
    sheet, y, width = Image.new("RGB", (1120, 400 * len(rows) + 8), "white"), 0, 400
    draw = ImageDraw.Draw(sheet)
    for heading, tiles in rows:
        if heading:
            draw.text((6, y + 8), heading, "black", font_size=16)
            y += 30
        for k, (image, color, lines) in enumerate(tiles):
            x = k * (image.width + 12)
            draw.rectangle((x + 2, y, x + image.width + 9, y + image.height + 7), fill=color)
            sheet.paste(image, (x + 6, y + 4))
            for n, line in enumerate(lines):
                fill = color if n == 0 else "black"
                draw.text((x + 4, y + image.height + 8 + 18 * n), line, fill, font_size=15)
        y, width = y + image.height + 12 + 18 * len(lines), max(width, x + image.width + 12)
    return data.save_png(sheet.crop((0, 0, width, y + 8)), path)


def draw_confusion(matrix, classes, name, path=None):
    """The confusion matrix as a heat map: percent of each row. Returns a PIL image.

    Mistakes are blue, right answers, on the diagonal, grey. The darkest shade is that of the most
    frequent mistake, since beside the diagonal all are small.
    """
    percents = 100 * matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    darkest = max(1, *(percents - percents.diag().diag()).flatten().tolist())
    sheet = Image.new("RGB", (max(470, 140 + 84 * len(classes)), 116 + 50 * len(classes)), "white")
    draw = ImageDraw.Draw(sheet)
    heading = f"{name}: percent of each row\nrow: what the image is, column: what the network says"
    draw.text((8, 8), heading, "black", font_size=18)
    for i in range(len(classes)):
        draw.text((130, 131 + 50 * i), classes[i], "black", font_size=16, anchor="rm")
        draw.text((182 + 84 * i, 90), classes[i], "black", font_size=14, anchor="mm")
        for j in range(len(classes)):
            x, y, percent = 140 + 84 * j, 106 + 50 * i, percents[i, j].item()
            shade = round(255 - 200 * min(1, percent / darkest))
            draw.rectangle((x, y, x + 82, y + 48), (shade, shade, 255 if i != j else shade))
            ink = "white" if shade < 100 else "black"
            draw.text((x + 41, y + 24), f"{percent:.1f}", ink, font_size=18, anchor="mm")
    return data.save_png(sheet, path)


def draw_filters(net, path=None):
    """The kernels (filters) of conv1 as colour images; in each, mid grey is 0. Returns a PIL image.

    Of patches of equal length (the square root of the sum of squares), a kernel responds most to
    the one that looks like itself: bright where it is bright, red where it is red. (After training
    on grey images only the sum of a kernel's three colours means anything.)
    """
    weight = net.conv1.weight.detach().cpu()                            # (6, 3, 5, 5)
    weight = weight / weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-9)
    tiles = [(data.imshow(kernel, scale=24), "black", [f"kernel {k}"])
             for k, kernel in enumerate(weight)]
    return draw_sheet([("the kernels of conv1", tiles)], path)


def draw_convolution(conv, image, path=None):
    """One step of a convolution with all its numbers, where its answer is the greatest.

    conv: conv1, or another nn.Conv2d for images (stride 1, no padding); image: (3, 32, 32), in [-1,
    1]. For each colour, the patch of the image is multiplied by the kernel, number by number. The
    sum of all products and the bias is one value of the feature map, and ReLU follows:
    relu(conv_by_hand(...)) there. Returns a PIL image.
    """
    image, weight = image.cpu(), conv.weight.detach().cpu()
    bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias.detach().cpu()
    maps, K = F.conv2d(image[None], weight, bias)[0], weight.shape[2]
    k, i, j = (place.item() for place in torch.unravel_index(maps.argmax(), maps.shape))
    patch = image[:, i:i + K, j:j + K]
    products = patch * weight[k]

    side, high = 50 * K, 32 * K + 40  # of a square of numbers, and of its row
    sheet = Image.new("RGB", (3 * side + 220, 3 * high + 250), "white")
    draw = ImageDraw.Draw(sheet)
    squares = ("image", patch), ("x kernel", weight[k]), ("= products", products)
    for c, color in enumerate(("red", "green", "blue")):
        for n, (name, numbers) in enumerate(squares):
            x, y = 10 + n * (side + 40), 34 + c * high
            draw.text((x, y - 26), f"{name}, {color}", color, font_size=18)
            shades = 255 - (150 * numbers.abs() / numbers.abs().max().clamp(min=1e-9)).round().int()
            for u in range(K):
                for v in range(K):
                    left, top, pale = x + 50 * v, y + 32 * u, shades[c, u, v].item()
                    fill = 255, (255 + pale) // 2, pale  # orange: above 0; reversed, blue: below
                    fill = fill if numbers[c, u, v] > 0 else fill[::-1]
                    draw.rectangle((left, top, left + 48, top + 30), fill)
                    number = f"{numbers[c, u, v]:.2f}".replace("-0.00", "0.00")
                    draw.text((left + 24, top + 15), number, "black", font_size=15, anchor="mm")
        total = f"sum {products[c].sum():.3f}"
        draw.text((x + side + 10, y + 16 * K), total, color, font_size=18, anchor="lm")

    y = 3 * high + 40
    sums = " + ".join(f"({total:.3f})" for total in (*products.sum((1, 2)), bias[k]))
    for line, text in enumerate((f"sums and bias: {sums} = {maps[k, i, j]:.2f}",
                                 f"ReLU: max(0, {maps[k, i, j]:.2f}) = {maps[k, i, j].relu():.2f}",
                                 f"in row {i}, column {j} of feature map {k}",
                                 "orange: above 0, blue: below; all numbers are rounded")):
        draw.text((222, y + 20 + 40 * line), text, "black", font_size=18)
    relu = maps[k:k + 1].relu() / maps.max().clamp(min=1e-9) * 2 - 1  # (1, H, W), in [-1, 1]
    for x, name, picture, size in ((10, "the image", image, K),
                                   (sheet.width - 192, f"feature map {k}", relu, 1)):
        draw.text((x, y - 24), name, "black", font_size=16)
        sheet.paste(data.imshow(picture, scale=6), (x, y))
        left, top, frame = x + 6 * j, y + 6 * i, 6 * size + 1
        draw.rectangle((left - 2, top - 2, left + frame, top + frame), outline="red", width=2)
    return data.save_png(sheet, path)


def draw_feature_maps(net, image, path=None):
    """One image, (3, 32, 32), and the feature maps of each layer: what each map found, and where.

    In the maps, black is 0 (ReLU lets nothing negative pass), white the highest value in that
    layer. Returns a PIL image.
    """
    groups, rows = [("the image", [(data.imshow(image), "white", ())])], trace(net, image[None])
    for before, row, after in zip(rows, rows[1:], rows[2:]):
        if row.output.ndim == 4 and row.shape != after.shape:  # maps, after their ReLU
            name = f"{before.name}, {row.name}" if before.shape == row.shape else row.name
            maps = row.output[0] / row.output.max().clamp(min=1e-9) * 2 - 1  # (C, H, W), in [-1, 1]
            scale = 128 // row.shape[2]
            tiles = [(data.imshow(each[None], scale=scale), "white", ()) for each in maps]
            groups.append((f"{name}: {len(maps)} of {row.shape[2]}x{row.shape[3]}", tiles))
    return draw_sheet(groups, path)


# ==== Plumbing ====================================================================================

# Kinds of photos. All hold pixels: Pillow would start another program to draw an EPS file.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")

# What torch.load() and load_state_dict() raise if a file is missing, damaged, or none of theirs.
#
# A checkpoint is a zip archive with a pickle in it, and a pickle can name any function for Python
# to call while it is read: a network from a stranger could delete your files. weights_only=True
# reads tensors and plain containers, and refuses the rest. Up to PyTorch 2.5 a file can get round
# that and run code all the same (CVE-2025-32434), up to 2.9 it can damage memory and perhaps run
# code (CVE-2026-24747): there, open no file that you do not trust.
FILE_ERRORS = (OSError, EOFError, RuntimeError, pickle.UnpicklingError, LookupError, TypeError,
               ValueError, AssertionError)


def problem(path, error):
    """What is wrong with a checkpoint, if loading it raised this error."""
    if isinstance(error, FileNotFoundError):
        flags = {known.checkpoint: flag for flag, known in data.DATASETS.items()}
        hints = [f" {name} is there: add --dataset {flags[name]}." for name in flags
                 if path in flags and os.path.exists(name)]
        flag = f"--dataset {flags[path]}" if path in flags else "its --dataset and --checkpoint"
        return f"is not there. python train.py with {flag} makes one." + "".join(hints)
    if isinstance(error, OSError) and error.filename:
        return f"can't be read: {error.strerror}."
    lines = [repr(line.strip())[1:-1][:150] for line in str(error).splitlines()]  # all printable
    if "state_dict" in str(error):  # below its first line, PyTorch lists the keys that differ
        return f"does not fit this LeNet5: {' '.join(lines[1:3] or lines)}"
    return ("is damaged, or holds more than numbers, which could run code "
            f"({type(error).__name__}: {' '.join(lines[:1])}). "
            "Of your own network, save net.state_dict().")


def main(argv=()):
    parser = data.command_line("Test a network, or show it photos.", network=True)
    parser.add_argument("--image", nargs="+", action="extend", metavar="FILE",
                        help="photos to classify, in place of the test set")
    args = parser.parse_args(argv)
    args.assumed = args.dataset == "auto" and args.checkpoint  # it may have learned another one
    if args.image:
        args.dataset = "cifar10" if args.dataset == "auto" else args.dataset
    else:
        args.dataset = data.find_dataset(args)
    data.refuse_flips(args)
    args.checkpoint = data.checkpoint_name(args)
    if not os.path.exists(args.checkpoint) and os.path.exists(f"{args.checkpoint}.pth"):
        args.checkpoint += ".pth"  # as train.py does
    data.check_writable("images.png" if args.image else "predictions.png")
    classify(args) if args.image else run(args)


if __name__ == "__main__":
    data.script(main)
