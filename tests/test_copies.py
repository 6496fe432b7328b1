"""Pieces of the scripts, pasted into an empty script; and other people's datasets in train() and predict()."""
import ast
import os
import struct

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import v2

from conftest import ROOT
from evaluate import predict
from lenet5 import LeNet5
from train import train

def pasted(script, imports, *names):
    """The names of an empty script with these imports and these pieces of a script of ours, and nothing else."""
    with open(os.path.join(ROOT, script)) as file:
        source = file.read()
    pieces = {getattr(node, "name", None) or node.targets[0].id: ast.get_source_segment(source, node)
              for node in ast.parse(source).body if hasattr(node, "name") or isinstance(node, ast.Assign) and hasattr(node.targets[0], "id")}
    names_there = {}
    exec("\n\n".join([imports, *(pieces[name] for name in names)]), names_there)
    return names_there


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


def test_lenet5_alone(images):
    imports = "import torch\nimport torch.nn.functional as F\nfrom torch import nn"
    assert pasted("lenet5.py", imports, "LeNet5")["LeNet5"]()(images).shape == (4, 10)


def test_conv_by_hand_and_its_backward_without_any_import():
    names = pasted("lenet5.py", "", "zeros_like", "conv_by_hand", "conv_backward")
    x, weight, bias = (torch.randn(size, requires_grad=True) for size in ((2, 5, 6), (3, 2, 3, 3), (3,)))
    y = F.conv2d(x[None], weight, bias)[0]
    assert torch.allclose(torch.tensor(names["conv_by_hand"](x.tolist(), weight.tolist(), bias.tolist())), y, atol=1e-5)
    y.sum().backward()
    dweight, dbias = (names["zeros_like"](tensor.tolist()) for tensor in (weight, bias))
    dx = names["conv_backward"](x.tolist(), weight.tolist(), torch.ones_like(y).tolist(), dweight, dbias)
    for by_hand, tensor in ((dx, x), (dweight, weight), (dbias, bias)):
        assert torch.allclose(torch.tensor(by_hand), tensor.grad, atol=1e-4)


def test_train_predict_accuracy_and_the_confusion_matrix_with_torch_alone(own, capsys):
    net, loader = own
    loop = pasted("train.py", "import torch", "train")["train"]
    names = pasted("evaluate.py", "import torch", "predict", "accuracy", "confusion_matrix")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(10):
        loss, percent = loop(net, loader, nn.CrossEntropyLoss(), optimizer, epoch, log_every=5)
    assert capsys.readouterr().out.splitlines()[-1].startswith("[10,    10] loss: 0.")
    outputs, labels = names["predict"](net, loader)
    matrix = names["confusion_matrix"](outputs, labels)
    assert 100 * matrix.diagonal().sum().item() / 60 == names["accuracy"](outputs, labels) > 90


def test_augment_alone():
    images = torch.rand(5, 1, 12, 9)
    assert pasted("data.py", "import torch", "augment")["augment"](images).shape == images.shape


def test_muon_with_orthogonal_alone(own):
    net, loader = own
    names = pasted("train.py", "import torch", "Muon", "orthogonal")
    before = net.last.weight.detach().clone()
    net(next(iter(loader))[0]).sum().backward()
    names["Muon"](net.parameters()).step()
    assert not torch.equal(net.last.weight, before)


def test_the_trace_with_its_five_imports(own, capsys):
    imports = "import re\nfrom collections import namedtuple\nimport torch\nfrom torch import nn\nfrom torch.overrides import TorchFunctionMode"
    names = pasted("lenet5.py", imports, "Row", "ARGUMENTS", "FLATTEN", "FLATTENS", "ELEMENTWISE", "Tracer", "trace", "side",
                   "arithmetic", "what_to_change", "print_trace")
    net, loader = own
    names["print_trace"](names["trace"](net, next(iter(loader))[0]))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["layer", "input", "first", "tanh", "mean", "last", "total"]


def test_plot_with_pillow_alone_shows_any_number_of_lines():
    names = pasted("evaluate.py", "import math\nfrom PIL import Image, ImageDraw, ImageOps\nclass data:\n    save_png = lambda image, path: image",
                   "COLORS", "plot")
    lines = {f"line {k}": ([1, 2, 3], [k, k + 1, k]) for k in range(12)}
    picture = names["plot"]([("y", "x", (0, 20), lines)], "a title")
    assert {pixel for _, pixel in picture.getcolors(10**6)} >= {ImageColor.getrgb(color) for color in names["COLORS"]}


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
