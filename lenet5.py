"""The network: LeNet-5 for CIFAR-10 (chapter 3 of the tutorial, "Build Model").

    python lenet5.py

sends an image (noise will do) through the network and prints what each layer makes of it, as below;
then the same network as plain Python loops beside PyTorch's: outputs, loss, gradients and one step.

    layer    size               output shape     field  parameters  multiply-adds
    input                       (1, 3, 32, 32)     1x1           0              0
    conv1    (32 - 5) + 1 = 28  (1, 6, 28, 28)     5x5         456        352,800
    relu     max(0, x)          (1, 6, 28, 28)     5x5           0              0
    pool     28 / 2 = 14        (1, 6, 14, 14)     6x6           0              0
    conv2    (14 - 5) + 1 = 10  (1, 16, 10, 10)  14x14       2,416        240,000
    relu     max(0, x)          (1, 16, 10, 10)  14x14           0              0
    pool     10 / 2 = 5         (1, 16, 5, 5)    16x16           0              0
    flatten  16 * 5 * 5 = 400   (1, 400)                         0              0
    fc1      400 -> 120         (1, 120)                    48,120         48,000
    relu     max(0, x)          (1, 120)                         0              0
    fc2      120 -> 84          (1, 84)                     10,164         10,080
    relu     max(0, x)          (1, 84)                          0              0
    fc3      84 -> 10           (1, 10)                        850            840
    total                                                   62,006        651,720

(field: the receptive field, the part of the image that one value depends on)

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
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


class LeNet5(nn.Module):
    """The tutorial's network: two convolutions find patterns, three linear layers combine them.

    net(images) calls forward(images). images: (N, 3, 32, 32), float, in [-1, 1]; it returns the
    logits, (N, 10): one score for each class, any real number, of which the highest is the
    prediction. Another size makes PyTorch raise RuntimeError, except 33 to 35 pixels, where pooling
    drops the rest; trace(), below, shows the shapes on the way. One image alone: net(image[None]).
    """

    def __init__(self):
        super().__init__()  # must run first: nn.Module registers layers
        # A layer set on self is registered: parameters() and state_dict() find it, by its name.
        # A convolution slides its kernels (filters) over the image, pixel by pixel (stride 1), and
        # only where they fit in whole (no padding). Each kernel fills one feature map: how well it
        # matches, at each place.
        # How many numbers a layer learns: output channels * (weights of each + 1 bias).
        self.conv1 = nn.Conv2d(3, 6, 5)        # 6 kernels of 3x5x5      6 * (75 + 1)   =    456
        self.pool = nn.MaxPool2d(2, 2)         # max pooling: the largest of 2x2, stride 2
        self.conv2 = nn.Conv2d(6, 16, 5)       # 16 kernels of 6x5x5     16 * (150 + 1) =  2,416
        self.fc1 = nn.Linear(16 * 5 * 5, 120)  # fully connected        120 * (400 + 1) = 48,120
        self.fc2 = nn.Linear(120, 84)          #                         84 * (120 + 1) = 10,164
        self.fc3 = nn.Linear(84, 10)           # ten classes, ten logits 10 * (84 + 1)  =    850

    def forward(self, x):
        # ReLU, max(0, x), is the activation function. It makes the network non-linear: without it,
        # fc1, fc2 and fc3 in a row could do no more than one linear layer from 400 to 10.
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
#
# To copy it, take all from here to print_trace(). A network of layers in a row gets every column;
# of another one the table says what is sure, and leaves the rest empty.

Row = namedtuple("Row", "name size shape receptive_field parameters multiply_adds output")

# The arguments of a function, by name, in their order. (For others, their number is the name.)
ARGUMENTS = {"linear": "input weight bias",
             "conv2d": "input weight bias stride padding dilation groups",
             "max_pool2d": "input kernel_size stride padding dilation",
             "avg_pool2d": "input kernel_size stride padding ceil_mode",
             "batch_norm": "input running_mean running_var weight bias training"}
# Element-wise functions change each number by itself (batch_norm in a test only): the receptive
# field stays as it is. Their work is not counted: it is small beside that of the layers.
ELEMENTWISE = "relu leaky_relu elu gelu tanh sigmoid dropout batch_norm add sub mul div".split()


class Tracer(TorchFunctionMode):
    """with Tracer() as tracer: each call that PyTorch gets is noted in tracer.calls.

    In the block, PyTorch calls __torch_function__() in place of each of its functions. For each
    call it notes: the name, the arguments by name, the shapes of the tensors among them, the
    result, and the shape of the result. (Now, since x.squeeze_() would change a shape later.)
    """

    def __init__(self):
        super().__init__()
        self.calls, self.failed = [], None

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.__name__.strip("_"), kwargs or {}
        name = function.__self__.__name__ if name == "get" else name  # x.T calls T.__get__(x)
        given = {**dict(zip(ARGUMENTS.get(name, "").split() or range(len(args)), args)), **kwargs}
        # Also what is in a list, as in torch.cat([x, y]).
        values = sum(([*v] if isinstance(v, (list, tuple)) else [v] for v in given.values()), [])
        shapes = {value: tuple(value.shape) for value in values if isinstance(value, torch.Tensor)}
        try:
            returned = function(*args, **kwargs)
        except Exception as error:
            self.failed = error, name, values, shapes
            raise
        y = returned[0] if isinstance(returned, tuple) and returned else returned
        if isinstance(y, torch.Tensor):
            self.calls.append((name, given, shapes, y, tuple(y.shape)))
        return returned


def trace(net, images):
    """Run net(images) once, and return what forward() called, as Rows: the input, then one a call.

    images: (N, 3, 32, 32). Row.output is the tensor that the call returned, Row.shape its shape,
    Row.size the arithmetic behind it. Row.receptive_field says how many pixels of the input,
    across, a value in the middle of a feature map depends on. Row.multiply_adds counts one
    image's. What it can't know of a network is None. Dropout is off meanwhile, as in a test. If a
    layer fails, trace() prints the rows so far and then the layer with what it gets, and PyTorch's
    error goes on, with this line under it.
    """
    modes, tracer = {module: module.training for module in net.modules()}, Tracer()
    try:
        with torch.no_grad(), tracer:
            net.eval()(images)
    except Exception as error:
        rows, origins = make_rows(net, images, tracer.calls)
        print_trace(rows, total=False)
        if tracer.failed and tracer.failed[0] is error:  # and not one that forward() raised itself
            fact = what_failed(net, origins, *tracer.failed[1:])
            print(fact, flush=True)
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(fact)
        raise
    finally:
        # Each layer as it was: net.train() would also wake one that was frozen by eval().
        net.apply(lambda module: setattr(module, "training", modes[module]))
    return make_rows(net, images, tracer.calls)[0]


def make_rows(net, images, calls):
    """Returns (the Rows of these calls, {tensor: the arithmetic behind its shape})."""
    rows, origins = [Row("input", "", tuple(images.shape), 1, 0, 0, images)], {images: ""}
    buffers, counted = {*net.buffers()}, set()
    # Pixels of the input: in a receptive field, from one field to the next, and where the first
    # one begins (left of the image, if there is padding).
    field, jump, start = 1, 1, 0
    for function, given, shapes, y, shape in calls:
        learned = {tensor for tensor in shapes if isinstance(tensor, nn.Parameter)}
        inputs = [t for t in shapes if t not in learned | buffers] or [*shapes] or [None]
        size, window = arithmetic(function, given, shapes.get(inputs[0], ()), shape)
        elementwise = function in ELEMENTWISE and not given.get("training")
        origins[y] = origins.get(inputs[0], "") if elementwise else size

        if {*inputs} != {rows[-1].output} or not (window or elementwise):
            field = math.inf  # it takes not just the last row, or is unknown: None from here on
        kernel, stride, padding = window or (1, 1, 0)
        field += (kernel - 1) * jump  # from the kernel's first pixel to its last
        start -= padding * jump
        jump *= stride
        # Is the field of the value in the middle of the map inside the image, whole?
        inside = field < math.inf and 0 <= start + shape[-1] // 2 * jump <= images.shape[-1] - field

        work = 0 if size or function in ELEMENTWISE else None
        if function in ("conv2d", "linear"):
            # Each weight is used once for each position of its output map: 28 * 28 times in conv1,
            # once in a linear layer. Few weights, much work; then many weights, little work.
            row_per_image = images.ndim in (2, 4) and shape[:1] == images.shape[:1]
            work = math.prod(shape[1:]) * given["weight"][0].numel() if row_per_image else None
        parameters = sum(parameter.numel() for parameter in learned - counted)  # each once
        counted |= learned
        name = layer_of(net, shapes) or function.removesuffix("2d").removeprefix("max_")
        rows.append(Row(name, size, shape, field if inside else None, parameters, work, y))
    return rows, origins


def layer_of(net, tensors):
    """The name of the layer that the first parameter among the tensors is of; "" if none is."""
    names = {parameter: name.rpartition(".")[0] for name, parameter in net.named_parameters()}
    learned = [tensor for tensor in tensors if isinstance(tensor, nn.Parameter)]
    # A layer in a plain list is not registered: it is never trained, and never saved.
    return names.get(learned[0], "not registered") if learned else ""


def arithmetic(function, given, before, after):
    """Returns (how the shape before became that after, a pooling's or convolution's window).

    A window is (kernel, stride, padding). "" and None where they are not known, or there is none.
    """
    k = len(after) - 1
    if function == "linear":
        return f"{before[-1]} -> {after[-1]}", None
    if function in ("flatten", "view", "reshape") and k in (0, 1) and before[:k] == after[:k]:
        return " * ".join(map(str, before[k:])) + f" = {after[k]}", None
    if function not in ("conv2d", "max_pool2d", "avg_pool2d"):
        return "max(0, x)" if function == "relu" else "", None
    kernel = given.get("kernel_size") or given["weight"].shape[2:]
    stride = given.get("stride") or (kernel if "kernel_size" in given else 1)
    both = before[-2:], kernel, stride, given.get("padding", 0), given.get("dilation", 1)
    both = [{n} if isinstance(n, int) else {*n} for n in both]  # 5 and (5, 5) are {5}
    if any(len(n) > 1 for n in both) or both.pop() != {1}:      # padding="same" is four letters
        return "", None
    n, kernel, stride, padding = (n.pop() for n in both)
    result = (n + 2 * padding - kernel) // stride + 1
    size = f"({n} + {2 * padding} - {kernel}) // {stride} + 1 = {result}"
    size = size.replace(" + 0 -", " -").replace(" // 1 +", " +")
    if "kernel_size" in given and kernel == stride and not padding:
        size = f"{n} {'//' if n % kernel else '/'} {kernel} = {result}"  # // drops a last row
    return size if result == after[-1] else f"{n} -> {after[-1]}", (kernel, stride, padding)


def what_failed(net, origins, function, values, shapes):
    """Of a call that failed: the layer with its arguments, what it gets, how that came about."""
    layer = layer_of(net, shapes)
    arguments = ", ".join(repr(value) for value in values if not isinstance(value, torch.Tensor))
    what = f"{function}({arguments})"
    if layer not in ("", "not registered"):
        what = f"{layer}, {net.get_submodule(layer)},"
    gets = [tensor for tensor in shapes if tensor in origins or not layer]
    origin = f": {origins[gets[0]]}" if len(gets) == 1 and origins.get(gets[0]) else ""
    return f"{what} gets {' and '.join(str(shapes[tensor]) for tensor in gets)}{origin}"


def print_trace(rows, total=True):
    """Print the Rows of trace() as a table, and their total under it. What is None stays empty."""
    if total:
        works, parameters = [row.multiply_adds for row in rows], sum(row.parameters for row in rows)
        work = None if None in works else sum(works)
        rows = [*rows, Row("total", "", "", None, parameters, work, None)]
    name, size = (max(len(row[k]) for row in rows) for k in (0, 1))  # the longest ones
    line = f"{{:<{max(name, 8)}}} {{:<{max(size, 18)}}} {{:<15}} {{:>6}}  {{:>10}}  {{:>13}}"
    print(line.format("layer", "size", "output shape", "field", "parameters", "multiply-adds"))
    for row in rows:
        field = f"{row.receptive_field}x{row.receptive_field}" if row.receptive_field else ""
        work = "" if row.multiply_adds is None else f"{row.multiply_adds:,}"
        print(line.format(row.name, row.size, str(row.shape), field, f"{row.parameters:,}", work))


# ---- By hand: the same network as nothing but loops ------------------------------------------
#
# They need no more than import math. Plain Python numbers in nested lists, one image at a time. x
# is what goes into a layer, y what comes out, and dx, dy are the gradients: how fast the loss grows
# with each number in x or y. Forward makes y out of x; backward makes dx out of dy, by the chain
# rule, so it runs from the last layer to the first: backpropagation. A weight's gradient is *added*
# to what stands in dweight, as PyTorch adds it to .grad.


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
    """The same six loops: where weight * x went into y, dweight gets x * dy and dx weight * dy."""
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
    """dweight[o][i] += x[i] * dy[o], dbias[o] += dy[o], dx[i] = sum over o: weight[o][i] * dy[o]"""
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
    w = weights
    a1 = conv_by_hand(image, w["conv1.weight"], w["conv1.bias"])  # 6 x 28 x 28
    r1 = relu_by_hand(a1)
    p1 = pool_by_hand(r1)                                         # 6 x 14 x 14
    a2 = conv_by_hand(p1, w["conv2.weight"], w["conv2.bias"])     # 16 x 10 x 10
    r2 = relu_by_hand(a2)
    p2 = pool_by_hand(r2)                                         # 16 x 5 x 5
    f = flatten_by_hand(p2)                                       # 400
    a3 = linear_by_hand(f, w["fc1.weight"], w["fc1.bias"])        # 120
    r3 = relu_by_hand(a3)
    a4 = linear_by_hand(r3, w["fc2.weight"], w["fc2.bias"])       # 84
    r4 = relu_by_hand(a4)
    outputs = linear_by_hand(r4, w["fc3.weight"], w["fc3.bias"])  # 10
    return a1, r1, p1, a2, r2, p2, f, a3, r3, a4, r4, outputs


def backward_by_hand(weights, images, labels):
    """Returns (loss, gradients) of a batch: criterion(net(images), labels) and loss.backward().

    The twelve lines of forward_by_hand(), from the last to the first.
    """
    gradients = {name: zeros_like(value) for name, value in weights.items()}  # zero_grad()
    w, dw = weights, gradients
    loss = 0.0
    for image, label in zip(images, labels):
        a1, r1, p1, a2, r2, p2, f, a3, r3, a4, r4, outputs = forward_by_hand(weights, image)
        loss += cross_entropy_by_hand(outputs, label) / len(images)  # the mean over the batch
        # The gradient of the loss for the ten outputs is simple: each probability, less what it
        # should be: 1 for the label, else 0 (in Python True counts as 1, False as 0).
        p = softmax_by_hand(outputs)
        doutputs = [(p[k] - (k == label)) / len(images) for k in range(len(p))]
        dr4 = linear_backward(r4, w["fc3.weight"], doutputs, dw["fc3.weight"], dw["fc3.bias"])
        da4 = relu_backward(a4, dr4)
        dr3 = linear_backward(r3, w["fc2.weight"], da4, dw["fc2.weight"], dw["fc2.bias"])
        da3 = relu_backward(a3, dr3)
        df = linear_backward(f, w["fc1.weight"], da3, dw["fc1.weight"], dw["fc1.bias"])
        dp2 = flatten_backward(p2, df)
        dr2 = pool_backward(r2, dp2)
        da2 = relu_backward(a2, dr2)
        dp1 = conv_backward(p1, w["conv2.weight"], da2, dw["conv2.weight"], dw["conv2.bias"])
        dr1 = pool_backward(r1, dp1)
        da1 = relu_backward(a1, dr1)
        conv_backward(image, w["conv1.weight"], da1, dw["conv1.weight"], dw["conv1.bias"])
    return loss, gradients


def step_by_hand(weights, gradients, buffers, lr, momentum):
    """What optimizer.step() does at the tutorial's settings, on nested lists, in place.

    buffer = momentum * buffer + gradient, then weight = weight - lr * buffer; buffers start as
    zeros. (This is PyTorch's form: lr multiplies the whole buffer, the old gradients in it too.)
    """
    for i in range(len(weights)):
        if isinstance(weights[i], list):
            step_by_hand(weights[i], gradients[i], buffers[i], lr, momentum)
        else:
            buffers[i] = momentum * buffers[i] + gradients[i]
            weights[i] = weights[i] - lr * buffers[i]


def compare(net, images, labels):
    """Print what PyTorch and the loops make of an image: forward, backward, and one step."""
    weights = {name: parameter.tolist() for name, parameter in net.state_dict().items()}
    outputs, by_hand = net(images), forward_by_hand(weights, images[0].tolist())[-1]
    print("\nthe ten outputs for this image")
    print("  PyTorch:", " ".join(f"{output:6.3f}" for output in outputs[0]))
    print("  by hand:", " ".join(f"{output:6.3f}" for output in by_hand))
    print_difference("", [by_hand], outputs)

    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    loss = F.cross_entropy(outputs, labels)
    loss.backward()
    optimizer.step()
    loss_by_hand, grads = backward_by_hand(weights, images.tolist(), labels.tolist())
    for name, weight in weights.items():
        step_by_hand(weight, grads[name], zeros_like(weight), lr=0.001, momentum=0.9)
    print(f"\nthe backward pass, if it is of class {labels.item()}")
    print(f"  loss: PyTorch {loss.item():.5f}, by hand {loss_by_hand:.5f}")
    print_difference(" of all 62,006 gradients", grads.values(), [p.grad for p in net.parameters()])
    print_difference(" of the weights after one step", weights.values(), net.parameters())


def print_difference(of_what, lists, tensors):
    """Print the largest difference between numbers in nested lists and those in tensors."""
    differences = [(torch.tensor(numbers, dtype=tensor.dtype) - tensor).abs().max()
                   for numbers, tensor in zip(lists, tensors)]
    print(f"  largest difference{of_what}: {max(differences):.0e}")


def main():
    """What python lenet5.py shows: the trace of LeNet5, and the loops beside PyTorch."""
    torch.manual_seed(0)
    net = LeNet5()
    channels = next((m.in_channels for m in net.modules() if isinstance(m, nn.Conv2d)), 3)
    images = torch.rand(1, channels, 32, 32) * 2 - 1  # noise will do
    rows = trace(net, images)
    print_trace(rows)
    # Is this the tutorial's network, the one in the table at the top of this file?
    quoted = all(f"{row.name:<8} {row.size:<18} " in __doc__ for row in rows) and len(rows) == 13
    if quoted and sum(p.numel() for p in net.parameters() if p.requires_grad) == 62_006:
        compare(net.double(), images.double(), torch.tensor([3]))  # 64 bits, as in Python
    else:
        print("\nThe loops by hand compute the tutorial's network. This one is not compared.")


if __name__ == "__main__":
    main()
