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
    """The names of a script, lenet5, data, train or evaluate, after edits of its text.

    once: what is replaced must stand in one place.
    """
    path = os.path.join(ROOT, f"{name}.py")
    with open(path) as file:
        source = file.read()
    for old, new in edits:
        assert source.count(old) == 1 if once else old in source, old
        source = source.replace(old, new)
    names = {"__name__": name}
    exec(compile(source, path, "exec"), names)
    return names


@pytest.fixture(scope="session")
def stripes():
    """The synthetic dataset, drawn once: a training set of 10,000 and a test set of 2,000."""
    return data.load(True, "stripes"), data.load(False, "stripes")


@pytest.fixture
def few(stripes, monkeypatch, tmp_path):
    """A new folder to work in, and 400 and 200 stripes, so that a run takes a moment.

    data.load() gives them for "stripes", and under the name of CIFAR-10 for "cifar10".
    """
    real, tensors = data.load, [dataset[:n] for dataset, n in zip(stripes, (400, 200))]

    def load(train=True, dataset="cifar10", root="data"):
        if dataset not in ("stripes", "cifar10"):
            return real(train, dataset, root)
        loaded = TensorDataset(*tensors[not train])
        loaded.name, loaded.classes, _, _ = data.DATASETS[dataset]
        return loaded

    monkeypatch.setattr(data, "load", load)
    monkeypatch.chdir(tmp_path)
    return load(True, "stripes"), load(False, "stripes")


@pytest.fixture(scope="session")
def cifar():
    """The real CIFAR-10, (trainset, testset); a test that wants it is skipped where it is not."""
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
