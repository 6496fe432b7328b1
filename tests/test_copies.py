"""Pieces of the scripts, pasted into an empty script; and other people's datasets in train() and predict()."""
import ast
import os
import struct

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import v2

from conftest import ROOT
from evaluate import predict
from lenet5 import LeNet5
from train import train

IMPORTS = """
import math
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
"""


def pasted(script, *names):
    """The names of an empty script with the standard imports and these pieces of a script of ours."""
    with open(os.path.join(ROOT, script)) as file:
        source = file.read()
    pieces = {node.name: ast.get_source_segment(source, node) for node in ast.parse(source).body if hasattr(node, "name")}
    names_there = {}
    exec("\n\n".join([IMPORTS, *(pieces[name] for name in names)]), names_there)
    return names_there


def test_lenet5_alone(images):
    assert pasted("lenet5.py", "LeNet5")["LeNet5"]()(images).shape == (4, 10)


def test_conv_by_hand_alone():
    x, weight, bias = torch.randn(2, 5, 6), torch.randn(3, 2, 3, 3), torch.randn(3)
    y = pasted("lenet5.py", "conv_by_hand")["conv_by_hand"](x.tolist(), weight.tolist(), bias.tolist())
    assert torch.allclose(torch.tensor(y), F.conv2d(x[None], weight, bias)[0], atol=1e-5)


def test_train_predict_accuracy_and_the_confusion_matrix_alone(few):
    names = {**pasted("train.py", "train"), **pasted("evaluate.py", "predict", "accuracy", "confusion_matrix")}
    net, loader = LeNet5(), DataLoader(few[0], batch_size=50)
    names["train"](net, loader, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=0.01), every=4)
    outputs, labels = names["predict"](net, loader)
    matrix = names["confusion_matrix"](outputs, labels)
    assert 100 * matrix.diagonal().sum().item() / 400 == names["accuracy"](outputs, labels)


def test_augment_alone(images):
    assert pasted("data.py", "augment")["augment"](images).shape == images.shape


def test_muon_with_orthogonal_alone():
    names = pasted("train.py", "Muon", "orthogonal")
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    layer(torch.ones(2, 4)).sum().backward()
    names["Muon"](layer.parameters()).step()
    assert not torch.equal(layer.weight, before)


# ---- Any DataLoader of (images, labels) ------------------------------------------------------------

TO_LENET5 = v2.Compose([lambda image: image.convert("RGB"), v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
                        v2.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])


def write_mnist(folder, name="MNIST"):
    """The files of MNIST, or of FashionMNIST, with 12 images each for training and test."""
    raw = os.path.join(folder, name, "raw")
    os.makedirs(raw)
    for part in ("train", "t10k"):
        with open(os.path.join(raw, f"{part}-images-idx3-ubyte"), "wb") as file:
            file.write(struct.pack(">4i", 0x803, 12, 28, 28) + bytes(range(256)) * 36 + bytes(12 * 28 * 28 - 256 * 36))
        with open(os.path.join(raw, f"{part}-labels-idx1-ubyte"), "wb") as file:
            file.write(struct.pack(">2i", 0x801, 12) + bytes(k % 10 for k in range(12)))


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
