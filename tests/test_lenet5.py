"""Chapter 3, Build Model: what lenet5.py says about the network is so."""
import math
import os
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

import evaluate
import lenet5
from conftest import edited
from lenet5 import LeNet5, Tracer, print_trace, trace


class Net(nn.Module):
    """The network as the tutorial's chapter 3 describes it, view(-1, 16 * 5 * 5) included."""

    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class Calls(nn.Module):
    """A network with these layers, and a function as its forward()."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


# ---- The network, and its trace ------------------------------------------------------------------

def test_the_same_seed_gives_the_tutorials_network_name_by_name_and_number_by_number(images):
    torch.manual_seed(0)
    theirs = Net()
    torch.manual_seed(0)
    ours = LeNet5()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters()))
    assert torch.equal(ours(images), theirs(images))


def test_images_of_33_to_35_pixels_pass_and_31_or_36_do_not(images):
    for size in (33, 34, 35):
        assert LeNet5()(F.interpolate(images, size)).shape == (4, 10)
    for size in (31, 36, 52):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            LeNet5()(F.interpolate(images, size))
    assert Net()(F.interpolate(images, 52)).shape == (16, 10)  # view(): sixteen answers, no error


def test_the_script_prints_the_table_that_its_first_lines_quote(capsys):
    """Layers, arithmetic, shapes, fields, parameters, multiply-adds: the docstring has them all."""
    lenet5.main()
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    quoted = [line[4:] for line in lenet5.__doc__.splitlines() if line.startswith("    ")]
    table = quoted[quoted.index(next(line for line in quoted if line.startswith("layer"))):]
    assert table == printed[:len(table)] and len(table) == 15
    assert max(map(len, printed)) <= 80


def test_32_becomes_28_and_62006_parameters_do_651720_multiply_adds(images):
    rows = trace(LeNet5(), images)
    assert rows[1].shape == (4, 6, 28, 28)
    assert sum(row.parameters for row in rows) == 62_006
    assert sum(row.multiply_adds for row in rows) == 651_720
    assert rows[6].receptive_field == 16  # pixels across: what a value before flatten() depends on
    assert not rows[-1].output.requires_grad  # no graph, and no memory for one


# ---- The trace of the reader's own network -------------------------------------------------------

@pytest.mark.parametrize("name", "leaky_relu elu gelu tanh sigmoid add sub mul div".split())
def test_another_function_of_each_number_shows_up_under_its_name(images, monkeypatch, name):
    relu = trace(LeNet5(), images)
    monkeypatch.setattr(F, "relu", getattr(F, name, lambda x: getattr(x, name)(2)))
    rows = trace(LeNet5(), images)
    assert [row.name for row in rows] == [row.name.replace("relu", name) for row in relu]
    assert [row[2:6] for row in rows] == [row[2:6] for row in relu]


def test_dropout_is_in_the_trace_but_off(images):
    rows = trace(nn.Sequential(nn.Conv2d(3, 6, 5), nn.Dropout()).train(), images)
    assert (rows[2].name, rows[2].receptive_field) == ("dropout", 5)
    assert torch.equal(rows[2].output, rows[1].output)


@pytest.mark.parametrize("size", [32, 28])
def test_each_module_is_in_the_mode_afterwards_that_it_was_in(images, size):
    """A BatchNorm that was frozen with eval() stays frozen; also if the network fails, at 28."""
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), LeNet5()).train()
    net[0].eval()
    try:
        trace(net, images[:, :, :size, :size])
    except RuntimeError:
        assert size == 28
    assert [module.training for module in net.modules()] == [True, False, True] + [True] * 7


@pytest.mark.parametrize("layer, size, field", [
    (nn.Conv2d(3, 6, 5, padding=2), "(32 + 4 - 5) + 1 = 32", 5),
    (nn.Conv2d(3, 6, 4, stride=4), "(32 - 4) // 4 + 1 = 8", 4),
    (nn.Conv2d(3, 6, 32), "(32 - 32) + 1 = 1", 32),
    (nn.MaxPool2d(3, 2), "(32 - 3) // 2 + 1 = 15", 3),
    (nn.MaxPool2d(3), "32 // 3 = 10", 3),
    (nn.MaxPool2d(3, ceil_mode=True), "32 -> 11", 3),
    (nn.AvgPool2d(2, 2, padding=1), "(32 + 2 - 2) // 2 + 1 = 17", 2),
    (nn.MaxPool2d((2, 2), (2, 2)), "32 / 2 = 16", 2),
    (nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 3, 15)), "(16 - 15) + 1 = 2", 31),
    (nn.Sequential(nn.Conv2d(3, 3, 11, 4, 5), nn.Conv2d(3, 3, 6)), "(8 - 6) + 1 = 3", None),
    (prune.l1_unstructured(nn.Conv2d(3, 6, 5), "weight", 0.5), "(32 - 5) + 1 = 28", None),
    (Calls(lambda net, x: F.avg_pool2d(x, kernel_size=2)), "32 / 2 = 16", 2),
    (Calls(lambda net, x: torch.max_pool2d(x, kernel_size=2)), "32 / 2 = 16", 2)], ids=str)
def test_the_arithmetic_follows_kernel_stride_and_padding(images, layer, size, field):
    row = trace(layer, images)[-1]
    assert (row.size, row.receptive_field) == (size, field)
    assert "->" in size or eval(size.replace("=", "==")) and size.endswith(f"= {row.shape[2]}")


@pytest.mark.parametrize("layer", [
    nn.Conv2d(3, 6, (1, 5)), nn.Conv2d(3, 6, 3, stride=(1, 2)), nn.MaxPool2d((2, 4)),
    nn.Conv2d(3, 6, 3, dilation=2), Calls(lambda net, x: torch.max_pool2d(x, 2, 2, 0, 2)),
    nn.Conv2d(3, 6, 5, padding="same"), nn.AdaptiveAvgPool2d(4), nn.ZeroPad2d(2), nn.Softmax(3),
    nn.BatchNorm2d(3, track_running_stats=False), Calls(lambda net, x: x - x.mean()),
    Calls(lambda net, x: x.chunk(2, 1)[0]), Calls(lambda net, x: x.view(4, 3, 16, 64)),
    nn.Flatten(2), Calls(lambda net, x: F.avg_pool2d(x[:, :, :20], 2))], ids=str)
def test_what_the_table_does_not_know_it_leaves_empty(images, layer):
    """No square window, or no call of a LeNet: no equation, no field, here or further on."""
    rows = trace(nn.Sequential(layer, nn.ReLU()), images)
    assert rows[-2].size == "" and rows[-2].receptive_field is rows[-1].receptive_field is None


def test_a_view_is_a_flatten_only_if_the_images_stay_apart(images):
    rows = trace(Calls(lambda net, x: x.view(8, 1536).view(4, 2, 1536).view(4, 3072)), images)
    assert [row.size for row in rows] == ["", "", "", "2 * 1536 = 3072"]
    theirs, ours = trace(Net(), images), trace(LeNet5(), images)
    assert [row[1:6] for row in theirs] == [row[1:6] for row in ours]


@pytest.mark.parametrize("call", [
    lambda net, x: torch.einsum("nchw,dc->ndhw", x, torch.ones(2, 3)),
    lambda net, x: x @ torch.ones(32, 5), lambda net, x: F.scaled_dot_product_attention(x, x, x),
    lambda net, x: net.fc(x.reshape(16, 768))])  # each row is a patch: an image has several
def test_work_that_is_not_known_stays_empty_and_so_does_the_total(images, capsys, call):
    rows = trace(Calls(call, fc=nn.Linear(768, 5, bias=False)), images)
    assert rows[-1].multiply_adds is None
    print_trace(rows)
    assert capsys.readouterr().out.split()[-2:] in (["total", "0"], ["total", "3,840"])


@pytest.mark.parametrize("layer, shape, work", [
    (nn.Linear(768, 5), (4, 2, 2, 768), 4 * 768 * 5),  # 2x2 patches of each image
    (nn.Linear(3072, 5), (4, 3072), 3072 * 5),
    (nn.Conv2d(3, 3, 5), (3, 32, 32), None)])  # an image without a batch
def test_the_multiply_adds_are_those_of_one_image(layer, shape, work):
    assert trace(layer, torch.zeros(shape))[1].multiply_adds == work


@pytest.mark.parametrize("function, layer, rows", [
    (lambda net, x: net.fc(net.fc(x).tanh()) @ net.fc.weight.T, nn.Linear(32, 32),
     [("fc", 32 * 32 + 32), ("tanh", 0), ("fc", 0), ("fc", 0), ("matmul", 0)]),  # each number once
    (lambda net, x: x @ net.fc.T, nn.Parameter(torch.zeros(5, 32)), [("T", 160), ("matmul", 0)]),
    (lambda net, x: net.fc[0](x), [nn.Linear(32, 9)], [("not registered", 297)]),
    (lambda net, x: net.fc(x), nn.Sequential(nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6)),
     [("fc.0", 456), ("fc.1", 12)])])
def test_a_row_names_the_layer_and_counts_its_parameters(images, function, layer, rows):
    traced = trace(Calls(function, fc=layer), images)
    assert [(row.name, row.parameters) for row in traced] == [("input", 0), *rows]


def test_the_columns_stay_below_their_headings_however_long_a_name_is(images, capsys):
    net = Calls(lambda net, x: net.a_long_name(x), a_long_name=nn.Conv2d(3, 6, 9, 2, 3))
    print_trace(trace(net, images))
    head, *lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in (head, *lines)}) == 1
    assert [line.find("(4, ") for line in lines] == [head.find("output")] * 2 + [-1]


def test_a_function_that_works_in_place_is_a_row_and_leaves_the_earlier_ones_their_shape(images):
    net = Calls(lambda net, x: net.conv(x).squeeze_().relu_(), conv=nn.Conv2d(3, 1, 5))
    assert [row[0:3] for row in trace(net, images)[1:]] == [
        ("conv", "(32 - 5) + 1 = 28", (4, 1, 28, 28)), ("squeeze", "", (4, 28, 28)),
        ("relu", "max(0, x)", (4, 28, 28))]


# ---- Networks by others. The referees: sum(p.numel()), flop_counter, gradients -------------------

def residual(net, x):
    x = F.relu(net.conv1(x))
    return net.fc((x + net.conv2(x)).mean((2, 3)))


def functional(net, x):
    x = F.conv2d(input=x, weight=net.weight, bias=net.bias)
    return torch.flatten(input=torch.cat(tensors=[x, x], dim=1), start_dim=1)


def several(net, x):
    """A call that returns several tensors, and parameters in a list."""
    halves = torch.flatten(x, 1).chunk(2, 1)
    return F.linear(torch.cat(halves, 1), torch.cat([net.one, net.other], 1).T)


def vgg():
    """Pairs of 3x3 convolutions with padding, and pooling."""
    layers = []
    for channels in (3, 8, 8):
        layers += [nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(),
                   nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


NETWORKS = {
    "lenet5": LeNet5, "tutorial": Net, "vgg": vgg, "resnet18": models.resnet18,
    "mobilenet": models.mobilenet_v3_small, "squeezenet": models.squeezenet1_1,
    "pruned": lambda: prune.l1_unstructured(nn.Conv2d(3, 6, 5), "weight", 0.5),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(3, 6, 5, groups=3), nn.Conv2d(6, 6, 3, groups=6),
                                       nn.Flatten(), nn.Dropout(), nn.Linear(4056, 10)),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 6, 5, bias=False), nn.BatchNorm2d(6),
                                        nn.Sigmoid(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(6, 8, 3),
                                        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 9)),
    "strides": lambda: nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.LeakyReLU(), nn.Flatten(),
                                     nn.Linear(1176, 10)),
    "residual": lambda: Calls(residual, conv1=nn.Conv2d(3, 6, 3, padding=1), fc=nn.Linear(6, 10),
                              conv2=nn.Conv2d(6, 6, 3, padding=1)),
    "functional": lambda: Calls(functional, weight=nn.Parameter(torch.randn(6, 3, 5, 5)),
                                bias=nn.Parameter(torch.randn(6))),
    "several": lambda: Calls(several, one=nn.Parameter(torch.randn(3072, 4)),
                             other=nn.Parameter(torch.randn(3072, 6)))}


def network(name, images):
    """The network, and an image of a size that it takes."""
    torch.manual_seed(0)
    n = 3 if name in ("squeezenet", "resnet18", "mobilenet") else 1
    return NETWORKS[name]().eval(), images[:1].repeat(1, 1, n, n)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_multiply_adds_are_what_pytorch_counts(name, images):
    net, x = network(name, images)
    rows = trace(net, x)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in net.parameters())
    assert sum(row.multiply_adds or 0 for row in rows) == counter.get_total_flops() / 2


STATED = {"lenet5": 6, "vgg": 12, "depthwise": 2, "batch norm": 5, "strides": 2, "residual": 3,
          "functional": 1, "squeezenet": 7, "resnet18": 9, "mobilenet": 2}


@pytest.mark.parametrize("name", STATED)
def test_a_receptive_field_that_is_stated_is_what_gradients_say(name, images):
    """Of the value in the middle of a map, so many pixels of the input, across, have a gradient.

    Average pooling stands in for max pooling, which gives all of its gradient to one value.
    """
    net, x = network(name, images)
    fields = [row.receptive_field for row in trace(net, x)]
    for module in [*net.modules()]:
        for child, pool in module.named_children():
            if isinstance(pool, nn.MaxPool2d):
                size = pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode
                setattr(module, child, nn.AvgPool2d(*size))
    assert [row.receptive_field for row in trace(net, x)] == fields
    x.requires_grad_()
    with Tracer() as tracer:
        net(x)
    for field, (_, _, _, y, _) in zip(fields[1:], tracer.calls):
        if field:
            middle = y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum()
            gradient, = torch.autograd.grad(middle, x, retain_graph=True)
            down, right = gradient[0].abs().sum(0).nonzero().unbind(1)
            assert [max(n) - min(n) + 1 for n in (down.tolist(), right.tolist())] == [field, field]
    assert len([field for field in fields[1:] if field]) == STATED[name]


@pytest.mark.parametrize("name, stated", [
    ("vgg", [3, 3, 5, 5, 6, 10, 10, 14, 14, 16, 24, 24] + [None] * 5),
    ("residual", [3, 3, 5, None, None, None])])
def test_no_field_is_stated_beyond_the_image_or_after_a_branch(name, stated, images):
    """The next of vgg would be 32, but around the value in the middle it leaves the image."""
    assert [row.receptive_field for row in trace(*network(name, images))[1:]] == stated


# ---- When forward() fails: the table so far, and what is so --------------------------------------

CONV1, CONV2, POOL = "nn.Conv2d(3, 6, 5) ", "nn.Conv2d(6, 16, 5) ", "nn.MaxPool2d(2, 2) "
FLATTEN, LAST = "x = torch.flatten(x, 1) ", "return self.fc3(x) "

# An edit of lenet5.py, and the sentence; {0.fc1} is what Python prints of the layer fc1.
MISTAKES = [
    (CONV2, "nn.Conv2d(6, 16, 3) ", "fc1, {0.fc1}, gets (2, 576): 16 * 6 * 6 = 576"),
    (CONV2, "nn.Conv2d(6, 16, 5, padding=2) ", "fc1, {0.fc1}, gets (2, 784): 16 * 7 * 7 = 784"),
    (CONV2, "nn.Conv2d(3, 16, 5) ", "conv2, {0.conv2}, gets (2, 6, 14, 14): 28 / 2 = 14"),
    (CONV2, "nn.Conv2d(6, 16, 15) ", "conv2, {0.conv2}, gets (2, 6, 14, 14): 28 / 2 = 14"),
    (POOL, "nn.MaxPool2d(30) ",
     "max_pool2d(30, 30, 0, 1, False, False) gets (2, 6, 28, 28): (32 - 5) + 1 = 28"),
    ("nn.Linear(120, 84)", "nn.Linear(100, 84)", "fc2, {0.fc2}, gets (2, 120): 400 -> 120"),
    (FLATTEN, "x = x ", "fc1, {0.fc1}, gets (2, 16, 5, 5): 10 / 2 = 5"),
    (FLATTEN, "x = torch.flatten(x) ", "fc1, {0.fc1}, gets (800,): 2 * 16 * 5 * 5 = 800"),
    (FLATTEN, "x = x.view(-1, 16 * 5 * 6) ", "view(-1, 480) gets (2, 16, 5, 5): 10 / 2 = 5"),
    (FLATTEN, "x = x.view(-1, 200) ", "fc1, {0.fc1}, gets (4, 200)")]


def failed(net, x, capsys):
    """What trace() prints of a network that fails; its last line is the error's note, too."""
    with pytest.raises(RuntimeError) as error:
        trace(net, x)
    printed = capsys.readouterr().out.splitlines()
    if hasattr(error.value, "add_note"):  # from Python 3.11 on
        assert error.value.__notes__ == printed[-1:]
    return printed


@pytest.mark.parametrize("old, new, sentence", MISTAKES)
def test_the_last_line_says_which_layer_fails_and_what_it_gets(images, capsys, old, new, sentence):
    net = edited("lenet5", (old, new))["LeNet5"]()
    assert failed(net, images[:2], capsys)[-1] == sentence.format(net)


def test_above_it_stands_the_table_so_far_without_a_total(images, capsys):
    *table, last = failed(LeNet5(), images[:, :, :28, :28], capsys)
    assert [line.split()[0] for line in table] == [
        "layer", "input", "conv1", "relu", "pool", "conv2", "relu", "pool", "flatten"]
    assert last.startswith("fc1, Linear(in_features=400, out_features=120, bias=True), gets (4, ")


@pytest.mark.parametrize("function, sentence", [
    (lambda net, x: net.conv(x.permute(0, 2, 3, 1)), "conv, {0.conv}, gets (2, 32, 32, 3)"),
    (lambda net, x: net.grouped(net.conv(x).tanh()),
     "grouped, {0.grouped}, gets (2, 6, 28, 28): (32 - 5) + 1 = 28"),
    (lambda net, x: net.dilated(x), "dilated, {0.dilated}, gets (2, 3, 32, 32)"),
    (lambda net, x: net.norm(x), "norm, {0.norm}, gets (2, 3, 32, 32)"),
    (lambda net, x: net.cell(x[0, 0, :, :31]), "cell, {0.cell}, gets (32, 31) and (32, 5)"),
    (lambda net, x: net.fc(net.conv(x[:, :, :5, :5]).squeeze_()), "fc, {0.fc}, gets (2, 6)"),
    (lambda net, x: net.more[0](x), "linear() gets (2, 3, 32, 32)"),
    (lambda net, x: x @ net.W, "matmul() gets (2, 3, 32, 32) and (9, 9)"),
    (lambda net, x: torch.cat([net.conv(x), x], 1),
     "cat(1) gets (2, 6, 28, 28) and (2, 3, 32, 32)"),
    (lambda net, x: F.max_pool2d(x, kernel_size=40),
     "max_pool2d(40, None, 0, 1, False, False) gets (2, 3, 32, 32)")])
def test_so_it_does_of_any_other_call(images, capsys, function, sentence):
    net = Calls(function, conv=nn.Conv2d(3, 6, 5), fc=nn.Linear(9, 9), more=[nn.Linear(5, 5)],
                grouped=nn.Conv2d(4, 8, 3, groups=2), dilated=nn.Conv2d(3, 6, 5, dilation=9),
                norm=nn.BatchNorm2d(4), cell=nn.LSTMCell(32, 5), W=nn.Parameter(torch.zeros(9, 9)))
    assert failed(net, images[:2], capsys)[-1] == sentence.format(net)


def raises(net, x):
    raise RuntimeError("the student's own")


def catches_and_raises(net, x):
    try:
        net.conv(x[0, 0])
    except RuntimeError:
        raise RuntimeError("the student's own")


@pytest.mark.parametrize("function", [raises, lambda net, x: raises(net, net.conv(x)),
                                      catches_and_raises, lambda net, x: net.missing(x)])
def test_an_error_that_no_call_raised_is_not_explained(images, capsys, function):
    with pytest.raises((RuntimeError, AttributeError), match="the student's own|missing") as error:
        trace(Calls(function, conv=nn.Conv2d(3, 6, 5)), images)
    assert not hasattr(error.value, "__notes__")
    assert "gets" not in capsys.readouterr().out


# ---- python lenet5.py and evaluate.py after an edit of the network -------------------------------

LAYER = "self.fc3 = ", "self.fc4 = nn.Linear(10, 10)\n        self.fc3 = "
FROZEN = "self.pool = ", "self.conv1.requires_grad_(False)\n        self.pool = "

# The edits of README.md's homework, and others that are hard to tell from the tutorial's network.
# First those that leave conv1 and its ReLU as they are.
PLAIN = {
    "dropout": [(LAST, "return self.fc3(F.dropout(x, 0.5, self.training)) ")],
    "small kernel": [(CONV2, "nn.Conv2d(6, 16, 3) "), ("5 * 5, 120", "6 * 6, 120")],
    "smaller": [("5, 120)", "5, 40)"), ("120, 84", "40, 30"), ("84, 10", "30, 10")],
    "layer more": [LAYER, (LAST, "return self.fc4(F.relu(self.fc3(x))) ")],
    "average": [("nn.MaxPool2d", "nn.AvgPool2d")], "frozen": [FROZEN],
    "no bias": [(CONV1, "nn.Conv2d(3, 6, 5, bias=False) ")],
    "last ReLU": [(LAST, "return F.relu(self.fc3(x)) ")],
    "wide pool": [(POOL, "nn.MaxPool2d(3, 2, padding=1) ")]}
EDITS = PLAIN | {
    "leaky ReLU": [("F.relu(", "F.leaky_relu(")], "renamed": [("self.conv1", "self.first")],
    "padding": [(CONV1, "nn.Conv2d(3, 6, 5, padding=2) "), ("5 * 5, 120", "6 * 6, 120")],
    "border": [(CONV1, "nn.Conv2d(3, 6, 5, padding=1) ")],  # as many parameters as the tutorial's
    "stride": [(CONV1, "nn.Conv2d(3, 6, 5, stride=2) "), ("5 * 5, 120", "1 * 1, 120")],
    "batch norm": [(CONV1, "nn.Sequential(nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6)) ")]}


@pytest.mark.parametrize("name", EDITS)
def test_after_each_edit_the_script_compares_nothing_and_says_so(capsys, name):
    edited("lenet5", *EDITS[name], once=False)["main"]()
    last = capsys.readouterr().out.split("\n\n")[1]
    assert last == "The loops by hand compute the tutorial's network. This one is not compared.\n"


def test_the_image_has_the_channels_of_the_first_convolution_or_three(monkeypatch, capsys):
    for net, shape in ((nn.Conv2d(1, 6, 5), "(1, 1, 32, 32)"), (nn.Flatten(), "(1, 3, 32, 32)")):
        monkeypatch.setattr(lenet5, "LeNet5", lambda: net)
        lenet5.main()
        assert re.search(r"input +(\(.*\))", capsys.readouterr().out)[1] == shape


@pytest.mark.parametrize("name", EDITS)
def test_after_each_edit_evaluate_py_draws_what_is_true(few, monkeypatch, capsys, name):
    mine = edited("lenet5", *EDITS[name], once=False)["LeNet5"]
    torch.save(mine().state_dict(), "net.pth")
    monkeypatch.setattr(evaluate, "LeNet5", mine)
    evaluate.main(["--dataset", "stripes", "--checkpoint", "net.pth"])
    printed = capsys.readouterr().out
    assert os.path.exists("filters.png") == os.path.exists("convolution.png") == (name in PLAIN)
    sentence = "not filters.png, convolution.png: conv1 and its ReLU are not as in LeNet-5\n"
    assert (sentence in printed) == (name not in PLAIN)


# ---- The loops by hand, beside PyTorch (test_by_hand.py tests each alone) ------------------------

def test_zeros_like_a_list():
    assert lenet5.zeros_like([[[1.0, 2.0]], [[3.0, 4.0]]]) == [[[0, 0]], [[0, 0]]]


def test_the_script_shows_forward_backward_and_a_step_beside_pytorchs(capsys):
    lenet5.main()
    printed = capsys.readouterr().out
    pytorch, by_hand = re.findall(r"^  (?:PyTorch|by hand):((?: +-?\d\.\d{3}){10})$", printed, re.M)
    assert pytorch == by_hand and printed.isascii()
    differences = re.findall(r"largest difference(.*): (\S+)$", printed, re.M)
    names = "", " of all 62,006 gradients", " of the weights after one step"
    assert tuple(name for name, _ in differences) == names
    assert all(float(number) < 1e-12 for _, number in differences)
    loss, loss_by_hand = re.search(r"loss: PyTorch (\S+), by hand (\S+)", printed).groups()
    assert loss == loss_by_hand and abs(float(loss) - math.log(10)) < 0.3


@pytest.mark.parametrize("name, wrong, shown", [
    ("relu_by_hand", lambda x: x, "difference"), ("relu_backward", lambda x, dy: dy, "gradients"),
    ("step_by_hand", lambda *args, **flags: None, "one step")])
def test_the_script_would_show_a_loop_that_is_wrong(monkeypatch, capsys, name, wrong, shown):
    monkeypatch.setattr(lenet5, name, wrong)
    lenet5.main()
    assert float(re.search(rf"{shown}: (\S+)", capsys.readouterr().out)[1]) > 1e-6
