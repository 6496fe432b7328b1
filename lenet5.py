"""LeNet-5 for CIFAR-10: the network (chapter 3 of the tutorial, "Build Model").

    python lenet5.py

sends one picture through the network and prints what each layer makes of it, then the outputs
of the same network written as plain Python loops beside PyTorch's:

    layer    size                 output shape     parameters  multiply-adds
    input                         (1, 3, 32, 32)            0              0
    conv1    (32 - 5) + 1 = 28    (1, 6, 28, 28)          456        352,800
    relu     max(0, x)            (1, 6, 28, 28)            0              0
    pool     28 / 2 = 14          (1, 6, 14, 14)            0              0
    conv2    (14 - 5) + 1 = 10    (1, 16, 10, 10)       2,416        240,000
    relu     max(0, x)            (1, 16, 10, 10)           0              0
    pool     10 / 2 = 5           (1, 16, 5, 5)             0              0
    flatten  16 * 5 * 5 = 400     (1, 400)                  0              0
    fc1      400 -> 120           (1, 120)             48,120         48,000
    relu     max(0, x)            (1, 120)                  0              0
    fc2      120 -> 84            (1, 84)              10,164         10,080
    relu     max(0, x)            (1, 84)                   0              0
    fc3      84 -> 10             (1, 10)                 850            840
    total                                              62,006        651,720

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
Document Recognition", Proceedings of the IEEE 86(11), 1998. The tutorial's network, and so this
one, reads colour where the paper's reads grey digits, and is simpler: ReLU in place of a scaled
tanh, max-pooling in place of averages with weights, every map of conv1 joined to every filter of
conv2, and a plain linear layer at the end.
"""
import math
import time
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn


class LeNet5(nn.Module):
    """The tutorial's network: two convolutions find patterns, three linear layers weigh them.

    net(images) calls forward(images). images: (N, 3, 32, 32), float, in [-1, 1]; outputs: (N, 10), one
    score for each class, any real number, of which the highest is the prediction.
    Raises ValueError for images of any other shape.
    """

    def __init__(self):
        super().__init__()  # nn.Module must be ready before it can take in layers
        # A layer set on self is registered: parameters() and state_dict() find it, under this name.
        # What it learns: output channels * (weights that each has + 1 bias).
        self.conv1 = nn.Conv2d(3, 6, 5)        # 6 filters of 3x5x5      6 * (75 + 1)   =    456
        self.pool = nn.MaxPool2d(2, 2)         # the largest of 2x2, moved by 2: nothing to learn
        self.conv2 = nn.Conv2d(6, 16, 5)       # 16 filters of 6x5x5     16 * (150 + 1) =  2,416
        self.fc1 = nn.Linear(16 * 5 * 5, 120)  # all inputs to each      120 * (400 + 1) = 48,120
        self.fc2 = nn.Linear(120, 84)          #                         84 * (120 + 1) = 10,164
        self.fc3 = nn.Linear(84, 10)           # ten classes, ten scores 10 * (84 + 1)  =    850

    def forward(self, x):
        # The tutorial flattens with x.view(-1, 16 * 5 * 5), and -1 means "however many rows it takes":
        # four pictures of 52x52 would leave as sixteen rows, sixteen answers, and no error.
        # So we look at the shape first, and below we flatten each picture by itself.
        if x.shape[1:] != (3, 32, 32):
            raise ValueError(f"LeNet5 expects images of shape (N, 3, 32, 32), got {tuple(x.shape)}")
        # ReLU, max(0, x), bends the line: without it, fc1, fc2 and fc3 in a row could do no more than one of them.
        x = self.pool(F.relu(self.conv1(x)))  # (N, 3, 32, 32) -> (N, 6, 28, 28)  -> (N, 6, 14, 14)
        x = self.pool(F.relu(self.conv2(x)))  # (N, 6, 14, 14) -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        x = torch.flatten(x, 1)               # (N, 16, 5, 5)  -> (N, 400)
        x = F.relu(self.fc1(x))               # (N, 400) -> (N, 120)
        x = F.relu(self.fc2(x))               # (N, 120) -> (N, 84)
        return self.fc3(x)                    # (N, 84)  -> (N, 10), and no ReLU: scores may be negative


# ---- The shape trace: stop after every layer and look ----------------------------------------

Row = namedtuple("Row", "name size shape parameters multiply_adds output")


def trace(net, images):
    """Run forward() one step at a time and return a list of Rows, one for each step.

    images: (N, 3, 32, 32). Row.output is the tensor that the step returned and Row.shape its
    shape; Row.size is the arithmetic behind it; Row.multiply_adds counts one picture's.
    Raises RuntimeError if the last output is not what net(images) returns.
    """
    steps = [("conv1", net.conv1), ("relu", F.relu), ("pool", net.pool),
             ("conv2", net.conv2), ("relu", F.relu), ("pool", net.pool),
             ("flatten", nn.Flatten()),
             ("fc1", net.fc1), ("relu", F.relu), ("fc2", net.fc2), ("relu", F.relu), ("fc3", net.fc3)]
    rows = [Row("input", "", tuple(images.shape), 0, 0, images)]
    x = images
    for name, step in steps:
        y = step(x)
        parameters = multiply_adds = 0
        if isinstance(step, nn.Conv2d):
            padding = f" + {2 * step.padding[0]}" if step.padding[0] else ""  # none here, but try some
            stride = f" // {step.stride[0]}" if step.stride[0] > 1 else ""
            size = f"({x.shape[2]}{padding} - {step.kernel_size[0]}){stride} + 1 = {y.shape[2]}"
        elif isinstance(step, (nn.MaxPool2d, nn.AvgPool2d)):
            over = "//" if x.shape[2] % step.kernel_size else "/"  # an odd row at the end is dropped
            size = f"{x.shape[2]} {over} {step.kernel_size} = {y.shape[2]}"
        elif isinstance(step, nn.Flatten):
            size = f"{x.shape[1]} * {x.shape[2]} * {x.shape[3]} = {y.shape[1]}"
        elif isinstance(step, nn.Linear):
            size = f"{x.shape[1]} -> {y.shape[1]}"
        else:
            size = "max(0, x)"
        if hasattr(step, "weight"):
            parameters = step.weight.numel() + step.bias.numel()
            # Each weight is used once for each position of its output map: 28 * 28 times in conv1,
            # once in a linear layer. Few weights, much work; then many weights, little work.
            positions = y[0, 0].numel()
            multiply_adds = step.weight.numel() * positions
        rows.append(Row(name, size, tuple(y.shape), parameters, multiply_adds, y))
        x = y
    if not torch.equal(x, net(images)):
        raise RuntimeError("trace() and forward() disagree: if you change one, change the other too")
    return rows


def print_trace(rows):
    """Print the Rows of trace() as a table, with the totals under it."""
    line = "{:<8} {:<20} {:<16} {:>10} {:>14}"
    print(line.format("layer", "size", "output shape", "parameters", "multiply-adds"))
    for row in rows:
        print(line.format(row.name, row.size, str(row.shape), f"{row.parameters:,}", f"{row.multiply_adds:,}"))
    print(line.format("total", "", "", f"{sum(row.parameters for row in rows):,}",
                      f"{sum(row.multiply_adds for row in rows):,}"))


# ---- By hand: the same network as nothing but loops ------------------------------------------
#
# Plain Python numbers in nested lists, one picture at a time. x is what goes into a layer, y what comes out,
# and dx, dy are the gradients: how fast the loss grows with each number in x or y.
# Forward makes y out of x; backward makes dx out of dy, by the chain rule, so it runs from the last layer
# to the first. A weight's gradient is *added* to what stands in dweight, as PyTorch adds it to .grad.


def zeros(*shape):
    """Nested lists of 0.0: zeros(2, 3) is [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]."""
    if not shape:
        return 0.0
    return [zeros(*shape[1:]) for _ in range(shape[0])]


def zeros_like(x):
    """Nested lists of 0.0 in the shape of x."""
    return [zeros_like(part) for part in x] if isinstance(x, list) else 0.0


def conv_by_hand(x, weight, bias):
    """y[o][i][j] = bias[o] + sum over c, u, v of weight[o][c][u][v] * x[c][i + u][j + v]

    x: (channels, H, W), weight: (outputs, channels, K, K), bias: (outputs,) -> y: (outputs, H - K + 1, W - K + 1).
    """
    outputs, channels, K = len(weight), len(x), len(weight[0][0])
    rows, columns = len(x[0]) - K + 1, len(x[0][0]) - K + 1
    y = zeros(outputs, rows, columns)
    for o in range(outputs):                # each filter makes a map of its own,
        for i in range(rows):               # at every place
            for j in range(columns):        # where it fits into the picture:
                total = bias[o]
                for c in range(channels):   # it lies on all channels at once
                    for u in range(K):
                        for v in range(K):
                            total += weight[o][c][u][v] * x[c][i + u][j + v]
                y[o][i][j] = total
    return y


def conv_backward(x, weight, dy, dweight, dbias):
    """The same six loops: where weight * x went into y, dweight takes x * dy, and dx takes weight * dy."""
    outputs, channels, K = len(weight), len(x), len(weight[0][0])
    dx = zeros_like(x)
    for o in range(outputs):
        for i in range(len(dy[o])):
            for j in range(len(dy[o][i])):
                dbias[o] += dy[o][i][j]
                for c in range(channels):
                    for u in range(K):
                        for v in range(K):
                            dweight[o][c][u][v] += x[c][i + u][j + v] * dy[o][i][j]
                            dx[c][i + u][j + v] += weight[o][c][u][v] * dy[o][i][j]
    return dx


def relu_by_hand(x):
    """y = max(0, x), for a number, or for all numbers in a list, however deep."""
    if isinstance(x, list):
        return [relu_by_hand(part) for part in x]
    return x if x > 0 else 0.0


def relu_backward(x, dy):
    """dx = dy where x > 0, else 0: what was cut off had no say in the loss."""
    if isinstance(x, list):
        return [relu_backward(part, dpart) for part, dpart in zip(x, dy)]
    return dy if x > 0 else 0.0


def winner(x, c, i, j):
    """Row and column of the largest number in square (i, j) of channel c; of equal ones, the first."""
    row, column = 2 * i, 2 * j
    for u in range(2):
        for v in range(2):
            if x[c][2 * i + u][2 * j + v] > x[c][row][column]:
                row, column = 2 * i + u, 2 * j + v
    return row, column


def pool_by_hand(x):
    """y[c][i][j] = the largest of the 2x2 square at (2i, 2j). (C, H, W) -> (C, H // 2, W // 2)"""
    y = zeros(len(x), len(x[0]) // 2, len(x[0][0]) // 2)
    for c in range(len(y)):
        for i in range(len(y[c])):
            for j in range(len(y[c][i])):
                row, column = winner(x, c, i, j)
                y[c][i][j] = x[c][row][column]
    return y


def pool_backward(x, dy):
    """The winner of each square gets all of its gradient; the other three changed nothing, and get none."""
    dx = zeros_like(x)
    for c in range(len(dy)):
        for i in range(len(dy[c])):
            for j in range(len(dy[c][i])):
                row, column = winner(x, c, i, j)
                dx[c][row][column] = dy[c][i][j]
    return dx


def flatten_by_hand(x):
    """(C, H, W) -> (C * H * W,): channel by channel, row by row."""
    return [value for channel in x for row in channel for value in row]


def flatten_backward(x, dy):
    """The same numbers, back in the shape of x."""
    numbers = iter(dy)
    return [[[next(numbers) for _ in row] for row in channel] for channel in x]


def linear_by_hand(x, weight, bias):
    """y[o] = bias[o] + sum over i of weight[o][i] * x[i]"""
    y = zeros(len(weight))
    for o in range(len(weight)):
        y[o] = bias[o]
        for i in range(len(x)):
            y[o] += weight[o][i] * x[i]
    return y


def linear_backward(x, weight, dy, dweight, dbias):
    """dweight[o][i] += x[i] * dy[o], dbias[o] += dy[o], and dx[i] = sum over o of weight[o][i] * dy[o]"""
    dx = zeros_like(x)
    for o in range(len(weight)):
        dbias[o] += dy[o]
        for i in range(len(x)):
            dweight[o][i] += x[i] * dy[o]
            dx[i] += weight[o][i] * dy[o]
    return dx


def softmax_by_hand(outputs):
    """p[k] = exp(outputs[k]) / sum of all exp: ten scores -> ten probabilities."""
    highest = max(outputs)  # subtracting it from every score changes no p, and keeps exp() from overflowing
    powers = [math.exp(score - highest) for score in outputs]
    total = sum(powers)
    return [power / total for power in powers]


def forward_by_hand(w, image):
    """One picture, (3, 32, 32) in lists, through the network: returns what stood before and after each layer.

    w: {"conv1.weight": nested lists, ...}, the state_dict() of a LeNet5, each tensor.tolist().
    The ten outputs are the last of the twelve that are returned; backward needs the others.
    """
    a1 = conv_by_hand(image, w["conv1.weight"], w["conv1.bias"])    # 6 x 28 x 28
    r1 = relu_by_hand(a1)
    p1 = pool_by_hand(r1)                                           # 6 x 14 x 14
    a2 = conv_by_hand(p1, w["conv2.weight"], w["conv2.bias"])       # 16 x 10 x 10
    r2 = relu_by_hand(a2)
    p2 = pool_by_hand(r2)                                           # 16 x 5 x 5
    f = flatten_by_hand(p2)                                         # 400
    a3 = linear_by_hand(f, w["fc1.weight"], w["fc1.bias"])          # 120
    r3 = relu_by_hand(a3)
    a4 = linear_by_hand(r3, w["fc2.weight"], w["fc2.bias"])         # 84
    r4 = relu_by_hand(a4)
    outputs = linear_by_hand(r4, w["fc3.weight"], w["fc3.bias"])    # 10
    return a1, r1, p1, a2, r2, p2, f, a3, r3, a4, r4, outputs


def backward_by_hand(w, images, labels):
    """Returns (loss, gradients) of a batch: what criterion(net(images), labels) and loss.backward() compute."""
    g = {name: zeros_like(value) for name, value in w.items()}  # optimizer.zero_grad()
    loss = 0.0
    for image, label in zip(images, labels):
        a1, r1, p1, a2, r2, p2, f, a3, r3, a4, r4, outputs = forward_by_hand(w, image)
        p = softmax_by_hand(outputs)
        loss += -math.log(p[label]) / len(images)  # cross-entropy, the mean over the batch
        # Its gradient for the ten outputs is simple: each probability, less what it should have been (1 or 0).
        d = [(p[k] - (k == label)) / len(images) for k in range(len(p))]
        d = linear_backward(r4, w["fc3.weight"], d, g["fc3.weight"], g["fc3.bias"])
        d = linear_backward(r3, w["fc2.weight"], relu_backward(a4, d), g["fc2.weight"], g["fc2.bias"])
        d = linear_backward(f, w["fc1.weight"], relu_backward(a3, d), g["fc1.weight"], g["fc1.bias"])
        d = relu_backward(a2, pool_backward(r2, flatten_backward(p2, d)))
        d = conv_backward(p1, w["conv2.weight"], d, g["conv2.weight"], g["conv2.bias"])
        d = relu_backward(a1, pool_backward(r1, d))
        conv_backward(image, w["conv1.weight"], d, g["conv1.weight"], g["conv1.bias"])
    return loss, g


def main():
    torch.manual_seed(0)
    net = LeNet5()
    images = torch.rand(1, 3, 32, 32) * 2 - 1  # noise will do: the shapes are those of any picture
    with torch.no_grad():
        print_trace(trace(net, images))

    net, images = net.double(), images.double()  # 64 bits, as Python's own numbers have
    weights = {name: parameter.tolist() for name, parameter in net.state_dict().items()}
    with torch.no_grad():
        net(images)  # the first call makes preparations that later ones find made, so the second is timed
        start = time.perf_counter()
        by_torch = net(images)[0].tolist()
    middle = time.perf_counter()
    by_hand = forward_by_hand(weights, images[0].tolist())[-1]
    end = time.perf_counter()
    print("\nthe ten outputs for this picture")
    print("  PyTorch: ", " ".join(f"{output:8.5f}" for output in by_torch), f"  in {middle - start:.4f} s")
    print("  by hand: ", " ".join(f"{output:8.5f}" for output in by_hand), f"  in {end - middle:.4f} s")
    print(f"  largest difference: {max(abs(one - other) for one, other in zip(by_torch, by_hand)):.0e}")


if __name__ == "__main__":
    main()
