"""What several tests share. No test needs a download: they use the stripes that data.py draws."""
import os
import sys

import pytest
import torch
from torch.utils.data import TensorDataset

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)  # so that plain `pytest` finds the scripts too

import data  # noqa: E402

# The tests train on a handful of images: a second thread would mostly wait for the first.
torch.set_num_threads(1)


def edited(name, *edits, once=True):
    """The names of a script, lenet5, data, train or evaluate, after edits of its text; once: each in one place."""
    path = os.path.join(ROOT, f"{name}.py")
    with open(path) as file:
        source = file.read()
    for old, new in edits:
        assert source.count(old) == 1 if once else old in source, old
        source = source.replace(old, new)
    names = {"__name__": name}
    exec(compile(source, path, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def nothing_found_yet(monkeypatch):
    """What load(train=True) found is kept for load(train=False): here, for one test."""
    monkeypatch.setattr(data, "FOUND", {})


@pytest.fixture(scope="session")
def stripes():
    """The synthetic dataset, drawn once: a training set of 10,000 and a test set of 2,000."""
    return data.load(True, "stripes"), data.load(False, "stripes")


@pytest.fixture
def few(stripes, monkeypatch, tmp_path):
    """A new folder to work in, where the synthetic dataset has 400 and 200 images: a run takes a moment."""
    cut = [TensorDataset(*dataset[:n]) for dataset, n in zip(stripes, (400, 200))]
    for dataset in cut:
        dataset.classes, dataset.name = stripes[0].classes, stripes[0].name
    load = data.load
    monkeypatch.setattr(data, "load", lambda train=True, dataset="auto", root="data":
                        cut[0 if train else 1] if dataset == "stripes" else load(train, dataset, root))
    monkeypatch.chdir(tmp_path)
    return cut


@pytest.fixture
def mirrorable(few, monkeypatch):
    """few, under the name of CIFAR-10: --augment and --mirror are refused for stripes."""
    for dataset in few:
        monkeypatch.setattr(dataset, "name", data.CIFAR)
    return few


@pytest.fixture(scope="session")
def cifar():
    """The real CIFAR-10, (trainset, testset), for the tests that want it: they are skipped without it."""
    folder = os.path.join(ROOT, "data")
    try:
        data.CIFAR10(folder)  # downloads nothing
    except RuntimeError:
        pytest.skip("CIFAR-10 is not in data/, whole: python data.py brings it")
    return data.load(True, "cifar10", folder), data.load(False, "cifar10", folder)


@pytest.fixture
def images():
    """Four images of noise, in [-1, 1]."""
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
