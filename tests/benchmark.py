"""How fast: the tutorial's loop and ours, side by side in one run.

    python tests/benchmark.py           six to twelve minutes
    python tests/benchmark.py --race    more than fifteen: whole trainings, and their accuracy

A computer does other work too, and one measurement says little: so the loops take turns, and it is
the ratios that count, not the seconds. This is a benchmark and no test: nothing here can fail.
"""
import argparse
import contextlib
import io
import os
import statistics
import sys
import time
from unittest import mock

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision import transforms

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import data
import train
from evaluate import Mirrored, accuracy, predict
from lenet5 import LeNet5

# The rungs of README.md's ladder, in its order: what train.py is called with, but for --runs and
# --checkpoint.
RUNGS = {
    "tutorial": "",
    "larger batches": "--batch-size 64 --lr 0.016",
    "falling rate": "--batch-size 64 --lr 0.016 --schedule linear",
    "longer steps": "--batch-size 64 --lr 0.05 --schedule linear --warmup 0.1 --nesterov",
    "weight decay": "--batch-size 64 --lr 0.05 --schedule linear --warmup 0.1 --nesterov "
                    "--weight-decay 0.002",
    "augmentation": "--batch-size 128 --lr 0.1 --schedule linear --warmup 0.1 --nesterov "
                    "--weight-decay 0.001 --augment --epochs 25",
    "Muon": "--batch-size 128 --lr 0.02 --schedule linear --warmup 0.1 --optimizer muon "
            "--momentum 0.95 --weight-decay 0.05 --augment --epochs 25",
    "best": "--batch-size 256 --lr 0.03 --schedule linear --warmup 0.1 --optimizer muon "
            "--momentum 0.95 --weight-decay 0.05 --augment --epochs 75 --mirror",
    "fast": "--batch-size 48 --lr 0.03 --schedule linear --warmup 0.1 --optimizer muon "
            "--weight-decay 0.02 --epochs 1",
}

# ToTensor() is the Korean tutorial's; pytorch.org's has had data.transform, of v2, since May 2026.
TO_TENSOR = transforms.Compose([transforms.ToTensor(),
                                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])


# ---- The yardstick: the tutorial's way, transforms image by image, in two worker processes -------


def tutorial_train(dataset):
    """Returns a function that trains for one epoch, the tutorial's way; and the network."""
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


def arguments(flags):
    """What train.py reads in these flags."""
    with mock.patch.object(train, "run_seeds") as run:
        train.main(flags.split())
    return run.call_args[0][0]


def our_train(dataset, flags, epochs=None, onednn=None, num_workers=0):
    """What python train.py does between the trace and the test; returns the network."""
    args = arguments(flags)
    epochs = epochs or args.epochs
    trainloader = DataLoader(dataset, batch_size=args.batch_size, shuffle=True,
                             num_workers=num_workers,
                             collate_fn=data.collate_augmented if args.augment else None)
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=args.momentum)
    optimizer = train.configure_optimizer(args, optimizer, epochs * len(trainloader))
    torch.backends.mkldnn.enabled = args.batch_size >= 16 if onednn is None else onednn
    for epoch in range(epochs):
        train.train(net, trainloader, nn.CrossEntropyLoss(), optimizer, epoch)
    torch.backends.mkldnn.enabled = True
    return net


def our_predict(net, dataset, mirror=False):
    return accuracy(*predict(Mirrored(net) if mirror else net, DataLoader(dataset, batch_size=250)))


# ---- The measurements ----------------------------------------------------------------------------


def seconds(function, *args, **flags):
    """How long function(*args, **flags) takes; what it prints is thrown away."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        function(*args, **flags)
    return time.perf_counter() - start


def training(to_tensor, v2, ours):
    """Ten turns of 5,000 images each; printed are medians, as for an epoch of 50,000.

    A ratio is the median of ten: each compares what ran in the same turn, since a machine is faster
    at one time than at another. to_tensor, v2: torchvision's CIFAR10 with either transform; ours:
    what data.load() returns.
    """
    times = {}

    def measure(name, function, *args, **flags):
        times.setdefault(name, []).append(seconds(function, *args, **flags))

    for turn in range(10):
        part = range(5000 * turn, 5000 * (turn + 1))
        some = TensorDataset(*ours[part.start:part.stop])
        measure("the tutorial's loop, ToTensor()", tutorial_train(Subset(to_tensor, part))[0])
        measure("  with v2's transform", tutorial_train(Subset(v2, part))[0])
        measure("ours, batch 4", our_train, some, "", epochs=1)
        measure("  oneDNN left on", our_train, some, "", epochs=1, onednn=True)
        measure("  two worker processes", our_train, some, "", epochs=1, num_workers=2)
        measure("  v2's transform for each image", our_train, Subset(v2, part), "", epochs=1)
        for name, flags in RUNGS.items():
            measure(name, our_train, some, flags, epochs=1)
        measure("ours, batch 512", our_train, some, "--batch-size 512", epochs=1)
    tutorial, *_ = times.values()

    def row(name):
        """images/s, and seconds for an epoch."""
        median = statistics.median(times[name])
        return f"{5000 / median:10,.0f}{10 * median:10.1f}"

    def ratio(name):
        return statistics.median(theirs / ours for theirs, ours in zip(tutorial, times[name]))

    print(f"{'training':<32}{'images/s':>10}{'s/epoch':>10}{'ratio':>8}   images/s, lowest-highest")
    for name in (name for name in times if name not in RUNGS):
        print(f"{name:<32}{row(name)}{ratio(name):8.1f}   "
              f"{5000 / max(times[name]):,.0f}-{5000 / min(times[name]):,.0f}")
    print(f"\n{'the ladder':<32}{'images/s':>10}{'s/epoch':>10}{'epochs':>8}{'time':>8}   "
          "(in tutorial epochs)")
    for k, (name, flags) in enumerate(RUNGS.items()):
        epochs = arguments(flags).epochs
        print(f"{k + 1} {name:<30}{row(name)}{epochs:8}{epochs / ratio(name):8.2f}")


def predicting(to_tensor, ours):
    tutorial = seconds(tutorial_predict, LeNet5(), to_tensor)
    one, two = (statistics.median(seconds(our_predict, LeNet5(), ours, mirror) for _ in range(5))
                for mirror in (False, True))
    print(f"\npredicting the 10,000 test images: the tutorial's loop {tutorial:.1f} s, "
          f"ours {one:.2f} s, ratio {tutorial / one:.0f}\n"
          f"with the mirror image {two:.2f} s, {two / one:.1f} times ours")


def race(to_tensor, ours, our_test):
    """Whole trainings: the tutorial's loop (eight epochs), the best rung, the fast one five times.

    Only the seconds of training are counted. The rungs are not tested before their end, so that the
    test set can't choose their last epoch.
    """
    torch.manual_seed(0)
    epoch, net = tutorial_train(to_tensor)
    total = needed = 0.0
    for n in range(1, 9):
        total += seconds(epoch)
        percent = our_predict(net, our_test)
        if percent >= 60 and not needed:
            needed = total
            print(f"the tutorial's loop: {percent:.1f} % after {n} epochs, {needed:.0f} s",
                  flush=True)
    print(f"the tutorial's loop: {percent:.1f} % after 8 epochs, {total:.0f} s", flush=True)

    def rung(name, seed):
        torch.manual_seed(seed)
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            net = our_train(ours, RUNGS[name])
        return net, time.perf_counter() - start

    net, time_needed = rung("best", seed=0)
    print(f"best: {our_predict(net, our_test):.1f} %, "
          f"with the mirror image {our_predict(net, our_test, mirror=True):.1f} %, "
          f"after {time_needed:.0f} s: {time_needed / total:.2f} of these 8 epochs", flush=True)
    fast = [rung("fast", seed) for seed in range(5)]
    slowest = max(time_needed for _, time_needed in fast)
    print("fast, seeds 0 to 4: "
          f"{', '.join(f'{our_predict(net, our_test):.1f}' for net, _ in fast)} % after "
          f"{', '.join(f'{time_needed:.1f}' for _, time_needed in fast)} s: "
          f"1/{int((needed or total) / slowest)} of the time to 60 %, or less")


def main():
    parser = argparse.ArgumentParser(description="Compare the tutorial's loop with ours.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--race", action="store_true", help="whole trainings, instead")
    parser.add_argument("--data-dir", default="data", help="folder of the CIFAR-10 files")
    args = parser.parse_args()
    torch.manual_seed(0)
    root = args.data_dir
    trainset, testset = data.load(True, "cifar10", root), data.load(False, "cifar10", root)
    to_tensor, v2 = (data.CIFAR10(root, train=True, transform=transform)
                     for transform in (TO_TENSOR, data.transform))
    if args.race:
        race(to_tensor, trainset, testset)
    else:
        training(to_tensor, v2, trainset)
        predicting(data.CIFAR10(root, train=False, transform=TO_TENSOR), testset)


if __name__ == "__main__":
    main()
