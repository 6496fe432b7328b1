"""The training: LeNet-5 on CIFAR-10 (chapters 3 and 4 of the tutorial: loss, optimiser, training).

    python train.py

trains as the tutorial does (mini-batches of 4, SGD with learning rate 0.001 and momentum 0.9; eight
epochs are our choice), and prints

    CIFAR-10: 50,000 training images, seed 0, on cpu
    8 epochs, mini-batches of 4
    [1,  2000] loss: 2.213
    [1,  4000] loss: 1.871
    ...
    epoch 1: test accuracy 49.0 %, loss 1.413; training 36.2 %, 1.720; 275 s left
    ...
    epoch 8: test accuracy 61.8 %, loss 1.116; training 66.8 %, 0.937; 0 s left
    275 s of training, 1,453 images/s
    network: cifar_net.pth
    curve: cifar_net_curve.png, its numbers: cifar_net_curve.csv
    test accuracy on CIFAR-10: 61.8 %
    Next: python evaluate.py
"""
import argparse
import contextlib
import csv
import os
import shlex
import statistics
import textwrap
import time

import torch
import torch.nn.functional as F  # for the other loss functions of README.md
from torch import nn
from torch.utils.data import DataLoader

import data
from evaluate import Mirrored, accuracy, draw_curve, predict
from lenet5 import LeNet5, print_trace, trace


def train(net, trainloader, criterion, optimizer, epoch=0, device="cpu", log_every=2000):
    """One epoch: learn from every training image once. Returns mean loss and accuracy (percent).

    Both are measured while the weights still change, so they differ from a measurement after the
    epoch. trainloader: any DataLoader of (images, labels); criterion: the mean over a mini-batch.
    epoch, from 0, stands in the log; log_every: the mini-batches between two lines of it.
    """
    net.train()  # for layers that work differently in training, such as dropout
    running_loss = total_loss = 0.0  # since the last line of the log; since the epoch began
    correct = total = 0
    for i, (inputs, labels) in enumerate(trainloader):  # i: 0, 1, 2, ...
        inputs, labels = inputs.to(device), labels.to(device)

        # backward() adds to the gradients that are already there. Without this line each step
        # would follow the sum of all gradients so far, most of them of weights that have changed.
        optimizer.zero_grad()

        outputs = net(inputs)              # the forward pass: (N, 3, 32, 32) -> (N, 10)
        loss = criterion(outputs, labels)  # one number: how far the outputs are from the labels
        loss.backward()                    # the backward pass: the gradient for each parameter
        optimizer.step()                   # each parameter takes a small step against its gradient

        running_loss += loss.item()        # the plain number, without the graph behind it
        if (i + 1) % log_every == 0:
            print(f"[{epoch + 1}, {i + 1:5d}] loss: {running_loss / log_every:.3f}")
            running_loss = 0.0

        _, predicted = torch.max(outputs, 1)  # the class with the greatest logit
        correct += (predicted == labels).sum().item()
        total += len(labels)
        total_loss += loss.item() * len(labels)
    return total_loss / total, 100 * correct / total


def run(args, seed, path, trainloader, testloader):
    """The tutorial's chapters 3 (loss and optimiser) and 4 (training), top to bottom, for one seed.

    The network is saved in path after each epoch. Returns the history, (training loss, training
    accuracy, test loss, test accuracy) for each epoch, and the seconds of training.
    """
    # Weights start at random, and images come in random order. The seed fixes both: the same seed
    # gives the same network, bit for bit (on one machine, with one version of PyTorch and one
    # number of threads).
    torch.manual_seed(seed)
    net = LeNet5().to(args.device)

    # The criterion (loss function) says in one number how wrong the outputs are. Cross-entropy is
    # the usual one for more than two classes: softmax turns ten logits into ten probabilities,
    # and the loss is -log of the one that the true class got, the mean over the mini-batch. It is 0
    # for being certain and right, and log(10) = 2.303 for ten equal probabilities, about where
    # training starts. Softmax is inside it: the network must not end with one of its own.
    criterion = nn.CrossEntropyLoss()

    # Stochastic gradient descent (SGD) moves each parameter against its gradient; stochastic, since
    # each mini-batch shows only a sample of the images. The learning rate is how far a step goes:
    # too small takes very long, too large jumps past the minimum. Momentum keeps 0.9 of the last
    # step, so that steps that agree add up, to ten times one step, and steps that contradict each
    # other cancel.
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=args.momentum)
    optimizer = configure_optimizer(args, optimizer, args.epochs * len(trainloader))

    history, seconds = [], 0.0
    for epoch in range(args.epochs):
        start = time.perf_counter()
        log_every = max(1, 8000 // args.batch_size)  # 2,000 mini-batches of 4
        with onednn(args.batch_size >= 16):
            loss, train_accuracy = train(net, trainloader, criterion, optimizer, epoch, args.device,
                                         log_every)
        seconds += time.perf_counter() - start

        # Chapter 5, after each epoch: how good is it at other images? (With --validation these are
        # no test images, but training images that were set aside.)
        outputs, labels = predict(Mirrored(net) if args.mirror else net, testloader, args.device)
        test_loss = criterion(outputs, labels).item()
        history.append((loss, train_accuracy, test_loss, accuracy(outputs, labels)))
        save(net, path)
        report(args, seed, history, seconds, path, trainloader.dataset)
    return history, seconds


def save(net, path):
    """Write the parameters to path, whole or not at all. Raises UserError if one is not finite.

    state_dict() is a dictionary of the parameters, layer by layer: {"conv1.weight": tensor (6, 3,
    5, 5), "conv1.bias": tensor (6,), ...}. Such a file is called a checkpoint.
    """
    if not all(parameter.isfinite().all() for parameter in net.parameters()):
        raise data.UserError("Some weights are no longer finite: the steps are too long. Try a "
                             "tenth of --lr, or see README.md, \"If it does not learn\".")
    torch.save(net.state_dict(), f"{path}.part")
    os.replace(f"{path}.part", path)  # the last epoch's file stays, until this one is complete


# ==== Beyond the tutorial =========================================================================


def run_seeds(args):
    """What python train.py does: load the images once, then run() for each seed, and a summary."""
    asked, args.dataset = args.dataset, data.find_dataset(args)
    if args.checkpoint and asked == "auto" and args.dataset == "stripes":
        raise data.UserError(f"{args.checkpoint} would get a network of stripes. If you want that, "
                             "add --dataset stripes.")
    data.refuse_flips(args)
    seeds = range(args.seed, args.seed + args.runs)
    paths = [checkpoint_path(args, seed) for seed in seeds]

    trainset = data.load(train=True, dataset=args.dataset, root=args.data_dir)
    if args.validation:
        trainset, testset = data.validation_split(trainset, args.validation)  # no test set
    else:
        testset = data.load(train=False, dataset=args.dataset, root=args.data_dir)
    trainloader = DataLoader(trainset, batch_size=args.batch_size, shuffle=True,
                             collate_fn=data.collate_augmented if args.augment else None)
    testloader = DataLoader(testset, batch_size=250, shuffle=False)

    print_trace(trace(LeNet5(), trainset[:1][0]))
    results = []
    for seed, path in zip(seeds, paths):
        print(f"\n{trainset.name}: {len(trainset):,} training images, seed {seed}, "
              f"on {args.device}\n{args.length} {args.settings}".rstrip())
        history, seconds = run(args, seed, path, trainloader, testloader)
        print(f"{seconds:.0f} s of training, {args.epochs * len(trainset) / seconds:,.0f} images/s")
        print(f"network: {path}\ncurve: {curve_path(path)}, its numbers: {curve_path(path, 'csv')}")
        results.append((history[-1], seconds))
    print_summary(args, trainset.name, paths, results)


def configure_optimizer(args, optimizer, steps):
    """Returns the optimizer that the flags ask for, where it is not the tutorial's.

    Nesterov's momentum looks at the gradient as if momentum had moved the weights on already.
    Weight decay (L2 regularisation) also pulls each weight towards zero in each step. A schedule
    changes the learning rate: the hook calls scheduler.step() after each of the steps, so that
    train() stays as it is. In a loop of your own, write scheduler.step() after optimizer.step().
    """
    group = optimizer.param_groups[0]  # all parameters, and their settings
    if args.optimizer == "sgd":
        group.update(nesterov=args.nesterov, weight_decay=args.weight_decay)
    elif args.optimizer == "muon":
        optimizer = Muon(group["params"], args.lr, args.momentum, args.weight_decay)
    else:
        adam_or_rmsprop = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[args.optimizer]
        optimizer = adam_or_rmsprop(group["params"], lr=args.lr, weight_decay=args.weight_decay)
    if args.schedule == "linear":
        factor = lambda step: linear_factor(step, steps, args.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        optimizer.register_step_post_hook(lambda *_: scheduler.step())
    return optimizer


def report(args, seed, history, seconds, path, trainset):
    """The epoch's line in the log; and the history so far, as a drawing and as a table (CSV)."""
    split, name = args.split, trainset.name + args.looks
    (loss, train_accuracy, test_loss, test_accuracy), epoch = history[-1], len(history)
    print(f"epoch {epoch}: {split} accuracy {test_accuracy:.1f} %, loss {test_loss:.3f}; "
          f"training {train_accuracy:.1f} %, {loss:.3f}; "
          f"{seconds / epoch * (args.epochs - epoch):.0f} s left")
    head = "training loss", "training accuracy", f"{split} loss", f"{split} accuracy"
    rows = [("epoch", *head), *((k + 1, *history[k]) for k in range(epoch))]
    try:
        title = f"LeNet-5 on {name}, seed {seed}, {args.length}\n{textwrap.fill(args.settings, 99)}"
        draw_curve(history, title.rstrip(), curve_path(path), split)
        with open(curve_path(path, "csv"), "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    except OSError as error:  # it is open in Excel, say: no reason to end the training
        print(f"The curve can't be written: {error}")


def print_summary(args, name, paths, results):
    """The last lines: the accuracy, of all runs and their mean, and the next command.

    results: for each run, the last entry of its history, and its seconds.
    """
    accuracies = [test_accuracy for (_, _, _, test_accuracy), _ in results]
    print(f"{args.split} accuracy on {name}{args.looks}: "
          f"{', '.join(f'{each:.1f}' for each in accuracies)} %")
    if args.runs > 1:
        print(f"{args.runs} runs, seeds {args.seed} to {args.seed + args.runs - 1}, {args.length}"
              f"{args.settings and ' '}{args.settings}\nmean {statistics.mean(accuracies):.1f} %, "
              f"standard deviation {statistics.stdev(accuracies):.1f}, "
              f"lowest {min(accuracies):.1f}, highest {max(accuracies):.1f}; "
              f"{statistics.mean(seconds for _, seconds in results):.0f} s of training each")
    if not args.validation:
        command = ["python", "evaluate.py"]
        command += ["--checkpoint", paths[0]] if args.checkpoint or args.runs > 1 else []
        command += ["--dataset", args.dataset] if args.dataset != "cifar10" else []
        command += ["--mirror"] if args.mirror else []
        command += ["--data-dir", args.data_dir] if args.data_dir != "data" else []
        print("Next:", shlex.join(command))
    _, training, _, lowest = min((last for last, _ in results), key=lambda last: last[3])
    if lowest < 15:
        print(f"{lowest:.1f} % is {data.GUESSING} (The training accuracy is {training:.1f} %.)")


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov's momentum, but the step of each weight matrix is made orthogonal first.

    Its authors saw that the steps of transformers are far longer in a few directions than in all
    others, and suppose that the others matter, too. orthogonal() keeps the directions and makes
    their lengths more equal. Here it takes all weight matrices; its authors use it for the
    hidden layers only, and AdamW for the rest. Biases take Nesterov's steps, at the same rate.
    weight_decay is decoupled: each step also shrinks these weights by the fraction lr *
    weight_decay. Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural
    networks", 2024.
    """

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:  # a frozen layer, or one that forward() did not use
                    continue
                state = self.state[weight]               # as in step_by_hand() of lenet5.py:
                state["buffer"] = momentum * state.get("buffer", 0) + weight.grad
                step = weight.grad + momentum * state["buffer"]  # as if momentum had moved on
                if weight.ndim > 1:                      # a matrix, or kernels; but no bias
                    weight.mul_(1 - lr * group["weight_decay"])
                    step = orthogonal(step)
                weight.sub_(lr * step)


def orthogonal(step):
    """Roughly the orthogonal matrix with step's directions: singular values of about 0.7 to 1.2.

    A very small singular value stays below that, and 0 stays 0. If a matrix has more rows than
    columns, the result is multiplied by sqrt(rows / columns). A convolution's weight (6, 3, 5, 5)
    counts as a matrix with a row for each kernel, (6, 75). If step = U S V^T, each pass of the loop
    (a Newton-Schulz step) makes S into 3.4445 S - 4.775 S^3 + 2.0315 S^5, which brings all but the
    smallest values into that range, and leaves U and V alone. No singular value decomposition, just
    products of matrices.
    """
    x = step.flatten(1)
    rows, columns = x.shape
    x = x / (x.norm() + 1e-7)  # then no singular value is above 1
    if rows > columns:
        x = x.T                # fewer rows, smaller products below
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    if rows > columns:
        x = x.T
    return x.reshape(step.shape) * max(1, rows / columns) ** 0.5


def linear_factor(step, steps, warmup=0.0):
    """What --schedule linear multiplies the rate by: 0 < factor <= 1, at step 0 to steps - 1.

    It rises to 1 over the first steps (warmup is their fraction of the run), then falls in a
    straight line that reaches 0 one step after the last. Long steps first, to get far; short ones
    last, to settle.
    """
    rising = (step + 1) / max(1, warmup * steps)  # without warm-up, 1 from the first step on
    falling = (steps - step) / ((1 - warmup) * steps)
    return min(1, rising, falling)


@contextlib.contextmanager
def onednn(enabled):
    """In its block, PyTorch computes convolutions on a processor with the library oneDNN, or not.

    With mini-batches of 4 it is faster to do without (tests/benchmark.py). run() switches it on
    from 16 on, which is a guess.
    """
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = enabled
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


# ==== Plumbing ====================================================================================


def checkpoint_path(args, seed):
    """The file for the network of this seed, after a look whether it and its curve can be written.

    Stripes, validation and each seed of --runs have a name of their own.
    """
    path = data.checkpoint_name(args)
    path = f"validation_{path}" if args.validation and not args.checkpoint else path
    stem, ending = os.path.splitext(path if path.endswith((".pth", ".pt")) else f"{path}.pth")
    path = f"{stem}_seed{seed}{ending}" if args.runs > 1 else f"{stem}{ending}"
    for each in (path, f"{path}.part", curve_path(path), curve_path(path, "csv")):
        data.check_writable(each)
    return path


def curve_path(path, ending="png"):
    """cifar_net_curve.png, or .csv, for cifar_net.pth: the curve stands beside the checkpoint."""
    return f"{os.path.splitext(path)[0]}_curve.{ending}"


def number(convert, low, high):
    """For argparse: reads an int or a float, from low on and below high."""
    def parse(text):
        value = convert(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"must be from {low:g} to below {high:,}, not {text}")
        return value
    parse.__name__ = convert.__name__  # argparse shows it: "invalid int value: 'four'"
    return parse


def main(argv=()):
    parser = data.command_line("Train LeNet-5 as the tutorial does.", network=True)
    add = parser.add_argument
    add("--epochs", type=number(int, 1, 100_000), default=8, help="passes over the training set")
    add("--batch-size", type=number(int, 1, 100_000), default=4, help="images in a mini-batch")
    add("--optimizer", choices=("sgd", "muon", "adam", "rmsprop"), default="sgd", help="method")
    add("--lr", type=number(float, 1e-9, 100), default=0.001, help="learning rate")
    add("--momentum", type=number(float, 0, 1), help="for sgd and muon; 0.9 if it is not given")
    add("--nesterov", action="store_true", help="look one momentum step ahead (muon does anyway)")
    add("--weight-decay", type=number(float, 0, 10), default=0.0, help="pull of weights towards 0")
    add("--schedule", choices=("constant", "linear"), default="constant", help="of the rate")
    add("--warmup", type=number(float, 0, 1), default=0.0, help="share of steps in which lr rises")
    add("--augment", action="store_true", help="flip and shift images (not mnist, not stripes)")
    add("--validation", type=number(int, 0, 100_000), default=0, metavar="N",
        help="keep N training images out of the training, and test on them")
    add("--seed", type=number(int, 0, 2**32), default=0, help="starts all random numbers")
    add("--runs", type=number(int, 1, 1000), default=1, help="train with SEED, SEED + 1, ...")
    args = parser.parse_args(argv)
    if args.warmup and args.schedule == "constant":
        parser.error("argument --warmup: has no effect without --schedule linear")
    if args.momentum is not None and args.optimizer in ("adam", "rmsprop"):
        parser.error(f"argument --momentum: has no effect with --optimizer {args.optimizer}")
    if args.nesterov and (args.momentum == 0 or args.optimizer != "sgd"):
        parser.error("argument --nesterov: needs a --momentum above 0, and --optimizer sgd")
    # What gave this result? Each flag that changes it, and is not at its default, as typed.
    # (Epochs and batch size stand in words beside it.)
    elsewhere = ("dataset", "data_dir", "checkpoint", "seed", "runs", "mirror", "epochs",
                 "batch_size")
    args.settings = " ".join(f"--{flag.replace('_', '-')}" + ("" if value is True else f" {value}")
                             for flag, value in vars(args).items()
                             if value != parser.get_default(flag) and flag not in elsewhere)
    args.length = (f"{args.epochs} epoch{'' if args.epochs == 1 else 's'}, "
                   f"mini-batches of {args.batch_size}")
    # What stands beside each result: which images it is of, and whether in the mirror too.
    args.split = "validation" if args.validation else "test"
    args.looks = data.WITH_MIRROR if args.mirror else ""
    if args.momentum is None:
        args.momentum = 0.9
    run_seeds(args)


if __name__ == "__main__":
    data.script(main, stopped="The checkpoint keeps the last finished epoch, if any.")
