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


def test_ten_scores_for_each_picture_and_they_may_be_negative(images):
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


def test_the_tutorials_view_turns_four_large_pictures_into_sixteen_answers():
    assert Net()(torch.zeros(4, 3, 52, 52)).shape == (16, 10)


@pytest.mark.parametrize("shape", [(4, 3, 52, 52), (4, 1, 32, 32), (4, 3, 28, 28), (4, 32, 32, 3), (3, 32, 32), (32, 32)])
def test_ours_names_the_shape_expected_and_the_shape_seen(shape):
    with pytest.raises(ValueError) as error:
        LeNet5()(torch.zeros(shape))
    assert "(N, 3, 32, 32)" in str(error.value) and str(shape) in str(error.value)


# ---- The trace -------------------------------------------------------------------------------

def test_trace_has_a_row_for_every_step(rows):
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


def test_trace_follows_homework_that_changes_padding_or_stride(images):
    class Padded(LeNet5):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 6, 5, padding=2)
            self.pool = nn.AvgPool2d(2, 2)
            self.conv2 = nn.Conv2d(6, 16, 4, padding=4, stride=2)

    rows = trace(Padded(), images)
    sums = [row.size for row in rows if "=" in row.size][:4]
    assert sums == ["(32 + 4 - 5) + 1 = 32", "32 / 2 = 16", "(16 + 8 - 4) // 2 + 1 = 11", "11 // 2 = 5"]
    assert all(eval(size.replace("=", "==")) for size in sums)


def test_trace_notices_that_forward_was_changed(images):
    class Changed(LeNet5):
        def forward(self, x):
            return super().forward(x) * 2

    with pytest.raises(RuntimeError, match="disagree"):
        trace(Changed(), images)


def test_the_script_prints_the_table_that_its_first_lines_quote(capsys):
    lenet5.main()
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    quoted = [line[4:] for line in lenet5.__doc__.splitlines() if line.startswith("    ")]
    table = quoted[quoted.index(next(line for line in quoted if line.startswith("layer"))):]
    assert table == printed[:len(table)] and len(table) == 15
