"""Pieces of the scripts, pasted into an empty script; and other people's datasets in train() and predict()."""
import ast
import builtins
import dis
import os
import re
import struct

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


def pieces(script):
    """The functions, classes and constants of a script of ours: {name: its node}."""
    with open(os.path.join(ROOT, script)) as file:
        return {getattr(node, "name", None) or node.targets[0].id: node for node in ast.parse(file.read()).body
                if hasattr(node, "name") or isinstance(node, ast.Assign) and hasattr(node.targets[0], "id")}


with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
    TABLE = re.findall(r"^`(\w+)` \| `(\w+\.py)` \| (.*?) ?\|(.*)$", readme.read(), re.M)


def copied(*names):
    """What an empty script holds after these pieces are pasted, with what README's table says that they need: (its names, its code)."""
    nodes, imports = {}, set()
    for name in names:
        (script, others, these), = (row[1:] for row in TABLE if row[0] == name)
        nodes |= {piece: pieces(script)[piece] for piece in (name, *re.findall(r"`(\w+)`", others))}
        imports |= set(re.findall(r"`([^`]+)`", these))
    there = {}
    exec("\n".join(imports), there)
    code = compile(ast.Module([*nodes.values()], []), "pasted", "exec")
    exec(code, there)
    return there, code


def looked_up(code):
    """The global names that a piece of code looks up, and those that it defines."""
    lines = [line for part in (code, *code.co_consts) if hasattr(part, "co_code") for line in dis.get_instructions(part)]
    found, defined = ({line.argval for line in lines if line.opname in names} for names in (("LOAD_GLOBAL", "LOAD_NAME"), ("STORE_NAME",)))
    inner = [looked_up(part)[0] for part in code.co_consts if hasattr(part, "co_code")]
    return found.union(*inner), defined


@pytest.mark.parametrize("piece", [row[0] for row in TABLE])
def test_a_piece_needs_what_its_row_names_and_no_more(piece):
    there, code = copied(piece)
    found, defined = looked_up(code)
    others = re.findall(r"`(\w+)`", next(row[2] for row in TABLE if row[0] == piece))
    assert found - defined - set(dir(builtins)) == set(there) - defined - {"__builtins__"} and set(others) <= found


class Own(nn.Module):
    """A network of the reader's own: for grey images of any size, three classes."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)).mean((2, 3)))


@pytest.fixture
def own():
    """(a network of the reader's own, a loader for it): 60 grey images of 12x9 pixels, in three classes."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    return Own(), DataLoader(TensorDataset(labels.view(60, 1, 1, 1) - 1 + torch.randn(60, 1, 12, 9) / 10, labels), batch_size=6)


def test_train_predict_accuracy_and_the_confusion_matrix_with_torch_alone(own, capsys):
    net, loader = own
    names, _ = copied("train", "predict", "accuracy", "confusion_matrix")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(10):
        loss, percent = names["train"](net, loader, nn.CrossEntropyLoss(), optimizer, epoch, log_every=5)
    assert capsys.readouterr().out.splitlines()[-1].startswith("[10,    10] loss: 0.")
    outputs, labels = names["predict"](net, loader)
    matrix = names["confusion_matrix"](outputs, labels)
    assert 100 * matrix.diagonal().sum().item() / 60 == names["accuracy"](outputs, labels) > 90


def test_the_trace_with_its_five_imports(own, capsys):
    names, _ = copied("trace")
    net, loader = own
    names["print_trace"](names["trace"](net, next(iter(loader))[0]))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["layer", "input", "first", "tanh", "mean", "last", "total"]


# ---- Any DataLoader of (images, labels) ------------------------------------------------------------

TO_LENET5 = v2.Compose([lambda image: image.convert("RGB"), v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
                        v2.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])


def write_mnist(folder, name="MNIST", n=12):
    """The files of MNIST, or of FashionMNIST, with n images each for training and test: image k has shades from k on."""
    raw = os.path.join(folder, name, "raw")
    os.makedirs(raw)
    for part in ("train", "t10k"):
        with open(os.path.join(raw, f"{part}-images-idx3-ubyte"), "wb") as file:
            file.write(struct.pack(">4i", 0x803, n, 28, 28) + b"".join(bytes((k + i) % 256 for i in range(784)) for k in range(n)))
        with open(os.path.join(raw, f"{part}-labels-idx1-ubyte"), "wb") as file:
            file.write(struct.pack(">2i", 0x801, n) + bytes(k % 10 for k in range(n)))


def mnist(folder):
    write_mnist(folder)
    return MNIST(folder, train=True, transform=TO_LENET5)


def image_folder(folder):
    """Two classes of one's own, a folder each, with images of different sizes."""
    for name, color in (("cats", "red"), ("dogs", "blue")):
        os.makedirs(os.path.join(folder, name))
        for k in range(6):
            Image.new("RGB", (40 + k, 50), color).save(os.path.join(folder, name, f"{k}.png"))
    return ImageFolder(folder, transform=TO_LENET5)


@pytest.mark.parametrize("made", [mnist, image_folder, lambda folder: Subset(image_folder(folder), range(3, 9))],
                         ids=["MNIST", "ImageFolder", "Subset"])
def test_train_and_predict_take_any_loader_of_images_and_labels(tmp_path, made):
    dataset = made(str(tmp_path / "images"))
    torch.manual_seed(0)
    net, loader = LeNet5(), DataLoader(dataset, batch_size=4, shuffle=False)
    loss, percent = train(net, loader, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=0.01))
    outputs, labels = predict(net, loader)
    assert outputs.shape == (len(dataset), 10) and labels.tolist() == [label for _, label in dataset]
    assert 0 < loss < 3 and 0 <= percent <= 100
