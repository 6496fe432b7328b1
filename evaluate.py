"""The test: what the network says about images it has never seen (chapter 5, "Prediction Test data set").

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

and draws predictions.png, mistakes.png, filters.png and feature_maps.png. Or, for photos of your own:

    python evaluate.py --image cat.jpg
"""
import argparse
import os
import warnings

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader
from torchvision.transforms.functional import center_crop, resize
from torchvision.utils import make_grid

import data
from lenet5 import LeNet5, trace

# Where train.py saves a network, and this script looks for it.
PATHS = {"cifar10": "cifar_net.pth", "stripes": "stripes_net.pth"}


def run(args):
    """The tutorial's chapter 5, top to bottom."""
    data.check_writable("predictions.png", "mistakes.png", "filters.png", "feature_maps.png")
    checkpoint, dataset = choose(args.checkpoint, args.dataset)
    device = pick_device(args.device)
    net = load_checkpoint(checkpoint, device)
    dataset, root = data.find(dataset, args.data_dir)
    testset = data.load(dataset, root, train=False)
    testloader = DataLoader(testset, batch_size=250, shuffle=False)
    name, classes = testset.name, testset.classes

    print(f"{checkpoint} on the test set of {name}, {len(testset):,} images")
    outputs, labels = predict(net, testloader, device)
    values, predicted = torch.max(outputs, 1)  # of each row: the greatest logit, and where it stands
    print("\nthe first four")
    print("  ground truth:  ", " ".join(f"{classes[label]:>7}" for label in labels[:4]))
    print("  prediction:    ", " ".join(f"{classes[label]:>7}" for label in predicted[:4]))
    print("  its logit:     ", " ".join(f"{value:7.2f}" for value in values[:4]))

    percent = accuracy(outputs, labels)
    print(f"\naccuracy on {name}: {percent:.1f} % (guessing: 10 %)")
    if percent < 20:
        print("That is little better than guessing. Was this network trained on another set? See --dataset.")

    matrix = confusion_matrix(predicted, labels)
    print("\naccuracy of each class")
    for k in range(10):
        print(f"  {classes[k]:>7}  {100 * matrix[k, k] / matrix[k].sum():5.1f} %")

    print("\nconfusion matrix: a row for what the images are, a column for what the network says")
    print(" " * 9 + " ".join(f"{label:>7}" for label in classes))
    for k in range(10):
        print(f"  {classes[k]:>7}" + " ".join(f"{count:7d}" for count in matrix[k]))

    pairs = most_confused(matrix)
    print("\nmost often taken for each other")
    for a, b in pairs:
        one, other = classes[a], classes[b]
        print(f"  {one} and {other}: {matrix[a, b] + matrix[b, a]} times "
              f"({matrix[a, b]} times {other} for {one}, {matrix[b, a]} times {one} for {other})")

    draw_predictions(testset, predicted, f"{name}: {percent:.1f} % right", "predictions.png")
    draw_mistakes(testset, outputs, pairs, "mistakes.png")
    draw_filters(net, "filters.png")
    draw_feature_maps(net, testset[0][0].to(device), "feature_maps.png")
    print("\npredictions.png shows the first 32 test images with their predictions, mistakes.png the surest mistakes")
    print("of these pairs, filters.png the six kernels of conv1, feature_maps.png the first image in each layer")


def load_checkpoint(path, device="cpu"):
    """A LeNet5 with the parameters saved in path. Raises ValueError, a sentence, if it holds none.

    A saved file is a pickle, and a pickle can name any function for Python to call while it is read: a
    network from a stranger could delete your files. weights_only=True reads tensors and plain containers, and
    refuses the rest. Up to PyTorch 2.5 a file can get round that and run code all the same (CVE-2025-32434), up to
    2.9 it can damage memory (CVE-2026-24747): there, open no file that you do not trust.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files; the sentences below say what matters
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"There is no checkpoint {path}. python train.py makes one.")
    except OSError as error:
        raise ValueError(f"The checkpoint {path} can't be read: {error.strerror}.")
    except Exception as error:  # torch.load has many ways to say that this is not what torch.save wrote
        if any(word in str(error).lower() for word in ("global", "unsupported class")):  # "import this function"
            raise ValueError(f"{path} holds more than numbers: reading it could run code, so it was refused. "
                             "If it is your own, from torch.save(net, ...), save net.state_dict() instead.")
        raise ValueError(f"{path} is no checkpoint, or a damaged one. Run python train.py to make a new one.")
    net = LeNet5()
    try:
        net.load_state_dict(state)  # the tutorial's net.load_state_dict(torch.load(PATH))
    except (RuntimeError, TypeError, AttributeError) as error:
        difference = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} holds another network than this LeNet5 ({difference}). Run python train.py.")
    if not all(parameter.isfinite().all() for parameter in net.parameters()):
        raise ValueError(f"{path} holds numbers that are not finite: its training went wrong. Run python train.py.")
    return net.to(device).eval()


def predict(net, testloader, device="cpu"):
    """Inference: the outputs of net, the logits (N, 10), for all images of the loader, and their labels (N,)."""
    all_outputs, all_labels = [], []
    net.eval()  # dropout, which switches off random units in training, is off in inference; LeNet-5 has none, yours may
    # Training needs every layer's output again on the way back, so PyTorch keeps them all;
    # no_grad says that there will be no way back, which saves that memory and some time.
    with torch.no_grad():
        for images, labels in testloader:
            all_outputs.append(net(images.to(device)).cpu())  # (N, 3, 32, 32) -> (N, 10)
            all_labels.append(labels)
    return torch.cat(all_outputs), torch.cat(all_labels)


def accuracy(outputs, labels):
    """Percent of the images, 0 to 100, whose prediction, the class with the greatest logit, is right."""
    _, predicted = torch.max(outputs, 1)
    return 100 * (predicted == labels).sum().item() / len(labels)


def confusion_matrix(predicted, labels):
    """A (10, 10) int64 tensor: row = what an image is, column = what the network says, value = how many.

    Right answers are on the diagonal. A row adds up to the images of that class.
    """
    matrix = torch.zeros(10, 10, dtype=torch.int64)
    for label, prediction in zip(labels.tolist(), predicted.tolist()):
        matrix[label, prediction] += 1
    return matrix


def most_confused(matrix, n=3):
    """The n pairs (a, b), a < b, of classes that are most often taken for each other, the worst pair first."""
    pairs = [(a, b) for a in range(10) for b in range(a + 1, 10)]
    return sorted(pairs, key=lambda pair: matrix[pair] + matrix[pair[::-1]], reverse=True)[:n]


# ---- Photos of your own ------------------------------------------------------------------------


def classify(args):
    """What --image does: the three most probable classes of each photo, and images.png."""
    data.check_writable("images.png")
    checkpoint, dataset = choose(args.checkpoint, args.dataset)
    classes = data.ANGLES if dataset == "stripes" else data.CLASSES
    if os.path.realpath("images.png") in map(os.path.realpath, args.image):
        raise ValueError("images.png is where the drawing goes: give the photo another name.")
    device = pick_device(args.device)
    net = load_checkpoint(checkpoint, device)
    images = torch.stack([read_image(path) for path in args.image])
    with torch.no_grad():
        probabilities = F.softmax(net(images.to(device)), 1).cpu()  # logits -> ten numbers from 0 to 1 that add up to 1
    print(f"{checkpoint} knows ten classes and nothing else: whatever an image shows, it gets one of the ten.")
    for path, row in zip(args.image, probabilities):
        values, indices = row.topk(3)
        print(f"  {path}:", ", ".join(f"{classes[k]} {100 * value:.1f} %" for k, value in zip(indices, values)))
    draw_probabilities(images, probabilities, classes, "images.png")
    print("images.png shows what the network saw, 32x32 pixels, beside the ten probabilities")


def read_image(path):
    """A photo as the network wants it: its middle square, shrunk, (3, 32, 32) in [-1, 1].

    Raises ValueError, a sentence, if path holds no image, or a damaged or absurdly large one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:             # of an animation, the first frame
                image.load()
                image = ImageOps.exif_transpose(image)  # cameras store a portrait on its side, and note so
    except FileNotFoundError:
        raise ValueError(f"There is no image {path}.")
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no image, or of a kind that Pillow can't read.")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: shrink it first.")
    except Exception as error:  # each decoder has its own ways to say that a file is damaged
        raise ValueError(f"{path} can't be read: {'it is a folder' if os.path.isdir(path) else error}.")
    if image.mode.startswith("I"):                      # grey values of 16 bits, 0 to 65535
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)  # what is transparent is white
    image = resize(center_crop(image.convert("RGB"), min(image.size)), [32, 32])
    return data.transform(image).as_subclass(torch.Tensor)  # the same Compose as the test set's


# ---- Drawings ----------------------------------------------------------------------------------


def draw_images(groups, path, columns=8):
    """Draw images in a grid, each framed and named. groups: [(heading, [(image, colour, line, line), ...]), ...]"""
    width, height, top = 140, 176, 30
    rows = [-(-len(cells) // columns) for _, cells in groups]  # rounded up
    sheet = Image.new("RGB", (columns * width, sum(top + count * height for count in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    y = 0
    for (heading, cells), count in zip(groups, rows):
        draw.text((6, y + 8), heading, "black", font_size=16)
        for k, (image, color, first, second) in enumerate(cells):
            x, row = k % columns * width, y + top + k // columns * height
            draw.rectangle((x + 2, row, x + 137, row + 135), fill=color)
            sheet.paste(data.imshow(image, scale=4), (x + 6, row + 4))  # 128 x 128
            draw.text((x + 4, row + 136), first, color, font_size=16)
            draw.text((x + 4, row + 154), second, "black", font_size=14)
        y += top + count * height
    data.save_drawing(sheet, path)


def draw_predictions(dataset, predicted, heading, path, n=32):
    """Draw the first n images: green with a right prediction, red with a wrong one."""
    cells = []
    for k in range(n):
        image, label = dataset[k]
        color, mark = ("green", "") if predicted[k] == label else ("red", "?")
        cells.append((image, color, dataset.classes[predicted[k]] + mark, f"truth: {dataset.classes[label]}"))
    draw_images([(heading, cells)], path)


def draw_mistakes(dataset, outputs, pairs, path, n=8):
    """For each pair of classes, draw the n images that were taken for the other class with the highest probability."""
    probabilities, predicted = torch.max(F.softmax(outputs, 1), 1)
    _, labels = dataset[:]
    groups = []
    for a, b in pairs:
        wrong = ((labels == a) & (predicted == b)) | ((labels == b) & (predicted == a))
        surest = sorted(wrong.nonzero().flatten().tolist(), key=lambda k: probabilities[k], reverse=True)[:n]
        cells = [(dataset[k][0], "red", f"{dataset.classes[predicted[k]]}? {100 * probabilities[k]:.0f} %",
                  f"truth: {dataset.classes[labels[k]]}") for k in surest]
        heading = f"{dataset.classes[a]} and {dataset.classes[b]}: {wrong.sum()} mistakes, the surest first"
        groups.append((heading, cells))
    draw_images(groups, path)


def draw_probabilities(images, probabilities, classes, path):
    """Draw each image as the network saw it, enlarged, beside its ten probabilities as bars."""
    sheet = Image.new("RGB", (640, 240 * len(images)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (image, row) in enumerate(zip(images, probabilities)):
        top = 240 * k + 8
        sheet.paste(data.imshow(image, scale=7), (8, top))  # 224 x 224
        for i, probability in enumerate(row.tolist()):
            y = top + 22 * i
            draw.text((330, y + 10), classes[i], "black", font_size=16, anchor="rm")
            draw.rectangle((340, y + 2, 340 + 220 * probability, y + 18), fill="red" if i == row.argmax() else "gray")
            percent = f"{100 * probability:.1f} %"
            draw.text((348 + 220 * probability, y + 10), percent, "black", font_size=14, anchor="lm")
    data.save_drawing(sheet, path)


def draw_filters(net, path):
    """The six kernels (filters) of conv1 as 5x5 colour images, each stretched to [-1, 1], so that 0 is mid grey.

    Of patches of equal contrast, a kernel responds most to the one that looks like itself: bright where it is bright,
    red where it is red.
    """
    weight = net.conv1.weight.detach().cpu()                            # (6, 3, 5, 5)
    weight = weight / weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    return data.imshow(make_grid(weight, nrow=6, padding=1, pad_value=1), path, scale=24)


def draw_feature_maps(net, image, path):
    """One image, (3, 32, 32), and the feature maps of each layer: what each map found, and where.

    In the maps, black is 0 (ReLU lets nothing negative pass), and white the highest value in that layer.
    """
    rows = trace(net, image[None])
    pictures = []
    for k in range(len(rows) - 1):
        before, row, after = rows[max(0, k - 1)], rows[k], rows[k + 1]
        if len(row.shape) != 4 or row.shape == after.shape:
            continue                                                    # no map, or not yet through its ReLU
        maps = row.output.cpu()                                         # (1, C, H, W)
        if row is not before:
            maps = (maps / maps.max().clamp(min=1e-9) * 2 - 1).transpose(0, 1)          # (C, 1, H, W): C grey images
        _, count, size, _ = row.shape
        columns = min(len(maps), 8)
        scale = max(1, (140 if columns < 8 else 110) // size)           # of one pixel
        # Enlarged here, not by imshow(), so that make_grid()'s lines between the maps stay thin.
        maps = maps.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        name = f"{before.name}, {row.name}" if before.shape == row.shape and row is not before else row.name
        pictures.append((f"{name}: {count} of {size}x{size}",
                         data.imshow(make_grid(maps, nrow=columns, padding=4, pad_value=1), scale=1)))
    sheet = Image.new("RGB", (936, 8 + sum(picture.height + 30 for _, picture in pictures)), "white")
    draw = ImageDraw.Draw(sheet)
    y = 8
    for title, picture in pictures:
        draw.text((12, y), title, "black", font_size=16)
        sheet.paste(picture, (8, y + 20))
        y += picture.height + 30
    data.save_drawing(sheet, path)


# ---- The command line --------------------------------------------------------------------------


def pick_device(name):
    """name, "cpu", "cuda" or "mps", if there is such a device here; raises ValueError if not."""
    if (name == "cuda" and not torch.cuda.is_available()) or (name == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(f"There is no {name} device here. Leave --device out.")
    return name


def choose(checkpoint, dataset):
    """Returns (checkpoint, dataset), filled in where they are None and "auto".

    A network tells the classes that it was trained on, so the file's name says which set it is tested on: stripes if
    it has stripes_net in it, as train.py writes it, or else CIFAR-10.
    """
    if checkpoint is None:
        only_stripes = os.path.exists(PATHS["stripes"]) and not os.path.exists(PATHS["cifar10"])
        checkpoint = PATHS["stripes" if dataset == "stripes" or (dataset == "auto" and only_stripes) else "cifar10"]
    if dataset == "auto":
        dataset = "stripes" if "stripes_net" in os.path.basename(checkpoint) else "cifar10"
    return checkpoint, dataset


def warn_of_old_pytorch(paths):
    """Print a line if a named checkpoint, perhaps a stranger's, is about to be read by a PyTorch with known holes."""
    if paths and data.TORCH < (2, 10):
        risk = "run code" if data.TORCH < (2, 6) else "damage memory"
        print(f"Note: in PyTorch {torch.__version__} a checkpoint can {risk} when it is read "
              "(load_checkpoint() says why). Open only files that you trust.")


def main(argv=()):
    parser = argparse.ArgumentParser(prog="evaluate.py", description="Test what train.py saved, on the test set or on "
                                     "photos of your own.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--checkpoint", help="file that train.py saved; if not given, cifar_net.pth or stripes_net.pth")
    parser.add_argument("--image", nargs="+", metavar="FILE", help="photos to classify, in place of the test set")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="where to compute")
    data.add_arguments(parser, auto="stripes for stripes_net.pth, cifar10 for any other file")
    args = parser.parse_args(argv)
    warn_of_old_pytorch(args.checkpoint)
    classify(args) if args.image else run(args)


if __name__ == "__main__":
    data.script(main)
