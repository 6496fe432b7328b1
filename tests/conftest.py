"""What several tests share. No test needs a download: they use the stripes that data.py draws."""
import os
import sys

import pytest
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)  # so that plain `pytest` finds the scripts too

import data  # noqa: E402

# The tests train on a handful of pictures: a second thread would mostly wait for the first.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stripes():
    """The stand-in, drawn once: a training set of 10,000 and a test set of 2,000."""
    return data.stripes()


@pytest.fixture
def few(stripes, monkeypatch, tmp_path):
    """A new folder to work in, where data.stripes() gives 400 and 200 pictures: a run takes a moment."""
    trainset, testset = stripes
    cut = (data.Pictures(trainset.images[:400], trainset.labels[:400], trainset.classes),
           data.Pictures(testset.images[:200], testset.labels[:200], testset.classes))
    monkeypatch.setattr(data, "stripes", lambda: cut)
    monkeypatch.chdir(tmp_path)
    return cut


@pytest.fixture(scope="session")
def cifar():
    """The real CIFAR-10, (trainset, testset), for the tests that want it: they are skipped without it."""
    folder = os.path.join(ROOT, "data")
    try:
        data.CIFAR10(folder)
    except RuntimeError:
        pytest.skip("CIFAR-10 is not in data/, whole: python data.py brings it")
    return data.cifar10(folder)


@pytest.fixture
def images():
    """Four pictures of noise, in [-1, 1]."""
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
