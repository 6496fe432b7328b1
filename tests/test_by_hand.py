"""The referee: what the loops of lenet5.py compute is what PyTorch computes, in float64, to 1e-9."""
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lenet5
from lenet5 import LeNet5, backward_by_hand, forward_by_hand, step_by_hand, trace, zeros_like


@pytest.fixture(scope="session")
def photos(request, stripes):
    """Two training images, float64, and their labels: CIFAR-10's where it is, or else stripes."""
    try:
        trainset, _ = request.getfixturevalue("cifar")
    except pytest.skip.Exception:
        trainset, _ = stripes
    images, labels = trainset[[5, 16]]
    return images.double(), labels


@pytest.fixture
def net():
    torch.manual_seed(0)
    return LeNet5().double()


def lists(net):
    return {name: parameter.tolist() for name, parameter in net.state_dict().items()}


def agree(by_hand, by_torch):
    """Equal to 1e-9 of the largest number there; shapes too."""
    by_hand = torch.tensor(by_hand, dtype=torch.float64)
    assert by_hand.shape == by_torch.shape
    assert (by_hand - by_torch).abs().max() <= 1e-9 * by_torch.abs().max()


def random(*shape):
    """Positive and negative numbers, among them pairs of equal ones and zeros."""
    numbers = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))
    return (numbers * 2).round() / 2


def test_zeros_like_a_list():
    assert zeros_like([[[1.0, 2.0]], [[3.0, 4.0]]]) == [[[0, 0]], [[0, 0]]]


# ---- Each layer alone, on sizes that are not the network's -----------------------------------

CONVS = [(1, 1, 3, 3, 3), (2, 3, 5, 7, 3), (3, 2, 6, 5, 2), (1, 4, 4, 9, 1), (4, 1, 7, 6, 5)]


@pytest.mark.parametrize("channels, outputs, height, width, K", CONVS)
def test_convolution(channels, outputs, height, width, K):
    x, weight, bias = random(channels, height, width), random(outputs, channels, K, K), random(outputs)
    agree(lenet5.conv_by_hand(x.tolist(), weight.tolist(), bias.tolist()), F.conv2d(x[None], weight, bias)[0])


def test_a_convolution_here_is_a_cross_correlation():
    """The mathematical one, y(n) = sum over m of x(n - m) * w(m), turns the kernel."""
    x, w = [1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 10.0, 100.0]
    here = lenet5.conv_by_hand([[x, x, x]], [[[[0] * 3, w, [0] * 3]]], [0.0])[0][0]
    assert here == [sum(x[n + m] * w[m] for m in range(3)) for n in range(3)]
    assert [sum(x[n + 2 - m] * w[m] for m in range(3)) for n in range(3)] == \
        lenet5.conv_by_hand([[x, x, x]], [[[[0] * 3, w[::-1], [0] * 3]]], [0.0])[0][0] != here


def backward_agrees(layer, backward, x, weight, bias):
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    y = layer(x, weight, bias)
    dy = random(*y.shape) + 0.25  # never 0, so that nobody's gradient can hide
    y.backward(dy)
    dweight, dbias = zeros_like(weight.tolist()), zeros_like(bias.tolist())
    agree(backward(x.tolist(), weight.tolist(), dy.tolist(), dweight, dbias), x.grad)
    agree(dweight, weight.grad)
    agree(dbias, bias.grad)


@pytest.mark.parametrize("channels, outputs, height, width, K", CONVS)
def test_convolution_backward(channels, outputs, height, width, K):
    backward_agrees(lambda x, weight, bias: F.conv2d(x[None], weight, bias)[0], lenet5.conv_backward,
                    random(channels, height, width), random(outputs, channels, K, K), random(outputs))


POOLS = [(1, 2, 2), (2, 5, 7), (3, 4, 3), (1, 9, 8)]


@pytest.mark.parametrize("shape", POOLS)
def test_max_pooling_drops_an_odd_last_row_and_column(shape):
    agree(lenet5.pool_by_hand(random(*shape).tolist()), F.max_pool2d(random(*shape)[None], 2, 2)[0])


@pytest.mark.parametrize("shape", POOLS)
def test_max_pooling_backward(shape):
    x = random(*shape).requires_grad_()
    y = F.max_pool2d(x[None], 2, 2)[0]
    dy = random(*y.shape) + 0.25  # never 0, so that nobody's gradient can hide
    y.backward(dy)
    agree(lenet5.pool_backward(x.tolist(), dy.tolist()), x.grad)


@pytest.mark.parametrize("square", [[[7, 7], [7, 7]], [[1, 7], [7, 7]], [[1, 2], [7, 7]], [[1, 7], [2, 7]],
                                    [[1, 2], [3, 7]], [[7, 1], [7, 2]], [[-7, -1], [-1, -2]], [[0, 0], [0, -1]]])
def test_of_equal_numbers_in_a_square_the_first_wins_the_gradient(square):
    x = torch.tensor([square], dtype=torch.float64, requires_grad=True)
    F.max_pool2d(x[None], 2, 2).backward(torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64))
    agree(lenet5.pool_backward(x.tolist(), [[[3.0]]]), x.grad)


def test_relu_and_its_gradient_at_zero_too():
    x = torch.tensor([[[-2.0, -0.5], [0.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    dy = torch.tensor([[[5.0, 6.0], [7.0, 8.0]]], dtype=torch.float64)
    F.relu(x).backward(dy)
    agree(lenet5.relu_by_hand(x.tolist()), F.relu(x).detach())
    agree(lenet5.relu_backward(x.tolist(), dy.tolist()), x.grad)
    assert lenet5.relu_by_hand([-1.0, 2.0]) == [0.0, 2.0]


def test_flatten_and_back():
    x = random(2, 3, 5)
    agree(lenet5.flatten_by_hand(x.tolist()), x.flatten())
    agree(lenet5.flatten_backward(x.tolist(), x.flatten().tolist()), x)


@pytest.mark.parametrize("inputs, outputs", [(1, 1), (3, 7), (8, 5)])
def test_linear_layer_and_its_backward(inputs, outputs):
    x, weight, bias = random(inputs), random(outputs, inputs), random(outputs)
    agree(lenet5.linear_by_hand(x.tolist(), weight.tolist(), bias.tolist()), F.linear(x, weight, bias))
    backward_agrees(F.linear, lenet5.linear_backward, x, weight, bias)


def test_backward_adds_to_the_gradients_that_are_there():
    dweight, dbias = [[[[10.0]]]], [20.0]
    lenet5.conv_backward([[[2.0]]], [[[[3.0]]]], [[[1.0]]], dweight, dbias)
    assert (dweight, dbias) == ([[[[12.0]]]], [21.0])
    dweight, dbias = [[10.0]], [20.0]
    lenet5.linear_backward([2.0], [[3.0]], [1.0], dweight, dbias)
    assert (dweight, dbias) == ([[12.0]], [21.0])


def test_softmax_even_of_scores_that_exp_cannot_take():
    for outputs in ([1.0, -2.0, 0.5], [1000.0, 999.0, -1000.0]):
        agree(lenet5.softmax_by_hand(outputs), torch.tensor(outputs, dtype=torch.float64).softmax(0))


@pytest.mark.parametrize("outputs", [[1.0, -2.0, 0.5], [800.0, 0.0, -800.0], [-1000.0, 1000.0, 999.0]])
def test_cross_entropy_even_of_scores_that_exp_cannot_take(outputs):
    """A logit of 800 that should be 0 costs 800, as with PyTorch; -log(softmax) would be -log(0)."""
    for label in range(3):
        expected = F.cross_entropy(torch.tensor([outputs], dtype=torch.float64), torch.tensor([label])).item()
        assert lenet5.cross_entropy_by_hand(outputs, label) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert lenet5.cross_entropy_by_hand([800.0, 0.0], 1) == 800


# ---- The whole network -----------------------------------------------------------------------

def test_every_step_of_the_forward_pass(net, photos):
    images, _ = photos
    rows = trace(net, images[:1])[1:]
    by_hand = forward_by_hand(lists(net), images[0].tolist())
    assert len(rows) == len(by_hand) == 12
    for row, y in zip(rows, by_hand):
        agree(y, row.output[0].detach())


def test_the_loss_and_the_gradient_of_every_parameter(net, photos):
    images, labels = photos
    loss = nn.CrossEntropyLoss()(net(images), labels)
    loss.backward()
    loss_by_hand, gradients = backward_by_hand(lists(net), images.tolist(), labels.tolist())
    assert loss_by_hand == pytest.approx(loss.item(), rel=1e-9)
    assert list(gradients) == [name for name, _ in net.named_parameters()]
    for name, parameter in net.named_parameters():
        agree(gradients[name], parameter.grad)


def test_the_weights_after_three_steps(net, photos):
    images, labels = photos
    weights = lists(net)
    buffers = {name: zeros_like(weight) for name, weight in weights.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(net(images), labels).backward()
        optimizer.step()
        _, gradients = backward_by_hand(weights, images.tolist(), labels.tolist())
        for name in weights:
            step_by_hand(weights[name], gradients[name], buffers[name], lr=0.05, momentum=0.9)
    for name, parameter in net.named_parameters():
        agree(weights[name], parameter.detach())


def test_gradients_are_slopes_autograd_or_not(net, photos):
    """Move one weight a little up and a little down: the loss must move by gradient * distance."""
    images, labels = photos[0][:1].tolist(), photos[1][:1].tolist()
    weights = lists(net)
    _, gradients = backward_by_hand(weights, images, labels)
    tiny = 1e-5
    for name, place in [("conv1.weight", (2, 1, 3, 0)), ("conv1.bias", (4,)), ("conv2.weight", (7, 3, 0, 4)),
                        ("fc1.weight", (11, 222)), ("fc2.bias", (33,)), ("fc3.weight", (9, 50))]:
        inner, gradient = weights[name], gradients[name]
        for index in place[:-1]:
            inner, gradient = inner[index], gradient[index]
        before, last, losses = inner[place[-1]], place[-1], []
        for moved in (before + tiny, before - tiny):
            inner[last] = moved
            outputs = forward_by_hand(weights, images[0])[-1]
            losses.append(-torch.tensor(outputs, dtype=torch.float64).log_softmax(0)[labels[0]].item())
        inner[last] = before
        assert (losses[0] - losses[1]) / (2 * tiny) == pytest.approx(gradient[last], rel=1e-5, abs=1e-9), name


def test_the_script_shows_forward_backward_and_a_step_beside_pytorchs(capsys):
    lenet5.main()
    printed = capsys.readouterr().out
    assert printed.isascii()
    outputs = [line.split(":")[1].split()[:10] for line in printed.splitlines() if line.startswith(("  PyTorch", "  by hand"))]
    assert len(outputs) == 2 and outputs[0] == outputs[1]
    assert float(re.search(r"largest difference: (\S+)", printed)[1]) < 1e-12
    loss, by_hand = re.search(r"loss: PyTorch (\S+), by hand (\S+)", printed).groups()
    assert loss == by_hand and 2 < float(loss) < 2.6
    gradients, weights = re.search(r"of all 62,006 gradients: (\S+), of the weights after one step: (\S+)", printed).groups()
    assert float(gradients) < 1e-12 and float(weights) < 1e-12


@pytest.mark.parametrize("name, wrong, shown", [
    ("relu_by_hand", lambda x: x, r"largest difference: (\S+)"), ("relu_backward", lambda x, dy: dy, r"gradients: (\S+),"),
    ("step_by_hand", lambda *args, **flags: None, r"one step: (\S+)")])
def test_the_script_would_show_a_loop_that_is_wrong(monkeypatch, capsys, name, wrong, shown):
    monkeypatch.setattr(lenet5, name, wrong)
    lenet5.main()
    assert float(re.search(shown, capsys.readouterr().out)[1]) > 1e-6
