"""What several tests share. No test needs a download: they use the stripes that data.py draws."""
import os
import sys

import pytest
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)  # so that plain `pytest` finds the scripts too

import data  # noqa: E402

# The tests train on a handful of images: a second thread would mostly wait for the first.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stripes():
    """The stand-in, drawn once: a training set of 10,000 and a test set of 2,000."""
    return data.load("stripes", train=True), data.load("stripes", train=False)


@pytest.fixture
def few(stripes, monkeypatch, tmp_path):
    """A new folder to work in, where the stand-in has 400 and 200 images: a run takes a moment."""
    cut = [data.ImageDataset(*dataset[:n], dataset.classes, dataset.name) for dataset, n in zip(stripes, (400, 200))]
    load = data.load
    monkeypatch.setattr(data, "load", lambda dataset, root="data", train=True:
                        cut[0 if train else 1] if dataset == "stripes" else load(dataset, root, train))
    monkeypatch.chdir(tmp_path)
    return cut


@pytest.fixture(scope="session")
def cifar():
    """The real CIFAR-10, (trainset, testset), for the tests that want it: they are skipped without it."""
    folder = os.path.join(ROOT, "data")
    try:
        return data.load("cifar10", folder, train=True), data.load("cifar10", folder, train=False)
    except RuntimeError:
        pytest.skip("CIFAR-10 is not in data/, whole: python data.py brings it")


@pytest.fixture
def images():
    """Four images of noise, in [-1, 1]."""
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
