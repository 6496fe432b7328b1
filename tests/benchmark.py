"""How fast: the tutorial's loop and ours, side by side in one run.

    python tests/benchmark.py           one to three minutes
    python tests/benchmark.py --race    how long until 60 %? five to ten minutes

A computer does other work too, and one measurement says little: so in training the loops take turns, and it is the
ratios that count, not the seconds. This is a benchmark and no test: nothing here can fail.
"""
import argparse
import contextlib
import io
import os
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import Compose, Normalize, ToTensor

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import data
from evaluate import accuracy, predict
from lenet5 import LeNet5, trace
from train import train

# The rung of README.md's ladder that is called "fast".
FAST = {"epochs": 3, "batch_size": 96, "lr": 0.075, "schedule": "linear", "warmup": 0.1, "nesterov": True,
        "weight_decay": 0.002}

TRANSFORM = Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])


# ---- The yardstick: the tutorial's way, transforms picture by picture, in two worker processes ---


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


def our_train(dataset, batch_size, lr=0.001, epochs=1, nesterov=False, weight_decay=0.0, **flags):
    """What python train.py does between the trace and the exam; returns the network."""
    trainloader = data.loader(dataset, batch_size, shuffle=True)
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, nesterov=nesterov,
                                weight_decay=weight_decay, fused=True)
    if batch_size >= 16:
        net.to(memory_format=torch.channels_last)
    torch.backends.mkldnn.enabled = batch_size >= 16
    for epoch in range(epochs):
        train(net, trainloader, nn.CrossEntropyLoss(), optimizer, epoch, epochs, **flags)
    torch.backends.mkldnn.enabled = True
    return net


def our_predict(net, dataset):
    return accuracy(*predict(net, data.loader(dataset, batch_size=250, shuffle=False)))


# ---- The measurements ----------------------------------------------------------------------------


def seconds(function, *args):
    """How long function(*args) takes; what it prints is thrown away."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        function(*args)
    return time.perf_counter() - start


def convolutions(net, images, pooled):
    """The convolutions of one training step, and nothing else: forward, and backward from a made-up gradient."""
    for conv, x in ((net.conv1, images), (net.conv2, pooled)):
        y = conv(x)
        y.backward(y.detach())


def training(theirs, ours):
    """Five turns of 10,000 pictures are one epoch of CIFAR-10 for each."""
    names = ["the tutorial's loop, batch 4", "ours, batch 4", "ours, batch 64", "ours, batch 512"]
    times = dict.fromkeys(names, 0.0)
    matmul, convs = [], []
    for turn in range(5):
        part = range(10_000 * turn, 10_000 * (turn + 1))
        some = data.Pictures(ours.images[part], ours.labels[part], ours.classes)
        epoch, _ = tutorial_train(Subset(theirs, part))
        times[names[0]] += seconds(epoch)
        for name, batch_size in zip(names[1:], (4, 64, 512)):
            times[name] += seconds(our_train, some, batch_size)
        a = torch.randn(2048, 2048)
        matmul += [seconds(torch.matmul, a, a) for _ in range(5)]
        net = LeNet5().to(memory_format=torch.channels_last)
        images, _ = some[:512]
        pooled = net.pool(net.conv1(images)).detach().requires_grad_()  # conv2 passes a gradient on, conv1 needn't
        convs += [seconds(convolutions, net, images, pooled) for _ in range(5)]

    print(f"{'training':<30}{'images/s':>10}{'s/epoch':>10}{'ratio':>8}")
    for name, value in times.items():
        print(f"{name:<30}{50_000 / value:10,.0f}{value:10.1f}{times[names[0]] / value:8.1f}")

    # The limit: what if all of a step ran as fast as this machine multiplies large matrices? Backward costs twice
    # what forward does (each layer's gradient for its inputs, and for its weights), but conv1 needs the second
    # only. A multiply-add is two operations.
    rows = trace(LeNet5(), torch.zeros(1, 3, 32, 32))
    operations = 2 * (3 * sum(row.multiply_adds for row in rows) - rows[1].multiply_adds)
    flops = 2 * 2048**3 / (sum(matmul) / len(matmul))
    limit = flops / operations
    print(f"\na training step takes {operations / 1e6:.1f} million floating-point operations a picture; "
          f"a 2048 x 2048 matrix product\nruns at {flops / 1e9:.0f} GFLOP/s here: the limit is {limit:,.0f} images/s, "
          f"and batch 512 reaches {50_000 / times[names[3]] / limit:.0%} of it")
    of_convs = 2 * (3 * (rows[1].multiply_adds + rows[4].multiply_adds) - rows[1].multiply_adds)
    alone = 512 * len(convs) / sum(convs)
    print(f"the two convolutions alone, {of_convs / operations:.0%} of the operations, run at {alone:,.0f} images/s, "
          f"{alone * of_convs / flops:.0%} of the matrix product's speed")


def predicting(theirs, ours):
    tutorial = seconds(tutorial_predict, LeNet5(), theirs)
    net = LeNet5().to(memory_format=torch.channels_last)  # as run() in evaluate.py does
    times = [seconds(our_predict, net, ours) for _ in range(5)]
    mean = sum(times) / len(times)
    print(f"\npredicting the 10,000 test pictures: the tutorial's loop {tutorial:.1f} s, ours {mean:.2f} s, "
          f"ratio {tutorial / mean:.0f}")


def race(theirs, ours, our_test):
    """The tutorial's loop until 60 % of the test pictures are right, then the fast rung, whole, three times.

    Only the seconds of training are counted, not the exams. The fast rung has no exam before its end, so that
    the test set can't choose its last epoch.
    """
    epoch, net = tutorial_train(theirs)
    theirs_needs = percent = 0.0
    while percent < 60:
        theirs_needs += seconds(epoch)
        percent = our_predict(net, our_test)
        print(f"the tutorial's loop: {percent:.1f} % after {theirs_needs:.0f} s", flush=True)
    percents, times = [], []
    for run in range(3):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            net = our_train(ours, **FAST)
        times.append(time.perf_counter() - start)
        percents.append(our_predict(net, our_test))
        print(f"the fast rung: {percents[-1]:.1f} % after {times[-1]:.1f} s", flush=True)
    print(f"mean: {sum(percents) / 3:.1f} % in 1/{3 * theirs_needs / sum(times):.0f} of the time")


def main():
    parser = argparse.ArgumentParser(description="Compare the tutorial's loop with ours.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--race", action="store_true", help="measure the way to 60 %%, instead")
    parser.add_argument("--data-dir", default="data", help="folder of the CIFAR-10 files")
    args = parser.parse_args()
    torch.manual_seed(0)
    trainset, testset = data.cifar10(args.data_dir)
    if args.race:
        race(data.CIFAR10(args.data_dir, train=True, transform=TRANSFORM), trainset, testset)
    else:
        training(data.CIFAR10(args.data_dir, train=True, transform=TRANSFORM), trainset)
        predicting(data.CIFAR10(args.data_dir, train=False, transform=TRANSFORM), testset)


if __name__ == "__main__":
    main()
