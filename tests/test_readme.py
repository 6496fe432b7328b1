"""What README.md says and what the project does are the same thing."""
import ast
import os
import re
import statistics
import sys
from math import exp, hypot
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

import benchmark
import data
import evaluate
import ladder
import lenet5
import train
from conftest import ROOT, edited
from test_copies import image_folder
from test_referee import refereed

read = lambda name: Path(ROOT, name).read_text(encoding="utf-8")
README = read("README.md").replace("&nbsp;", " ")
ONE_LINE = " ".join(README.split())  # a sentence may go on in the next line
SCRIPTS = "lenet5.py", "data.py", "train.py", "evaluate.py"
ONE_EPOCH = "--dataset", "stripes", "--epochs", "1", "--batch-size", "50"


def blocks(language=""):
    """The texts between fences of that language."""
    fenced = re.findall(r"^```(\w*)\n(.+?)\n```$", README, re.M | re.S)
    return [text for name, text in fenced if name == language]


def block(words, language="python"):
    """The only block with these words in it."""
    found, = (text for text in blocks(language) if words in text)
    return found


def section(heading):
    """From the heading that begins so to the next one of any depth."""
    return README.partition(f"\n{heading}")[2].partition("\n#")[0]


def run(code, names):
    exec(compile(code, "README.md", "exec"), names)
    return names


def my_conv(x, weight, bias, **flags):
    """What a reader may write: a convolution from lists to lists, with stride or padding."""
    x, weight, bias = (torch.tensor(each, dtype=torch.float64) for each in (x, weight, bias))
    return F.conv2d(x[None], weight, bias, **flags)[0].tolist()


@pytest.fixture
def clothes(few, monkeypatch):
    """data.load() gives the few images as Fashion-MNIST, too."""
    ours = data.load
    monkeypatch.setattr(data, "load", lambda train=True, *_, **__: ours(train))


def write_settings():
    """Two epochs of five settings with three seeds, as train.py --checkpoint setting1.pth does."""
    for k, seed in [(k, seed) for k in range(1, 6) for seed in range(3)]:
        rows = f"epoch,validation accuracy\n1,4{k}.5\n2,5{k}.{seed}\n"
        Path(f"setting{k}_seed{seed}_curve.csv").write_text(rows)


def same(net, path):
    saved = torch.load(path, weights_only=True)
    return all(torch.equal(value, saved[name]) for name, value in net.state_dict().items())


def edit(script, changes):
    """The names of a script after changes: {how a line begins: what replaces it (LINE: itself)}."""
    edits = []
    for begin, new in changes.items():
        line, = (line for line in read(f"{script}.py").splitlines() if line.startswith(begin))
        edits.append((line + "\n", new.replace("LINE", line) + "\n"))
    return edited(script, *edits)


def edited_lenet5(lines):
    """lenet5.py, where each of these lines replaces the one that begins in the same way."""
    begins = [re.match(r" *[\w. ]+ = (F\.relu\(self\.fc2)?", line)[0] for line in lines]
    return edit("lenet5", dict(zip(begins, lines)))


# ---- Commands, names and links ---------------------------------------------------------------


def test_it_begins_with_a_command_that_installs_what_the_scripts_import_and_one_that_tests():
    install, test, *_ = (text for text in blocks() if re.match("pip|python", text))
    assert install == "pip install torch torchvision pytest && python train.py"
    assert test == "python -m pytest"
    allowed = {*sys.stdlib_module_names, "torch", "torchvision", "PIL"}  # torchvision brings PIL
    for name in ("lenet5", "data", "evaluate", "train"):  # none imports one that comes later
        imports = set(re.findall(r"^(?:import|from) (\w+)", read(f"{name}.py"), re.M))
        assert read(f"{name}.py").isascii() and imports <= allowed
        allowed.add(name)


@pytest.mark.parametrize("main, end, n", [(train.main, "run_seeds", 22), (evaluate.main, "run", 5)])
def test_every_command_has_flags_and_values_that_its_script_takes(few, monkeypatch, main, end, n):
    script, seen = main.__module__, []
    monkeypatch.setattr(data, "download", lambda root: root)
    monkeypatch.setattr(evaluate, "classify", seen.append)
    monkeypatch.setattr(sys.modules[script], end, seen.append)
    command = rf"python {script}\.py(?! --help)((?: --[a-z-]+(?: [\w.]+)*)*)"
    for flags in set(re.findall(command, README)):
        main(flags.split())
    assert len(seen) >= n


def test_every_flag_exists(capsys):
    for main in (train.main, evaluate.main):
        with pytest.raises(SystemExit):
            main(["--help"])
    there = {*re.findall(r"--[\w-]+", capsys.readouterr().out)}
    there |= {"--race", "--mine", "--index-url"}  # of benchmark.py, pytest and pip
    assert {*re.findall(r"[ `](--\w[\w-]+)", README)} <= there


def test_every_function_and_test_that_it_names_exists():
    files = [*SCRIPTS, *Path(ROOT).glob("tests/*.py")]
    there = set(re.findall(r"^ *(?:def|class) (\w+)", "\n".join(map(read, files)), re.M))
    elsewhere = {*"iter next enumerate state_dict make_grid ToTensor backward zero_grad".split()}
    named = re.findall(r"`(?=\w+\(\)`|test_|\w+_by_hand)(\w+)", README)
    assert {*named} <= there | elsewhere and len({*named}) > 20


def test_every_link_inside_the_readme_leads_to_a_heading():
    headings = re.findall(r"^#+ (.+)$", README, re.M)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert {*links} <= slugs and len(links) > 40


TUTORIAL = re.findall(r"^`(.+)` \| `(\w+\.py)`: `(\w+)` \| ?(.*)$", README, re.M)


@pytest.mark.parametrize("line, script, name, difference", TUTORIAL)
def test_a_line_of_the_tutorial_stands_where_the_table_says(line, script, name, difference):
    """Word for word, but for what ... stands for, and where the last column names a difference."""
    piece, = re.findall(rf"^(?:def |class )?{name}\b(?:.+\n|\n+ )+", read(script), re.M)
    assert difference or all(part in piece for part in line.split("...")), piece
    assert len(TUTORIAL) >= 17


def test_the_glossary_has_each_term_in_korean_and_points_at_something_that_is_there():
    glossary = section("## Appendix C")
    rows = re.findall(r"^(.+) \| (.+) \| .+ \| .+$", glossary, re.M)[1:]
    assert len(rows) > 30 and all(re.search("[\uac00-\ud7a3]", korean) for _, korean in rows)
    for script, name in re.findall(r"`(\w+\.py)`: `(\w+)`", glossary):
        assert re.search(rf"\b{name}\b", read(script)), name


# ---- Quoted output ---------------------------------------------------------------------------

@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_quotes_at_its_top_stands_in_the_readme_too(name):
    lines = re.findall("^    (.+)$", ast.get_docstring(ast.parse(read(name))), re.M)
    lines = [line for line in lines if not line.startswith("python ") and line.strip() != "..."]
    assert len(lines) > 5 and [line for line in lines if f"\n{line.rstrip()}\n" not in README] == []


def shapes(lines):
    """Lines without what differs from run to run: numbers, names of classes, spaces."""
    words = rf"-?\d[\d,.]*|\b({'|'.join(data.CLASSES)})\b"
    return {" ".join(re.sub(words, "x", line).split()) for line in lines}


def test_each_quoted_line_is_one_that_the_scripts_print_today(few, monkeypatch, capsys):
    lenet5.main()
    for main in (data.main, train.main, evaluate.main):
        main(["--dataset", "cifar10", *(["--epochs", "2"] if main is train.main else [])])
    train.train(lenet5.LeNet5(), [few[0][:2]], nn.CrossEntropyLoss(),
                torch.optim.SGD([nn.Parameter(torch.zeros(1))]), log_every=1)
    monkeypatch.setattr(benchmark, "seconds", lambda *args, **flags: 1.0)  # instead of minutes
    benchmark.training(few[0], few[0], few[0])
    benchmark.predicting(few[1], few[1])
    run(block("small_try"), {})
    printed = shapes(capsys.readouterr().out.splitlines())
    # What begins with a number, y or validation has a test of its own.
    quoted = [text for text in blocks()
              if not re.match(r"pip|python|\d|y\[|validation| +value", text)]
    assert len(quoted) == 8 and shapes("\n".join(quoted).splitlines()) - {"..."} <= printed | {""}


LOG = block("\nepoch 8: ", "")
EPOCH = r"^epoch \d: test accuracy (\S+) %, loss (\S+); training (\S+) %, (\S+); \d+ s left$"
# As train.py has it: (training loss, training accuracy, test loss, test accuracy) for each epoch.
HISTORY = [tuple(map(float, epoch[::-1])) for epoch in re.findall(EPOCH, LOG, re.M)]


def test_the_log_has_eight_epochs_and_the_rest_of_the_page_has_its_numbers():
    (_, low, _, first), *_, (_, high, _, last) = HISTORY
    assert len(HISTORY) == 8 and f"\ntest accuracy on CIFAR-10: {last} %\n" in LOG
    assert f"\naccuracy on CIFAR-10: {last} % (guessing: 10 %)\n" in README
    assert f"For the network of chapter 4 it printed {last} %" in README
    assert f"from {low} to {high} %, test accuracy from {first} to {last} %" in IMAGES["curve"]
    seconds, rate = re.search(r"^(\d+) s of training, ([\d,]+) images/s$", LOG, re.M).groups()
    assert 8 * 50_000 / int(seconds) == pytest.approx(int(rate.replace(",", "")), rel=0.01)


# ---- Pictures --------------------------------------------------------------------------------

IMAGES = {name: text for text, name in re.findall(r"!\[(.+?)\]\(\.images/(\w+)\.png\)", README)}


def picture(name, folder=os.path.join(ROOT, ".images")):
    return Image.open(os.path.join(folder, f"{name}.png")).convert("RGB")


def test_each_picture_has_a_text_and_the_size_that_todays_code_draws(few):
    assert sorted(os.listdir(f"{ROOT}/.images")) == sorted(f"{name}.png" for name in IMAGES)
    assert all(len(text) > 30 for text in IMAGES.values())
    torch.manual_seed(0)
    torch.save(lenet5.LeNet5().state_dict(), "cifar_net.pth")
    write_settings()
    for name in ("first_image", "activations", "negatives", "settings"):
        names = run(block(f"{name}.png"), {})
    assert names["means"] == pytest.approx([45.5, 55.1])  # of 55.0, 55.1 and 55.2 in epoch 2
    for main in (data.main, evaluate.main):
        main(["--dataset", "cifar10"])
    evaluate.main(["--dataset", "cifar10", "--image", "first_image.png"])
    evaluate.draw_curve(HISTORY, "a title", "curve.png")
    evaluate.draw_curve(HISTORY, "a title\nin two lines", "overfitting.png")
    ladder.draw(ROWS).save("ladder.png")
    for name in IMAGES:  # how many mistakes there are to show differs from network to network
        assert picture(name, "").size == picture(name).size or name == "mistakes", name


@pytest.mark.parametrize("name", ["curve", "activations"])
def test_the_lines_are_those_of_the_log_and_of_the_block_pixel_by_pixel(few, name):
    run(block("activations.png"), {})
    evaluate.draw_curve(HISTORY, "a title", "curve.png")
    difference = ImageChops.difference(picture(name, ""), picture(name))
    for left in (56, 556):  # two panels, without letters: these may differ with Pillow's version
        panel = difference.crop((left, difference.height - 344, left + 410, difference.height - 46))
        # The log's numbers are rounded: an edge may differ in its shade, a line not in its place.
        assert max(high for _, high in panel.getextrema()) < 150


# ---- The ladder ------------------------------------------------------------------------------

LADDER = section("## Appendix A")
ROWS = ladder.read(os.path.join(ROOT, "README.md"))
COMMANDS = re.findall(r"^python train\.py (.+)$", LADDER, re.M)


def test_each_rung_has_a_row_a_reason_and_a_command_with_a_file_of_its_own():
    numbers = [int(name.split()[0]) for name, *_ in ROWS[:-1]]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8, 8, 9]  # 8: with one look, and with two
    assert re.findall(r"^(\d)\. \*\*", LADDER, re.M) == list("123456789")
    files = {benchmark.arguments(command).checkpoint for command in COMMANDS}
    assert len(files - {None}) == len(COMMANDS) == len(benchmark.RUNGS) == 9


@pytest.mark.parametrize("k", range(9))
def test_the_benchmark_times_and_trains_what_the_command_of_a_rung_trains(few, k):
    flags = [*benchmark.RUNGS.values()][k]
    args, timed = vars(benchmark.arguments(COMMANDS[k])), vars(benchmark.arguments(flags))
    assert {**args, "runs": 1, "checkpoint": None} == timed and args["runs"] >= 3
    assert re.search(rf"^{k + 1} \| .+? \| {args['epochs']} \|", LADDER, re.M)
    flags += " --dataset cifar10 --epochs 1"
    torch.manual_seed(0)
    net = benchmark.our_train(few[0], flags)
    train.main(flags.split())
    assert same(net, "cifar_net.pth")


def test_ladder_png_has_the_bars_of_the_table():
    pixels = [pil_to_tensor(each).int() for each in (ladder.draw(ROWS), picture("ladder"))]
    drawn, there = (blue - red > 150 for red, _, blue in pixels)  # not the letters
    assert torch.equal(drawn, there) and drawn.sum() > 450


# ---- The tutorial: its blocks as they stand --------------------------------------------------


def test_the_class_in_chapter_3_is_the_one_in_lenet5_py():
    one, two = (node for text in (block("class LeNet5"), read("lenet5.py"))
                for node in ast.parse(text).body if getattr(node, "name", "") == "LeNet5")
    assert ast.dump(ast.Module(one.body, [])) == ast.dump(ast.Module(two.body[1:], []))


CHAPTERS = {1: "torchvision.datasets import CIFAR10", 2: "dataiter", 3: "class LeNet5",
            "loss": "(0)  # again", 4: "net.train()", 5: "trained = LeNet5()"}
assert len(blocks("python")) == 35  # a test runs each one as it stands, or applies it to a script


@pytest.fixture
def tutorial(few, monkeypatch):
    """Runs unchanged blocks; torchvision's CIFAR10 holds a few made-up images."""
    def made(root, train, download, transform):
        pairs = zip(*few[not train][:])
        return [(transform(data.imshow(image, scale=1)), label.item()) for image, label in pairs]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", made)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # as train.py has it at batch 4
    names = {}

    def go(*chapters):
        for chapter in chapters:
            run(block(CHAPTERS.get(chapter, chapter)), names)
        return names
    return go


def test_the_blocks_of_chapters_1_to_5_are_the_whole_tutorial_in_order_and_again(
        tutorial, few, capsys):
    def accuracy(net):
        return f"accuracy: {evaluate.accuracy(*evaluate.predict(net, [few[1][:]])):.1f} %"

    names = tutorial(1, 2, 3, "loss", 4, 5)
    printed = capsys.readouterr().out.splitlines()
    assert accuracy(names["net"]) in printed and len(printed) == 1 + 2 + 1 + 10
    assert names["classes"] == data.CLASSES and names["i"] == 99
    net = tutorial(2, 3, 4, 5, 1)["net"]  # goes on with the network of before, and tests it
    assert accuracy(net) in capsys.readouterr().out
    assert not torch.equal(tutorial("loss")["net"].fc3.bias, net.fc3.bias)  # begins another


def test_those_blocks_train_the_network_that_train_py_trains(tutorial):
    names = tutorial(1, 2, 3, "loss")
    run(block(CHAPTERS[4]).replace("range(8)", "range(1)"), names)  # train.py tests in between
    train.main(["--epochs", "1", "--dataset", "stripes"])
    assert same(names["net"], "stripes_net.pth")
    slow, fast = names["trainset"][7], tutorial("load\n\ntrainset")["trainset"][7]
    assert torch.equal(slow[0], fast[0]) and slow[1] == fast[1]  # load() gives the same images


def test_a_network_with_batchnorm_gets_a_table(tutorial, capsys):
    tutorial(1, 2, 3, "loss", "WithBatchNorm")
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines()[-8:]]
    assert first == "input conv1 bn1 relu pool flatten fc total".split()


def test_after_every_other_block_twice_chapters_4_and_5_go_on_with_their_network(
        tutorial, few, clothes, monkeypatch, capsys):
    """So no block of a notebook may give net, optimizer, trainset, ... to something else."""
    names, chapters = tutorial(1, 2, 3, "loss"), [block(words) for words in CHAPTERS.values()]
    for part in ("train", "test"):
        image_folder(os.path.join("photos", part))
    for path in ("cifar_net.pth", "mnist_net.pth"):
        torch.save(names["net"].state_dict(), path)
    write_settings()
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda root, train, download, transform: [
        (transform(data.imshow(image[:1, 2:30, 2:30], scale=1)), label) for image, label
        in few[not train]])
    names["my_conv"] = my_conv
    others = [text for text in blocks("python") if text[0] != " " and text not in chapters]
    assert len(others) == 20
    for code in others:
        run(code, names)
        run(code, names)
    net, before = names["net"], [value.clone() for value in names["net"].parameters()]
    printed = capsys.readouterr().out
    assert "conv1    (28 - 5) + 1 = 24  (1, 6, 24, 24)" in printed
    assert names["transferred"].conv2.weight.grad is None
    assert names["scheduler"].get_last_lr() == [0] and names["grey_net"].conv1.weight.shape[1] == 1
    tutorial(4, 5)
    assert not any(torch.equal(*pair) for pair in zip(before, net.parameters()))
    percent = evaluate.accuracy(*evaluate.predict(net, names["testloader"]))
    assert f"accuracy: {percent:.1f} %" in capsys.readouterr().out


# ---- Homework, by its number -----------------------------------------------------------------


def test_1_with_a_kernel_of_3_pixels_table_and_error_are_those_of_the_answer(images, capsys):
    lines = block("nn.Conv2d(6, 16, 3)").splitlines()
    names = edited_lenet5(lines)
    rows = names["trace"](names["LeNet5"](), images)
    for row in (rows[4], rows[8]):  # conv2, fc1
        assert f"{row.parameters:,} parameters, " in ONE_LINE
        assert f" {row.multiply_adds:,} multiply-adds" in ONE_LINE
    assert f"field 6 + 2 · 2 = {rows[4].receptive_field}, " in ONE_LINE
    assert f"field 10 + 1 · 2 = {rows[6].receptive_field}. " in ONE_LINE
    parameters, work = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    assert f"Total: {parameters:,} parameters, {work:,} multiply-adds" in ONE_LINE
    with pytest.raises(RuntimeError):
        edited_lenet5(lines[:1])["main"]()
    assert f"With the old `fc1`: `{capsys.readouterr().out.splitlines()[-1]}`" in ONE_LINE


def test_2_dropout_is_one_line_and_the_smaller_network_three(images):
    for words in ("F.dropout", "(40, 30)"):
        names = edited_lenet5(block(words).splitlines())
        rows = names["trace"](names["LeNet5"](), images)
        said = f"has {sum(row.parameters for row in rows):,} parameters and can't" in README
        assert said != ("dropout" in [row.name for row in rows])


def test_2_what_gains_and_how_much_is_what_the_table_says():
    row = r"^\*?([\w ,]+?)\*? \| .* % \| ([\d.]+) % \(.+\) \| [\d.]+ \| ([\d.]+)$"
    table = {name: (float(mean), loss) for name, mean, loss in re.findall(row, README, re.M)}
    nothing, loss = table["none"]
    for name in ("augmentation", "weight decay"):
        gains = rf"{name}[^,:;]* gains {table[name][0] - nothing:.1f} points"
        assert re.search(gains, ONE_LINE, re.I), name
    assert f"lowers the validation loss from {loss} to {table['weight decay'][1]}" in ONE_LINE


@pytest.mark.parametrize("function, row, by_hand", [
    (torch.sigmoid, r"sigmoid | $1 / (1 + \exp(-x))$ | $y (1 - y)$, at most 0.25",
     lambda x, y: (1 / (1 + exp(-x)), y * (1 - y))),
    (torch.tanh, r"tanh | $(\exp(x) - \exp(-x)) / (\exp(x) + \exp(-x))$ | $1 - y^2$, at most 1",
     lambda x, y: ((exp(x) - exp(-x)) / (exp(x) + exp(-x)), 1 - y ** 2)),
    (torch.relu, "ReLU | $x$ if $x > 0$, else $0$ | 1 if $x > 0$, else 0",
     lambda x, y: (x, 1) if x > 0 else (0, 0)),
    (F.leaky_relu, "LeakyReLU | $x$ if $x > 0$, else $0.01 x$ | 1 if $x > 0$, else 0.01",
     lambda x, y: (x, 1) if x > 0 else (0.01 * x, 0.01)),
    (F.elu, r"ELU | $x$ if $x > 0$, else $\exp(x) - 1$ | 1 if $x > 0$, else $\exp(x)$",
     lambda x, y: (x, 1) if x > 0 else (exp(x) - 1, exp(x)))])
def test_3_the_table_has_the_values_and_slopes(function, row, by_hand):
    assert f"| {row} |\n" in README
    for number in (-3.0, -0.5, 0.5, 2.0):
        x = torch.tensor(number, dtype=torch.float64, requires_grad=True)
        y = function(x)
        y.backward()
        assert (y.item(), x.grad.item()) == pytest.approx(by_hand(number, y.item()))


def test_3_relu_stands_in_four_places_and_dead_units_are_counted_after_each(few, capsys):
    assert "all four places" in README and read("lenet5.py").count("F.relu(") == 4
    net = lenet5.LeNet5()
    net.conv2.bias.data[:2] = net.fc2.bias.data[:] = -100  # never above 0
    torch.save(net.state_dict(), "cifar_net.pth")
    run(block("dead.all"), {})
    conv1, conv2, fc1, fc2 = capsys.readouterr().out.splitlines()
    assert (conv2, fc2) == ("16 units, 2 dead", "84 units, 84 dead")


def test_4_each_loss_trains_in_run(few):
    for line in block("one_hot(labels, 10)").splitlines():
        edit("train", {"    criterion = ": line})["main"](ONE_EPOCH)


def test_4_the_worked_example_and_the_answer(capsys):
    outputs, target = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    for name, loss in {"cross-entropy": F.cross_entropy, "MSE": F.mse_loss, "L1": F.l1_loss,
                       "BCE": F.binary_cross_entropy_with_logits}.items():
        assert re.search(rf"^\| {name} \| .+ \| {loss(outputs, target):.3f} \|$", README, re.M)
    for name, values in (("p", outputs.softmax(1)), ("q", outputs.sigmoid())):
        assert f"${name}$ = {', '.join(f'{value:.3f}' for value in values[0])}; " in README
    run(block("outputs.exp() /"), {})
    comments = re.findall(r"# (\d.+)$", block("outputs.exp() /"), re.M)
    for comment, line in zip(comments, capsys.readouterr().out.splitlines(), strict=True):
        assert {f"{float(number):.3f}" for number in line.split()} == {comment}


def test_5_one_weights_life_is_the_formula_line_by_line(few, capsys):
    lines = block("  gradient  ", "").splitlines()
    run(block("watched = "), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == lines[0] and len(lines) == 11
    assert [*map(len, printed)] == [*map(len, lines)]
    rows = [[float(number) for number in line.split()] for line in lines[1:]]
    for (value, _, buffer, step), (then, gradient, kept, _) in zip(rows, rows[1:]):
        assert kept == pytest.approx(0.9 * buffer + gradient, abs=2e-5)
        assert then == pytest.approx(value + step, abs=2e-7)
        assert step == pytest.approx(-0.001 * buffer, abs=6e-8)


def test_5_the_example_on_paper_is_what_autograd_says(capsys):
    run(block("w1, b1, w2, b2"), {})
    printed = capsys.readouterr().out.strip()
    assert block("w1, b1, w2, b2").endswith(f"  # {printed}")
    cells = re.findall(r"(?<=\| )`(\w+) = ([^`]+)`", section("### Homework 5:"))
    values = {name: float(parts.split(" = ")[-1]) for name, parts in cells}
    loss, *gradients = (values[name] for name in "loss dw1 db1 dw2 db2".split())
    assert f"{loss} {gradients}" == printed
    values |= {"w1": 1, "b1": 1, "w2": 2, "b2": -1, "relu": lambda x: max(0, x)}
    for name, parts in cells:  # a = w1 * x + b1 = 1 * 2 + 1 = 3: each part is 3
        assert {eval(part, values) for part in parts.split(" = ")} == {values[name]}
    assert len(cells) == 12
    assert f"with `w1 = 1.01` the loss is {(2 * (1.01 * 2 + 1) - 5) ** 2:.4f}" in README


def test_3_and_5_the_answers_agree_with_autograd():
    run(block("def tanh("), {})  # the blocks assert, themselves
    check, names = block("y.backward(dy)"), run(block("stride=1):"), {})
    run(check, {})
    check = check.replace("conv_backward, zeros_like", "zeros_like")
    check = check.replace("weight, bias)[0]", "weight, bias, stride=2)[0]")
    run(check.replace("dweight, dbias)\n", "dweight, dbias, stride=2)\n"), names)
    assert names["y"].shape == (3, 2, 2)
    with pytest.raises((AssertionError, IndexError)):
        run(check, names)  # stride 2 against stride 1


def test_6_the_quoted_summary_is_what_the_first_command_prints(capsys):
    quoted, text = block("validation accuracy", ""), section("### Homework 6:")
    commands = re.findall("^python train.py (.+)$", text, re.M)
    runs = [float(each) for each in re.findall(r"[\d.]+(?=[, ])", quoted.splitlines()[0])]
    seconds = float(re.search(r"; (\d+) s of", quoted)[1])
    args, results = benchmark.arguments(commands[0]), [((0, 0, 0, each), seconds) for each in runs]
    train.print_summary(args, "CIFAR-10", [], results)
    assert capsys.readouterr().out.strip() == quoted and len({*commands}) == 6
    deviation, error = statistics.stdev(runs), statistics.stdev(runs) / 3 ** 0.5
    row = r"^\| (\d) \| .+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$"
    rows = [[*map(float, row)] for row in re.findall(row, text, re.M)]
    assert rows[0][:2] + rows[0][3:] == [1, round(deviation, 1), min(runs), max(runs)]
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    for _, spread, of_mean, _, _ in rows:  # both are rounded
        assert of_mean == pytest.approx(spread / 3 ** 0.5, abs=0.035)
    assert f"standard error {deviation:.3f} / 1.732 = {error:.2f}." in ONE_LINE


def test_6_the_rule_is_wrong_once_in_twenty_times_and_with_unequal_spreads_once_in_ten():
    torch.manual_seed(0)
    said = "For two runs of each setting the factor is 4.3, for four 2.4, for five 2.3."
    assert "$$2.8 \\sqrt" in README and said in ONE_LINE
    for n, factor, spread, chance in ((2, 4.3, 1, 0.05), (3, 2.8, 1, 0.05), (4, 2.4, 1, 0.05),
                                      (5, 2.3, 1, 0.05), (3, 2.8, 10, 0.1)):
        one, other = torch.randn(100_000, n), torch.randn(100_000, n) * spread
        error = ((one.var(1) + other.var(1)) / n).sqrt()
        beyond = ((one.mean(1) - other.mean(1)).abs() > factor * error).double().mean()
        assert beyond == pytest.approx(chance, abs=0.005)


@pytest.mark.parametrize("words", ["xavier_uniform_", "zeros_(parameter)"])
def test_6_the_lines_for_initial_weights_stand_after_the_network(few, images, words):
    names, seen = edit("train", {"    net = LeNet5()": "LINE\n" + block(words)}), []
    names["train"] = lambda net, *args: seen.append(net) or (1.0, 50.0)
    names["main"](ONE_EPOCH)
    net, ours = seen[0], lenet5.LeNet5()
    F.cross_entropy(net(images), torch.tensor([3, 0, 9, 5])).backward()
    moving = [name for name, weight in net.named_parameters() if weight.grad.any()]
    ratios = [(one.abs().max() / other.abs().max()).item() for one, other
              in zip(net.parameters(), ours.parameters()) if one.ndim > 1]
    bounds = f"bounds are {min(ratios):.1f} to {max(ratios):.1f} times as large"
    assert bounds in ONE_LINE or {*ratios} == {0} and moving == ["fc3.bias"]


def test_7_the_matrix_is_printed_so_and_agrees_with_the_accuracies(capsys):
    rows = re.findall(r"^ +[a-z]+((?: +\d+){10})$", README, re.M)
    matrix = torch.tensor([[int(count) for count in row.split()] for row in rows])
    evaluate.print_confusions(matrix, data.CLASSES)
    assert capsys.readouterr().out.strip() in blocks() and matrix.sum(1).tolist() == [1000] * 10
    right, plane, called = (n.item() for n in (matrix.trace(), matrix[0, 0], matrix[:, 0].sum()))
    assert f"{right:,} of 10,000, {right / 100:.1f} %. That" in ONE_LINE
    assert f"{plane} of 1,000, {plane / 10} %. That" in ONE_LINE
    assert f"{plane} of {called}, {100 * plane / called:.1f} %." in ONE_LINE
    for k, name in enumerate(data.CLASSES):
        assert re.search(rf"^ +{name} +{matrix[k, k] / 10:.1f} %$", README, re.M)
    darkest = (matrix - matrix.diag().diag()).flatten().argsort(descending=True)[:3].tolist()
    names = {f"{data.CLASSES[k % 10]} for {data.CLASSES[k // 10]}" for k in darkest}
    assert {*re.findall(r"\w+ for \w+(?=,| and| are)", IMAGES["confusion"])} == names


def test_9_a_negative_is_minus_x(few, capsys):
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert torch.allclose(data.transform(255 - pixels), -data.transform(pixels), atol=1e-6)
    torch.save(lenet5.LeNet5().state_dict(), "cifar_net.pth")
    run(block("negatives = "), {})
    assert len(re.findall(r"^[\d.]+ %$", capsys.readouterr().out, re.M)) == 2


def test_9_the_lines_in_train_turn_about_half_of_the_images(few):
    names = edit("train", {"        optimizer.zero_grad()": block("torch.where") + "\nLINE"})
    net, (images, labels), seen = lenet5.LeNet5(), few[0][:], []
    net.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    names["train"](net, [(images, labels)], F.cross_entropy, torch.optim.SGD(net.parameters()))
    turned, kept = ((seen[0] == each).flatten(1).all(1) for each in (-images, images))
    assert 160 < turned.sum() < 240 and (turned | kept).all()


def test_10_each_target_has_the_command_that_was_measured():
    text, rung = section("### Homework 10:"), benchmark.arguments(COMMANDS[4])
    row = r"^(\S+) \| (\d+) % \| ([\d.]+) % \(([\d.]+) to .+ \| (\d+) \| \d+$"
    rows, commands = re.findall(row, text, re.M), re.findall(r"^python train\.py (.+)$", text, re.M)
    assert len(rows) == len(commands) == 3
    for (name, target, mean, lowest, epochs), flags in zip(rows, commands):
        args = benchmark.arguments(flags)
        assert data.DATASETS[args.dataset].name == name and args.epochs == int(epochs)
        assert args.runs == 5 and not args.validation and float(lowest) > float(target)
        assert args.settings.replace("0.0005", "0.002") == rung.settings


def test_11_without_its_loops_it_trains_all_and_with_the_trap_it_says_that_conv1_moved(clothes):
    saved = lenet5.LeNet5().state_dict()
    torch.save(saved, "mnist_net.pth")
    code = block("transferred = load_checkpoint")
    thawed = re.sub(r"(?s)for layer in .+?\n(?=before)", "", code)
    trap = "layer.requires_grad = False\n"  # what the text warns of
    for wrong in (thawed, re.sub(r"for parameter in .+\n.+\n", trap, code)):
        with pytest.raises(AssertionError, match="conv1.weight"):
            run(wrong, {})
    run(re.sub(r"for parameter in .+\n.+\n", "layer.requires_grad_(False)\n", code), {})
    thawed = re.sub(r"for name, value in trans.+\n.+\n", "", thawed)  # both loops left out
    anew = re.sub(r"transferred = .+", "transferred = LeNet5()", thawed)
    for names in (run(thawed, {}), run(anew, {"LeNet5": lenet5.LeNet5})):
        assert not torch.equal(names["transferred"].conv1.weight, saved["conv1.weight"])


# ---- If it does not learn, other data, and all tables ----------------------------------------

@pytest.mark.parametrize("k", [0, 1])
def test_the_two_lines_that_spoil_the_training_set(few, k):
    line, seen = block("argsort").splitlines()[k], []
    names = edit("train", {"    trainset = data.load(": f"LINE\n{line}"})
    names["run"] = lambda *args: seen.append(args[3].dataset[:][1]) or ([(1, 50, 1, 50)], 1)
    names["main"](ONE_EPOCH)
    assert (seen[0].diff() >= 0).all() == (k == 0)  # the first line sorts, the second shuffles
    assert not torch.equal(seen[0], few[0][:][1]) and seen[0].bincount().tolist() == [40] * 10


@pytest.mark.parametrize("another", [False, True])
def test_the_lines_around_a_step_show_whether_it_reaches_the_network(few, capsys, another):
    after = "    net = LeNet5()\nLINE" if another else "LINE"
    names = edit("train", {"        optimizer.step()": block("before = net.fc3"),
                           "    history, seconds": after})
    names["main"](ONE_EPOCH)
    steps = re.findall(r"^[\d.e-]+$", capsys.readouterr().out, re.M)
    assert len(steps) == 8 and all((float(step) == 0) == another for step in steps)


def test_each_log_to_diagnose_has_the_lines_of_a_run_and_its_answer_the_numbers():
    logs = [text for text in blocks() if text.startswith("3 epochs")]
    for log in logs:
        head, *epochs = log.splitlines()
        flags = head.replace("epochs, mini-batches of", "--batch-size")
        args = benchmark.arguments(f"--epochs {flags}")
        assert f"{args.length} {args.settings}".strip() == head
        assert [len(re.findall(EPOCH, line)) for line in epochs] == [1] * args.epochs
    accuracy, loss = re.search(r"([\d.]+ %) right with a loss of ([\d.]+\d),", ONE_LINE).groups()
    assert len(logs) == 3 and f"training {accuracy}, {loss}; 0 s left" in logs[0]
    first, percent, _, _ = HISTORY[0]
    assert f"the log of chapter 4 has {percent} % with {first:.3f}." in ONE_LINE


def test_a_mean_lies_between_its_lowest_and_its_highest_run():
    brackets = re.findall(r"([\d.]+) % \(([\d.]+) to ([\d.]+)\)", ONE_LINE)
    row = r"^\| [^|]+ \| ([\d.]+) \| [\d.]+ \|(?: [\d.]+ \|)? ([\d.]+) \| ([\d.]+) \|$"
    rows = brackets + re.findall(row, README, re.M)
    assert len(rows) > 40
    assert all(float(low) <= float(mean) <= float(high) for mean, low, high in rows)


def test_the_text_has_the_numbers_of_the_tables(images):
    rows = lenet5.trace(lenet5.LeNet5(), images)
    share = lambda column: round(100 * (column[1] + column[4]) / sum(column))  # conv1 and conv2
    assert (f"hold {share([row.parameters for row in rows])} % of the parameters and do "
            f"{share([row.multiply_adds for row in rows])} % of the work") in ONE_LINE
    none = re.search(r"^none \| .+ \| .+ \| ([\d.]+ to [\d.]+) \|", README, re.M)[1]
    assert re.findall(rf"^\| (\S+) \| .*\({none}\)", README, re.M) == ["ReLU", "cross-entropy"]
    _, mean, low, high, _ = ROWS[2]  # rung 3 is setting 3
    assert f"50,000 images: {mean} % of the test images ({low} to {high})." in ONE_LINE
    means = [float(mean) for mean in re.findall(r"^\| \d \| ([\d.]+) \|", README, re.M)]
    assert f"the difference is {means[2] - means[0]:.1f}, " in ONE_LINE
    assert f"From setting 4 it differs by {means[2] - means[3]:.1f}, " in ONE_LINE
    errors = re.findall(r"^\| \d(?: \| [\d.]+){2} \| ([\d.]+) \|", README, re.M)  # of the means
    for e1, e2, limit in re.findall(r"sqrt\{(\S+)\^2 \+ (\S+)\^2\}\$ is ([\d.]+\d)", README):
        assert f"{2.8 * hypot(float(e1), float(e2)):.1f}" == limit and {e1, e2} <= {*errors}
    lowest = F.cross_entropy(torch.eye(10)[:1], torch.tensor([0]))  # of a perfect softmax
    assert f"can never be below {lowest:.3f}" in README


def test_the_block_for_photos_of_ones_own_trains(few, capsys):
    for part in ("train", "test"):
        image_folder(os.path.join("photos", part))
    image, _ = run(block("ImageFolder"), {})["photos"][3]
    assert image.shape == (3, 32, 32) and image.min() == -1  # red
    assert len(re.findall(r"^epoch \d+: test", capsys.readouterr().out, re.M)) == 10
    os.rename("photos/test/cats", "photos/test/birds")
    with pytest.raises(AssertionError):
        run(block("ImageFolder"), {})


def test_write_it_yourself_shows_each_loop_as_it_is_and_what_is_printed_of_the_first(tmp_path):
    loop = r"(\w+_(?:by_hand|backward)\(.+?\))"
    shown = re.findall(rf"^`{loop}` \|", README, re.M)
    assert sorted(shown) == sorted(re.findall(rf"^def {loop}:", read("lenet5.py"), re.M))
    printed, _ = refereed(tmp_path, block("# your turn"), "-x")
    for words in ("numbers differ", "loops are yours"):
        assert f"{block(words, '')}\n" in printed


def test_its_last_block_compares_a_convolution_of_ones_own():
    run(block("my_conv("), {"my_conv": my_conv})
    run(block("my_conv(").replace("stride=2", "padding=2"), {"my_conv": my_conv})
    wrong = lambda x, weight, bias, stride: my_conv(x, weight, [0.0] * 4, stride=2)
    with pytest.raises(AssertionError):
        run(block("my_conv("), {"my_conv": wrong})
