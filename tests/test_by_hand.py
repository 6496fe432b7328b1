"""The referee: what the loops of lenet5.py compute is what PyTorch computes, in float64, to 1e-9.

    python -m pytest tests/test_by_hand.py -x --mine my_loops.py

tests the functions in my_loops.py in place of lenet5.py's of the same name. They come in the order
in which one would write them; -k relu tests those with relu in their name only.
"""
import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lenet5
from lenet5 import LeNet5, trace, zeros_like

# ---- How two results are compared ----------------------------------------------------------------


def shape_of(numbers):
    """The shape of nested lists; None if they are no full table of numbers."""
    if not isinstance(numbers, (list, tuple)):
        return () if isinstance(numbers, (int, float)) else None
    shapes = {shape_of(part) for part in numbers} or {()}
    return (len(numbers), *shapes.pop()) if len(shapes) == 1 and None not in shapes else None


def difference(name, by_hand, by_torch):
    """Where a result by hand first differs from PyTorch's, as a sentence; "" if it does not."""
    if by_hand is None:
        return f"{name} is None: a return is missing"
    if isinstance(by_hand, torch.Tensor):
        return f"{name} is a tensor: numbers in lists are wanted"
    shape = shape_of(by_hand)
    if shape is None:
        return f"{name} is no table of numbers, of shape {tuple(by_torch.shape)}: {by_hand!r:.200}"
    if shape != by_torch.shape:
        return f"{name} has the shape {shape}, PyTorch's has {tuple(by_torch.shape)}"
    mine, theirs = torch.tensor(by_hand, dtype=torch.float64), by_torch.detach()
    wrong = ~((mine - theirs).abs() <= 1e-9 * theirs.abs().max())  # ~: a nan is wrong, too
    if not wrong.any():
        return ""
    place = tuple(wrong.nonzero()[0].tolist())
    where = name + "".join(f"[{k}]" for k in place)
    how_many = f" ({wrong.sum()} of {wrong.numel()} numbers differ)" if place else ""
    return f"{where} is {mine[place].item():.6g}, PyTorch's is {theirs[place].item():.6g}{how_many}"


def agree(when="", **results):
    """Compare each result, (by hand, by PyTorch), and fail with one sentence if one differs."""
    problems = {name: difference(name, *pair) for name, pair in results.items()}
    first, *others = [name for name in problems if problems[name]] or [None]
    right = [name for name in problems if not problems[name]]
    if first:
        sentence = when + problems[first]
        sentence += f"; {' and '.join(others)} differ, too" if others else ""
        sentence += f"; right: {' and '.join(right)}" if right else ""
        pytest.fail(sentence, pytrace=False)


def unchanged(function, *args, but=()):
    """function(*args); fails if that changes an argument, other than those at the places in but."""
    __tracebackhide__ = True  # of an error in the function, only its own lines are shown
    before = copy.deepcopy(args)
    result = function(*args)
    for k, (old, new) in enumerate(zip(before, args)):
        if k not in but and old != new:
            name = [*inspect.signature(function).parameters][k]
            pytest.fail(f"{function.__name__}() changed its argument {name}", pytrace=False)
    return result


def random(*shape):
    """Positive and negative numbers, among them pairs of equal ones and zeros."""
    generator = torch.Generator().manual_seed(sum(shape))
    numbers = torch.randn(*shape, dtype=torch.float64, generator=generator)
    return (numbers * 2).round() / 2


def backward_agrees(layer, backward, x, *parameters):
    """The backward pass of a layer, layer(x, *parameters), beside PyTorch's."""
    __tracebackhide__ = True
    tensors = [tensor.clone().requires_grad_() for tensor in (x, *parameters)]
    y = layer(*tensors)
    dy = random(*y.shape) + 0.25  # never 0, so that nobody's gradient can hide
    y.backward(dy)
    gradients = [zeros_like(tensor.tolist()) for tensor in parameters]
    inputs = [tensor.tolist() for tensor in (x, *parameters[:1])]  # no bias
    places = range(len(inputs) + 1, len(inputs) + 1 + len(gradients))
    dx = unchanged(backward, *inputs, dy.tolist(), *gradients, but=places)
    names = ["dbias", "dweight"][-len(gradients):] if gradients else []
    by_hand = [*gradients[::-1], dx]
    agree(**{name: (mine, tensor.grad)
             for name, mine, tensor in zip([*names, "dx"], by_hand, tensors[::-1])})


# ---- Forward, each layer alone, on sizes that are not the network's ------------------------------

def test_relu_by_hand_cuts_off_what_is_negative_however_deep_the_list():
    x = torch.tensor([[[-2.0, -0.5], [0.0, 3.0]]], dtype=torch.float64)
    agree(y=(unchanged(lenet5.relu_by_hand, x.tolist()), F.relu(x)))
    agree(y=(lenet5.relu_by_hand([-1.0, 2.0]), torch.tensor([0.0, 2.0])))


POOLS = {f"{channels} channels, {height}x{width}": (channels, height, width)
         for channels, height, width in [(1, 2, 2), (1, 4, 4), (2, 5, 7), (3, 4, 3), (1, 9, 8)]}


@pytest.mark.parametrize("shape", POOLS.values(), ids=POOLS)
def test_pool_by_hand_keeps_the_largest_and_drops_an_odd_last_row_and_column(shape):
    x = random(*shape)
    agree(y=(unchanged(lenet5.pool_by_hand, x.tolist()), F.max_pool2d(x[None], 2, 2)[0]))


def test_flatten_by_hand_goes_channel_by_channel_row_by_row():
    x = random(2, 3, 5)
    agree(y=(unchanged(lenet5.flatten_by_hand, x.tolist()), x.flatten()))


LINEARS = {f"{inputs} -> {outputs}": (inputs, outputs)
           for inputs, outputs in [(1, 1), (3, 7), (8, 5)]}


@pytest.mark.parametrize("inputs, outputs", LINEARS.values(), ids=LINEARS)
def test_linear_by_hand_weighs_all_inputs(inputs, outputs):
    x, weight, bias = random(inputs), random(outputs, inputs), random(outputs)
    by_hand = unchanged(lenet5.linear_by_hand, x.tolist(), weight.tolist(), bias.tolist())
    agree(y=(by_hand, F.linear(x, weight, bias)))


CONVS = {f"kernel {K}, {channels} channels, {height}x{width}": (channels, outputs, height, width, K)
         for channels, outputs, height, width, K in
         [(1, 1, 4, 5, 3), (1, 4, 4, 9, 1), (2, 3, 5, 7, 3), (3, 2, 6, 5, 2), (4, 1, 7, 6, 5)]}


def conv2d(x, weight, bias):
    return F.conv2d(x[None], weight, bias)[0]


@pytest.mark.parametrize("channels, outputs, height, width, K", CONVS.values(), ids=CONVS)
def test_conv_by_hand_slides_each_kernel_over_the_image(channels, outputs, height, width, K):
    x, weight = random(channels, height, width), random(outputs, channels, K, K)
    bias = random(outputs)
    by_hand = unchanged(lenet5.conv_by_hand, x.tolist(), weight.tolist(), bias.tolist())
    agree(y=(by_hand, conv2d(x, weight, bias)))


def test_conv_by_hand_is_what_mathematics_calls_a_cross_correlation():
    """A convolution in mathematics, y(n) = sum over m of x(n - m) * w(m), turns the kernel."""
    x, w = [1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 10.0, 100.0]

    def conv(kernel):
        return lenet5.conv_by_hand([[x, x, x]], [[[[0] * 3, kernel, [0] * 3]]], [0.0])[0][0]

    correlation = [sum(x[n + m] * w[m] for m in range(3)) for n in range(3)]
    convolution = [sum(x[n + 2 - m] * w[m] for m in range(3)) for n in range(3)]
    assert conv(w) == correlation != convolution == conv(w[::-1])


@pytest.mark.parametrize("outputs", [[1.0, -2.0, 0.5], [1000.0, 999.0, -1000.0]], ids=str)
def test_softmax_by_hand_even_of_scores_that_exp_can_not_take(outputs):
    p = unchanged(lenet5.softmax_by_hand, outputs)
    agree(p=(p, torch.tensor(outputs, dtype=torch.float64).softmax(0)))


@pytest.mark.parametrize("outputs", [[1.0, -2.0, 0.5], [800.0, 0.0, -800.0]], ids=str)
def test_cross_entropy_by_hand_even_of_scores_that_exp_can_not_take(outputs):
    """A logit of 800 that should be 0 costs 800, as with PyTorch; -log(softmax) is -log(0)."""
    for label in range(3):
        logits = torch.tensor(outputs, dtype=torch.float64)
        loss = unchanged(lenet5.cross_entropy_by_hand, outputs, label)
        expected = F.cross_entropy(logits, torch.tensor(label))
        agree(f"{outputs}, label {label}: ", loss=(loss, expected))


# ---- Backward ------------------------------------------------------------------------------------

def test_relu_backward_lets_dy_pass_where_x_is_above_0_and_not_at_0():
    backward_agrees(F.relu, lenet5.relu_backward,
                    torch.tensor([[[-2.0, -0.5], [0.0, 3.0]]], dtype=torch.float64))


@pytest.mark.parametrize("shape", POOLS.values(), ids=POOLS)
def test_pool_backward_gives_all_to_the_largest(shape):
    backward_agrees(lambda x: F.max_pool2d(x[None], 2, 2)[0], lenet5.pool_backward, random(*shape))


SQUARES = ([[7, 7], [7, 7]], [[1, 7], [7, 7]], [[1, 2], [7, 7]], [[1, 7], [2, 7]], [[1, 2], [3, 7]],
           [[7, 1], [7, 2]], [[-7, -1], [-1, -2]], [[0, 0], [0, -1]])


@pytest.mark.parametrize("square", SQUARES, ids=str)
def test_pool_backward_gives_it_to_the_first_of_equal_numbers(square):
    backward_agrees(lambda x: F.max_pool2d(x[None], 2, 2)[0], lenet5.pool_backward,
                    torch.tensor([square], dtype=torch.float64))


def test_flatten_backward_gives_the_numbers_their_old_shape():
    backward_agrees(torch.flatten, lenet5.flatten_backward, random(2, 3, 5))


@pytest.mark.parametrize("inputs, outputs", LINEARS.values(), ids=LINEARS)
def test_linear_backward(inputs, outputs):
    parameters = random(outputs, inputs), random(outputs)
    backward_agrees(F.linear, lenet5.linear_backward, random(inputs), *parameters)


@pytest.mark.parametrize("channels, outputs, height, width, K", CONVS.values(), ids=CONVS)
def test_conv_backward(channels, outputs, height, width, K):
    parameters = random(outputs, channels, K, K), random(outputs)
    backward_agrees(conv2d, lenet5.conv_backward, random(channels, height, width), *parameters)


def adds(backward, x, weight, dy, dweight, dbias):
    """backward() must add 2 * 1 to dweight, and 1 to dbias, whatever is there."""
    backward(x, weight, dy, dweight, dbias)
    for name, numbers, before, gradient in (("dweight", dweight, 10, 2), ("dbias", dbias, 20, 1)):
        value = torch.tensor(numbers).item()
        if value != before + gradient:
            pytest.fail(f"{name} was {before}, its gradient is {gradient}: added, this makes "
                        f"{before + gradient}, and not {value:g}", pytrace=False)


def test_linear_backward_adds_to_the_gradients_that_are_there():
    adds(lenet5.linear_backward, [2.0], [[3.0]], [1.0], [[10.0]], [20.0])


def test_conv_backward_adds_to_the_gradients_that_are_there():
    adds(lenet5.conv_backward, [[[2.0]]], [[[[3.0]]]], [[[1.0]]], [[[[10.0]]]], [20.0])


# ---- The step ------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 2, 2)], ids=str)
def test_step_by_hand_moves_the_weights_as_sgd_does(shape):
    weight = nn.Parameter(random(*shape))
    weights, buffers = weight.tolist(), zeros_like(weight.tolist())
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    for step in (1, 2, 3):
        weight.grad = random(*shape) + step
        optimizer.step()
        unchanged(lenet5.step_by_hand, weights, weight.grad.tolist(), buffers, 0.1, 0.9, but=(0, 2))
        buffer = optimizer.state[weight]["momentum_buffer"]
        agree(f"after step {step}: ", weights=(weights, weight), buffers=(buffers, buffer))


# ---- The whole network ---------------------------------------------------------------------------

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


def test_forward_by_hand_makes_of_an_image_what_each_layer_makes_of_it(net, photos):
    images, _ = photos
    rows = trace(net, images[:1])[1:]
    by_hand = lenet5.forward_by_hand(lists(net), images[0].tolist())
    if len(by_hand) != 12:
        pytest.fail(f"forward_by_hand() returned {len(by_hand)} results, the network has 12 calls: "
                    + ", ".join(row.name for row in rows), pytrace=False)
    for row, name, y in zip(rows, "a1 r1 p1 a2 r2 p2 f a3 r3 a4 r4 outputs".split(), by_hand):
        agree(f"after {row.name}: ", **{name: (y, row.output[0])})


def test_backward_by_hand_finds_the_loss_and_all_62006_gradients(net, photos):
    images, labels = photos
    loss = nn.CrossEntropyLoss()(net(images), labels)
    loss.backward()
    returned = lenet5.backward_by_hand(lists(net), images.tolist(), labels.tolist())
    if not isinstance(returned, tuple) or len(returned) != 2:
        pytest.fail("backward_by_hand() should return two things: loss, gradients", pytrace=False)
    agree(loss=(returned[0], loss))
    for name, parameter in [*net.named_parameters()][::-1]:  # as they are computed
        agree("the gradient of ", **{name: (returned[1].get(name), parameter.grad)})


def test_step_by_hand_leads_the_network_where_sgd_leads_it_in_three_steps(net, photos):
    images, labels = photos
    weights = lists(net)
    buffers = {name: zeros_like(weight) for name, weight in weights.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(net(images), labels).backward()
        optimizer.step()
        _, gradients = lenet5.backward_by_hand(weights, images.tolist(), labels.tolist())
        for name in weights:
            lenet5.step_by_hand(weights[name], gradients[name], buffers[name], 0.05, 0.9)
    for name, parameter in net.named_parameters():
        agree("after three steps: ", **{name: (weights[name], parameter)})
