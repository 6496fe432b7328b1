"""The network: LeNet-5 for CIFAR-10 (chapter 3 of the tutorial, "Build Model").

    python lenet5.py

sends an image (noise will do) through the network and prints what each layer makes of it, as below;
then the same network as plain Python loops beside PyTorch's: outputs, loss, gradients and one step.

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
and so this one, differs from the paper's: it reads colour where that one reads grey images; ReLU
stands in place of a scaled tanh, 1.7159 tanh(2x / 3); S2 and S4 are max pooling, where the paper
adds four values, multiplies by one weight a map, adds a bias, and applies that tanh; each filter
of C3 (conv2) reads all six maps, where the paper joins it to 3, 4 or 6 of them; and the outputs
are logits for cross-entropy, where the paper measures distances to ten fixed codes (RBF units).
The paper calls fc1 a convolution, C5: a 5x5 kernel on a 5x5 map is the same as a fully connected
layer.
"""
import math
import os
import re
import sys
import time
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


class LeNet5(nn.Module):
    """The tutorial's network: two convolutions find patterns, three linear layers combine them.

    net(images) calls forward(images). images: (N, 3, 32, 32), float, in [-1, 1]; it returns the
    logits, (N, 10): one score for each class, any real number, of which the highest is the
    prediction. Images of another size make PyTorch raise RuntimeError; trace() says what to change.
    """

    def __init__(self):
        super().__init__()  # must run first: nn.Module registers layers
        # A layer set on self is registered: parameters() and state_dict() find it, by its name.
        # A convolution slides its kernels (filters) over the image, pixel by pixel (stride 1), and
        # only where they fit in whole (no padding). Each kernel fills one feature map: how well it
        # matches, at each place.
        # What a layer learns: output channels * (weights that each has + 1 bias).
        self.conv1 = nn.Conv2d(3, 6, 5)        # 6 kernels of 3x5x5      6 * (75 + 1)   =    456
        self.pool = nn.MaxPool2d(2, 2)         # max pooling: the largest of 2x2, stride 2; no weights
        self.conv2 = nn.Conv2d(6, 16, 5)       # 16 kernels of 6x5x5     16 * (150 + 1) =  2,416
        self.fc1 = nn.Linear(16 * 5 * 5, 120)  # fully connected        120 * (400 + 1) = 48,120
        self.fc2 = nn.Linear(120, 84)          #                         84 * (120 + 1) = 10,164
        self.fc3 = nn.Linear(84, 10)           # ten classes, ten logits 10 * (84 + 1)  =    850

    def forward(self, x):
        # ReLU, max(0, x), is the activation function. It makes the network non-linear: without it,
        # fc1, fc2 and fc3 in a row could do no more than one of them.
        # flatten(x, 1) makes one row of numbers of each image. Older tutorials write x.view(-1,
        # 16 * 5 * 5), where -1 means "however many rows it takes": of four images of 52x52 pixels
        # it makes sixteen rows, sixteen answers, and no error.
        x = self.pool(F.relu(self.conv1(x)))  # (N, 3, 32, 32) -> (N, 6, 28, 28)  -> (N, 6, 14, 14)
        x = self.pool(F.relu(self.conv2(x)))  # (N, 6, 14, 14) -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        x = torch.flatten(x, 1)               # (N, 16, 5, 5)  -> (N, 400)
        x = F.relu(self.fc1(x))               # (N, 400) -> (N, 120)
        x = F.relu(self.fc2(x))               # (N, 120) -> (N, 84)
        return self.fc3(x)                    # (N, 84)  -> (N, 10), no ReLU: logits may be negative


# ==== Beyond the tutorial =========================================================================

# ---- The shape trace: what forward() does, call by call ----

Row = namedtuple("Row", "name size shape receptive_field parameters multiply_adds output")

# The arguments of a call, by name, in their order.
ARGUMENTS = {"linear": "input weight bias", "conv2d": "input weight bias stride padding dilation groups",
             "max_pool2d": "input kernel_size stride padding dilation",
             "avg_pool2d": "input kernel_size stride padding",
             "batch_norm": "input running_mean running_var weight bias training"}
# Element-wise functions change each number by itself: the receptive field stays as it is. Their
# work is not counted: it is small beside that of the layers.
ELEMENTWISE = ("relu leaky_relu elu gelu silu tanh sigmoid softplus hardtanh dropout dropout2d batch_norm "
               "add iadd sub mul div").split()
FLATTENS = ("flatten", "view", "reshape")  # the last two can do other things as well
FLATTEN = "Write x = torch.flatten(x, 1), or nn.Flatten() in nn.Sequential, and no other flatten or view."


class Tracer(TorchFunctionMode):
    """with Tracer(net, images) as tracer: each call of PyTorch adds a Row to tracer.rows.

    In the block, PyTorch calls __torch_function__() in place of each of its functions.
    """

    def __init__(self, net, images):
        super().__init__()
        self.net, self.counted, self.call = net, set(), None
        self.rows = [Row("input", "", tuple(images.shape), 1, 0, 0, images)]
        self.field = self.jump = 1  # jump: pixels of the input from one receptive field to the next

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.__name__.strip("_"), kwargs or {}
        given = {**dict(zip(ARGUMENTS.get(name, "input").split(), args)), **kwargs}
        self.call = name, self.layer(given) or name.removesuffix("2d").removeprefix("max_"), given
        returned = function(*args, **kwargs)  # if this fails, trace() finds the call in self.call
        y = returned[0] if isinstance(returned, tuple) and returned else returned
        y = args[0] if y is None and args else y  # x[:] = 0 returns nothing, and changes x
        if isinstance(y, torch.Tensor):
            self.add_row(*self.call, (*args, *kwargs.values()), y)
        self.call = None
        return returned

    def layer(self, given):
        """The name of the layer whose weight is given to a function; "" if there is none."""
        weight = given.get("weight")
        names = [name for name, parameter in self.net.named_parameters() if parameter is weight]
        if isinstance(weight, nn.Parameter) and not names:
            return "not registered"  # as in a plain list: it is never trained, and never saved
        return names[0].rpartition(".")[0] if names else ""

    def add_row(self, function, name, given, values, y):
        values = sum((list(value) if isinstance(value, (list, tuple)) else [value] for value in values), [])
        tensors = {value for value in values if isinstance(value, torch.Tensor)}
        learned = {tensor for tensor in tensors if isinstance(tensor, nn.Parameter)}
        images, (size, window) = self.rows[0].output, arithmetic(function, given, y)
        elementwise = function in ELEMENTWISE and not given.get("training")
        follows = tensors - learned - set(self.net.buffers()) == {self.rows[-1].output}  # the last row
        if not follows or not (window or elementwise):
            self.field = None
        elif window and self.field:
            self.field += (window[0] - 1) * self.jump  # from the kernel's first pixel to its last
            self.jump *= window[1]
        work = 0 if size or function in ELEMENTWISE else None
        if function in ("conv2d", "linear"):
            # Each weight is used once for each position of its output map: 28 * 28 times in conv1,
            # once in a linear layer. Few weights, much work; then many weights, little work.
            one_row_per_image = images.ndim in (2, 4) and len(y) == len(images)
            work = y[0].numel() * given["weight"][0].numel() if one_row_per_image else None
        parameters = sum(parameter.numel() for parameter in learned - self.counted)  # each once
        self.counted |= learned
        field = self.field and min(self.field, images.shape[-1])
        self.rows.append(Row(name, size, tuple(y.shape), field, parameters, work, y))


def trace(net, images):
    """Run net(images) once, and return what forward() called, as Rows: the input, then one a call.

    images: (N, 3, 32, 32). Row.output is the tensor that the call returned, Row.shape its shape,
    Row.size the arithmetic behind it. Row.receptive_field says how many pixels of the input,
    across, one value of a feature map depends on. Row.multiply_adds counts one image's. The table
    is made for layers in a row; what it can't know of another network is None. Dropout is off
    meanwhile, as in a test. If a call fails, the rows before it are printed, and PyTorch's error
    goes on, with a note on what to change. Raises ValueError for a scripted or compiled network.
    """
    modes = {module: module.training for module in net.modules()}
    if any(isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod") for module in modes):
        raise ValueError("trace() can't look into a scripted or compiled network: give it the one before.")
    tracer = Tracer(net.eval(), images)
    try:
        if any(map(nn.parameter.is_lazy, net.parameters())):
            net(images)  # nn.LazyLinear learns its size from its first call
        with torch.no_grad(), tracer:
            net(images)
    except (RuntimeError, ValueError) as error:
        print_trace(tracer.rows, total=False)
        note = what_to_change(net, tracer.rows, *tracer.call, str(error)) if tracer.call else ""
        if note:
            getattr(error, "add_note", print)(note)  # under the error, from Python 3.11 on
        raise
    finally:
        for module, mode in modes.items():
            module.training = mode
    return tracer.rows


def side(n):
    """The side of a square: 5 for 5 and for (5, 5); None for (1, 5), and for padding="same"."""
    if isinstance(n, str) or not isinstance(n, int) and len(set(n)) > 1:
        return None
    return n if isinstance(n, int) else n[0]


def arithmetic(function, given, y):
    """Returns (text, window): how y got its size, and (kernel, stride) of a convolution or pooling.

    "" and None where they are not known, or where there is none.
    """
    x, pool = given.get("input"), "kernel_size" in given
    if function == "linear":
        return f"{x.shape[-1]} -> {y.shape[-1]}", None
    if function in FLATTENS and y.ndim in (1, 2) and x.shape[:y.ndim - 1] == y.shape[:-1]:
        return " * ".join(map(str, x.shape[y.ndim - 1:])) + f" = {y.shape[-1]}", None
    if function not in ("conv2d", "max_pool2d", "avg_pool2d"):
        return "max(0, x)" if function == "relu" else "", None
    kernel = given["kernel_size"] if pool else given["weight"].shape[2:]
    stride = given.get("stride") or (kernel if pool else 1)
    sides = [side(n) for n in (x.shape[-2:], kernel, stride, given.get("padding", 0))]
    if None in sides or side(given.get("dilation", 1)) != 1:
        return "", None
    before, kernel, stride, padding = sides
    after = (before + 2 * padding - kernel) // stride + 1
    size = f"({before} + {2 * padding} - {kernel}) // {stride} + 1 = {after}"
    size = size.replace(" + 0 -", " -").replace(" // 1 +", " +")
    if pool and kernel == stride and not padding:
        size = f"{before} {'//' if before % kernel else '/'} {kernel} = {after}"  # // drops a last row
    return size if after == y.shape[-1] else f"{before} -> {y.shape[-1]}", (kernel, stride)


def what_to_change(net, rows, function, name, given, error):
    """Of a call that failed: what it expects, what it gets, and what to write; "" if not known."""
    x, images, layer = given.get("input"), rows[0].output, dict(net.named_modules()).get(name)
    used_twice = name in [row.name for row in rows if row.parameters]
    if used_twice or images.ndim not in (2, 4) or given.get("dilation", 1) not in (1, (1, 1)):
        return ""
    if "greater than actual input size" in error or "Output size is too small" in error:
        smaller = "Take a smaller one" + ("" if function == "conv2d" else ", or leave the pooling out")
        return f"{name}: its kernel is larger than its map, {x.shape[-2]}x{x.shape[-1]}. {smaller}."
    if re.match(rf"shape '\[(-1|{len(images)}), \d+\]' is invalid", error) and x.ndim == 4:
        return f"{name} gets {tuple(x.shape)}, to make one row of each image. {FLATTEN}"
    if isinstance(layer, nn.Linear) and x.shape[-1] != layer.in_features and x.ndim != 3:
        if x.ndim != 2 or len(x) != len(images):
            return f"{name} gets {tuple(x.shape)}, and needs one row of each image. {FLATTEN}"
        same = rows[-1].output is x and rows[-1].name in FLATTENS
        numbers = rows[-1].size.partition(" =")[0] if same else x.shape[1]
        return (f"{name} expects {layer.in_features} numbers for each image and gets {x.shape[1]}: "
                f"its first number must be {numbers or x.shape[1]}.")
    if isinstance(layer, nn.Conv2d) and x.ndim == 4 and layer.groups == 1 and x.shape[1] != layer.in_channels:
        if x.shape[3] < min(x.shape[1:3]):  # (N, H, W, C), it seems
            permute = f"{name} expects channels first: give the network images.permute(0, 3, 1, 2)."
            return permute if x.shape == images.shape and x.shape[3] == layer.in_channels else ""
        return (f"{name} expects {layer.in_channels} channel(s) and gets {x.shape[1]}: "
                f"its first number must be {x.shape[1]}.")
    return ""


def print_trace(rows, total=True):
    """Print the Rows of trace() as a table, and their total under it. What is None stays empty."""
    width, longest = (max(len(row[k]) for row in rows) for k in (0, 1))  # of names, of sizes
    line = f"{{:<{max(width, 8)}}} {{:<{max(longest, 20)}}} {{:<16}} {{:>15}} {{:>11}} {{:>14}}"
    print(line.format("layer", "size", "output shape", "receptive field", "parameters", "multiply-adds"))
    for row in rows:
        field = f"{row.receptive_field}x{row.receptive_field}" if row.receptive_field else ""
        work = "" if row.multiply_adds is None else f"{row.multiply_adds:,}"
        numbers = field, f"{row.parameters:,}", work
        print(line.format(row.name, row.size, str(row.shape), *numbers), flush=True)
    if total:
        works, parameters = [row.multiply_adds for row in rows], sum(row.parameters for row in rows)
        work = ("at least " if None in works else "") + f"{sum(filter(None, works)):,}"
        print(line.format("total", "", "", "", f"{parameters:,}", work))
    answers, n = rows[-1].shape, len(rows[0].output)
    if total and rows[0].output.ndim == 4 and answers and answers[0] != n:
        print(f"{answers} is not an answer for each of {n} image(s). {FLATTEN}")


# ---- By hand: the same network as nothing but loops ------------------------------------------
#
# Plain Python numbers in nested lists, one image at a time. x is what goes into a layer, y what
# comes out, and dx, dy are the gradients: how fast the loss grows with each number in x or y.
# Forward makes y out of x; backward makes dx out of dy, by the chain rule, so it runs from the
# last layer to the first: backpropagation. A weight's gradient is *added* to what stands in
# dweight, as PyTorch adds it to .grad.


def zeros_like(x):
    """Nested lists of 0.0 in the shape of x."""
    return [zeros_like(part) for part in x] if isinstance(x, list) else 0.0


def conv_by_hand(x, weight, bias):
    """y[o][i][j] = bias[o] + sum over c, u, v of weight[o][c][u][v] * x[c][i + u][j + v]

    In mathematics this is a cross-correlation; a convolution turns the kernel by 180 degrees first.
    Where the weights are learned, that makes no difference, and this field says convolution.
    x: (channels, H, W), weight: (outputs, channels, K, K), bias: (outputs,) -> y: (outputs, H - K
    + 1, W - K + 1).
    """
    outputs, channels, K = len(weight), len(x), len(weight[0][0])
    rows, columns = len(x[0]) - K + 1, len(x[0][0]) - K + 1
    y = [[[0.0] * columns for _ in range(rows)] for _ in range(outputs)]
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
    """The same six loops: where weight * x went into y, dweight gets x * dy, dx gets weight * dy."""
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
    """dx = dy where x > 0, else 0: what was cut off does not change the loss."""
    if isinstance(x, list):
        return [relu_backward(part, dpart) for part, dpart in zip(x, dy)]
    return dy if x > 0 else 0.0


def place_of_max(x, c, i, j):
    """Row and column of the largest number in square (i, j) of channel c; if equal, the first."""
    row, column = 2 * i, 2 * j
    for u in range(2):
        for v in range(2):
            if x[c][2 * i + u][2 * j + v] > x[c][row][column]:
                row, column = 2 * i + u, 2 * j + v
    return row, column


def pool_by_hand(x):
    """y[c][i][j] = the largest of the 2x2 square at (2i, 2j). (C, H, W) -> (C, H // 2, W // 2)"""
    y = [[[0.0] * (len(channel[0]) // 2) for _ in range(len(channel) // 2)] for channel in x]
    for c in range(len(y)):
        for i in range(len(y[c])):
            for j in range(len(y[c][i])):
                row, column = place_of_max(x, c, i, j)
                y[c][i][j] = x[c][row][column]
    return y


def pool_backward(x, dy):
    """The largest of each square gets all of its gradient; the other three changed nothing."""
    dx = zeros_like(x)
    for c in range(len(dy)):
        for i in range(len(dy[c])):
            for j in range(len(dy[c][i])):
                row, column = place_of_max(x, c, i, j)
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
    y = list(bias)
    for o in range(len(weight)):
        for i in range(len(x)):
            y[o] += weight[o][i] * x[i]
    return y


def linear_backward(x, weight, dy, dweight, dbias):
    """dweight[o][i] += x[i] * dy[o], dbias[o] += dy[o], dx[i] = sum of weight[o][i] * dy[o] over o"""
    dx = zeros_like(x)
    for o in range(len(weight)):
        dbias[o] += dy[o]
        for i in range(len(x)):
            dweight[o][i] += x[i] * dy[o]
            dx[i] += weight[o][i] * dy[o]
    return dx


def softmax_by_hand(outputs):
    """p[k] = exp(outputs[k]) / sum of all exp: ten scores -> ten probabilities."""
    highest = max(outputs)  # subtracted from every score, it changes no p, and exp() can't overflow
    powers = [math.exp(score - highest) for score in outputs]
    total = sum(powers)
    return [power / total for power in powers]


def cross_entropy_by_hand(outputs, label):
    """-log(softmax_by_hand(outputs)[label]), written so that no logit is too large for exp()."""
    highest = max(outputs)
    return highest + math.log(sum(math.exp(score - highest) for score in outputs)) - outputs[label]


def forward_by_hand(weights, image):
    """One image, (3, 32, 32) in lists, through the network: returns what each line makes of it.

    weights: {"conv1.weight": nested lists, ...}, the state_dict() of a LeNet5, each
    tensor.tolist(). The ten outputs are the last of the twelve that are returned; backward needs
    the others.
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
    """Returns (loss, gradients) of a batch: criterion(net(images), labels) and loss.backward().

    The twelve lines of forward_by_hand(), from the last to the first.
    """
    gradients = {name: zeros_like(value) for name, value in weights.items()}  # zero_grad()
    loss = 0.0
    for image, label in zip(images, labels):
        a1, r1, p1, a2, r2, p2, f, a3, r3, a4, r4, outputs = forward_by_hand(weights, image)
        loss += cross_entropy_by_hand(outputs, label) / len(images)  # the mean over the batch
        # Its gradient for the ten outputs is simple: each probability, less what it should be (1
        # or 0).
        p = softmax_by_hand(outputs)
        doutputs = [(p[k] - (k == label)) / len(images) for k in range(len(p))]
        dr4 = linear_backward(r4, weights["fc3.weight"], doutputs, gradients["fc3.weight"], gradients["fc3.bias"])
        da4 = relu_backward(a4, dr4)
        dr3 = linear_backward(r3, weights["fc2.weight"], da4, gradients["fc2.weight"], gradients["fc2.bias"])
        da3 = relu_backward(a3, dr3)
        df = linear_backward(f, weights["fc1.weight"], da3, gradients["fc1.weight"], gradients["fc1.bias"])
        dp2 = flatten_backward(p2, df)
        dr2 = pool_backward(r2, dp2)
        da2 = relu_backward(a2, dr2)
        dp1 = conv_backward(p1, weights["conv2.weight"], da2, gradients["conv2.weight"], gradients["conv2.bias"])
        dr1 = pool_backward(r1, dp1)
        da1 = relu_backward(a1, dr1)
        conv_backward(image, weights["conv1.weight"], da1, gradients["conv1.weight"], gradients["conv1.bias"])
    return loss, gradients


def step_by_hand(weights, gradients, buffers, lr, momentum):
    """What optimizer.step() does at the tutorial's settings, on nested lists, in place.

    buffer = momentum * buffer + gradient, then weight = weight - lr * buffer; buffers start as
    zeros. (PyTorch's form: a new learning rate also multiplies the old gradients in the buffer.)
    """
    for i in range(len(weights)):
        if isinstance(weights[i], list):
            step_by_hand(weights[i], gradients[i], buffers[i], lr, momentum)
        else:
            buffers[i] = momentum * buffers[i] + gradients[i]
            weights[i] = weights[i] - lr * buffers[i]


# The table of the tutorial's network: what the loops compute.
TUTORIALS_CALLS = "input conv1 relu pool conv2 relu pool flatten fc1 relu fc2 relu fc3"
TUTORIALS_SIZES = ("(32 - 5) + 1 = 28, max(0, x), 28 / 2 = 14, (14 - 5) + 1 = 10, max(0, x), 10 / 2 = 5, "
                   "16 * 5 * 5 = 400, 400 -> 120, max(0, x), 120 -> 84, max(0, x), 84 -> 10")


def compare(net, images, labels):
    """Print what PyTorch and the loops make of an image: forward, backward, and one step."""
    weights = {name: parameter.tolist() for name, parameter in net.state_dict().items()}
    net(images)  # the first call makes preparations, so the second one is timed
    start = time.perf_counter()
    outputs = net(images)
    middle = time.perf_counter()
    by_hand = forward_by_hand(weights, images[0].tolist())[-1]
    end = time.perf_counter()
    print("\nthe ten outputs for this image")
    print("  PyTorch: ", " ".join(f"{output:8.5f}" for output in outputs[0]), f"  in {middle - start:.4f} s")
    print("  by hand: ", " ".join(f"{output:8.5f}" for output in by_hand), f"  in {end - middle:.4f} s")
    print(f"  largest difference: {largest_difference([by_hand], outputs):.0e}")

    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    loss = F.cross_entropy(outputs, labels)
    loss.backward()
    optimizer.step()
    loss_by_hand, gradients = backward_by_hand(weights, images.tolist(), labels.tolist())
    for name, weight in weights.items():
        step_by_hand(weight, gradients[name], zeros_like(weight), lr=0.001, momentum=0.9)
    apart = largest_difference(gradients.values(), [parameter.grad for parameter in net.parameters()])
    print(f"\nthe backward pass, if it is of class {labels.item()}")
    print(f"  loss: PyTorch {loss.item():.5f}, by hand {loss_by_hand:.5f}")
    print(f"  largest difference of all {sum(p.numel() for p in net.parameters()):,} gradients: {apart:.0e}, "
          f"of the weights after one step: {largest_difference(weights.values(), net.parameters()):.0e}")


def largest_difference(lists, tensors):
    """The largest difference between numbers in nested lists and those in tensors."""
    return max((torch.tensor(numbers, dtype=tensor.dtype) - tensor).abs().max().item()
               for numbers, tensor in zip(lists, tensors))


def main():
    """What python lenet5.py shows: the trace of LeNet5, and the loops beside PyTorch."""
    torch.manual_seed(0)
    net = LeNet5()
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    channels = getattr(first, "in_channels", 0) or 3  # a lazy one does not know its channels yet
    images = torch.rand(1, channels, 32, 32) * 2 - 1  # noise will do
    rows = trace(net, images)
    print_trace(rows)
    calls, sizes = " ".join(row.name for row in rows), ", ".join(row.size for row in rows[1:])
    parameters = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    if (calls, sizes, parameters) == (TUTORIALS_CALLS, TUTORIALS_SIZES, 62_006):
        compare(net.double(), images.double(), torch.tensor([3]))  # 64 bits, as in Python
    else:
        print("\nThe loops by hand compute the tutorial's network. This is another one: it is not compared.")


# ==== Plumbing ====================================================================================

if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # in `python lenet5.py | head`, head has seen enough and is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
