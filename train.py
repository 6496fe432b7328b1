"""The training: LeNet-5 on CIFAR-10 (chapters 3 and 4 of the tutorial: loss, optimiser, training).

    python train.py

trains as the tutorial does (mini-batches of 4; its lost pictures filled in from pytorch.org's: SGD with
learning rate 0.001 and momentum 0.9; eight epochs are ours), and prints

    CIFAR-10: 50,000 training images, 8 epochs, mini-batches of 4, seed 0, on cpu
    [1,  2000] loss: 2.213 | 2,272 images/s, 2 min 53 s left
    [1,  4000] loss: 1.871 | 2,310 images/s, 2 min 46 s left
    ...
    epoch 1: training loss 1.720, training accuracy 36.2 %, test accuracy on CIFAR-10 49.0 %
    ...
    epoch 8: training loss 0.937, training accuracy 66.8 %, test accuracy on CIFAR-10 61.8 %
    219 s of training, 1,827 images/s. The network is in cifar_net.pth, its curve in cifar_net_curve.png.
    Next: python evaluate.py
"""
import argparse
import contextlib
import math
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import nn
from torch.utils.data import DataLoader

import data
from evaluate import PATHS, accuracy, load_checkpoint, pick_device, predict, warn_of_old_pytorch
from lenet5 import LeNet5, print_trace, trace


def run(args):
    """The tutorial's chapters 3 (loss and optimiser) and 4 (training), top to bottom; once for each seed."""
    device = pick_device(args.device)
    warn_of_old_pytorch(args.teacher)
    teachers = [load_checkpoint(path, device) for path in args.teacher]
    dataset, root = data.find(args.dataset, args.data_dir)
    seeds = range(args.seed, args.seed + args.runs)
    paths = [checkpoint_path(args, dataset, seed) for seed in seeds]
    data.check_writable(*paths, *map(curve_path, paths), advice="Name another place with --checkpoint")
    trainset = data.load(dataset, root, train=True)
    if args.augment and dataset == "stripes":
        print("Note: --augment mirrors images, and stripes of 18 degrees mirrored are stripes of 162, another class.")
    if args.validation:
        trainset, testset = data.validation_split(trainset, args.validation)  # the test set is not even read
    else:
        testset = data.load(dataset, root, train=False)
    trainloader = DataLoader(trainset, batch_size=args.batch_size, shuffle=True)
    testloader = DataLoader(testset, batch_size=250, shuffle=False)

    images, labels = trainset[:1]
    print_trace(trace(LeNet5(), images))
    results = [fit(args, seed, path, trainloader, testloader, teachers, device) for seed, path in zip(seeds, paths)]
    print_summary(args, dataset, trainset.name, seeds, paths, results)


def fit(args, seed, path, trainloader, testloader, teachers, device):
    """Train one network and save it in path. Returns (test accuracy in percent, seconds of training)."""
    # Weights start at random, and images come in random order. The seed fixes both: the same seed gives the
    # same network, bit for bit (on one machine, with one version of PyTorch and one number of threads).
    torch.manual_seed(seed)
    net = LeNet5().to(device)

    # The criterion (loss function) says in one number how wrong the outputs are. Cross-entropy is the usual one for
    # more than two classes: softmax turns ten logits into ten probabilities, and the loss is -log of the one that
    # the true class got, the mean over the mini-batch. 0 for being certain and right; log(10) = 2.303 for ten equal
    # probabilities, about where training starts. Softmax is inside it, so the network must not end with one of its own.
    criterion = nn.CrossEntropyLoss()

    # Stochastic gradient descent (SGD) goes down the slope of the loss; stochastic, since each mini-batch shows
    # only a sample of that slope. The learning rate is how far a step goes: too small takes very long, too large
    # jumps across the valley. Momentum keeps 0.9 of the last step, so that steps that agree add up, to ten times one
    # step, and steps that contradict each other cancel. Weight decay (L2 regularisation), off here, also pulls each
    # weight towards zero in each step.
    if args.optimizer == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=args.momentum, nesterov=args.nesterov,
                                    weight_decay=args.weight_decay)
    else:
        optimizer = Muon(net.parameters(), lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay)
    scheduler = None
    if args.schedule == "linear":
        steps = args.epochs * len(trainloader)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: linear_factor(step, steps, args.warmup))

    name, n = trainloader.dataset.name, len(trainloader.dataset)
    print(f"\n{name}: {n:,} training images, {args.epochs} epoch{'s' * (args.epochs > 1)}, "
          f"mini-batches of {args.batch_size}, seed {seed}, on {device}")
    history, saved, seconds = [], 0, 0.0
    try:
        for epoch in range(args.epochs):
            start = time.perf_counter()
            with onednn(args.batch_size >= 16):
                loss, train_accuracy = train(net, trainloader, criterion, optimizer, epoch, args.epochs, device,
                                             every=max(1, 8000 // args.batch_size),  # 2,000 mini-batches of 4
                                             scheduler=scheduler, augment=args.augment, teachers=teachers)
            seconds += time.perf_counter() - start
            outputs, labels = predict(net, testloader, device)
            test_accuracy = accuracy(outputs, labels)
            history.append((loss, train_accuracy, test_accuracy))
            try:
                save(net, path)
                saved = epoch + 1
            except OSError as error:
                print(f"{path} could not be written: {error.strerror}. The next epoch will try again.")
            print(f"epoch {epoch + 1}: training loss {loss:.3f}, training accuracy {train_accuracy:.1f} %, "
                  f"{'validation' if args.validation else 'test'} accuracy on {name} {test_accuracy:.1f} %", flush=True)
    except (KeyboardInterrupt, FloatingPointError) as stop:
        why = "Stopped by Ctrl-C" if isinstance(stop, KeyboardInterrupt) else str(stop).rstrip(".")
        sys.exit(f"\n{why}. " + (f"{path} keeps epoch {saved}." if saved else
                                 f"No epoch was saved; {path} was not written."))
    finally:
        curve = draw_curve(history, f"LeNet-5 on {name}", curve_path(path), args.validation) if history else ""
    if saved < args.epochs:
        raise OSError(f"{path} could not be written" + (f"; it keeps epoch {saved}." if saved else "."))
    print(f"{seconds:.0f} s of training, {args.epochs * n / seconds:,.0f} images/s. "
          f"The network is in {path}, its curve {curve}.")
    return test_accuracy, seconds


def train(net, trainloader, criterion, optimizer, epoch=0, epochs=1, device="cpu", every=2000,
          scheduler=None, augment=False, teachers=()):
    """One epoch: learn from every training image once. Returns its mean loss and its accuracy (percent).

    epoch (counted from 0) of epochs says in the log where in the run this is; every is the number of
    mini-batches between two lines of the log; teachers are networks to learn from, too.
    Raises FloatingPointError when the loss or the parameters are no longer finite.
    """
    net.train()
    n = len(trainloader.dataset)
    start = time.perf_counter()
    total = correct = 0
    total_loss = 0.0    # of the epoch, summed over images
    running_loss = 0.0  # since the last line of the log, summed over mini-batches
    for i, (inputs, labels) in enumerate(trainloader):  # i counts the mini-batches, from 0
        inputs, labels = inputs.to(device), labels.to(device)
        if augment:
            inputs = data.augment(inputs)

        # backward() adds to the gradients that are already there. Without this line each step would follow
        # the sum of all gradients so far, most of them taken at weights that have changed since.
        optimizer.zero_grad()

        outputs = net(inputs)              # forward: (N, 3, 32, 32) -> (N, 10)
        loss = criterion(outputs, labels)  # one number: how far the outputs are from the labels
        if teachers:
            loss = distillation(loss, outputs, inputs, teachers)
        loss.backward()                    # for each of 62,006 parameters: how the loss grows with it
        optimizer.step()                   # each parameter takes a small step the other way: step_by_hand(), below
        if scheduler:
            scheduler.step()               # the learning rate of the next step

        value = loss.item()  # the plain number: summing up tensors would chain all steps into one long computation
        running_loss += value
        total_loss += value * len(labels)
        _, predicted = torch.max(outputs, 1)
        correct += (predicted == labels).sum().item()
        total += len(labels)
        if not math.isfinite(value):
            break
        if (i + 1) % every == 0:
            speed = total / (time.perf_counter() - start)
            seconds = round((n * (epochs - epoch) - total) / speed)
            print(f"[{epoch + 1}, {i + 1:5d}] loss: {running_loss / every:.3f} | {speed:,.0f} images/s, "
                  f"{seconds // 60} min {seconds % 60:02d} s left", flush=True)
            running_loss = 0.0
    # The last loss was computed before the last step, so look at the parameters too.
    if not math.isfinite(total_loss + sum(parameter.sum().item() for parameter in net.parameters())):
        raise FloatingPointError(f"The loss is no longer a finite number (epoch {epoch + 1}, mini-batch {i + 1}): the "
                                 f"steps are too long. Try a tenth of --lr {optimizer.defaults['lr']:g}.")
    return total_loss / total, 100 * correct / total


@contextlib.contextmanager
def onednn(enabled):
    """with onednn(False): PyTorch does without oneDNN, its library for convolutions on a processor.

    oneDNN prepares each call with care, which takes longer than it saves on four images: without it, mini-batches
    of 4 were 28 % faster (`python tests/benchmark.py`, two processors, AMD EPYC with AVX2; median of five turns).
    """
    torch.backends.mkldnn.enabled, before = enabled, torch.backends.mkldnn.enabled
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


# ---- The optimisers, by hand -----------------------------------------------------------------


def step_by_hand(weights, gradients, buffers, lr, momentum):
    """What optimizer.step() does at the tutorial's settings, on nested lists, in place; buffers start as zeros.

    buffer = momentum * buffer + gradient, then weight = weight - lr * buffer. (PyTorch's form: the rate
    multiplies the whole buffer, so a change of the rate acts on past gradients too.)
    """
    for i in range(len(weights)):
        if isinstance(weights[i], list):
            step_by_hand(weights[i], gradients[i], buffers[i], lr, momentum)
        else:
            buffers[i] = momentum * buffers[i] + gradients[i]
            weights[i] = weights[i] - lr * buffers[i]


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov's momentum, but the step of each weight matrix is made orthogonal first.

    The idea, as its authors give it: a few directions of a gradient matrix are usually far larger than all others, so
    that plain steps learn little else. orthogonal() keeps the directions and makes their lengths more equal.
    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    weight_decay is decoupled: each step also shrinks these weights by the fraction lr * weight_decay.
    """

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                buffer = self.state[weight].setdefault("buffer", torch.zeros_like(weight))
                buffer.mul_(momentum).add_(weight.grad)   # as in step_by_hand()
                step = weight.grad + momentum * buffer    # Nesterov: as if momentum had moved on already
                if weight.ndim > 1:                       # a matrix, or a convolution's kernels; but no bias
                    weight.mul_(1 - lr * group["weight_decay"])
                    step = orthogonal(step)
                weight.sub_(lr * step)


def orthogonal(step):
    """Roughly the orthogonal matrix with step's directions: singular values go to 0.7 to 1.2, but 0 stays 0.

    (A very small one gets only part of the way. A matrix with more rows than columns is made longer after that.)
    A convolution's weight (6, 3, 5, 5) counts as a matrix with a row for each kernel, (6, 75). If step = U S V^T, each
    pass of the loop (a Newton-Schulz step) makes S into 3.4445 S - 4.775 S^3 + 2.0315 S^5, which pushes values in
    (0, 1] towards 1, and leaves U and V alone. No singular value decomposition, just products of matrices.
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
    """What --schedule linear multiplies the learning rate by, at step 0 to steps - 1; 0 < factor <= 1.

    It rises to 1 over the first steps (warmup is their fraction of the run), then falls in a straight line
    that reaches 0 one step after the last. Long steps first, to get far; short ones last, to settle.
    """
    rising = (step + 1) / max(1, warmup * steps)  # without warm-up, 1 from the first step on
    falling = (steps - step) / ((1 - warmup) * steps)
    return min(1, rising, falling)


# ---- Distillation: learning from trained networks ------------------------------------------------


SHARE = 0.7        # how much of the loss the teachers are
TEMPERATURE = 2.0  # how far their answers are softened


def distillation(loss, outputs, inputs, teachers):
    """The loss of --teacher: 0.3 of the loss on the labels, 0.7 of the distance to the teachers' answers.

    A label says "cat" and no more. A trained network says "cat, a bit like a dog, nothing like a truck", so each image
    teaches about all ten classes. Logits are divided by a temperature first, so that the small probabilities count
    (and the gradients, which that makes T * T times smaller, are multiplied by T * T).
    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    """
    with torch.no_grad():  # the teachers learn nothing
        answers = torch.stack([F.softmax(teacher(inputs) / TEMPERATURE, 1) for teacher in teachers]).mean(0)
    distance = F.kl_div(F.log_softmax(outputs / TEMPERATURE, 1), answers, reduction="batchmean")
    return (1 - SHARE) * loss + SHARE * TEMPERATURE**2 * distance


# ---- Keeping the result ------------------------------------------------------------------------


def checkpoint_path(args, dataset, seed):
    """Where the network is saved. Stripes, validation and each seed of --runs have a name of their own; for other
    runs that are to be kept apart, name one with --checkpoint."""
    path = args.checkpoint or ("validation_" if args.validation else "") + PATHS[dataset]
    if args.runs == 1:
        return path
    return f"{path.removesuffix('.pth')}_seed{seed}.pth"


def curve_path(path):
    """The curve is drawn beside the checkpoint: cifar_net.pth, cifar_net_curve.png."""
    return path.removesuffix(".pth") + "_curve.png"


def save(net, path):
    """Write the parameters to path: all of them, or none, so that a crash leaves the last good file as it was."""
    # state_dict() is a dictionary of the parameters, layer by layer:
    # {"conv1.weight": tensor (6, 3, 5, 5), "conv1.bias": tensor (6,), ...}. Such a file is called a checkpoint.
    with data.written_whole(path) as part:
        try:
            torch.save(net.state_dict(), part)
        except RuntimeError as error:  # what torch.save makes of a full disk
            raise OSError(0, f"{error}".splitlines()[0])


def draw_curve(history, title, path, validation=False):
    """Draw the accuracies and the training loss over the epochs. Returns "in PATH", or why it could not be drawn.

    history: (training loss, training accuracy, test or validation accuracy) for each epoch. A gap between the lines
    is normal. Where the training line climbs on while the other one stops, or falls, the network is overfitting:
    it learns the training images by heart, and what it learns no longer generalises to others.
    """
    sheet = Image.new("RGB", (2000, 840), "white")  # twice the size, and halved at the end: smooth lines
    draw = ImageDraw.Draw(sheet)
    draw.text((120, 20), title, "black", font_size=36)
    loss, training, test = zip(*history)
    columns = max(1, len(history) - 1)  # the first epoch stands at the left, the last at the right
    for left, name, top, lines in (
            (120, "accuracy, %", 100, (("training", "blue", training),
                                       ("validation" if validation else "test", "red", test))),
            (1120, "loss", max(2.5, *loss), (("training", "blue", loss),))):
        draw.text((left, 100), name, "black", font_size=32)
        draw.text((left + 400, 796), "epoch", "black", font_size=28, anchor="mt")
        for k in range(11):  # grey lines, from 0 at the bottom to top
            y = 740 - 58 * k
            draw.line((left, y, left + 800, y), "lightgray", width=2)
            if k % 2 == 0:
                draw.text((left - 16, y), f"{top * k / 10:.3g}", "black", font_size=28, anchor="rm")
        for epoch in range(0, len(history), math.ceil(len(history) / 10)):
            draw.text((left + 800 * epoch / columns, 756), str(epoch + 1), "black", font_size=28, anchor="mt")
        for k, (label, color, line) in enumerate(lines):
            points = [(left + 800 * epoch / columns, 740 - 580 * value / top) for epoch, value in enumerate(line)]
            draw.line(points, color, width=4, joint="curve")
            for x, y in points if len(history) <= 30 else ():
                draw.ellipse((x - 7, y - 7, x + 7, y + 7), color)
            draw.text((left + 480 + 170 * k, 100), label, color, font_size=32)
    try:
        data.save_drawing(sheet.resize((1000, 420), Image.Resampling.LANCZOS), path)
        return f"in {path}"
    except OSError as error:
        return f"could not be written ({error.strerror})"


# ---- The command line --------------------------------------------------------------------------


def print_summary(args, dataset, name, seeds, paths, results):
    """The last lines: the mean of several runs, and a command to go on with."""
    if args.runs > 1:
        accuracies, seconds = zip(*results)
        print(f"\n{args.runs} runs, seeds {seeds[0]} to {seeds[-1]}: {'validation' if args.validation else 'test'} "
              f"accuracy on {name} mean {statistics.mean(accuracies):.1f} %, standard deviation "
              f"{statistics.stdev(accuracies):.1f}, lowest {min(accuracies):.1f}, highest {max(accuracies):.1f}; "
              f"{statistics.mean(seconds):.0f} s of training each")
    if args.validation:
        print("Next: compare settings by this accuracy, then train with the best one, without --validation.")
    else:
        command = ["python", "evaluate.py"]
        command += ["--checkpoint", paths[0]] if args.checkpoint or args.runs > 1 else []
        command += ["--dataset", "stripes"] if dataset == "stripes" else []
        command += ["--data-dir", args.data_dir] if args.data_dir != "data" else []
        print("Next:", subprocess.list2cmdline(command))  # quotes as both cmd.exe and a POSIX shell understand


def number(kind, low, high, above=False):
    """For argparse: reads an int or a float, and refuses what is not in [low, high), or with above (low, high)."""
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan  # compares false to everything, so it is refused below
        if not (low < value < high if above else low <= value < high):
            raise argparse.ArgumentTypeError(f"must be {'a whole number' if kind is int else 'a number'} "
                                             f"{'above' if above else 'from'} {low} and below {high:,}, not {text}")
        return value
    return parse


def main(argv=()):
    parser = argparse.ArgumentParser(prog="train.py", description="Train LeNet-5; the defaults are the tutorial's.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=number(int, 1, 100_000), default=8, help="passes over the training set")
    parser.add_argument("--batch-size", type=number(int, 1, 100_000), default=4, help="images in a mini-batch")
    parser.add_argument("--optimizer", choices=("sgd", "muon"), default="sgd", help="what takes the steps")
    parser.add_argument("--lr", type=number(float, 0, 100, above=True), default=0.001, help="learning rate")
    parser.add_argument("--momentum", type=number(float, 0, 1), default=0.9, help="how much of the last step to keep")
    parser.add_argument("--nesterov", action="store_true", help="look one momentum step ahead (muon does anyway)")
    parser.add_argument("--weight-decay", type=number(float, 0, 10), default=0.0,
                        help="L2 regularisation: pull of the weights towards zero")
    parser.add_argument("--schedule", choices=("constant", "linear"), default="constant",
                        help="linear: the learning rate falls to zero over the run")
    parser.add_argument("--warmup", type=number(float, 0, 1), default=0.0,
                        help="fraction of the run over which a linear schedule first rises")
    parser.add_argument("--augment", action="store_true", help="flip and shift the training images at random")
    parser.add_argument("--teacher", nargs="+", default=[], metavar="FILE",
                        help="checkpoints of trained networks to learn from, beside the labels (distillation)")
    parser.add_argument("--validation", type=number(int, 0, 100_000), default=0, metavar="N",
                        help="set N training images aside, and measure on them instead of on the test set")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=0, help="starts all random numbers")
    parser.add_argument("--runs", type=number(int, 1, 1000), default=1,
                        help="train with the seeds SEED, SEED + 1, ..., and print mean and standard deviation")
    parser.add_argument("--checkpoint", help="file to save the network in; "
                        "if not given, cifar_net.pth or stripes_net.pth, after --validation with validation_ before it")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="where to compute")
    data.add_arguments(parser)
    args = parser.parse_args(argv)
    if args.warmup and args.schedule == "constant":
        parser.error("argument --warmup: has no effect without --schedule linear")
    if args.nesterov and not args.momentum and args.optimizer == "sgd":
        parser.error("argument --nesterov: needs a --momentum above 0")
    run(args)


if __name__ == "__main__":
    data.script(main)
