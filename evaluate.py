"""The exam: what the network does with pictures it has never seen (chapter 5, "Prediction Test data set").

    python evaluate.py

loads what train.py saved and prints

    cifar_net.pth on the test set of CIFAR-10, 10,000 pictures

    four pictures
      ground truth:       cat    ship    ship   plane
      prediction:         dog    ship   truck   plane
      highest score:     4.27    9.01    3.21    4.56

    accuracy on CIFAR-10: 61.0 % (guessing: 10 %)

    accuracy of each class
        plane   65.4 %
          car   72.5 %
      ...

and draws predictions.png, filters.png and feature_maps.png.
"""
import argparse
import os
import sys
import warnings

import torch
from PIL import Image, ImageDraw
from torchvision.utils import make_grid

import data
from lenet5 import LeNet5, trace

# Where train.py saves a network, and this script looks for it.
PATHS = {data.CIFAR: "cifar_net.pth", data.STRIPES: "stripes_net.pth"}


def pick_device(name="auto"):
    """The device to compute on: "cuda", "mps" or "cpu"; "auto" is the first of these that is here.

    Raises ValueError for one that is not here.
    """
    devices = ["cpu"]
    if torch.backends.mps.is_available():  # the graphics processor of an Apple computer
        devices.insert(0, "mps")
    if torch.cuda.is_available():
        devices.insert(0, "cuda")
    if name == "auto":
        return devices[0]
    if name not in devices:
        raise ValueError(f"There is no {name} device here. Use --device {' or '.join(devices)}, or leave --device out.")
    return name


def load_checkpoint(path, device="cpu"):
    """A LeNet5 with the parameters saved in path. Raises ValueError, a sentence, if it holds none.

    A saved file is a pickle, and a pickle can name any function for Python to call while it is read: a
    network from a stranger could delete your files. weights_only=True reads tensors and plain containers,
    and refuses the rest before anything runs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files; the sentences below say what matters
            state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"There is no checkpoint {path}. Run python train.py first, or name one with --checkpoint.")
    except OSError as error:
        raise ValueError(f"The checkpoint {path} can't be read: {error.strerror}.")
    except Exception as error:  # torch.load has many ways to say that this is not what torch.save wrote
        if "global" in str(error).lower():  # GLOBAL is pickle's word for "import this function"
            raise ValueError(f"{path} holds more than numbers: reading it would run code, so nothing was read. "
                             "If it is your own, from torch.save(net, ...), save net.state_dict() instead.")
        raise ValueError(f"{path} is no checkpoint, or a damaged one. Run python train.py to make a new one.")
    net = LeNet5()
    try:
        net.load_state_dict(state)  # the tutorial's net.load_state_dict(torch.load(PATH))
    except (RuntimeError, TypeError, AttributeError) as error:
        difference = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} holds another network than this LeNet5 ({difference}). Run python train.py.")
    return net.to(device)


def predict(net, testloader, device="cpu"):
    """Returns (predicted, labels), two int64 tensors (N,): what net says of each picture, and what it is."""
    predicted_all, labels_all = [], []
    net.eval()  # dropout and batch norm work differently in an exam; LeNet-5 has neither, your next network may
    # Learning needs every layer's output again on the way back, so PyTorch keeps them all;
    # no_grad says that there will be no way back, which saves that memory and some time.
    with torch.no_grad():
        for images, labels in testloader:
            outputs = net(images.to(device))      # (N, 3, 32, 32) -> (N, 10)
            _, predicted = torch.max(outputs, 1)  # of each row: the greatest score, and where it stands
            predicted_all.append(predicted.cpu())
            labels_all.append(labels)
    return torch.cat(predicted_all), torch.cat(labels_all)


def accuracy(predicted, labels):
    """Percent of the pictures, 0 to 100, whose prediction is right."""
    return 100 * (predicted == labels).sum().item() / len(labels)


def confusion_table(predicted, labels):
    """A (10, 10) int64 tensor: row = what a picture is, column = what the network says, value = how many.

    Right answers stand on the diagonal. A row adds up to the pictures of that class.
    """
    table = torch.zeros(10, 10, dtype=torch.int64)
    for truth, guess in zip(labels.tolist(), predicted.tolist()):
        table[truth, guess] += 1
    return table


def draw_predictions(dataset, predicted, title, path, rows=4, columns=8):
    """Draw the first rows * columns pictures, each framed and named: green if right, red if wrong."""
    width, height, top = 140, 176, 30
    sheet = Image.new("RGB", (columns * width, top + rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 8), title, "black", font_size=16)
    for k in range(rows * columns):
        image, label = dataset[k]
        right = predicted[k] == label
        x, y = k % columns * width, top + k // columns * height
        color = "green" if right else "red"
        draw.rectangle((x + 2, y, x + 137, y + 135), fill=color)
        sheet.paste(data.imshow(image, scale=4), (x + 6, y + 4))  # 128 x 128
        draw.text((x + 4, y + 136), dataset.classes[predicted[k]] + ("" if right else "?"), color, font_size=16)
        draw.text((x + 4, y + 154), f"truth: {dataset.classes[label]}", "black", font_size=14)
    sheet.save(path)


def draw_filters(net, path):
    """The six filters of conv1 as 5x5 colour pictures, each stretched to [-1, 1], so that 0 is mid grey.

    A filter answers most to a patch that looks like itself: bright where it is bright, red where it is red.
    """
    weight = net.conv1.weight.detach().cpu()                            # (6, 3, 5, 5)
    weight = weight / weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    return data.imshow(make_grid(weight, nrow=6, padding=1, pad_value=1), path, scale=24)


def draw_feature_maps(net, image, path):
    """One picture, (3, 32, 32), on its way through the network: what each map found, and where.

    In the maps, black is 0 (ReLU lets nothing negative pass), and white the highest value in that layer.
    """
    rows = trace(net, image[None])
    sheet = Image.new("RGB", (936, 1048), "white")
    draw = ImageDraw.Draw(sheet)
    y = 8
    for name, row, columns in (("input", rows[0], 1), ("conv1, ReLU", rows[2], 6), ("pool", rows[3], 6),
                               ("conv2, ReLU", rows[5], 8), ("pool", rows[6], 8)):
        maps = row.output.detach().cpu()                                # (1, C, H, W)
        if name != "input":
            maps = (maps / maps.max().clamp(min=1e-9) * 2 - 1).transpose(0, 1)          # (C, 1, H, W): C grey pictures
        count, size = row.shape[1:3]
        scale = (140 if columns < 8 else 110) // size                   # of one pixel
        # Enlarged here, not by imshow(), so that make_grid()'s lines between the maps stay thin.
        maps = maps.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        picture = data.imshow(make_grid(maps, nrow=columns, padding=4, pad_value=1), scale=1)
        draw.text((12, y), f"{name}: {count} of {size}x{size}", "black", font_size=16)
        sheet.paste(picture, (8, y + 20))
        y += picture.height + 30
    sheet.save(path)


def choose(checkpoint, dataset):
    """Returns (checkpoint, dataset), filled in where they are None and "auto".

    Only a network that has learned stripes can answer in angles, so where one of the two is left open, the other
    decides; where both are, it is CIFAR-10, unless stripes are all that train.py has left here.
    """
    cifar_path, stripes_path = PATHS[data.CIFAR], PATHS[data.STRIPES]
    if checkpoint is None:
        only_stripes = os.path.exists(stripes_path) and not os.path.exists(cifar_path)
        stripes = dataset == "stripes" or (dataset == "auto" and only_stripes)
        checkpoint = stripes_path if stripes else cifar_path
    if dataset == "auto":
        dataset = "stripes" if os.path.basename(checkpoint) == stripes_path else "cifar10"
    return checkpoint, dataset


def run(args):
    """The tutorial's chapter 5, top to bottom."""
    checkpoint, dataset = choose(args.checkpoint, args.dataset)
    device = pick_device(args.device)
    net = load_checkpoint(checkpoint, device)
    if device == "cpu":
        net.to(memory_format=torch.channels_last)  # faster: run() in train.py says why
    name, _, testset = data.load(dataset, args.data_dir)
    testloader = data.loader(testset, batch_size=250, shuffle=False)
    classes = testset.classes

    print(f"{checkpoint} on the test set of {name}, {len(testset):,} pictures")
    print("\nfour pictures")
    images, labels = testset[[0, 1, 2, 3]]
    with torch.no_grad():
        outputs = net(images.to(device))
    values, predicted = torch.max(outputs, 1)
    print("  ground truth:  ", " ".join(f"{classes[label]:>7}" for label in labels))
    print("  prediction:    ", " ".join(f"{classes[label]:>7}" for label in predicted))
    print("  highest score: ", " ".join(f"{value:7.2f}" for value in values))

    predicted, labels = predict(net, testloader, device)
    percent = accuracy(predicted, labels)
    print(f"\naccuracy on {name}: {percent:.1f} % (guessing: 10 %)")
    if percent < 20:
        print("That is little better than guessing. Did this network learn from another set? See --dataset.")

    table = confusion_table(predicted, labels)
    print("\naccuracy of each class")
    for k in range(10):
        print(f"  {classes[k]:>7}  {100 * table[k, k] / table[k].sum():5.1f} %")

    print("\nconfusion table: a row for what the pictures are, a column for what the network says")
    print(" " * 9 + " ".join(f"{label:>7}" for label in classes))
    for k in range(10):
        print(f"  {classes[k]:>7}" + " ".join(f"{count:7d}" for count in table[k]))

    draw_predictions(testset, predicted, f"{name}: {percent:.1f} % right", "predictions.png")
    draw_filters(net, "filters.png")
    draw_feature_maps(net, images[0].to(device), "feature_maps.png")
    print("\npredictions.png shows the first 32 test pictures with their predictions,")
    print("filters.png the six filters of conv1, feature_maps.png the first test picture on its way through the layers")


def main(argv=None):
    parser = argparse.ArgumentParser(description="Test what train.py saved, on the pictures of the test set.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--checkpoint", help="file that train.py saved; None: cifar_net.pth, or else stripes_net.pth")
    data.add_arguments(parser, auto="stripes for stripes_net.pth, cifar10 for any other file")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="where to compute")
    args = parser.parse_args(argv)
    try:
        run(args)
    except (OSError, ValueError) as error:
        sys.exit(f"evaluate.py: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")


if __name__ == "__main__":
    main()
