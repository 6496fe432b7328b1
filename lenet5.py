"""The network: LeNet-5 for CIFAR-10 (chapter 3 of the tutorial, "Build Model").

    python lenet5.py

sends one image through the network and prints what each layer makes of it, then the outputs
of the same network written as plain Python loops beside PyTorch's:

    layer    size                 output shape     receptive field  parameters  multiply-adds
    input                         (1, 3, 32, 32)               1x1           0              0
    conv1    (32 - 5) + 1 = 28    (1, 6, 28, 28)               5x5         456        352,800
    relu     max(0, x)            (1, 6, 28, 28)               5x5           0              0
    pool     28 / 2 = 14          (1, 6, 14, 14)               6x6           0              0
    conv2    (14 - 5) + 1 = 10    (1, 16, 10, 10)            14x14       2,416        240,000
    relu     max(0, x)            (1, 16, 10, 10)            14x14           0              0
    pool     10 / 2 = 5           (1, 16, 5, 5)              16x16           0              0
    flatten  16 * 5 * 5 = 400     (1, 400)                                   0              0
    fc1      400 -> 120           (1, 120)                              48,120         48,000
    relu     max(0, x)            (1, 120)                                   0              0
    fc2      120 -> 84            (1, 84)                               10,164         10,080
    relu     max(0, x)            (1, 84)                                    0              0
    fc3      84 -> 10             (1, 10)                                  850            840
    total                                                               62,006        651,720

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
Document Recognition", Proceedings of the IEEE 86(11), 1998, section II.B. The tutorial's network,
and so this one, differs from the paper's: it reads colour where that one reads grey images; ReLU stands
in place of a scaled tanh, 1.7159 tanh(2x / 3); S2 and S4 are max pooling, where the paper adds four
values, multiplies by one weight a map, adds a bias, and applies a sigmoid; each filter of C3
(conv2) reads all six maps, where the paper joins it to 3, 4 or 6 of them; and the outputs are
logits for cross-entropy, where the paper measures distances to ten fixed codes (RBF units). The paper
calls fc1 a convolution, C5: a 5x5 kernel on a 5x5 map is the same as a fully connected layer.
"""
import math
import signal
import time
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


class LeNet5(nn.Module):
    """The tutorial's network: two convolutions find patterns, three fully connected layers combine them.

    net(images) calls forward(images). images: (N, 3, 32, 32), float, in [-1, 1]; outputs: (N, 10), the logits:
    one score for each class, any real number, of which the highest is the prediction.
    Raises ValueError for images of any other shape.
    """

    def __init__(self):
        super().__init__()  # nn.Module must be ready before it can take in layers
        # A layer set on self is registered: parameters() and state_dict() find it, under this name.
        # A convolution slides its kernels over the image, pixel by pixel (stride 1), and only where they fit in
        # whole (no padding). Each kernel fills one feature map: how well it matches, at each place.
        # What a layer learns: output channels * (weights that each has + 1 bias).
        self.conv1 = nn.Conv2d(3, 6, 5)        # 6 kernels of 3x5x5      6 * (75 + 1)   =    456
        self.pool = nn.MaxPool2d(2, 2)         # max pooling: the largest of 2x2, stride 2, nothing to learn
        self.conv2 = nn.Conv2d(6, 16, 5)       # 16 kernels of 6x5x5     16 * (150 + 1) =  2,416
        self.fc1 = nn.Linear(16 * 5 * 5, 120)  # fully connected: all inputs to each output, 120 * (400 + 1) = 48,120
        self.fc2 = nn.Linear(120, 84)          #                         84 * (120 + 1) = 10,164
        self.fc3 = nn.Linear(84, 10)           # ten classes, ten logits 10 * (84 + 1)  =    850

    def forward(self, x):
        # The tutorial flattens with x.view(-1, 16 * 5 * 5), and -1 means "however many rows it takes":
        # four images of 52x52 would leave as sixteen rows, sixteen answers, and no error.
        # So we look at the shape first, and below we flatten each image by itself.
        if x.shape[1:] != (3, 32, 32):
            raise ValueError(f"LeNet5 expects images of shape (N, 3, 32, 32), got {tuple(x.shape)}")
        # ReLU, max(0, x), is the activation function. It bends the line: without it, fc1, fc2 and fc3 in a row
        # could do no more than one of them.
        x = self.pool(F.relu(self.conv1(x)))  # (N, 3, 32, 32) -> (N, 6, 28, 28)  -> (N, 6, 14, 14)
        x = self.pool(F.relu(self.conv2(x)))  # (N, 6, 14, 14) -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        x = torch.flatten(x, 1)               # (N, 16, 5, 5)  -> (N, 400)
        x = F.relu(self.fc1(x))               # (N, 400) -> (N, 120)
        x = F.relu(self.fc2(x))               # (N, 120) -> (N, 84)
        return self.fc3(x)                    # (N, 84)  -> (N, 10), and no ReLU: logits may be negative


# ---- The shape trace: what forward() does, call by call ----------------------------------------

NAMES = {"max_pool2d": "pool", "avg_pool2d": "pool", "view": "flatten", "reshape": "flatten"}

Row = namedtuple("Row", "name size shape receptive_field parameters multiply_adds output")


class Recorder(TorchFunctionMode):
    """with Recorder() as recorder: each function of PyTorch that is called in the block is noted in recorder.calls."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        y = function(*args, **(kwargs or {}))
        if isinstance(y, torch.Tensor) and y.ndim > 1:
            self.calls.append((function.__name__.strip("_"), args, kwargs or {}, y))
        return y


def trace(net, images):
    """Run net(images) once, note what forward() calls, and return a list of Rows: the input, then one a call.

    images: (N, 3, 32, 32). net may be another network whose layers stand in a row, as your own LeNet5 after an edit.
    Row.output is the tensor that the call returned and Row.shape its shape; Row.size is the arithmetic behind it;
    Row.receptive_field says how many pixels of the input, across, one value of a feature map depends on (None
    behind the maps); Row.multiply_adds counts one image's. Dropout is off meanwhile, as in a test.
    """
    training = net.training
    net.eval()
    try:
        with torch.no_grad(), Recorder() as recorder:
            net(images)
    finally:
        net.train(training)

    layer = {id(parameter): name.rpartition(".")[0] for name, parameter in net.named_parameters()}
    rows = [Row("input", "", tuple(images.shape), 1, 0, 0, images)]
    field, jump = 1, 1  # the receptive field, and how far apart the fields of two neighbours are, in input pixels
    for function, args, kwargs, y in recorder.calls:
        size, kernel, stride = arithmetic(function, args, kwargs, y)
        if kernel and field:
            field += (kernel - 1) * jump  # from the first pixel under the kernel to the last
            jump *= stride
        elif y.ndim == 4 and y.shape[2:] != rows[-1].shape[2:] and function != "pad":
            field = None                  # resized by something that we do not know
        learned = [value for value in (*args, *kwargs.values()) if isinstance(value, nn.Parameter)]
        parameters = sum(parameter.numel() for parameter in learned)
        multiply_adds = 0
        if function in ("conv2d", "linear"):
            # Each weight is used once for each position of its output map: 28 * 28 times in conv1, once in a
            # linear layer. Few weights, much work; then many weights, little work.
            weight = learned[0] if learned else args[1]
            multiply_adds = weight.numel() * (y[0].numel() // weight.shape[0])
        name = (layer.get(id(learned[0])) if learned else NAMES.get(function)) or function
        rows.append(Row(name, size, tuple(y.shape), field if y.ndim == 4 else None, parameters, multiply_adds, y))
    return rows


def arithmetic(function, args, kwargs, y):
    """Returns (size, kernel, stride): how y got its size, as text, and the window that slid, or None, None."""
    def convolution(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        return weight.shape[2], stride, padding, dilation

    def pooling(input, kernel_size, stride=None, padding=0, *_, dilation=1, **__):
        return kernel_size, stride or kernel_size, padding, dilation

    x = args[0] if args else kwargs.get("input")
    if function in ("conv2d", "max_pool2d", "avg_pool2d"):
        window = (convolution if function == "conv2d" else pooling)(*args, **kwargs)
        kernel, stride, padding, dilation = (n[0] if isinstance(n, (tuple, list)) else n for n in window)  # of the rows
        kernel = dilation * (kernel - 1) + 1  # with gaps in it, a kernel reaches further
        padding = {"same": kernel - 1, "valid": 0}.get(padding) if isinstance(padding, str) else 2 * padding
        before, after = x.shape[2], y.shape[2]
        if function != "conv2d" and kernel == stride and not padding:
            over = "//" if before % kernel else "/"  # // drops an odd last row
            size = f"{before} {over} {kernel} = {before // kernel}"
        else:
            border, step = f" + {padding}" * (padding > 0), f" // {stride}" * (stride > 1)
            places = (before + padding - kernel) // stride + 1
            size = f"({before}{border} - {kernel}){step} + 1 = {places}"
        return (size if size.endswith(f" = {after}") else f"{before} -> {after}"), kernel, stride
    if function in ("flatten", "view", "reshape") and len(x) == len(y):
        return " * ".join(str(n) for n in x.shape[1:]) + f" = {y.shape[1]}", None, None
    if function == "linear":
        return f"{x.shape[-1]} -> {y.shape[-1]}", None, None
    return ("max(0, x)" if function == "relu" else ""), None, None


def print_trace(rows):
    """Print the Rows of trace() as a table, with the totals under it."""
    width, longest = (max(len(row[k]) for row in rows) for k in (0, 1))  # of the names, and of the sizes
    line = f"{{:<{max(width, 8)}}} {{:<{max(longest, 20)}}} {{:<16}} {{:>15}} {{:>11}} {{:>14}}"
    print(line.format("layer", "size", "output shape", "receptive field", "parameters", "multiply-adds"))
    for row in rows:
        field = f"{row.receptive_field}x{row.receptive_field}" if row.receptive_field else ""
        print(line.format(row.name, row.size, str(row.shape), field, f"{row.parameters:,}", f"{row.multiply_adds:,}"))
    print(line.format("total", "", "", "", f"{sum(row.parameters for row in rows):,}",
                      f"{sum(row.multiply_adds for row in rows):,}"))


# ---- By hand: the same network as nothing but loops ------------------------------------------
#
# Plain Python numbers in nested lists, one image at a time. x is what goes into a layer, y what comes out,
# and dx, dy are the gradients: how fast the loss grows with each number in x or y.
# Forward makes y out of x; backward makes dx out of dy, by the chain rule, so it runs from the last layer
# to the first: backpropagation. A weight's gradient is *added* to what stands in dweight, as PyTorch adds it to .grad.


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
    for o in range(outputs):                # each kernel fills a feature map of its own,
        for i in range(rows):               # at every place
            for j in range(columns):        # where it fits into the image:
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


def argmax(x, c, i, j):
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
                row, column = argmax(x, c, i, j)
                y[c][i][j] = x[c][row][column]
    return y


def pool_backward(x, dy):
    """The largest of each square gets all of its gradient; the other three changed nothing, and get none."""
    dx = zeros_like(x)
    for c in range(len(dy)):
        for i in range(len(dy[c])):
            for j in range(len(dy[c][i])):
                row, column = argmax(x, c, i, j)
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


def forward_by_hand(weights, image):
    """One image, (3, 32, 32) in lists, through the network: returns what stood before and after each layer.

    weights: {"conv1.weight": nested lists, ...}, the state_dict() of a LeNet5, each tensor.tolist().
    The ten outputs are the last of the twelve that are returned; backward needs the others.
    """
    a1 = conv_by_hand(image, weights["conv1.weight"], weights["conv1.bias"])      # 6 x 28 x 28
    r1 = relu_by_hand(a1)
    p1 = pool_by_hand(r1)                                                         # 6 x 14 x 14
    a2 = conv_by_hand(p1, weights["conv2.weight"], weights["conv2.bias"])         # 16 x 10 x 10
    r2 = relu_by_hand(a2)
    p2 = pool_by_hand(r2)                                                         # 16 x 5 x 5
    f = flatten_by_hand(p2)                                                       # 400
    a3 = linear_by_hand(f, weights["fc1.weight"], weights["fc1.bias"])            # 120
    r3 = relu_by_hand(a3)
    a4 = linear_by_hand(r3, weights["fc2.weight"], weights["fc2.bias"])           # 84
    r4 = relu_by_hand(a4)
    outputs = linear_by_hand(r4, weights["fc3.weight"], weights["fc3.bias"])      # 10
    return a1, r1, p1, a2, r2, p2, f, a3, r3, a4, r4, outputs


def backward_by_hand(weights, images, labels):
    """Returns (loss, gradients) of a batch: what criterion(net(images), labels) and loss.backward() compute."""
    gradients = {name: zeros_like(value) for name, value in weights.items()}  # optimizer.zero_grad()
    loss = 0.0
    for image, label in zip(images, labels):
        a1, r1, p1, a2, r2, p2, f, a3, r3, a4, r4, outputs = forward_by_hand(weights, image)
        p = softmax_by_hand(outputs)
        loss += -math.log(p[label]) / len(images)  # cross-entropy, the mean over the batch
        # Its gradient for the ten outputs is simple: each probability, less what it should have been (1 or 0).
        dx = [(p[k] - (k == label)) / len(images) for k in range(len(p))]
        dx = linear_backward(r4, weights["fc3.weight"], dx, gradients["fc3.weight"], gradients["fc3.bias"])
        dx = linear_backward(r3, weights["fc2.weight"], relu_backward(a4, dx),
                             gradients["fc2.weight"], gradients["fc2.bias"])
        dx = linear_backward(f, weights["fc1.weight"], relu_backward(a3, dx),
                             gradients["fc1.weight"], gradients["fc1.bias"])
        dx = relu_backward(a2, pool_backward(r2, flatten_backward(p2, dx)))
        dx = conv_backward(p1, weights["conv2.weight"], dx, gradients["conv2.weight"], gradients["conv2.bias"])
        dx = relu_backward(a1, pool_backward(r1, dx))
        conv_backward(image, weights["conv1.weight"], dx, gradients["conv1.weight"], gradients["conv1.bias"])
    return loss, gradients


def main():
    torch.manual_seed(0)
    net = LeNet5()
    images = torch.rand(1, 3, 32, 32) * 2 - 1  # noise will do: the shapes are those of any image
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
    print("\nthe ten outputs for this image")
    print("  PyTorch: ", " ".join(f"{output:8.5f}" for output in by_torch), f"  in {middle - start:.4f} s")
    print("  by hand: ", " ".join(f"{output:8.5f}" for output in by_hand), f"  in {end - middle:.4f} s")
    print(f"  largest difference: {max(abs(one - other) for one, other in zip(by_torch, by_hand)):.0e}")


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):                     # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `python lenet5.py | head -2` ends when head does, silently
    main()
