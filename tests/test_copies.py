"""Pieces of the scripts, pasted into an empty script; and other people's datasets in our loops."""
import ast
import builtins
import os
import re
import struct
import symtable

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import v2

from conftest import ROOT
from evaluate import predict
from lenet5 import LeNet5
from train import train

# README's table of pieces: [(piece, script, the pieces copied with it, its imports), ...]
with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
    TABLE = re.findall(r"^`(\w+)` \| `(\w+\.py)` \| (.*?) ?\|(.*)$", readme.read(), re.M)


def pieces(script):
    """The functions, classes and constants of a script: {name: its source}."""
    with open(os.path.join(ROOT, script)) as file:
        nodes = ast.parse(file.read()).body
    return {getattr(node, "name", None) or ast.unparse(node.targets[0]): ast.unparse(node)
            for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign))}


def pasted(*names):
    """Pastes pieces, and what README says that they need. Returns (all names there, the source)."""
    imports, sources, there = set(), {}, {}
    for name, script, others, lines in (row for row in TABLE if row[0] in names):
        imports |= set(re.findall(r"`([^`]+)`", lines))
        for piece in re.findall(r"\w+", f"{name} {others}"):
            sources[piece] = pieces(script)[piece]
    exec("\n".join([*imports, *sources.values()]), there)
    return there, "\n".join(sources.values())


def looked_up(table):
    """The names that code, or a function in it, looks up outside of all functions."""
    names = {name.get_name() for name in table.get_symbols()
             if name.is_global() and name.is_referenced()}
    return names.union(*map(looked_up, table.get_children()))


@pytest.mark.parametrize("piece", [row[0] for row in TABLE])
def test_a_piece_needs_what_its_row_names_and_no_more(piece):
    there, source = pasted(piece)
    needed = looked_up(symtable.symtable(source, "pasted", "exec")) - set(dir(builtins))
    assert needed | {piece} == set(there) - {"__builtins__"}


def test_pasted_functions_train_test_and_trace_a_network_of_ones_own(capsys):
    """Its images are grey, of 12x9 pixels, in three classes. The classes differ in brightness."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(280, 3))
    labels = torch.arange(60) % 3
    images = labels.view(60, 1, 1, 1) - 1 + torch.randn(60, 1, 12, 9) / 10
    loader = DataLoader(TensorDataset(images, labels), batch_size=6)
    names, _ = pasted("train", "predict", "accuracy", "confusion_matrix", "trace")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    names["train"](net, loader, nn.CrossEntropyLoss(), optimizer, epoch=9, log_every=5)
    outputs, labels = names["predict"](net, loader)
    right = names["confusion_matrix"](outputs, labels).diagonal().sum().item()
    assert 100 * right / 60 == names["accuracy"](outputs, labels) > 90
    names["print_trace"](names["trace"](net, images[:1]))
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert first == ["[10,", "[10,", "layer", "input", "0", "tanh", "flatten", "3", "total"]


TO_LENET5 = v2.Compose([
    lambda image: image.convert("RGB"), v2.Resize((32, 32)), v2.ToImage(),
    v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])


def write_mnist(folder, name="MNIST", n=12, first=0):
    """Write files like MNIST's, n images for training and n for a test. Returns their folder.

    Image k has shades from first + k on, and label first + k; of the test set, first + 5 + k.
    """
    raw = os.path.join(folder, name, "raw")
    os.makedirs(raw)
    for part, start in (("train", first), ("t10k", first + 5)):
        images = range(start, start + n)
        with open(os.path.join(raw, f"{part}-images-idx3-ubyte"), "wb") as file:
            pixels = bytes((k + i) % 256 for k in images for i in range(28 * 28))
            file.write(struct.pack(">4i", 0x803, n, 28, 28) + pixels)
        with open(os.path.join(raw, f"{part}-labels-idx1-ubyte"), "wb") as file:
            file.write(struct.pack(">2i", 0x801, n) + bytes(k % 10 for k in images))
    return raw


def image_folder(folder):
    """Two classes of one's own, a folder each, with images of different sizes."""
    for name, color in (("cats", "red"), ("dogs", "blue")):
        os.makedirs(os.path.join(folder, name))
        for k in range(6):
            Image.new("RGB", (40 + k, 50), color).save(os.path.join(folder, name, f"{k}.png"))
    return ImageFolder(folder, transform=TO_LENET5)


@pytest.mark.parametrize("kind", ["MNIST", "folder", "part of a folder"])
def test_train_and_predict_take_any_loader_of_images_and_labels(tmp_path, kind):
    write_mnist(tmp_path)
    dataset = image_folder(tmp_path / "photos")
    dataset = {"folder": dataset, "part of a folder": Subset(dataset, range(3, 9)),
               "MNIST": MNIST(tmp_path, transform=TO_LENET5)}[kind]
    net, loader = LeNet5(), DataLoader(dataset, batch_size=4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss, percent = train(net, loader, nn.CrossEntropyLoss(), optimizer)
    outputs, labels = predict(net, loader)
    assert outputs.shape == (len(dataset), 10) and 0 < loss < 3 and 0 <= percent <= 100
    assert labels.tolist() == [label for _, label in dataset]
