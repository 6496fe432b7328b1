"""What several tests share. No test needs a download: they use the stripes that data.py draws."""
import os
import runpy
import sys
import traceback

import pytest
import torch
from torch.utils.data import TensorDataset

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)  # so that plain `pytest` finds the scripts too

import data  # noqa: E402
import lenet5  # noqa: E402

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


# ---- python -m pytest tests/test_by_hand.py -x --mine my_loops.py --------------------------------

LOOPS = [name for name in vars(lenet5) if name.endswith(("_by_hand", "_backward"))]


def pytest_addoption(parser):
    parser.addoption("--mine", metavar="FILE", help="your own loops, in place of lenet5.py's")


def pytest_configure(config):
    """With --mine, the reader's functions take the place of lenet5.py's that have their names."""
    config.ours, config.verdicts, path = dict(vars(lenet5)), {}, config.getoption("--mine")
    if not path:
        return
    try:
        names = runpy.run_path(path)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        line = getattr(error, "lineno", last.lineno)  # of a SyntaxError, its own
        where = path if isinstance(error, OSError) else f"{path}, line {line}"
        raise pytest.UsageError(f"--mine {where}: {type(error).__name__}: {error}")
    config.own = [name for name, value in names.items() if callable(value)
                  and getattr(value, "__module__", "") == names["__name__"]]  # not just imported
    for name in config.own:
        if name in config.ours:
            setattr(lenet5, name, names[name])
    config.option.tbstyle = "short"  # an error in it: its file, its line, and no more


def pytest_report_header(config):
    if config.getoption("--mine"):
        kinds = {"yours": [name for name in config.own if name in config.ours],
                 "still lenet5.py's": [name for name in LOOPS if name not in config.own],
                 "not known": [name for name in config.own if name not in config.ours]}
        return [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """The name of a test begins with that of its loop: test_relu_backward_lets_dy_pass_..."""
    report = (yield).get_result()
    for name in LOOPS:
        if item.name.startswith(f"test_{name}") and report.when == "call":
            item.config.verdicts.setdefault(name, set()).add(report.passed)


def pytest_unconfigure(config):
    """lenet5's functions are back; the last line says which of the reader's are right."""
    for name, value in config.ours.items():
        setattr(lenet5, name, value)
    if getattr(config, "own", None) is not None:
        yours = [name for name in LOOPS if name in config.own]
        kinds = {"right": [name for name in yours if config.verdicts.get(name) == {True}],
                 "not yet": [name for name in yours if False in config.verdicts.get(name, ())],
                 "not tested": [name for name in yours if name not in config.verdicts],
                 "not known": [name for name in config.own if name not in config.ours]}
        print(f"{len(kinds['right'])} of {len(LOOPS)} loops are yours and agree with PyTorch",
              *(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names), sep="; ")
