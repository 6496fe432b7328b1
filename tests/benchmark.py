"""How fast: the tutorial's loop and ours, side by side in one run.

    python tests/benchmark.py           three to six minutes
    python tests/benchmark.py --race    how long until 60 %? ten to fifteen minutes

A computer does other work too, and one measurement says little: so the loops take turns, and it is the ratios that
count, not the seconds. This is a benchmark and no test: nothing here can fail.
"""
import argparse
import contextlib
import io
import os
import statistics
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import data
import train
from evaluate import accuracy, predict
from lenet5 import LeNet5, trace

# The rung of README.md's ladder that is called "fast".
FAST = {"epochs": 2, "batch_size": 128, "optimizer": "muon", "lr": 0.02, "momentum": 0.95, "weight_decay": 0.05,
        "schedule": "linear", "warmup": 0.1, "augment": True}


# ---- The yardstick: the tutorial's way, transforms image by image, in two worker processes -------


def tutorial_train(dataset):
    """Returns a function that trains for one epoch, the tutorial's way, each time it is called; and the network."""
    trainloader = DataLoader(dataset, batch_size=4, shuffle=True, num_workers=2)
    net = LeNet5()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)

    def epoch():
        running_loss = 0.0
        for i, (inputs, labels) in enumerate(trainloader):
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return epoch, net


def tutorial_predict(net, dataset):
    correct = total = 0
    with torch.no_grad():
        for images, labels in DataLoader(dataset, batch_size=4, shuffle=False, num_workers=2):
            _, predicted = torch.max(net(images), 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    return 100 * correct / total


# ---- Ours --------------------------------------------------------------------------------------


def our_train(dataset, batch_size, optimizer="sgd", lr=0.001, momentum=0.9, weight_decay=0.0, epochs=1,
              schedule="constant", warmup=0.0, augment=False, onednn=None):
    """What python train.py does between the trace and the test; returns the network."""
    trainloader = DataLoader(dataset, batch_size=batch_size, shuffle=True)
    net = LeNet5()
    args = argparse.Namespace(optimizer=optimizer, lr=lr, momentum=momentum, nesterov=False, weight_decay=weight_decay,
                              schedule=schedule, warmup=warmup)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    optimizer, scheduler = train.other_steps(args, net, optimizer, epochs * len(trainloader))
    torch.backends.mkldnn.enabled = batch_size >= 16 if onednn is None else onednn
    for epoch in range(epochs):
        train.train(net, trainloader, nn.CrossEntropyLoss(), optimizer, epoch, epochs, scheduler=scheduler,
                    augment=data.augment if augment else None)
    torch.backends.mkldnn.enabled = True
    return net


def our_predict(net, dataset):
    return accuracy(*predict(net, DataLoader(dataset, batch_size=250)))


# ---- The measurements ----------------------------------------------------------------------------


def seconds(function, *args, **flags):
    """How long function(*args, **flags) takes; what it prints is thrown away."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        function(*args, **flags)
    return time.perf_counter() - start


def training(theirs, ours):
    """Five turns of 10,000 images each; printed is the median turn, as seconds for an epoch of 50,000."""
    sgd, muon = {"batch_size": 128, "augment": True}, {"batch_size": 128, "augment": True, "optimizer": "muon"}
    kinds = {
        "ours, batch 4": {"batch_size": 4},
        "  with oneDNN left on": {"batch_size": 4, "onednn": True},
        "ours, batch 64": {"batch_size": 64},
        "ours, batch 512": {"batch_size": 512},
        "ours, batch 128, augmented": sgd,
        "  and muon": muon,
    }
    tutorial = "the tutorial's loop, batch 4"
    times = {name: [] for name in (tutorial, *kinds)}
    matmul = []
    for turn in range(5):
        part = range(10_000 * turn, 10_000 * (turn + 1))
        some = TensorDataset(*ours[part.start:part.stop])
        epoch, _ = tutorial_train(Subset(theirs, part))
        times[tutorial].append(seconds(epoch))
        for name, flags in kinds.items():
            times[name].append(seconds(our_train, some, **flags))
        a = torch.randn(2048, 2048)
        matmul += [seconds(torch.matmul, a, a) for _ in range(5)]

    print(f"{'training':<30}{'images/s':>10}{'s/epoch':>10}{'ratio':>8}   of the five turns")
    base = statistics.median(times[tutorial])
    for name, values in times.items():
        value = statistics.median(values)
        print(f"{name:<30}{10_000 / value:10,.0f}{5 * value:10.1f}{base / value:8.1f}   "
              f"{10_000 / max(values):,.0f} to {10_000 / min(values):,.0f} images/s")

    # The limit: what if all of a step ran as fast as this machine multiplies large matrices? Backward costs twice
    # what forward does (each layer's gradient for its inputs, and for its weights), but conv1 needs the second
    # only. A multiply-add is two operations.
    rows = trace(LeNet5(), torch.zeros(1, 3, 32, 32))
    operations = 2 * (3 * sum(row.multiply_adds for row in rows) - rows[1].multiply_adds)
    flops = 2 * 2048**3 / statistics.median(matmul)
    reached = 10_000 / statistics.median(times["ours, batch 512"]) * operations / flops
    print(f"\na training step takes {operations / 1e6:.1f} million floating-point operations an image; batch 512 does them "
          f"at {reached:.0%}\nof the speed of a 2048 x 2048 matrix product, {flops / 1e9:.0f} GFLOP/s here")


def predicting(theirs, ours):
    tutorial = seconds(tutorial_predict, LeNet5(), theirs)
    value = statistics.median(seconds(our_predict, LeNet5(), ours) for _ in range(5))
    print(f"\npredicting the 10,000 test images: the tutorial's loop {tutorial:.1f} s, ours {value:.2f} s, "
          f"ratio {tutorial / value:.0f}")


def race(theirs, ours, our_test):
    """The tutorial's loop for eight epochs, with the test accuracy after each, then the fast rung, whole, five times.

    Only the seconds of training are counted. The fast rung is not tested before its end, so that the test set
    can't choose its last epoch.
    """
    epoch, net = tutorial_train(theirs)
    total, needed = 0.0, None
    for _ in range(8):
        total += seconds(epoch)
        percent = our_predict(net, our_test)
        print(f"the tutorial's loop: {percent:.1f} % after {total:.0f} s", flush=True)
        if percent >= 60 and needed is None:
            needed = total
    percents, times = [], []
    for seed in range(5):
        torch.manual_seed(seed)
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            net = our_train(ours, **FAST)
        times.append(time.perf_counter() - start)
        percents.append(our_predict(net, our_test))
        print(f"the fast rung: {percents[-1]:.1f} % after {times[-1]:.1f} s", flush=True)
    print(f"fast: mean {statistics.mean(percents):.1f} %, lowest {min(percents):.1f} %, in 1/"
          f"{(needed or total) / statistics.mean(times):.0f} of the time")


def main():
    parser = argparse.ArgumentParser(description="Compare the tutorial's loop with ours.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--race", action="store_true", help="measure the way to 60 %%, instead")
    parser.add_argument("--data-dir", default="data", help="folder of the CIFAR-10 files")
    args = parser.parse_args()
    torch.manual_seed(0)
    root = args.data_dir
    trainset, testset = data.load(True, "cifar10", root), data.load(False, "cifar10", root)
    if args.race:
        race(data.CIFAR10(root, train=True, transform=data.transform), trainset, testset)
    else:
        training(data.CIFAR10(root, train=True, transform=data.transform), trainset)
        predicting(data.CIFAR10(root, train=False, transform=data.transform), testset)


if __name__ == "__main__":
    main()
