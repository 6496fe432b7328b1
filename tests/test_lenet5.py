"""Chapter 3, Build Model: what lenet5.py says about the network is so."""
import math
import os
import runpy
import signal
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

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


@pytest.fixture
def rows(images):
    torch.manual_seed(0)
    return trace(LeNet5(), images)


# ---- The layers, one fact a test -------------------------------------------------------------

def test_conv1_turns_32_into_28(images):
    assert LeNet5().conv1(images).shape == (4, 6, 28, 28)


def test_pool_halves_28_to_14_and_learns_nothing(images):
    net = LeNet5()
    assert net.pool(torch.zeros(4, 6, 28, 28)).shape == (4, 6, 14, 14)
    assert list(net.pool.parameters()) == []
    assert net.pool(torch.tensor([[[[1., 2.], [4., 3.]]]])).item() == 4


def test_conv2_turns_14_into_10_and_pool_10_into_5():
    net = LeNet5()
    assert net.conv2(torch.zeros(4, 6, 14, 14)).shape == (4, 16, 10, 10)
    assert net.pool(torch.zeros(4, 16, 10, 10)).shape == (4, 16, 5, 5)


def test_three_linear_layers_turn_400_into_120_into_84_into_10():
    net = LeNet5()
    assert [(fc.in_features, fc.out_features) for fc in (net.fc1, net.fc2, net.fc3)] == [(400, 120), (120, 84), (84, 10)]


def test_ten_logits_for_each_image_and_they_may_be_negative(images):
    torch.manual_seed(0)
    outputs = LeNet5()(images)
    assert outputs.shape == (4, 10)
    assert (outputs < 0).any() and (outputs > 0).any()  # no ReLU at the end


def test_forward_is_conv_relu_pool_twice_then_three_linear_layers(images):
    torch.manual_seed(0)
    net = LeNet5()
    x = F.max_pool2d(F.conv2d(images, net.conv1.weight, net.conv1.bias).clamp(min=0), 2, 2)
    x = F.max_pool2d(F.conv2d(x, net.conv2.weight, net.conv2.bias).clamp(min=0), 2, 2)
    x = x.reshape(4, 400)
    x = (x @ net.fc1.weight.T + net.fc1.bias).clamp(min=0)
    x = (x @ net.fc2.weight.T + net.fc2.bias).clamp(min=0)
    assert torch.allclose(net(images), x @ net.fc3.weight.T + net.fc3.bias, atol=1e-6)


def test_an_untrained_network_guesses():
    torch.manual_seed(0)
    outputs, labels = LeNet5()(torch.rand(200, 3, 32, 32) * 2 - 1), torch.arange(200) % 10
    assert nn.CrossEntropyLoss()(outputs, labels).item() == pytest.approx(math.log(10), abs=0.02)  # 2.303


# ---- The tutorial's network and ours ---------------------------------------------------------

def test_weights_go_from_the_tutorials_net_to_ours_and_back(images):
    torch.manual_seed(0)
    theirs, ours, back = Net(), LeNet5(), Net()
    ours.load_state_dict(theirs.state_dict())
    back.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.equal(ours(images), theirs(images))
    assert torch.equal(back(images), theirs(images))


def test_the_same_seed_gives_the_tutorials_start():
    torch.manual_seed(0)
    theirs = Net()
    torch.manual_seed(0)
    ours = LeNet5()
    assert all(torch.equal(p, q) for p, q in zip(theirs.parameters(), ours.parameters()))


def test_the_tutorials_view_makes_sixteen_answers_of_four_large_images_and_flatten_an_error():
    assert Net()(torch.zeros(4, 3, 52, 52)).shape == (16, 10)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        LeNet5()(torch.zeros(4, 3, 52, 52))


# ---- The trace -------------------------------------------------------------------------------

def test_trace_has_a_row_for_every_call(rows):
    assert [row.name for row in rows] == ["input", "conv1", "relu", "pool", "conv2", "relu", "pool", "flatten",
                                          "fc1", "relu", "fc2", "relu", "fc3"]


def test_trace_goes_32_28_14_10_5(rows):
    assert [row.shape[1:] for row in rows] == [
        (3, 32, 32), (6, 28, 28), (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 10, 10), (16, 5, 5), (400,),
        (120,), (120,), (84,), (84,), (10,)]


def test_trace_measures_what_passes_through(rows, images):
    assert all(row.shape == tuple(row.output.shape) for row in rows)
    assert torch.equal(rows[0].output, images)
    assert rows[1].output.min() < 0 and rows[2].output.min() == 0  # conv1, and the ReLU after it


def test_the_arithmetic_in_the_trace_is_right(rows):
    sums = [row.size for row in rows if "=" in row.size]
    assert sums == ["(32 - 5) + 1 = 28", "28 / 2 = 14", "(14 - 5) + 1 = 10", "10 / 2 = 5", "16 * 5 * 5 = 400"]
    assert all(eval(size.replace("=", "==")) for size in sums)


def test_62006_parameters_layer_by_layer(rows):
    counts = {row.name: row.parameters for row in rows if row.parameters}
    assert counts == {"conv1": 456, "conv2": 2416, "fc1": 48120, "fc2": 10164, "fc3": 850}
    assert sum(counts.values()) == sum(p.numel() for p in LeNet5().parameters()) == 62006


def test_651720_multiply_adds_layer_by_layer(rows):
    counts = {row.name: row.multiply_adds for row in rows if row.multiply_adds}
    assert counts == {"conv1": 6 * 28 * 28 * 3 * 5 * 5, "conv2": 16 * 10 * 10 * 6 * 5 * 5,
                      "fc1": 400 * 120, "fc2": 120 * 84, "fc3": 84 * 10}
    assert sum(counts.values()) == 651720


def test_the_receptive_field_grows_from_1_to_16_pixels(rows):
    assert [row.receptive_field for row in rows] == [1, 5, 5, 6, 14, 14, 16] + [None] * 6


@pytest.mark.parametrize("k", [1, 3, 4, 6])
def test_the_receptive_field_is_what_a_value_really_depends_on(rows, k):
    """A value in the middle of map 0 of row k: its gradient reaches so many input pixels across, and no others."""
    torch.manual_seed(0)
    net, x = LeNet5(), torch.rand(1, 3, 32, 32, requires_grad=True)
    average = nn.AvgPool2d(2, 2)  # max pooling would pass its gradient to one of the four only
    y = net.conv1(x)
    for step in {1: [], 3: [average], 4: [average, net.conv2], 6: [average, net.conv2, average]}[k]:
        y = step(y)
    y[0, 0, 2, 2].backward()
    rows_touched, columns_touched = x.grad[0].abs().sum(0).nonzero().unbind(1)
    field = rows[k].receptive_field
    assert rows_touched.max() - rows_touched.min() + 1 == columns_touched.max() - columns_touched.min() + 1 == field


# ---- The trace of the reader's own network: one edit, and nothing else to change -------------------

class Edited(LeNet5):
    """LeNet5 with layers replaced: Edited(conv2=nn.Conv2d(6, 16, 3))."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


@pytest.mark.parametrize("name, activation", [("leaky_relu", F.leaky_relu), ("elu", F.elu), ("tanh", torch.tanh),
                                              ("sigmoid", torch.sigmoid), ("gelu", F.gelu)])
def test_another_activation_function_shows_up_under_its_name(images, monkeypatch, name, activation):
    monkeypatch.setattr(F, "relu", activation)
    rows = trace(LeNet5(), images)
    assert [row.name for row in rows].count(name) == 4
    assert [row.receptive_field for row in rows] == [1, 5, 5, 6, 14, 14, 16] + [None] * 6


def test_one_more_layer_is_one_more_row(images):
    class Longer(LeNet5):
        def __init__(self):
            super().__init__()
            self.fc4 = nn.Linear(10, 7, bias=False)

        def forward(self, x):
            return self.fc4(super().forward(x))

    last = trace(Longer(), images)[-1]
    assert last[:6] == ("fc4", "10 -> 7", (4, 7), None, 70, 70)


def test_dropout_is_in_the_trace_but_off_and_costs_no_random_number(images):
    class Dropping(LeNet5):
        def forward(self, x):
            return F.dropout(super().forward(x), 0.5, self.training)

    net = Dropping().train()
    before = torch.get_rng_state()
    rows = trace(net, images)
    assert rows[-1].name == "dropout" and torch.equal(rows[-1].output, rows[-2].output)
    assert net.training and torch.equal(torch.get_rng_state(), before)


def test_each_module_is_in_the_mode_afterwards_that_it_was_in(images):
    """A BatchNorm that was frozen with eval() stays frozen; also if the network fails."""
    for size in (32, 28):
        net = nn.Sequential(nn.BatchNorm2d(3).eval(), nn.Dropout(), LeNet5()).train()
        net[0].eval()
        x = images[:, :, :size, :size]
        trace(net, x) if size == 32 else pytest.raises(RuntimeError, trace, net, x)
        assert [module.training for module in net.modules()] == [True, False, True] + [True] * 7
        assert net[0].num_batches_tracked == 0


@pytest.mark.parametrize("layer, size, field", [
    (nn.Conv2d(3, 6, 5, padding=2), "(32 + 4 - 5) + 1 = 32", 5), (nn.Conv2d(3, 6, 5, stride=2), "(32 - 5) // 2 + 1 = 14", 5),
    (nn.MaxPool2d(3, 2), "(32 - 3) // 2 + 1 = 15", 3), (nn.MaxPool2d(3), "32 // 3 = 10", 3), (nn.AvgPool2d(2), "32 / 2 = 16", 2),
    (nn.MaxPool2d(3, ceil_mode=True), "32 -> 11", 3), (nn.MaxPool2d(3, 1, padding=1), "(32 + 2 - 3) + 1 = 32", 3),
    (nn.MaxPool2d((2, 2), (2, 2)), "32 / 2 = 16", 2), (nn.Conv2d(3, 6, 3, stride=10), "(32 - 3) // 10 + 1 = 3", 3)])
def test_the_arithmetic_follows_padding_and_stride(images, layer, size, field):
    row = trace(nn.Sequential(layer), images)[1]
    assert (row.size, row.receptive_field) == (size, field)
    assert "->" in size or eval(size.replace("=", "==")) and row.shape[2] == int(size.split("= ")[1])


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 6, (1, 5)), nn.MaxPool2d((2, 4)), nn.Conv2d(3, 6, 3, dilation=2),
                                   nn.Conv2d(3, 6, 5, padding="same"), nn.AdaptiveAvgPool2d(4), nn.Upsample(scale_factor=2),
                                   nn.ZeroPad2d(2), nn.GroupNorm(1, 3)], ids=str)
def test_what_the_table_does_not_know_it_leaves_empty(images, layer):
    """No square window, or a call that is not of a LeNet: no equation, no receptive field, here or further on."""
    rows = trace(nn.Sequential(layer, nn.ReLU()), images)
    assert rows[1].size == "" and rows[1].receptive_field is rows[2].receptive_field is None


def test_a_view_that_is_no_flatten_gets_no_equation(images):
    class Patches(nn.Module):
        def forward(self, x):
            return x.view(4, 3, 16, 64).view(8, 1536).view(4, 2, 1536).flatten(1)

    rows = trace(Patches(), images)
    assert [row.size for row in rows] == ["", "", "", "", "2 * 1536 = 3072"]
    assert [row.name for row in rows] == ["input", "view", "view", "view", "flatten"]


# ---- Networks by others. The referees: sum(p.numel()), flop_counter, gradients ---------------------

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        return self.fc((x + self.conv2(x)).mean((2, 3)))


class Shared(nn.Module):
    """The same layer twice, and its weight a third time, written out."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3072, 3072)

    def forward(self, x):
        return self.fc(self.fc(torch.flatten(x, 1))) @ self.fc.weight.T


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 3, 5, 5)), nn.Parameter(torch.randn(6))

    def forward(self, x):
        x = F.conv2d(input=x, weight=self.weight, bias=self.bias)
        return torch.flatten(input=torch.cat(tensors=[x, x], dim=1), start_dim=1)


class Lists(nn.Module):
    """Parameters in a list, and a call that returns several tensors."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Parameter(torch.randn(3072, 4)), nn.Parameter(torch.randn(3072, 6))

    def forward(self, x):
        low, high = torch.flatten(x, 1).chunk(2, 1)
        return F.linear(torch.cat([low, high], 1), torch.cat([self.one, self.other], 1).T)


def pruned():
    net = LeNet5()
    prune.l1_unstructured(net.conv1, "weight", 0.5)
    return net


NETWORKS = {
    "sequential": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Sigmoid(),
                                        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10)),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(3, 6, 5, groups=3), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Dropout(), nn.Linear(4056, 10)),
    "residual": Residual, "functional": Functional, "pruned": pruned, "lenet5": LeNet5, "tutorial": Net,
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1176, 10)),
    "lazy": lambda: nn.Sequential(nn.LazyConv2d(6, 5, stride=2), nn.LeakyReLU(), nn.Flatten(), nn.LazyLinear(10)),
    "grey": lambda: nn.Sequential(nn.Conv2d(3, 1, 1), Edited(conv1=nn.Conv2d(1, 6, 5))),
    "lists": Lists,
    "resnet18": torchvision.models.resnet18, "squeezenet1_1": torchvision.models.squeezenet1_1}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_multiply_adds_are_what_pytorch_counts(name, images):
    net = NETWORKS[name]().eval()
    torch.manual_seed(0)
    x = images.repeat(1, 1, 2, 2)[:1] if name in ("resnet18", "squeezenet1_1") else images[:1]
    rows = trace(net, x)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert sum(row.parameters for row in rows) == sum(parameter.numel() for parameter in net.parameters())
    assert sum(row.multiply_adds or 0 for row in rows) == counter.get_total_flops() / 2


@pytest.mark.parametrize("name", ["lenet5", "sequential", "residual", "depthwise", "batch norm", "lazy", "squeezenet1_1"])
def test_a_receptive_field_that_is_stated_is_what_gradients_say(name, images):
    """A value in the middle of a map: so many pixels of the input have a gradient, across (fewer, behind max pooling)."""
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    size = images[:1].repeat(1, 1, 3, 3) if name == "squeezenet1_1" else images[:1]
    rows = trace(net, size)
    for k in range(1, len(rows)):
        x = size.clone().requires_grad_()
        with Tracer(net, x) as tracer:
            net(x)
        y = tracer.rows[k].output
        if rows[k].receptive_field:
            y[0, :, len(y[0, 0]) // 2, len(y[0, 0]) // 2].sum().backward()
            touched = x.grad[0].abs().sum(0).nonzero()
            across = (touched.max(0).values - touched.min(0).values + 1).max()
            pooled = "pool" in [row.name for row in rows[:k + 1]]
            assert across == rows[k].receptive_field or pooled and across < rows[k].receptive_field
    assert len([row for row in rows if row.receptive_field]) >= 3


def test_a_field_ends_at_a_branch(images):
    assert [row.receptive_field for row in trace(Residual(), images)] == [1, 3, 3, 5, None, None, None]
    assert [row.receptive_field for row in trace(Functional(), images)] == [1, 5, None, None]


def test_a_shared_layer_counts_once_and_work_that_is_not_known_stays_empty(images, capsys):
    rows = trace(Shared(), images)
    weights = 3072 * 3072
    assert [row.parameters for row in rows] == [0, 0, weights + 3072, 0, 0, 0]
    assert [row.multiply_adds for row in rows] == [0, 0, weights, weights, None, None]
    print_trace(rows)
    assert f"at least {2 * weights:,}" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("call", [lambda x: torch.einsum("nchw,dc->ndhw", x, torch.ones(2, 3)), lambda x: x @ torch.ones(32, 5),
                                  lambda x: F.scaled_dot_product_attention(x, x, x), lambda x: F.conv1d(x[:, 0], torch.ones(4, 32, 3))])
def test_work_of_other_kinds_is_left_empty(images, call):
    class Other(nn.Module):
        def forward(self, x):
            return call(x)

    assert trace(Other(), images)[-1].multiply_adds is None


def test_a_linear_layer_on_patches_counts_each_image_whole_or_not_at_all(images):
    class Patches(nn.Module):
        def __init__(self, patches):
            super().__init__()
            self.fc, self.patches = nn.Linear(768, 5), patches

        def forward(self, x):
            return self.fc(x.reshape(self.patches))

    assert trace(Patches((4, 4, 768)), images)[-1].multiply_adds == 4 * 768 * 5
    assert trace(Patches((16, 768)), images)[-1].multiply_adds is None


def test_layers_in_a_plain_list_are_named_not_registered(images):
    net = LeNet5()
    net.more = [nn.Linear(10, 10)]
    net.forward = lambda x: net.more[0](LeNet5.forward(net, x))
    assert [(row.name, row.parameters) for row in trace(net, images)][-2:] == [("fc3", 850), ("not registered", 110)]


def test_an_unbatched_image_has_no_multiply_adds_and_a_row_of_several_images_is_warned_of(images, capsys):
    """Never a number that is a little wrong, and no row that is missing."""
    assert trace(LeNet5().conv1, images[0])[1].multiply_adds is None
    with pytest.raises(RuntimeError) as error:
        trace(LeNet5(), images[0])
    assert not hasattr(error.value, "__notes__")  # flatten(x, 1) is there, and not what is wrong
    capsys.readouterr()
    flat = edited("lenet5", ("x = torch.flatten(x, 1) ", "x = torch.flatten(x) "))["LeNet5"]()
    rows = trace(flat, images[:1])
    assert [row.shape for row in rows][7:] == [(400,), (120,), (120,), (84,), (84,), (10,)]
    print_trace(rows)
    total, advice = capsys.readouterr().out.splitlines()[-2:]
    assert total.split()[:2] == ["total", "62,006"] and total.endswith("at least 592,800")
    assert advice == "(10,) is not an answer for each of 1 image(s). " + lenet5.FLATTEN
    print_trace(trace(Net(), torch.zeros(4, 3, 52, 52)))  # the view of the tutorial
    assert capsys.readouterr().out.splitlines()[-1].startswith("(16, 10) is not an answer for each of 4 image(s).")
    print_trace(trace(nn.Sequential(nn.Flatten(), nn.Linear(3072, 1), nn.Flatten(0)), images))  # one number for each
    assert capsys.readouterr().out.splitlines()[-1].startswith("total")
    print_trace(trace(LeNet5(), images))
    assert capsys.readouterr().out.splitlines()[-1].startswith("total")


def test_a_scripted_or_compiled_network_gets_a_sentence(images):
    compiled = nn.Sequential(LeNet5())
    compiled._orig_mod = compiled[0]  # as torch.compile() wraps a network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is deprecated, and still in use
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU()))
    for net in (scripted, nn.Sequential(scripted), compiled):
        with pytest.raises(ValueError, match="can't look into a scripted or compiled network"):
            trace(net, images)


# ---- When forward() fails: the table so far, Python's own error, and under it what to change ----------

class Small(nn.Module):
    """Another network: one convolution, one pooling, two linear layers, in an nn.Sequential."""

    def __init__(self, padding=0, flatten=nn.Flatten, last=5400, channels=3, pool=2, kernel=3):
        super().__init__()
        layers = [nn.Conv2d(channels, 24, kernel, padding=padding), nn.Tanh(), nn.MaxPool2d(pool), flatten(), nn.Linear(last, 20), nn.Linear(20, 5)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def ours(*edits):
    """LeNet5 after edits of its lines."""
    return lambda: edited("lenet5", *edits)["LeNet5"]()


CONV2, FC1, ROW = "self.conv2 = nn.Conv2d(6, 16, 5) ", "self.fc1 = nn.Linear(16 * 5 * 5, 120) ", "x = torch.flatten(x, 1) "

# A mistake, what the note says, and the network after what the note says was done; size: of the images.
MISTAKES = {
    "kernel": (ours((CONV2, "self.conv2 = nn.Conv2d(6, 16, 3) ")), "fc1 expects 400 numbers for each image and gets 576: its first number must be 16 * 6 * 6.",
               ours((CONV2, "self.conv2 = nn.Conv2d(6, 16, 3) "), (FC1, "self.fc1 = nn.Linear(16 * 6 * 6, 120) "))),
    "padding": (lambda: Small(padding=1), "layers.4 expects 5400 numbers for each image and gets 6144: its first number must be 24 * 16 * 16.",
                lambda: Small(padding=1, last=24 * 16 * 16)),
    "pooling": (lambda: Small(pool=3), "layers.4 expects 5400 numbers for each image and gets 2400: its first number must be 24 * 10 * 10.",
                lambda: Small(pool=3, last=24 * 10 * 10)),
    "size": (LeNet5, "fc1 expects 400 numbers for each image and gets 256: its first number must be 16 * 4 * 4.",
             ours((FC1, "self.fc1 = nn.Linear(16 * 4 * 4, 120) "))),
    "second linear": (ours(("nn.Linear(120, 84)", "nn.Linear(100, 84)")), "fc2 expects 100 numbers for each image and gets 120: its first number must be 120.", LeNet5),
    "channels": (ours((CONV2, "self.conv2 = nn.Conv2d(3, 16, 5) ")), "conv2 expects 3 channel(s) and gets 6: its first number must be 6.", LeNet5),
    "channels and padding": (ours((CONV2, "self.conv2 = nn.Conv2d(3, 16, 3, padding=1) "), (FC1, "self.fc1 = nn.Linear(16 * 7 * 7, 120) ")),
                             "conv2 expects 3 channel(s) and gets 6: its first number must be 6.",
                             ours((CONV2, "self.conv2 = nn.Conv2d(6, 16, 3, padding=1) "), (FC1, "self.fc1 = nn.Linear(16 * 7 * 7, 120) "))),
    "grey": (lambda: Small(channels=1), "layers.0 expects 1 channel(s) and gets 3: its first number must be 3.", Small),
    "no flatten": (ours((ROW, "x = x ")), f"fc1 gets (2, 16, 5, 5), and needs one row of each image. {lenet5.FLATTEN}", LeNet5),
    "no nn.Flatten": (lambda: Small(flatten=nn.Identity), f"layers.4 gets (2, 24, 15, 15), and needs one row of each image. {lenet5.FLATTEN}", Small),
    "flatten(x)": (ours((ROW, "x = torch.flatten(x) ")), f"fc1 gets (800,), and needs one row of each image. {lenet5.FLATTEN}", LeNet5),
    "nn.Flatten(0)": (lambda: Small(flatten=lambda: nn.Flatten(0)), f"layers.4 gets (10800,), and needs one row of each image. {lenet5.FLATTEN}", Small),
    "view": (ours((ROW, "x = x.view(-1, 16 * 5 * 6) ")), f"view gets (2, 16, 5, 5), to make one row of each image. {lenet5.FLATTEN}", LeNet5),
    "view of half": (ours((ROW, "x = x.view(-1, 200) ")), f"fc1 gets (4, 200), and needs one row of each image. {lenet5.FLATTEN}", LeNet5),
    "reshape": (ours((ROW, "x = torch.reshape(x, (2, 16 * 5 * 6)) ")), f"reshape gets (2, 16, 5, 5), to make one row of each image. {lenet5.FLATTEN}", LeNet5),
    "channels last": (LeNet5, "conv1 expects channels first: give the network images.permute(0, 3, 1, 2).", LeNet5),
    "channels last, other": (Small, "layers.0 expects channels first: give the network images.permute(0, 3, 1, 2).", Small),
    "large kernel": (ours((CONV2, "self.conv2 = nn.Conv2d(6, 16, 15) ")), "conv2: its kernel is larger than its map, 14x14. Take a smaller one.", LeNet5),
    "large kernel, other": (lambda: Small(kernel=33), "layers.0: its kernel is larger than its map, 32x32. Take a smaller one.", Small),
    "large pool": (ours(("nn.MaxPool2d(2, 2) ", "nn.MaxPool2d(30) ")), "pool: its kernel is larger than its map, 28x28. Take a smaller one, or leave the pooling out.", LeNet5),
    "large pool, other": (lambda: Small(pool=31), "pool: its kernel is larger than its map, 30x30. Take a smaller one, or leave the pooling out.", Small)}


class Branches(nn.Module):
    """Two linear layers, of a pooled and of the whole image; what the second gets is in the last row when the first fails."""

    def __init__(self, first):
        super().__init__()
        self.conv2d, self.first, self.other = nn.Conv2d(3, 4, 5), nn.Linear(first, 5), nn.Linear(3072, 5)

    def forward(self, x):
        pooled, whole = torch.flatten(F.max_pool2d(self.conv2d(x), 4), 1), torch.flatten(x, 1)
        return self.first(pooled) + self.other(whole)


MISTAKES["of two branches"] = (lambda: Branches(100), "first expects 100 numbers for each image and gets 196: its first number must be 196.", lambda: Branches(196))
MISTAKES["two views"] = (lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 1024)), nn.Flatten(2), nn.Flatten(1), nn.Linear(9, 5)),
                         "4 expects 9 numbers for each image and gets 3072: its first number must be 3 * 1024.",
                         lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_said_last_and_is_right_when_obeyed(mistake, images, capsys):
    made, sentence, mended = MISTAKES[mistake]
    x = images[:2, :, :28, :28] if mistake == "size" else images[:2]
    x, right = x.permute(0, 2, 3, 1) if "last" in mistake else x, x
    with pytest.raises(RuntimeError) as error:
        trace(made(), x)
    printed = capsys.readouterr().out.splitlines()
    if sys.version_info >= (3, 11):
        assert error.value.__notes__ == [sentence]  # Python shows it under the error
    else:
        assert printed.pop() == sentence
    assert printed[0].startswith("layer") and printed[1].startswith("input") and "total" not in printed[-1]
    assert "forward" in [frame.name for frame in error.traceback]  # the line of forward() stands in the traceback
    assert trace(mended(), right)[-1].shape in ((2, 10), (2, 5))


class Calls(nn.Module):
    """A network whose forward() is the function that it is given; its layers are a convolution and a linear layer."""

    def __init__(self, function, conv=None):
        super().__init__()
        self.function, self.conv, self.fc = function, conv or nn.Conv2d(3, 6, 5), nn.Linear(3072, 10)

    def forward(self, x):
        return self.function(self, x)


UNKNOWN = [
    lambda net, x: net.conv(x.double()), lambda net, x: net.fc(x.flatten(1).double()), lambda net, x: F.conv2d(x, net.conv.weight, torch.zeros(7)),
    lambda net, x: nn.Conv2d(4, 8, 3, groups=2)(net.conv(x)), lambda net, x: nn.Linear(2352, 10)(net.conv(x)[0].view(-1, 2353)),
    lambda net, x: net.conv(x.flatten(1)), lambda net, x: net.conv(x[0, 0, 0]), lambda net, x: x.view(4, 4, 3 // 4, 32, 32),
    lambda net, x: net.fc(x.flatten(1).view(2, 4, 1536)), lambda net, x: F.max_pool2d(x, 2, 2, padding=2), lambda net, x: torch.cat([net.conv(x), x], 1),
    lambda net, x: torch.einsum("nc,cd->nd", x, x), lambda net, x: nn.BatchNorm2d(4)(x), lambda net, x: net.conv(net.conv(x)),
    lambda net, x: x.flatten(1) @ torch.ones(5, 5), lambda net, x: net.fc(net.fc(x.flatten(1))), lambda net, x: net.conv(x.permute(0, 2, 3, 1)[:, :, :, :2]),
    lambda net, x: nn.Conv2d(3, 6, 5, dilation=9)(x)]


@pytest.mark.parametrize("function", UNKNOWN)
def test_of_what_it_does_not_know_the_note_says_nothing(images, capsys, function):
    """Among them: a layer that is used twice, where a change for one use would break the other."""
    with pytest.raises(RuntimeError) as error:
        trace(Calls(function), images)
    assert not hasattr(error.value, "__notes__") and not capsys.readouterr().out.endswith(".\n")


def raises(net, x):
    raise RuntimeError("the student's own")


@pytest.mark.parametrize("function", [raises, lambda net, x: raises(net, net.conv(x)), lambda net, x: net.missing(x)])
def test_an_error_of_the_students_own_is_not_explained(images, capsys, function):
    with pytest.raises((RuntimeError, AttributeError), match="the student's own|missing") as error:
        trace(Calls(function), images)
    assert not hasattr(error.value, "__notes__")


def test_a_kernel_fits_into_its_map_and_the_padding(images):
    assert trace(Calls(lambda net, x: nn.Conv2d(6, 6, 31, padding=2)(net.conv(x))), images)[-1].shape == (4, 6, 2, 2)


@pytest.mark.parametrize("function", [
    lambda net, x: x - x.mean(), lambda net, x: x / x.norm(), lambda net, x: nn.BatchNorm2d(3, track_running_stats=False)(x),
    lambda net, x: F.batch_norm(x, torch.zeros(3), torch.ones(3), training=True), lambda net, x: x.roll(1, 3), lambda net, x: x.softmax(3)])
def test_a_value_that_depends_on_the_whole_map_has_no_receptive_field_stated(images, function):
    rows = trace(Calls(function), images)
    assert rows[-1].receptive_field is None


def test_a_map_that_was_written_into_has_no_receptive_field_stated(images):
    with Tracer(nn.Identity(), torch.zeros(2)) as tracer:
        tracer.rows[0].output[:] = torch.ones(1)
    if len(tracer.rows) == 1:
        pytest.skip("PyTorch 2.2 does not tell a TorchFunctionMode of y[:] = another tensor")

    def forward(net, x):
        y = net.conv(x)
        y[:] = y.mean()
        return F.relu(y)

    assert trace(Calls(forward), images)[-1].receptive_field is None


def test_no_receptive_field_is_larger_than_the_image_and_batch_norm_keeps_it(images):
    rows = trace(nn.Sequential(*[nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)) for _ in range(20)]), images)
    assert [row.receptive_field for row in rows[:5]] == [1, 3, 3, 5, 5] and rows[-1].receptive_field == 32


@pytest.mark.parametrize("pool", [F.avg_pool2d, F.max_pool2d, torch.max_pool2d])
def test_pooling_with_its_arguments_by_name(images, pool):
    row = trace(Calls(lambda net, x: pool(x, kernel_size=2)), images)[-1]
    assert (row.size, row.receptive_field) == ("32 / 2 = 16", 2)


# ---- python lenet5.py, as it stands and after each edit of README.md's homework ----------------------

EDITS = {
    "leaky ReLU": [("F.relu(", "F.leaky_relu(")], "tanh": [("F.relu(", "torch.tanh(")], "sigmoid": [("F.relu(", "torch.sigmoid(")],
    "dropout": [("return self.fc3(x) ", "return self.fc3(F.dropout(x, 0.5, self.training)) ")],
    "padding": [("nn.Conv2d(3, 6, 5) ", "nn.Conv2d(3, 6, 5, padding=2) "), ("16 * 5 * 5, 120", "16 * 6 * 6, 120")],
    "small kernel": [("nn.Conv2d(6, 16, 5)", "nn.Conv2d(6, 16, 3)"), ("16 * 5 * 5, 120", "16 * 6 * 6, 120")],
    "layer more": [("self.fc3 = ", "self.fc4 = nn.Linear(10, 10)\n        self.fc3 = "), ("return self.fc3(x) ", "return self.fc4(F.relu(self.fc3(x))) ")],
    "renamed": [("self.conv1", "self.first")], "no bias": [("nn.Conv2d(3, 6, 5) ", "nn.Conv2d(3, 6, 5, bias=False) ")],
    "smaller": [("5, 120)", "5, 40)"), ("120, 84", "40, 30"), ("84, 10", "30, 10")],
    "average": [("nn.MaxPool2d", "nn.AvgPool2d")], "lazy": [("nn.Linear(16 * 5 * 5, 120)", "nn.LazyLinear(100)"), ("120, 84", "100, 84")],
    "stride": [("nn.Conv2d(3, 6, 5) ", "nn.Conv2d(3, 6, 5, stride=2) "), ("16 * 5 * 5, 120", "16 * 1 * 1, 120")],
    "batch norm": [("nn.Conv2d(3, 6, 5) ", "nn.Sequential(nn.Conv2d(3, 6, 5), nn.BatchNorm2d(6)) ")]}
PLAIN = "frozen", "wide pool", "dropout", "small kernel", "layer more", "smaller", "average", "lazy", "no bias"  # conv1 and its ReLU are as they were


EDITS |= {"border": [("nn.Conv2d(3, 6, 5) ", "nn.Conv2d(3, 6, 5, padding=1) ")],  # as many parameters as the tutorial's
          "frozen": [("self.pool = ", "self.conv1.requires_grad_(False)\n        self.pool = ")],
          "wide pool": [("nn.MaxPool2d(2, 2) ", "nn.MaxPool2d(3, 2, padding=1) ")]}


@pytest.mark.parametrize("name", EDITS)
def test_after_each_edit_the_script_compares_nothing_and_says_so(capsys, name):
    names = edited("lenet5", *EDITS[name], once=False)
    names["main"]()
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "The loops by hand compute the tutorial's network. This is another one: it is not compared."
    assert "difference" not in printed and "total" in printed


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="Windows has no SIGPIPE")
def test_the_script_leaves_a_notebooks_kernel_as_it_was(capsys):
    """%run lenet5.py: a kernel that dies of a closed pipe loses all variables."""
    before, stdout = signal.getsignal(signal.SIGPIPE), sys.stdout
    runpy.run_path(lenet5.__file__, run_name="__main__")
    assert signal.getsignal(signal.SIGPIPE) == before and sys.stdout is stdout and "total" in capsys.readouterr().out


def test_a_first_layer_for_grey_images_gets_a_grey_image(capsys):
    edited("lenet5", ("nn.Conv2d(3, 6, 5) ", "nn.Conv2d(1, 6, 5) "))["main"]()
    assert "input                         (1, 1, 32, 32)" in capsys.readouterr().out


@pytest.mark.parametrize("name", EDITS)
def test_after_each_edit_evaluate_py_draws_what_is_true(few, monkeypatch, capsys, name):
    import evaluate
    mine = edited("lenet5", *EDITS[name], once=False)["LeNet5"]
    net = mine()
    net(few[0][:1][0])  # for the lazy one
    torch.save(net.state_dict(), "net.pth")
    monkeypatch.setattr(evaluate, "LeNet5", mine)
    evaluate.main(["--dataset", "stripes", "--checkpoint", "net.pth"])
    printed = capsys.readouterr().out
    assert os.path.exists("feature_maps.png")
    assert os.path.exists("filters.png") == os.path.exists("convolution.png") == (name in PLAIN)
    assert ("but no filters.png and convolution.png" in printed) == (name not in PLAIN)


def test_the_tutorials_view_is_traced_as_a_flatten_is(images):
    assert [row[1:3] for row in trace(Net(), images)] == [row[1:3] for row in trace(LeNet5(), images)]


def test_the_script_prints_the_table_that_its_first_lines_quote(capsys):
    lenet5.main()
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    quoted = [line[4:] for line in lenet5.__doc__.splitlines() if line.startswith("    ")]
    table = quoted[quoted.index(next(line for line in quoted if line.startswith("layer"))):]
    assert table == printed[:len(table)] and len(table) == 15
