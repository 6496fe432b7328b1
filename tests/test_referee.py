"""The referee of test_by_hand.py, refereed: what it says of a reader's own loops."""
import os
import subprocess
import sys

import pytest
import torch

import lenet5
import test_by_hand as referee
from conftest import LOOPS, ROOT
from test_by_hand import net, photos  # noqa: F401 (fixtures)


def average_pool(x):
    def mean(channel, i, j):
        return sum(channel[2 * i + u][2 * j + v] for u in (0, 1) for v in (0, 1)) / 4

    return [[[mean(channel, i, j) for j in range(len(channel[0]) // 2)]
             for i in range(len(channel) // 2)] for channel in x]


def rows_and_columns_exchanged(x, weight, bias, conv=lenet5.conv_by_hand):
    return conv(x, [[list(zip(*kernel)) for kernel in kernels] for kernels in weight], bias)


def no_bias(x, weight, bias):
    return [sum(w * number for w, number in zip(row, x)) for row in weight]


def relu_in_place(x):
    for k, part in enumerate(x):
        x[k] = relu_in_place(part) if isinstance(part, list) else max(part, 0.0)
    return x


def passes_at_0(x, dy):
    if isinstance(x, list):
        return [passes_at_0(part, dpart) for part, dpart in zip(x, dy)]
    return dy if x >= 0 else 0.0


def set_not_added(x, weight, dy, dweight, dbias):
    for o in range(len(weight)):
        dbias[o], dweight[o] = dy[o], [number * dy[o] for number in x]
    return [sum(row[i] * d for row, d in zip(weight, dy)) for i in range(len(x))]


def last_product_only(x, weight, dy, dweight, dbias):
    for o in range(len(weight)):
        dbias[o] += dy[o]
        for i in range(len(x)):
            dweight[o][i] += x[i] * dy[o]
    return [weight[-1][i] * dy[-1] for i in range(len(x))]


def no_momentum(weights, gradients, buffers, lr, momentum):
    for k, gradient in enumerate(gradients):
        buffers[k] = gradient
        weights[k] -= lr * gradient


# The test that notices it, the function, what is wrong with it, and the sentence.
MISTAKES = [
    ("relu_by_hand_cuts", "relu_by_hand", lambda x: None, "y is None: a return is missing"),
    ("relu_by_hand_cuts", "relu_by_hand", lambda x: [0.0],
     r"y has the shape \(1,\), PyTorch's has \(1, 2, 2\)"),
    ("relu_by_hand_cuts", "relu_by_hand", lambda x: [[[], []]],
     r"y has the shape \(1, 2, 0\), PyTorch's has \(1, 2, 2\)"),
    ("relu_by_hand_cuts", "relu_by_hand", lambda x: [1.0, [2.0]],
     r"y is no table of numbers, of shape \(1, 2, 2\): \[1.0, \[2.0\]\]"),
    ("relu_by_hand_cuts", "relu_by_hand", lambda x: [[["a", 0.0], [0.0, 3.0]]], "y is no table of"),
    ("relu_by_hand_cuts", "relu_by_hand", lambda x: [[[0.0, 0.0], [0.0, float("nan")]]],
     r"y\[0\]\[1\]\[1\] is nan, PyTorch's is 3 \(1 of 4 numbers differ\)$"),
    ("relu_by_hand_cuts", "relu_by_hand", relu_in_place,
     r"relu_in_place\(\) changed its argument x"),
    ("relu_by_hand_cuts", "relu_by_hand", torch.tensor, "y is a tensor: numbers in lists are"),
    ("pool_by_hand_keeps", "pool_by_hand", average_pool,
     r"y\[0\]\[0\]\[0\] is .+, PyTorch's is .+ \(4 of 4 numbers differ\)"),
    ("linear_by_hand_weighs", "linear_by_hand", no_bias, r"y\[\d\] is .+, PyTorch's is .+ of 7 "),
    ("conv_by_hand_slides", "conv_by_hand", rows_and_columns_exchanged,
     r"y\[0\]\[0\]\[0\] is .+ of 45 numbers differ\)"),
    ("relu_backward_lets", "relu_backward", passes_at_0,
     r"dx\[0\]\[1\]\[0\] is .+, PyTorch's is 0 \(1 of 4 numbers differ\)$"),
    ("linear_backward", "linear_backward", last_product_only,
     r"dx\[0\] is .+, PyTorch's is .+ \(3 of 3 numbers differ\); right: dbias and dweight$"),
    ("linear_backward", "linear_backward", lambda x, weight, dy, dweight, dbias: x,
     r"dbias\[0\] is 0, PyTorch's is .+; dweight and dx differ, too$"),
    ("linear_backward_adds", "linear_backward", set_not_added,
     "dweight was 10, its gradient is 2: added, this makes 12, and not 2"),
    ("step_by_hand_moves", "step_by_hand", no_momentum,
     r"after step 2: weights\[0\] is .+ \(3 of 3 numbers differ\)"),
    ("forward_by_hand_makes", "forward_by_hand", lambda weights, image: [0.0] * 10,
     r"forward_by_hand\(\) returned 10 results, the network has 12 calls: conv1, relu, pool, "),
    ("backward_by_hand_finds", "backward_by_hand", lambda weights, images, labels: 2.3,
     r"backward_by_hand\(\) should return two things: loss, gradients")]

CASES = {"pool_by_hand_keeps": [(1, 4, 4)], "linear_by_hand_weighs": [3, 7],
         "conv_by_hand_slides": [2, 3, 5, 7, 3], "linear_backward": [3, 7],
         "step_by_hand_moves": [(3,)]}


@pytest.mark.parametrize("test, name, wrong, sentence", MISTAKES)
def test_a_mistake_is_one_sentence_without_a_traceback(
        net, photos, monkeypatch, test, name, wrong, sentence):
    function = next(function for key, function in vars(referee).items()
                    if key == f"test_{test}" or key.startswith(f"test_{test}_"))
    whole = name in ("forward_by_hand", "backward_by_hand")
    cases = [net, photos] if whole else CASES.get(test, [])
    function(*cases)  # lenet5.py's own is right
    monkeypatch.setattr(lenet5, name, wrong)
    with pytest.raises(pytest.fail.Exception, match=sentence) as failure:
        function(*cases)
    assert "\n" not in str(failure.value) and not failure.value.pytrace


def refereed(folder, text, *flags):
    """What pytest prints of the loops in text, and its exit status."""
    path = folder / "my_loops.py"
    path.write_text(text)
    command = [sys.executable, "-m", "pytest", "tests/test_by_hand.py", "-p", "no:cacheprovider",
               "--mine", str(path), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode


MINE = """from lenet5 import pool_by_hand, zeros_like

def relu_by_hand(x):
    return [relu_by_hand(part) for part in x] if isinstance(x, list) else max(0.0, x)

def relu_bakward(x, dy):
    return dy

def softmax_by_hand(outputs):
    import math
    return [math.exp(score) for score in outputs] and nonsense
"""


def test_it_says_whose_each_loop_is_and_which_are_right_and_in_which_line_an_error_is(tmp_path):
    printed, status = refereed(tmp_path, MINE, "-k", "relu or softmax")
    lines = printed.splitlines()
    assert status == 1 and "yours: relu_by_hand, softmax_by_hand" in lines
    assert "not known: relu_bakward" in lines
    ours = next(line for line in lines if line.startswith("still lenet5.py's: "))
    assert set(ours.split(": ")[1].split(", ")) == {*LOOPS} - {"relu_by_hand", "softmax_by_hand"}
    assert any("my_loops.py:11: in softmax_by_hand" in line for line in lines)
    assert "E   NameError: name 'nonsense' is not defined" in lines
    assert lines[-1] == (f"1 of {len(LOOPS)} loops are yours and agree with PyTorch; right: "
                         "relu_by_hand; not yet: softmax_by_hand; not known: relu_bakward")


@pytest.mark.parametrize("text, error", [
    ("def relu_by_hand(:\n", ", line 1: SyntaxError: "),
    ("x = 1\ny = mth\n", ", line 2: NameError: "),
    (None, ": FileNotFoundError: ")])
def test_a_file_that_can_not_be_run_is_one_error(tmp_path, text, error):
    flags = [] if text else ["--mine", str(tmp_path / "missing.py")]
    printed, status = refereed(tmp_path, text or "", *flags)
    line, = (line for line in printed.splitlines() if line)
    assert status == 4 and line.startswith("ERROR: --mine") and error in line


def test_all_loops_of_the_readers_are_used_wherever_the_tests_call_one(tmp_path):
    """A copy of lenet5.py's: all are the reader's, all agree; one alone is used by the others."""
    with open(os.path.join(ROOT, "lenet5.py")) as file:
        text = file.read()
    text = "import math\n\n\n" + text[text.index("def zeros_like"):text.index("def compare")]
    printed, status = refereed(tmp_path, text)
    assert status == 0 and "still lenet5.py's" not in printed
    assert printed.splitlines()[-1].startswith(f"{len(LOOPS)} of {len(LOOPS)} loops are yours")
    printed, status = refereed(tmp_path, "def relu_by_hand(x):\n    return x\n", "-k", "forward")
    assert status == 1 and "after relu: r1[0][0][" in printed
