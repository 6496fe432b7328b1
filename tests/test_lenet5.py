"""Chapter 3, Build Model: what lenet5.py says about the network is so."""
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lenet5
from lenet5 import LeNet5, trace


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


def test_the_tutorials_view_turns_four_large_images_into_sixteen_answers():
    assert Net()(torch.zeros(4, 3, 52, 52)).shape == (16, 10)


@pytest.mark.parametrize("shape", [(4, 3, 52, 52), (4, 1, 32, 32), (4, 3, 28, 28), (4, 32, 32, 3), (3, 32, 32), (32, 32)])
def test_ours_names_the_shape_expected_and_the_shape_seen(shape):
    with pytest.raises(ValueError) as error:
        LeNet5()(torch.zeros(shape))
    assert "(N, 3, 32, 32)" in str(error.value) and str(shape) in str(error.value)


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

@pytest.mark.parametrize("name, activation", [("leaky_relu", F.leaky_relu), ("elu", F.elu), ("tanh", torch.tanh),
                                              ("sigmoid", torch.sigmoid), ("gelu", F.gelu)])
def test_another_activation_function_shows_up_under_its_name(images, monkeypatch, name, activation):
    monkeypatch.setattr(F, "relu", activation)
    assert [row.name for row in trace(LeNet5(), images)].count(name) == 4


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


def test_trace_of_a_network_of_layers_that_lenet5_has_not(images):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Sigmoid(), nn.AdaptiveAvgPool2d(4),
                        nn.Flatten(), nn.Linear(128, 10))
    rows = trace(net, images)
    assert [row.name for row in rows] == ["input", "0", "1", "sigmoid", "adaptive_avg_pool2d", "flatten", "5"]
    assert [row.receptive_field for row in rows[:5]] == [1, 3, 3, 3, None]  # of the adaptive pool we claim nothing
    assert sum(row.parameters for row in rows) == sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("layer, size, field", [
    (nn.Conv2d(3, 6, 5, padding=2), "(32 + 4 - 5) + 1 = 32", 5), (nn.Conv2d(3, 6, 5, padding="same"), "(32 + 4 - 5) + 1 = 32", 5),
    (nn.Conv2d(3, 6, 5, stride=2), "(32 - 5) // 2 + 1 = 14", 5), (nn.Conv2d(3, 6, 3, dilation=2), "(32 - 5) + 1 = 28", 5),
    (nn.MaxPool2d(3, 2), "(32 - 3) // 2 + 1 = 15", 3), (nn.MaxPool2d(3), "32 // 3 = 10", 3), (nn.AvgPool2d(2), "32 / 2 = 16", 2),
    (nn.MaxPool2d(3, ceil_mode=True), "32 -> 11", 3), (nn.MaxPool2d(3, 1, padding=1), "(32 + 2 - 3) + 1 = 32", 3),
    (nn.Conv2d(3, 6, (1, 5)), "(32 - 1) + 1 = 32", 1)])
def test_the_arithmetic_follows_padding_stride_and_dilation(images, layer, size, field):
    row = trace(nn.Sequential(layer), images)[1]
    assert (row.size, row.receptive_field) == (size, field)
    assert "->" in size or eval(size.replace("=", "==")) and row.shape[2] == int(size.split("= ")[1])


def test_arguments_by_name_and_a_join_of_branches_are_traced_too(images):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 6, 5)

        def forward(self, x):
            x = F.conv2d(input=x, weight=self.conv1.weight, bias=self.conv1.bias)
            return torch.flatten(input=torch.cat(tensors=[x, x], dim=1), start_dim=1)

    rows = trace(Branches(), images)
    assert [row.name for row in rows] == ["input", "conv1", "cat", "flatten"]
    assert [row.size for row in rows][1::2] == ["(32 - 5) + 1 = 28", "12 * 28 * 28 = 9408"]


def test_a_network_that_fails_is_left_in_the_mode_that_it_was_in():
    net = LeNet5().train()
    with pytest.raises(ValueError):
        trace(net, torch.zeros(1, 3, 28, 28))
    assert net.training


def test_the_tutorials_view_is_traced_as_flatten(images):
    assert [row[:3] for row in trace(Net(), images)] == [row[:3] for row in trace(LeNet5(), images)]


def test_the_script_prints_the_table_that_its_first_lines_quote(capsys):
    lenet5.main()
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    quoted = [line[4:] for line in lenet5.__doc__.splitlines() if line.startswith("    ")]
    table = quoted[quoted.index(next(line for line in quoted if line.startswith("layer"))):]
    assert table == printed[:len(table)] and len(table) == 15
