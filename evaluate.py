"""The test: images that were kept out of the training (chapter 5, "Prediction Test data set").

    python evaluate.py

loads what train.py saved and prints

    cifar_net.pth on the test set of CIFAR-10, 10,000 images

    the first four
      ground truth:       cat    ship    ship   plane
      prediction:         cat    ship    ship   plane
      its logit:         2.74    7.11    3.60    2.21

    accuracy on CIFAR-10: 59.6 % (guessing: 10 %)

    accuracy of each class
        plane   68.6 %
          car   71.5 %
      ...

then which classes it takes for which (the confusion matrix), and draws predictions.png,
mistakes.png, confusion.png, feature_maps.png, filters.png and convolution.png. For photos of your
own:

    python evaluate.py --image cat.jpg
"""
import argparse
import contextlib
import math
import os
import pickle
import struct
import textwrap

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import center_crop, resize
from torchvision.utils import make_grid

import data
from lenet5 import LeNet5, trace


def load_checkpoint(path, device="cpu"):
    """A LeNet5 with the parameters saved in path. Raises UserError if path holds none."""
    net = LeNet5()
    with explained(path, net):  # what can be wrong with a file
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.to(device).eval()


def predict(net, testloader, device="cpu"):
    """Inference: the logits (N, 10) of net for all images of the loader, and their labels (N,)."""
    all_outputs, all_labels = [], []
    net.eval()  # dropout off, BatchNorm with its stored averages; LeNet-5 has neither, yours may
    # For the backward pass PyTorch keeps what each layer will need then. no_grad says that
    # backward() will not be called, which saves that memory and some time.
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
    name, classes = testset.name, testset.classes
    data.refuse_flips(args, name)
    checkpoint = data.checkpoint_name(args.checkpoint, name)
    net = load_checkpoint(checkpoint, args.device)
    name += data.WITH_MIRROR if args.mirror else ""  # the name stands beside each result

    print(f"{checkpoint} on the test set of {name}, {len(testset):,} images")
    outputs, labels = predict(Mirrored(net) if args.mirror else net, testloader, args.device)
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
        others = f" Or it learned other images than those of {testset.name}." if args.checkpoint else ""
        print(f"\nThis is about guessing: {data.LEARNED_NOTHING}{others}")


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
        mirrored = x.flip(3)  # 3: the columns, from the last to the first
        return (self.net(x) + self.net(mirrored)) / 2


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
    wide = max(7, *map(len, classes))
    print("\nconfusion matrix: a row for what the images are, a column for what the network says")
    print(" " * (wide + 2) + " ".join(f"{label:>{wide}}" for label in classes))
    for k in range(len(classes)):
        print(f"  {classes[k]:>{wide}}" + " ".join(f"{count:{wide}d}" for count in matrix[k]))
    print("\nmost often taken for each other")
    for a, b in most_confused(matrix):
        one, other = classes[a], classes[b]
        print(f"  {one} and {other}: {matrix[a, b] + matrix[b, a]} times "
              f"({matrix[a, b]} times {other} for {one}, {matrix[b, a]} times {one} for {other})")


# ---- Photos of your own ----


def classify(args):
    """What --image does: the three most probable classes of each photo, and images.png."""
    if os.path.realpath("images.png") in map(os.path.realpath, args.image):
        raise data.UserError("images.png is where the drawing goes: give the photo another name.")
    name = data.CIFAR if args.dataset == "auto" else data.NAMES[args.dataset]
    classes, looks = data.KNOWN[name].classes, data.WITH_MIRROR if args.mirror else ""
    data.refuse_flips(args, name)
    checkpoint = data.checkpoint_name(args.checkpoint, name)
    net = load_checkpoint(checkpoint, args.device)
    images = torch.stack([read_image(path) for path in args.image])
    one_batch = [(images, torch.zeros(len(images)))]  # the true classes are not known
    outputs, _ = predict(Mirrored(net) if args.mirror else net, one_batch, args.device)
    probabilities = F.softmax(outputs, 1)             # they add up to 1
    print(f"{checkpoint}{looks} knows the ten classes of {name} and nothing else: "
          "whatever an image shows, it gets one of the ten.")
    tiles = []
    for path, image, row in zip(args.image, images, probabilities):
        answers = [f"{classes[k]} {100 * row[k]:.1f} %" for k in row.argsort(descending=True)]
        print(f"  {path}:", ", ".join(answers[:3]))
        tiles.append((data.imshow(image), "black", answers))
    draw_sheet([(f"what the network saw, and its ten probabilities{looks}", tiles)], "images.png")
    print("images.png shows what the network saw, 32x32 pixels, and the ten probabilities")


def read_image(path):
    """A photo as the network wants it: its middle square, shrunk, (3, 32, 32) in [-1, 1].

    Raises UserError if path holds no image, a damaged one, or one of more pixels than Pillow takes.
    """
    data.refuse_special_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:  # of an animation, the first frame
            image = ImageOps.exif_transpose(image)        # cameras note which side is up
    except Exception as error:
        raise data.UserError(f"{path} can't be read as an image of {', '.join(FORMATS)} "
                             f"({type(error).__name__}: {error}).")
    if image.mode.startswith("I"):  # grey values of 16 bits, 0 to 65535
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:  # what is clear becomes white
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = resize(center_crop(image.convert("RGB"), min(image.size)), [32, 32])
    return data.transform(image).as_subclass(torch.Tensor)  # the same Compose as the test set's


# ---- Drawings ----


def draw_all(net, testset, outputs, matrix, name):
    """The pictures of python evaluate.py, under the name of the dataset."""
    classes, (images, labels) = testset.classes, testset[:]
    first = [tile(testset, outputs, k) for k in range(min(32, len(labels)))]
    heading = f"{name}: {accuracy(outputs, labels):.1f} % right, the first 32 here"
    draw_sheet([(heading, first)], "predictions.png")
    mistakes = []
    for a, b in most_confused(matrix):
        tiles = [tile(testset, outputs, k) for k in most_confident_mistakes(outputs, labels, a, b)]
        mistakes.append((f"{name}: {classes[a]} and {classes[b]}, the most confident mistakes", tiles))
    draw_sheet(mistakes, "mistakes.png")
    draw_confusion(matrix, classes, name, "confusion.png")
    image = images[0].to(next(net.parameters()).device)
    draw_feature_maps(net, image, "feature_maps.png")
    print("\npredictions.png shows the first 32 test images, mistakes.png the most confident mistakes,")
    print("confusion.png the matrix in percent, feature_maps.png the first image in each layer,")
    rows, conv = trace(net, image[None]), getattr(net, "conv1", None)
    as_in_lenet5 = [row.name for row in rows[1:3]] == ["conv1", "relu"] and isinstance(conv, nn.Conv2d)
    if as_in_lenet5 and conv.groups == 1 and rows[1].size == f"(32 - {len(conv.weight[0, 0])}) + 1 = {rows[1].shape[2]}":
        draw_filters(net, "filters.png")
        draw_convolution(conv, image, "convolution.png")
        print("filters.png the kernels of conv1, convolution.png one of them at work, with its numbers.")
    else:
        print("but no filters.png and convolution.png: they are for a conv1 as in LeNet-5, and its ReLU.")


def draw_curve(history, title, path=None, split="test"):
    """Draw accuracies and losses over the epochs. Returns a PIL image.

    history: (training loss, training accuracy, test loss, test accuracy) for each epoch; split:
    "test" or "validation". A gap between the lines is normal. Where the training line goes on while
    the other one stops, or turns back, the network is overfitting: it learns the training images
    by heart, and what it learns no longer generalises to others.
    """
    epochs = range(1, len(history) + 1)
    train_loss, train_accuracy, test_loss, test_accuracy = zip(*history)
    accuracies = {"training": (epochs, train_accuracy), split: (epochs, test_accuracy)}
    losses = {"training": (epochs, train_loss), split: (epochs, test_loss)}
    highest = max(2.5, *filter(math.isfinite, train_loss + test_loss))
    panels = [("accuracy, %", "epoch", (0, 100), accuracies), ("loss", "epoch", (0, highest), losses)]
    return plot(panels, title, path)


COLORS = "blue", "red", "green", "orange", "purple", "brown", "deepskyblue", "hotpink"


def plot(panels, title, path=None):
    """Draw lines over x, in panels side by side. Returns a PIL image; path, if given, is written.

    panels: [(name of y, name of x, (lowest y, highest y), {name of a line: (xs, ys), ...}), ...].
    """
    head = 76 + 40 * title.count("\n")
    top = head + 48 + 36 * max(len(lines) for *_, lines in panels)      # below the names of the lines
    sheet = Image.new("RGB", (1000 * len(panels), top + 680), "white")  # halved at the end: smooth
    draw = ImageDraw.Draw(sheet)
    draw.text((120, 16), title, "black", font_size=32)
    for n, (y_name, x_name, (lowest, highest), lines) in enumerate(panels):
        left = 120 + 1000 * n
        every_x = sorted({x for xs, _ in lines.values() for x in xs})
        width = max(every_x) - min(every_x) or 1
        column = lambda x: left + 800 * (x - min(every_x)) / width
        row = lambda y: top + 580 - 580 * (y - lowest) / (highest - lowest)
        draw.text((left, head), y_name, "black", font_size=32)
        draw.text((left + 400, top + 636), x_name, "black", font_size=28, anchor="mt")
        for y in (lowest + (highest - lowest) * step / 10 for step in range(11)):
            draw.line((left, row(y), left + 800, row(y)), "lightgray", width=2)
            draw.text((left - 16, row(y)), f"{y:.3g}", "black", font_size=28, anchor="rm")
        for x in every_x[::math.ceil(len(every_x) / 11)]:
            draw.text((column(x), top + 596), f"{x:.3g}", "black", font_size=28, anchor="mt")
        for k, (name, (xs, ys)) in enumerate(lines.items()):
            points = [(column(x), row(y)) for x, y in zip(xs, ys) if math.isfinite(y)]
            color = COLORS[k % len(COLORS)]  # after the last one, from the first again
            draw.text((left, head + 40 + 36 * k), name, color, font_size=32)
            draw.line(points, color, width=4, joint="curve")
            dots = points if len(points) <= 30 else []
            for x, y in dots:
                draw.ellipse((x - 7, y - 7, x + 7, y + 7), color)
    return data.save_png(ImageOps.scale(sheet, 0.5, Image.Resampling.LANCZOS), path)


def tile(dataset, outputs, k):
    """Image k of the dataset for draw_sheet(), framed green if the network is right, else red."""
    image, label = dataset[k]
    probability, predicted = F.softmax(outputs[k], 0).max(0)
    answer = f"{dataset.classes[predicted]} {100 * probability:.0f} %"
    color = "green" if predicted == label else "red"
    return data.imshow(image), color, (answer, f"truth: {dataset.classes[label]}")


def most_confident_mistakes(outputs, labels, a, b, n=8):
    """The places of the n images of classes a and b that are most surely taken for the other one."""
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
    """The confusion matrix as a heat map: percent of each row, darker for more. Returns a PIL image."""
    percents = 100 * matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    width, height = max(740, 140 + 84 * len(classes)), 90 + 50 * len(classes)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    heading = f"{name}: a row for what the images are, a column for what the network says, in percent"
    draw.text((8, 8), heading, "black", font_size=18)
    for i in range(len(classes)):
        draw.text((130, 105 + 50 * i), classes[i], "black", font_size=16, anchor="rm")
        draw.text((182 + 84 * i, 64), classes[i], "black", font_size=14, anchor="mm")
        for j in range(len(classes)):
            x, y, percent = 140 + 84 * j, 80 + 50 * i, percents[i, j].item()
            shade, ink = round(255 - 2 * percent), "white" if percent > 50 else "black"
            draw.rectangle((x, y, x + 82, y + 48), (shade, shade, 255))
            draw.text((x + 41, y + 24), f"{percent:.1f}", ink, font_size=18, anchor="mm")
    return data.save_png(sheet, path)


def draw_filters(net, path=None):
    """The six kernels (filters) of conv1 as 5x5 colour images; in each, mid grey is 0.

    Of patches of equal length (the square root of the sum of squares), a kernel responds most to
    the one that looks like itself: bright where it is bright, red where it is red.
    """
    weight = net.conv1.weight.detach().cpu()                          # (6, 3, 5, 5)
    weight = weight / weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    return data.imshow(make_grid(weight, nrow=6, padding=1, pad_value=1), path, scale=24)


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
    sheet = Image.new("RGB", (3 * side + 220, 3 * high + 230), "white")
    draw = ImageDraw.Draw(sheet)
    squares = ("image", patch), ("x kernel", weight[k]), ("= products", products)
    for c, color in enumerate(("red", "green", "blue")):
        for n, (name, numbers) in enumerate(squares):
            x, y = 10 + n * (side + 40), 34 + c * high
            draw.text((x, y - 26), f"{name}, {color}", color, font_size=18)
            shades = 255 - (100 * numbers.abs() / numbers.abs().max().clamp(min=1e-9)).round().int()
            for u in range(K):
                for v in range(K):
                    left, top, shade = x + 50 * v, y + 32 * u, shades[c, u, v].item()
                    draw.rectangle((left, top, left + 48, top + 30), (shade, shade, shade))
                    number = f"{numbers[c, u, v]:.2f}"
                    draw.text((left + 24, top + 15), number, "black", font_size=15, anchor="mm")
        total = f"sum {products[c].sum():.3f}"
        draw.text((x + side + 10, y + 16 * K), total, color, font_size=18, anchor="lm")

    y = 3 * high + 20
    sums = " + ".join(f"({total:.3f})" for total in (*products.sum((1, 2)), bias[k]))
    for line, text in enumerate((f"three sums and the bias: {sums} = {maps[k, i, j]:.3f}",
                                 f"ReLU: max(0, {maps[k, i, j]:.3f}) = {maps[k, i, j].relu():.3f}",
                                 f"in row {i}, column {j} of feature map {k}")):
        draw.text((222, y + 30 + 40 * line), text, "black", font_size=18)
    relu = maps[k:k + 1].relu() / maps.max().clamp(min=1e-9) * 2 - 1  # (1, H, W), in [-1, 1]
    for x, picture, size in ((10, image, K), (sheet.width - 192, relu, 1)):
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


# What torch.load() and load_state_dict() raise, if the file is damaged, or none of theirs.
FILE_ERRORS = (OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError,
               AssertionError, TypeError, struct.error)


@contextlib.contextmanager
def explained(path, net):
    """Makes a sentence (UserError) of what its block raises while it loads the file path into net.

    A checkpoint is a zip archive with a pickle in it, and a pickle can name any function for
    Python to call while it is read: a network from a stranger could delete your files.
    weights_only=True reads tensors and plain containers, and refuses the rest. Up to PyTorch 2.5
    a file can get round that and run code all the same (CVE-2025-32434), up to 2.9 it can damage
    memory and perhaps run code (CVE-2026-24747): there, open no file that you do not trust.
    """
    data.refuse_special_file(path)
    try:
        yield
    except FILE_ERRORS as error:
        if error.__traceback__.tb_next.tb_next is None:  # from the block itself, not from PyTorch
            raise
        raise data.UserError(f"{path} {problem(path, error)}")
    if not all(parameter.isfinite().all() for parameter in net.parameters()):
        raise data.UserError(f"{path} holds numbers that are not finite: its training went wrong.")


def problem(path, error):
    """What is wrong with a checkpoint, if loading it raised this error."""
    if isinstance(error, FileNotFoundError):
        flags = {known.checkpoint: known.flag for known in data.KNOWN.values()}
        others = [name for name in flags if os.path.exists(name) and path in flags]
        hints = [f" {name} is there: add --dataset {flags[name]}." for name in others]
        made_by = f"--dataset {flags[path]}" if path in flags else f"--checkpoint {path}"
        return f"is not there. python train.py {made_by} makes one." + "".join(hints)
    if isinstance(error, OSError) and error.filename:
        return f"can't be read: {error.strerror}."
    text = str(error)
    if "state_dict" in text:  # below its first line, PyTorch lists the keys that differ
        differences = [textwrap.shorten(line, 150) for line in text.splitlines()[1:3]] or [text]
        return f"holds another network than this LeNet5 ({' '.join(differences)})."
    text = text.rpartition("WeightsUnpickler error: ")[2].partition(" by default")[0].strip()
    cause = f"{type(error).__name__}: {textwrap.shorten(text.partition(chr(10))[0], 120)}".removesuffix(": ")
    return (f"is damaged, or holds more than numbers, which could run code ({cause}). "
            "Of your own network, save net.state_dict().")


def main(argv=()):
    parser = argparse.ArgumentParser(prog="evaluate.py", description="Test a network, or show it photos.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", type=data.file_name,
        help="file that train.py saved; if not given, cifar_net.pth, mnist_net.pth, ...")
    add("--image", nargs="+", action="extend", type=data.file_name, metavar="FILE",
        help="photos to classify, in place of the test set")
    add("--mirror", action="store_true", help="test each image in the mirror too (not mnist, not stripes)")
    add("--device", type=data.device, default="cpu", help="where to compute: cpu, cuda or mps")
    data.add_arguments(parser)
    args = parser.parse_args(argv)
    classify(args) if args.image else run(args)


if __name__ == "__main__":
    data.script(main)
