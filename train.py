"""The learning: LeNet-5 on CIFAR-10 (chapters 3 and 4 of the tutorial: loss, optimiser, training).

    python train.py

trains at the tutorial's settings (batches of 4, its rate and momentum), and prints

    CIFAR-10: 50,000 pictures, 8 epochs, batches of 4, on cpu
    [1,  2000] loss: 2.213 | 3,814 images/s, 1 min 43 s left
    [1,  4000] loss: 1.872 | 3,813 images/s, 1 min 41 s left
    ...
    epoch 1: training loss 1.720, training accuracy 36.3 %, test accuracy on CIFAR-10 48.7 %
    ...
    epoch 8: training loss 0.935, training accuracy 67.0 %, test accuracy on CIFAR-10 61.0 %
    104 s of training, 3,847 images/s. The network is in cifar_net.pth, its progress in curve.png.
    Next: python evaluate.py
"""
import argparse
import io
import math
import os
import shlex
import sys
import time

import torch
from PIL import Image, ImageDraw
from torch import nn

import data
from evaluate import PATHS, accuracy, pick_device, predict
from lenet5 import LeNet5, print_trace, trace


def train(net, trainloader, criterion, optimizer, epoch=0, epochs=1, device="cpu", every=2000,
          schedule="constant", warmup=0.0, augment=False):
    """One epoch: learn from every training picture once. Returns its mean loss and its accuracy (percent).

    epoch (counted from 0) of epochs says where in the run this is, for the log and the schedule;
    every is the number of mini-batches between two lines of the log.
    Raises FloatingPointError when the loss or the parameters are no longer finite.
    """
    net.train()
    pictures = len(trainloader.dataset)
    start = time.perf_counter()
    seen = correct = 0
    total_loss = 0.0    # of the epoch, summed over pictures
    running_loss = 0.0  # since the last line of the log, summed over mini-batches
    for i, (inputs, labels) in enumerate(trainloader):  # i counts the mini-batches, from 0
        if augment:
            inputs = data.augment(inputs)
        inputs, labels = inputs.to(device), labels.to(device)
        if schedule == "linear":
            step, steps = epoch * len(trainloader) + i, epochs * len(trainloader)
            # param_groups holds the rate that step() reads, defaults the one that --lr gave.
            optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * linear(step, steps, warmup)

        # backward() adds to the gradients that are already there. Without this line each step would follow
        # the sum of all gradients so far, most of them taken at weights that we have long left behind.
        optimizer.zero_grad()

        outputs = net(inputs)              # forward: (N, 3, 32, 32) -> (N, 10)
        loss = criterion(outputs, labels)  # one number: how far the outputs are from the labels
        loss.backward()                    # for each of 62,006 parameters: how the loss grows with it
        optimizer.step()                   # each parameter takes a small step the other way: step_by_hand(), below

        value = loss.item()  # the plain number: summing up tensors would chain all steps into one long computation
        running_loss += value
        total_loss += value * len(labels)
        correct += (outputs.argmax(1) == labels).sum().item()
        seen += len(labels)
        if not math.isfinite(value):
            break
        if (i + 1) % every == 0:
            speed = seen / (time.perf_counter() - start)
            seconds = round((pictures * (epochs - epoch) - seen) / speed)
            print(f"[{epoch + 1}, {i + 1:5d}] loss: {running_loss / every:.3f} | {speed:,.0f} images/s, "
                  f"{seconds // 60} min {seconds % 60:02d} s left", flush=True)
            running_loss = 0.0
    # The last loss was computed before the last step, so look at the parameters too.
    if not math.isfinite(total_loss + sum(parameter.sum().item() for parameter in net.parameters())):
        raise FloatingPointError(f"The loss is no longer a finite number (epoch {epoch + 1}, mini-batch {i + 1}): the "
                                 f"steps are too long. Try a tenth of --lr {optimizer.defaults['lr']:g}.")
    return total_loss / seen, 100 * correct / seen


def linear(step, steps, warmup=0.0):
    """What --schedule linear multiplies the learning rate by, at step 0 to steps - 1; 0 < factor <= 1.

    It rises to 1 over the first steps (warmup is their fraction of the run), then falls in a straight line
    that would reach 0 one step after the last. Long steps first, to get far; short ones last, to settle.
    """
    rising = (step + 1) / max(1, warmup * steps)  # without warm-up, 1 from the first step on
    falling = (steps - step) / ((1 - warmup) * steps)
    return min(1, rising, falling)


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


def save(net, path):
    """Write the parameters to path: all of them, or none, so that a crash leaves the last good file as it was."""
    part = path + ".part"
    try:
        # The tutorial's torch.save(net.state_dict(), PATH). state_dict() is a dictionary of the parameters, layer by
        # layer: {"conv1.weight": tensor (6, 3, 5, 5), "conv1.bias": tensor (6,), ...}. It goes into memory first,
        # because on a full disk write() raises a clear OSError, and torch.save() an unclear error.
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        with open(part, "wb") as file:
            file.write(buffer.getvalue())
        os.replace(part, path)  # in one step: the old file stays until the new one is complete
    finally:
        if os.path.exists(part):
            os.remove(part)


def check_writable(path):
    """Raise OSError, a sentence, if save() could not write to path: better now than after the training."""
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(0, "it is a folder")
        with open(path + ".part", "wb"):
            pass
        os.remove(path + ".part")
    except OSError as error:
        raise OSError(f"The checkpoint {path} can't be written: {error.strerror}. Name another with --checkpoint.")


def draw_curve(history, title, path, exam="test"):
    """Accuracy (training and exam) and training loss over the epochs, as a PNG.

    history: a (training loss, training accuracy, exam accuracy) for each epoch; exam names the last. Where the lines
    of the accuracies part, the network goes on learning the training pictures by heart: over-fitting.
    """
    sheet = Image.new("RGB", (1000, 420), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((60, 10), title, "black", font_size=18)
    loss, training, unseen = zip(*history)
    radius = 3 if len(history) <= 30 else 1  # of a dot for each epoch; many dots would hide the line
    for left, name, step, lines in (
            (60, "accuracy, %", 10, (("training", "blue", training), (exam, "red", unseen))),
            (560, "loss", 0.25, (("training", "blue", loss),))):
        values = [value for _, _, line in lines for value in line]
        while max(values) - min(values) > 10 * step:  # a loss that shot up needs a coarser axis
            step *= 2
        low, high = math.floor(min(values) / step), math.ceil(max(values) / step)  # the axis, in steps
        high = max(high, low + 1)

        def place(epoch, value):
            return (left + 400 * epoch / max(1, len(history) - 1),
                    370 - 290 * (value / step - low) / (high - low))

        draw.text((left, 50), name, "black", font_size=16)
        for k in range(low, high + 1):
            x, y = place(0, k * step)
            draw.line((x, y, x + 400, y), "lightgray")
            draw.text((x - 8, y), f"{k * step:g}", "black", font_size=14, anchor="rm")
        every = math.ceil(len(history) / 10)
        for epoch in range(every - 1, len(history), every):
            draw.text((place(epoch, 0)[0], 378), str(epoch + 1), "black", font_size=14, anchor="mt")
        draw.text((left + 200, 398), "epoch", "black", font_size=14, anchor="mt")
        for k, (label, color, line) in enumerate(lines):
            points = [place(epoch, value) for epoch, value in enumerate(line)]
            draw.line(points, color, width=2)
            for x, y in points:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), color)
            draw.text((left + 240 + 90 * k, 50), label, color, font_size=16)
    sheet.save(path)


def number(kind, low, high=math.inf, above=False):
    """For argparse: reads an int or a float, and refuses what is not in [low, high), or with above (low, high)."""
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan  # compares false to everything, so it is refused below
        inside = low < value < high if above else low <= value < high
        if not inside:
            whole = "a whole number" if kind is int else "a number"
            limit = f" and below {high:g}" if high < math.inf else ""
            raise argparse.ArgumentTypeError(f"must be {whole} {'above' if above else 'from'} {low}{limit}, not {text}")
        return value
    return parse


def run(args):
    """The tutorial's chapters 3 (loss, optimiser) and 4 (training), top to bottom."""
    # Weights start at random, and pictures come in random order. One seed fixes both: the same seed gives
    # the same network, bit for bit (on the same machine, with the same PyTorch and number of threads).
    torch.manual_seed(args.seed)
    torch.backends.cudnn.deterministic = True  # the same on an NVIDIA card

    device = pick_device(args.device)
    name, trainset, testset = data.load(args.dataset, args.data_dir)
    exam, path = "test", PATHS[name]
    if args.hold_out:
        exam, path = "held-out", "held_out_" + path                 # a trial never replaces the network itself,
        trainset, testset = data.hold_out(trainset, args.hold_out)  # and never sees the test set
    path = args.checkpoint or path
    check_writable(path)
    if args.augment and name == data.STRIPES:
        print("Note: --augment mirrors pictures, and stripes of 18 degrees mirrored are stripes of 162, another class.")
    trainloader = data.loader(trainset, args.batch_size, shuffle=True)
    testloader = data.loader(testset, batch_size=250, shuffle=False)

    net = LeNet5().to(device)
    if device == "cpu" and args.batch_size >= 16:
        # The same shapes, but with the channels of a pixel side by side in memory, as the convolutions for large
        # batches (oneDNN, below) read them best: a tenth faster. A network that flattens with view() can't take it.
        net.to(memory_format=torch.channels_last)
    with torch.no_grad():
        image, _ = trainset[[0]]  # a batch of one, (1, 3, 32, 32)
        print_trace(trace(net, image.to(device)))

    # The criterion says in one number how wrong the outputs are. Cross-entropy is the usual one for more than
    # two classes: softmax turns ten scores into ten probabilities, and the loss is -log of the one that the truth
    # was given, the mean over the batch. 0 for being certain and right; log(10) = 2.303 for ten equal guesses, where
    # training starts. Softmax is inside it, so the network must not end with one of its own.
    criterion = nn.CrossEntropyLoss()

    # SGD goes down the slope that a mini-batch shows. The learning rate is how far: too small takes for ever,
    # too large jumps across the valley. Momentum keeps 0.9 of the last step's direction, so that steps that
    # agree add up, to ten times one step, and steps that contradict each other cancel.
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=args.momentum, nesterov=args.nesterov,
                                weight_decay=args.weight_decay, fused=True)  # fused: one pass over all parameters

    print(f"\n{name}: {len(trainset):,} pictures, {args.epochs} epoch{'s' * (args.epochs > 1)}, "
          f"batches of {args.batch_size}, on {device}")
    history = []
    seconds = 0.0  # of training, without the exams
    try:
        for epoch in range(args.epochs):
            # oneDNN, the library behind PyTorch's convolutions on a processor, prepares each call with care, which
            # more than doubles the speed at batch 64, but takes longer than it saves on four pictures.
            torch.backends.mkldnn.enabled = args.batch_size >= 16
            start = time.perf_counter()
            loss, train_accuracy = train(
                net, trainloader, criterion, optimizer, epoch, args.epochs, device,
                every=max(1, 8000 // args.batch_size),  # of 4 pictures, 2,000 mini-batches, as in the tutorial
                schedule=args.schedule, warmup=args.warmup, augment=args.augment)
            seconds += time.perf_counter() - start
            torch.backends.mkldnn.enabled = True
            exam_accuracy = accuracy(*predict(net, testloader, device))
            save(net, path)
            history.append((loss, train_accuracy, exam_accuracy))
            print(f"epoch {epoch + 1}: training loss {loss:.3f}, training accuracy {train_accuracy:.1f} %, "
                  f"{exam} accuracy on {name} {exam_accuracy:.1f} %", flush=True)
    except (KeyboardInterrupt, FloatingPointError, OSError) as stop:
        why = "Stopped by Ctrl-C" if isinstance(stop, KeyboardInterrupt) else str(stop).rstrip(".")
        kept = f"{path} keeps epoch {len(history)}." if history else f"No epoch was finished; {path} was not written."
        sys.exit(f"\n{why}. {kept}")
    finally:
        torch.backends.mkldnn.enabled = True
        if history:
            draw_curve(history, f"LeNet-5 on {name}", "curve.png", exam)
    print(f"{seconds:.0f} s of training, {args.epochs * len(trainset) / seconds:,.0f} images/s. "
          f"The network is in {path}, its progress in curve.png.")
    if args.hold_out:
        print("Next: compare settings by this accuracy, then train with the best one, without --hold-out.")
    else:
        command = ["python", "evaluate.py"]
        command += ["--checkpoint", path] if args.checkpoint else []
        command += ["--dataset", "stripes"] if name == data.STRIPES else []
        command += ["--data-dir", args.data_dir] if args.data_dir != "data" else []
        print("Next:", shlex.join(command))


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train LeNet-5; the defaults are the tutorial's settings.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=number(int, 1), default=8, help="passes over the training set")
    parser.add_argument("--batch-size", type=number(int, 1), default=4, help="pictures a step")
    parser.add_argument("--lr", type=number(float, 0, above=True), default=0.001, help="learning rate")
    parser.add_argument("--momentum", type=number(float, 0, 1), default=0.9, help="how much of the last step to keep")
    parser.add_argument("--nesterov", action="store_true", help="look one momentum step ahead")
    parser.add_argument("--weight-decay", type=number(float, 0), default=0.0, help="pull of all weights towards zero")
    parser.add_argument("--schedule", choices=("constant", "linear"), default="constant",
                        help="linear: the rate falls to zero over the run")
    parser.add_argument("--warmup", type=number(float, 0, 1), default=0.0,
                        help="fraction of the run over which a linear schedule first rises")
    parser.add_argument("--augment", action="store_true", help="flip and shift the training pictures at random")
    parser.add_argument("--hold-out", type=number(int, 0), default=0, metavar="N",
                        help="set N training pictures aside, and examine on them instead of on the test set")
    parser.add_argument("--seed", type=number(int, 0, 2**63), default=0, help="starts all random numbers")
    parser.add_argument("--checkpoint", help="file to save the network in; None: cifar_net.pth or stripes_net.pth, "
                        "with held_out_ before it where there is --hold-out")
    data.add_arguments(parser)
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto",
                        help="where to compute; auto: cuda, or else mps, or else cpu")
    args = parser.parse_args(argv)
    if args.warmup and args.schedule == "constant":
        parser.error("argument --warmup: has no effect without --schedule linear")
    if args.nesterov and not args.momentum:
        parser.error("argument --nesterov: needs a --momentum above 0")
    try:
        run(args)
    except (OSError, ValueError) as error:
        sys.exit(f"train.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped by Ctrl-C.")


if __name__ == "__main__":
    main()
