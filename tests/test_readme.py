"""What README.md says and what the project does are the same thing."""
import ast
import math
import os
import re
import statistics
import sys
import textwrap

import pytest
import torch
from PIL import Image, ImageChops
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

import benchmark
import data
import evaluate
import ladder
import lenet5
import train
from conftest import ROOT, edited
from test_copies import TABLE, image_folder

SCRIPTS = ("lenet5.py", "data.py", "train.py", "evaluate.py")


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


README = read("README.md")


def blocks(language=""):
    """The texts between fences of that language; those in a list without the list's indentation."""
    fences = re.findall(r"^( *)```(\w*)\n(.+?)\n\1```$", README, re.M | re.S)
    return [re.sub(f"^{indent}", "", text, flags=re.M) for indent, name, text in fences if name == language]


def block(word):
    """The only block of Python code with this word in it."""
    found, = (text for text in blocks("python") if word in text)
    return found


def section(heading):
    """The text under a heading, up to the next of the same depth or above."""
    depth = len(heading.split()[0])
    return re.search(rf"^{re.escape(heading)}$(.+?)(?=^#{{1,{depth}}} |\Z)", README, re.M | re.S)[1]


CHAPTER_4 = section("## 4. The training (4. Model Training)")


def run(code, names):
    exec(compile(code, "README.md", "exec"), names)


def quoted(name):
    """The lines that a script quotes of its own output, at its top."""
    return [line[4:] for line in ast.get_docstring(ast.parse(read(name)), clean=False).splitlines()
            if line.startswith("    ") and "python " not in line and "..." not in line]


# ---- Commands and names ----------------------------------------------------------------------

def test_it_begins_with_one_command_to_install_and_train_and_one_to_test():
    commands = [text for text in blocks() if re.match("pip|python", text)]
    assert commands[:2] == ["pip install torch torchvision pytest && python train.py", "python -m pytest"]


def test_every_function_and_class_that_it_names_exists():
    defined = set()
    for name in (*SCRIPTS, *(f"tests/{test}" for test in os.listdir(os.path.join(ROOT, "tests")) if test.endswith(".py"))):
        defined |= {node.name for node in ast.walk(ast.parse(read(name))) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    elsewhere = {"iter", "next", "make_grid", "ToTensor", "backward", "enumerate", "state_dict", "__init__", "zero_grad"}  # Python's, PyTorch's and torchvision's
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    for name in re.findall(r"`(?:class )?(\w+)(?:\(\))?`", prose):
        if name.endswith("by_hand") or f"`{name}()`" in prose or name.startswith("test_"):
            assert name in defined | elsewhere, name


def test_every_command_has_flags_that_its_script_takes(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "run_seeds", seen.append)
    monkeypatch.setattr(evaluate, "classify", seen.append)
    for flags in re.findall(r"python train\.py((?: --[\w-]+(?: [\w.]+)*)*)", README):
        if flags.split() != ["--help"]:
            train.main(flags.split())
    evaluate.main(re.search(r"^python evaluate\.py (--image .+)$", README, re.M)[1].split())
    assert len(seen) >= 10


def test_every_flag_in_the_readme_exists(capsys):
    for main in (train.main, evaluate.main):
        with pytest.raises(SystemExit):
            main(["--help"])
    flags = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert set(re.findall(r"[ `](--\w[\w-]+)", README)) - {"--race", "--index-url", "--upgrade"} <= flags


@pytest.mark.parametrize("row", re.findall(r"\| `(\w+\.py)`: `(\w+)`$", README, re.M), ids=lambda row: row[1])
def test_the_glossary_points_at_something_that_is_there(row):
    script, name = row
    assert re.search(rf"\b{name}\b", read(script))


@pytest.mark.parametrize("line, script, name, difference", re.findall(r"^`(.+)` \| `(\w+\.py)`: `(\w+)` \| ?(.*)$", README, re.M),
                         ids=lambda text: text[:20])
def test_each_line_of_the_tutorial_stands_where_the_table_says(line, script, name, difference):
    """Word for word, but for what ... stands for, and where the last column names a difference."""
    source = read(script)
    piece, = (ast.get_source_segment(source, node) for node in ast.parse(source).body
              if name in (getattr(node, "name", ""), getattr(getattr(node, "targets", [0])[0], "id", "")))
    assert difference or all(part in piece for part in line.split("...")), piece


def test_the_table_of_the_tutorials_lines_is_whole_and_every_link_inside_the_readme_leads_to_a_heading():
    assert len(re.findall(r"^`.+` \| `\w+\.py`: `\w+` \|", section("## Where each line stands"), re.M)) >= 17
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", README, re.M)}
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert len(links) >= 5 and set(links) <= slugs


def test_the_contents_count_the_pieces_of_the_copying_table():
    assert f"{len(TABLE)} functions and classes" in README


def test_the_glossary_has_each_term_in_korean_too():
    rows = re.findall(r"^(.+?) \| (.+?) \| .+ \| .+$", section("## Appendix C: glossary"), re.M)[1:]
    assert len(rows) >= 30 and all(re.search("[\uac00-\ud7a3]", korean) for _, korean in rows)


# ---- Quoted output ---------------------------------------------------------------------------

@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_quotes_at_its_top_stands_in_the_readme_too(name):
    lines = quoted(name)
    assert len(lines) > 5
    for line in lines:
        assert line.rstrip() in README, line


EPOCHS = re.findall(r"^epoch (\d): training loss ([\d.]+), training accuracy ([\d.]+) %, test loss ([\d.]+), test accuracy on CIFAR-10 "
                    r"([\d.]+) % \| [\d,]+ images/s, \d min \d\d s left$", CHAPTER_4, re.M)


def test_the_run_in_the_readme_has_eight_epochs_and_evaluate_py_found_what_train_py_had_found():
    assert [int(epoch) for epoch, *_ in EPOCHS] == list(range(1, 9))
    assert f"accuracy on CIFAR-10: {EPOCHS[-1][-1]} %" in README
    text = IMAGES["curve"]  # says the same as the log
    for number in (EPOCHS[0][2], EPOCHS[7][2], EPOCHS[0][4], EPOCHS[7][4], max(epoch[4] for epoch in EPOCHS)):
        assert number in text


def test_the_convolutions_hold_5_percent_of_the_parameters_and_do_91_percent_of_the_work():
    rows = lenet5.trace(lenet5.LeNet5(), torch.zeros(1, 3, 32, 32))
    conv = [row for row in rows if row.name.startswith("conv")]
    assert round(100 * sum(row.parameters for row in conv) / sum(row.parameters for row in rows)) == 5
    assert round(100 * sum(row.multiply_adds for row in conv) / sum(row.multiply_adds for row in rows)) == 91
    assert [row.output[0, 0].numel() for row in conv] == [784, 100]


# ---- Pictures --------------------------------------------------------------------------------

IMAGES = {name: text for text, name in re.findall(r"!\[(.+?)\]\(\.images/(\w+)\.png\)", README)}


def size(name):
    with Image.open(os.path.join(ROOT, ".images", f"{name}.png")) as image:
        return image.size


def test_each_picture_is_shown_with_a_text_for_those_who_cannot_see_it():
    files = sorted(os.listdir(os.path.join(ROOT, ".images")))
    assert files == sorted(f"{name}.png" for name in IMAGES)
    assert all(len(text) > 30 for text in IMAGES.values())
    assert sum(os.path.getsize(os.path.join(ROOT, ".images", file)) for file in files) < 900_000


def write_settings():
    """The tables that the snippet of homework 6 reads."""
    for k, seed in [(k, seed) for k in range(1, 6) for seed in range(3)]:
        with open(f"setting{k}_seed{seed}_curve.csv", "w") as file:
            file.write(f"epoch,training loss,training accuracy,validation loss,validation accuracy\n1,2.0,30.0,2.1,4{k}.5\n2,1.9,33.0,2.0,5{k}.{seed}\n")


def test_the_figure_of_the_five_settings_has_the_mean_of_the_three_seeds_for_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panels, plot = [], evaluate.plot
    monkeypatch.setattr(evaluate, "plot", lambda *args: panels.append(args[0]) or plot(*args))
    write_settings()
    run(block("settings.png"), {})
    (_, _, _, lines), = panels[0]
    assert lines == {f"setting {k}": (range(1, 3), pytest.approx([40 + k + 0.5, 50 + k + 0.1])) for k in range(1, 6)}
    assert os.path.exists("settings.png")


def test_the_pictures_have_the_size_that_todays_code_draws(few, images, monkeypatch):
    monkeypatch.setattr(data, "load", lambda train=True, dataset="auto", root="data": few[0 if train else 1])
    torch.manual_seed(0)
    torch.save(lenet5.LeNet5().state_dict(), "stripes_net.pth")
    data.main(["--dataset", "stripes"])
    evaluate.main(["--dataset", "stripes"])
    data.imshow(images[0], "photo.png")
    evaluate.main(["--dataset", "stripes", "--image", "photo.png"])
    evaluate.draw_curve([(2.0, 30.0, 2.1, 40.0)], "a title", "curve.png")
    evaluate.draw_curve([(2.0, 30.0, 2.1, 40.0)], "a title\nin two lines", "overfitting.png")
    write_settings()
    run(block("settings.png"), {})
    run(block("activations.png"), {})
    torch.save(lenet5.LeNet5().state_dict(), "cifar_net.pth")
    run(block("negatives.png"), {})
    ladder.draw(ladder.read(os.path.join(ROOT, "README.md"))).save("ladder.png")
    for name in IMAGES:
        with Image.open(f"{name}.png") as image:
            assert image.size[0] == size(name)[0], name
            assert image.size == size(name) or name == "mistakes", name  # which has a row for each pair


def test_the_curve_in_the_readme_is_the_one_of_the_log_in_the_readme(tmp_path):
    """Lines and dots, pixel by pixel; letters may differ with Pillow's version."""
    evaluate.draw_curve([tuple(map(float, epoch[1:])) for epoch in EPOCHS], "LeNet-5 on CIFAR-10, seed 0", str(tmp_path / "curve.png"))
    with Image.open(tmp_path / "curve.png") as drawn, Image.open(os.path.join(ROOT, ".images", "curve.png")) as shown:
        for left in (56, 556):  # the two panels, without their letters
            box = (left, 94, left + 410, 392)
            difference = ImageChops.difference(drawn.convert("RGB").crop(box), shown.convert("RGB").crop(box))
            # The log rounds to a tenth of a percent, a third of a pixel: edges may differ in shade, lines not in place.
            assert max(high for _, high in difference.getextrema()) < 128


# ---- The ladder ------------------------------------------------------------------------------

LADDER = section("## Appendix A: the ladder beyond 60 %")


def test_the_ladder_has_a_command_and_a_reason_for_each_rung_and_the_benchmark_times_just_these(monkeypatch):
    rungs = re.findall(r"^(\d+) \| .+? \| (\d+) \|", LADDER, re.M)
    commands = next(text for text in blocks() if text.startswith("python train.py --runs 3 --checkpoint ")).splitlines()
    reasons = re.findall(r"^(\d+)\. \*\*", LADDER, re.M)
    rungs = list(dict.fromkeys(rungs))  # best is there twice: in one look, and in two
    assert [number for number, _ in rungs] == reasons == [str(k + 1) for k in range(len(commands))]
    seen = []
    monkeypatch.setattr(train, "run_seeds", seen.append)
    for (_, epochs), command, (name, flags) in zip(rungs, commands, benchmark.RUNGS.items()):
        train.main(command.split()[2:])
        args, timed = vars(seen[-1]), vars(benchmark.arguments(flags))
        assert args["checkpoint"] not in [args.checkpoint for args in seen[:-1]]  # no rung overwrites another's
        assert args["epochs"] == int(epochs) and args["runs"] >= 3
        assert {**args, "runs": 1, "checkpoint": None} == timed, name
    assert len(commands) == len(benchmark.RUNGS)


def test_each_row_of_the_ladder_has_its_mean_inside_its_spread():
    rows = ladder.read(os.path.join(ROOT, "README.md"))
    assert len(rows) == len(benchmark.RUNGS) + 2 and all(low <= mean <= high for _, mean, low, high, _ in rows)
    assert len(re.findall(r"^\d \| .+ \| [\d.]+ \| [\d.]+ % \| [\d.]+$", LADDER, re.M)) == len(benchmark.RUNGS) + 1


def test_ladder_png_is_drawn_from_the_table():
    """Bars and dots, pixel by pixel; letters may differ with Pillow's version."""
    drawn = ladder.draw(ladder.read(os.path.join(ROOT, "README.md")))
    with Image.open(os.path.join(ROOT, ".images", "ladder.png")) as shown:
        for image in (drawn, shown):
            assert image.size == (900, 500)
        pixels = [pil_to_tensor(image.convert("RGB")).int() for image in (drawn, shown)]
    one, other = (blue - red > 150 for red, _, blue in pixels)
    assert torch.equal(one, other) and one.sum() > 9 * 50


# ---- Code in the text: it is the scripts', or it runs as it stands ------------------------------

def without_docstrings(code):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:]
    return tree


def test_the_class_in_chapter_3_is_the_one_in_lenet5_py():
    shown, here = (next(node for node in without_docstrings(code).body if isinstance(node, ast.ClassDef))
                   for code in (block("class LeNet5"), read("lenet5.py")))
    assert ast.dump(shown) == ast.dump(here)


CHAPTERS = {1: "from torchvision.datasets import CIFAR10", 2: "dataiter = iter(", 3: "class LeNet5", "loss": "criterion = nn.CrossEntropyLoss()\n",
            4: "net.train()", 5: "trained = LeNet5()"}


@pytest.fixture
def tutorial(few, monkeypatch):
    """A function that runs the unchanged blocks of these chapters, where torchvision's CIFAR10 holds a few made-up images."""
    class Made:
        def __init__(self, root, train, download, transform):
            self.images, self.transform = few[0 if train else 1], transform

        def __len__(self):
            return len(self.images)

        def __getitem__(self, k):
            image, label = self.images[k]
            return self.transform(data.imshow(image, scale=1)), label.item()

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Made)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # as train.py has it at batch 4
    names = {}

    def go(*chapters):
        for chapter in chapters:
            run(block(CHAPTERS[chapter]), names)
        return names
    return go


def accuracy_of(net, testset):
    return f"accuracy: {evaluate.accuracy(*evaluate.predict(net, DataLoader(testset, batch_size=50))):.1f} %"


def test_the_blocks_of_chapters_1_to_5_are_the_whole_tutorial(tutorial, few, capsys):
    names = tutorial(1, 2, 3, "loss", 4, 5)
    printed = capsys.readouterr().out.splitlines()
    assert accuracy_of(names["net"], few[1]) in printed and len(printed) == 1 + 2 + 1 + 10
    assert names["images"].shape[1:] == (3, 32, 32) and names["i"] == 99 and names["classes"] == data.CLASSES


def test_in_any_order_and_twice_they_do_what_they_say(tutorial, few, monkeypatch, capsys):
    names = tutorial(1, 2, 3, "loss", 4, 5, 2, 3, 4)
    assert accuracy_of(names["trained"], few[1]) in capsys.readouterr().out
    before, slow = names["net"], names["trainset"][7]
    tutorial(5, 1)
    assert accuracy_of(before, few[1]) in capsys.readouterr().out  # chapter 4 trained it on, chapter 5 tested that
    assert not torch.equal(tutorial("loss")["net"].fc3.bias, before.fc3.bias)
    monkeypatch.setattr(data, "load", lambda train=True: few[0 if train else 1])
    run(block("from data import load\n\ntrainset, testset"), names)  # stands for the two lines with CIFAR10
    assert torch.equal(slow[0], names["trainset"][7][0]) and slow[1] == names["trainset"][7][1] and len(names["testset"]) == 200


def test_those_blocks_train_the_network_that_train_py_trains(tutorial, few, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "README", README.replace("range(8)", "range(1)"))  # the test after an epoch draws a number
    names = tutorial(1, 2, 3, "loss", 4)
    train.main(["--epochs", "1", "--checkpoint", "same.pth", "--dataset", "stripes"])
    theirs = torch.load("same.pth", weights_only=True)
    assert all(torch.equal(value, theirs[name]) for name, value in names["net"].state_dict().items())


def test_the_table_of_a_network_with_batchnorm_is_printed_and_the_rate_of_the_schedule_falls_to_0(tutorial, capsys):
    names = tutorial(1, 2, 3, "loss")
    run(block("WithBatchNorm"), names)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-8:]] == "input conv1 bn1 relu pool flatten fc total".split()
    run(block("LinearLR").replace("8", "1"), names)
    assert names["scheduler"].get_last_lr() == [0] and names["optimizer"].state


EDITS = [text for text in blocks("python") if text.startswith("    ")]
assert len(EDITS) == 9  # smaller kernel, dropout, smaller network, losses, two initial weights, negatives, two for mistakes


def applied(script, lines):
    """The names of a script after edits: each line takes the place of the one that begins as it does."""
    edits = []
    for line in lines:
        begins = re.match(r" *[\w. ]+ = (?:F\.relu\(self\.fc2)?", line)[0]
        old, = [old for old in read(script).splitlines() if old.startswith(begins)]
        edits.append((old + "\n", line + "\n"))
    return edited(script[:-3], *edits)


@pytest.mark.parametrize("text", [text for text in EDITS if "self." in text], ids=lambda text: text.split("=")[0].strip())
def test_each_edit_of_lenet5_py_gives_a_network_that_runs_and_learns(text, images):
    names = applied("lenet5.py", text.splitlines())
    net = names["LeNet5"]()
    assert net(images).shape == (4, 10)
    rows = names["trace"](net, images)
    net(images).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    if "nn.Conv2d(6, 16, 3)" in text:
        assert "16 * 6 * 6 = 576" in [row.size for row in rows]
    elif "40" in text:
        assert sum(row.parameters for row in rows) == 20_452 and "has 20,452 parameters" in README
    else:
        assert "dropout" in [row.name for row in rows]


def test_without_its_second_line_the_smaller_kernel_is_explained(images, capsys):
    names = applied("lenet5.py", block("nn.Conv2d(6, 16, 3)").splitlines()[:1])
    with pytest.raises(RuntimeError) as error:
        names["trace"](names["LeNet5"](), images)
    said = [*getattr(error.value, "__notes__", []), capsys.readouterr().out]  # Python 3.10 has no notes
    assert any("fc1 expects 400 numbers for each image and gets 576: its first number must be 16 * 6 * 6." in text for text in said)


@pytest.mark.parametrize("word", ["xavier_uniform_", "zeros_like(value)"])
def test_the_lines_for_other_initial_weights_stand_after_the_network(word, few, monkeypatch):
    network = "    net = LeNet5().to(args.device)\n"
    names = edited("train", (network, network + block(word) + "\n"))
    seen = []
    monkeypatch.setitem(names, "train", lambda net, *args: seen.append(net.state_dict()) or (1.0, 50.0))
    names["main"](["--dataset", "stripes", "--epochs", "1"])
    for name, weight in seen[0].items():
        if word != "xavier_uniform_":
            assert not weight.any()
        elif name.endswith("weight"):
            receptive = weight[0, 0].numel()  # 25 for a convolution, 1 for a linear layer
            bound = math.sqrt(6 / (receptive * (weight.shape[0] + weight.shape[1])))
            assert 0.9 * bound < weight.abs().max() <= bound


def test_losses_by_hand(images):
    """The three lines of homework 4, each against its formula, and each lowest where the outputs are right."""
    labels, targets = torch.tensor([3, 0, 9, 5]), torch.zeros(4, 10)
    for n, label in enumerate((3, 0, 9, 5)):
        targets[n, label] = 1
    outputs = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    q = 1 / (1 + (-outputs).exp())
    formulas = [((outputs - targets) ** 2).sum(1) / 10, (outputs - targets).abs().sum(1) / 10,
                -(targets * q.log() + (1 - targets) * (1 - q).log()).sum(1) / 10]
    lines = block("one_hot(labels, 10)").splitlines()
    right, wrong = targets * 20 - 10, (1 - targets) * 20 - 10
    for line, formula in zip(lines, formulas):
        names = {"F": nn.functional}
        run(textwrap.dedent(line), names)
        assert torch.allclose(names["criterion"](outputs, labels), formula.mean())
        assert names["criterion"](right, labels) < names["criterion"](wrong, labels)
    p = outputs.exp() / outputs.exp().sum(1, keepdim=True)
    assert torch.allclose(nn.CrossEntropyLoss()(outputs, labels), -p[range(4), labels].log().mean())
    assert len(lines) == 3


def test_the_worked_example_of_the_losses():
    outputs, label, target = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]), torch.tensor([[1.0, 0.0, 0.0]])
    losses = (nn.functional.cross_entropy(outputs, label), nn.functional.mse_loss(outputs, target), nn.functional.l1_loss(outputs, target),
              nn.functional.binary_cross_entropy_with_logits(outputs, target))
    rows = re.findall(r"^\| (\S+) \| (?:(\$.\$ = [\d., ]+); )?.+ \| (\d\.\d{3}) \|$", section("### 4. Loss functions"), re.M)
    assert [(name, shown) for name, _, shown in rows] == [(name, f"{loss:.3f}") for name, loss in zip(("cross-entropy", "MSE", "L1", "BCE"), losses)]
    for row, values in ((0, outputs.softmax(1)), (3, outputs.sigmoid())):
        assert rows[row][1][6:] == ", ".join(f"{value:.3f}" for value in values[0])


@pytest.mark.parametrize("line", block("one_hot(labels, 10)").splitlines(), ids=["MSE", "L1", "BCE"])
def test_each_loss_trains_in_run(line, few, monkeypatch):
    names = applied("train.py", [line])
    names["main"](["--dataset", "stripes", "--epochs", "1", "--batch-size", "50", "--checkpoint", "trial.pth"])
    assert os.path.exists("trial.pth")


def test_to_answer_0_to_everything_pays_with_l1():
    targets = torch.eye(10)
    l1 = [(torch.full((10, 10), value) - targets).abs().mean().item() for value in (-0.1, 0.0, 0.1, 0.2)]
    assert min(l1) == l1[1]


ACTIVATIONS = {"sigmoid": "torch.sigmoid(", "tanh": "torch.tanh(", "leaky_relu": "F.leaky_relu(", "elu": "F.elu("}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_edit_of_lenet5_py_changes_the_activation_function(images, name):
    assert ACTIVATIONS[name][:-1] in section("### 3. Activation functions")
    names = edited("lenet5", ("F.relu(", ACTIVATIONS[name]), once=False)
    rows = names["trace"](names["LeNet5"](), images)
    assert read("lenet5.py").count("F.relu(") == [row.name for row in rows].count(name) == 4


def test_the_table_of_activation_functions_gives_their_values_and_slopes():
    rows = [row.split(" | ") for row in re.findall(r"^\| (\w+ \| \$.+) \|$", section("### 3. Activation functions"), re.M)]
    x = torch.linspace(-3, 3, 12, dtype=torch.float64, requires_grad=True)
    functions = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "ReLU": torch.relu, "LeakyReLU": nn.functional.leaky_relu,
                 "ELU": nn.functional.elu}

    def value(formula, x, y):
        formula = formula.partition(", at most")[0].replace(", else", " else").replace("$", "").replace("\\exp", "exp")
        formula = formula.replace("^", "**").replace("0.01 x", "0.01 * x").replace("y (", "y * (")  # as Python writes it
        return eval(formula, {"exp": math.exp, "x": x, "y": y})

    assert [name for name, *_ in rows] == list(functions)
    for name, formula, slope, _ in rows:
        y = functions[name](x)
        gradient, = torch.autograd.grad(y.sum(), x)
        for k in range(12):
            number = x[k].item()
            assert value(formula, number, None) == pytest.approx(y[k].item())
            assert value(slope, number, y[k].item()) == pytest.approx(gradient[k].item())
    at_0 = torch.zeros(1, requires_grad=True)
    torch.sigmoid(at_0).backward()
    assert at_0.grad.item() == 0.25


def test_the_example_of_the_chain_rule_is_what_autograd_says(capsys):
    run(block("w1, b1, w2, b2"), {})
    assert capsys.readouterr().out.strip() == "1.0 8.0 4.0 6.0 2.0" and "# 1.0 8.0 4.0 6.0 2.0" in block("w1, b1, w2, b2")
    x, w1, b1, w2, b2 = leaves = [torch.tensor(value, requires_grad=True) for value in (2.0, 1.0, 1.0, 2.0, -1.0)]
    a = w1 * x + b1
    r = torch.relu(a)
    y = w2 * r + b2
    values = dict(zip("x w1 b1 w2 b2 a r y loss".split(), (*leaves, a, r, y, (y - 4) ** 2)), relu=torch.relu)
    gradients = torch.autograd.grad(values["loss"], [values[name] for name in "w1 b1 w2 b2 a r y".split()])
    values |= dict(zip("dw1 db1 dw2 db2 da dr dy".split(), gradients))
    cells = re.findall(r"(?<=\| )`(\w+) = ([^`]+)`", section("### 5. Backpropagation"))
    assert [name for name, _ in cells] == "x dw1 a db1 r da dw2 db2 y dr loss dy".split()
    for name, parts in cells:  # w1 * x + b1 = 1 * 2 + 1 = 3: each part is what PyTorch has
        assert all(eval(part, values) == values[name] for part in parts.split(" = ")), name
    assert f"with `w1 = 1.01` the loss is {(2 * (1.01 * 2 + 1) - 1 - 4) ** 2:.4f}" in section("### 5. Backpropagation")


def test_the_answers_that_are_code_run_as_they_stand(capsys):
    run(block("def tanh("), {})
    run(block("outputs.exp() / outputs.exp().sum()"), {})
    by_hand = re.findall(r"# (\d\.\d{3})$", block("outputs.exp() / outputs.exp().sum()"), re.M)
    assert [[f"{float(value):.3f}" for value in line.split()] for line in capsys.readouterr().out.splitlines()] == [[loss, loss] for loss in by_hand]
    check, names = block("y.backward(dy)"), {}
    run(check, names)  # asserts, itself
    answer = block("stride=1):")
    check = check.replace("from lenet5 import conv_backward, zeros_like", answer).replace("dweight, dbias)\nfor", "dweight, dbias, stride=2)\nfor")
    run(check.replace("F.conv2d(x[None], weight, bias)", "F.conv2d(x[None], weight, bias, stride=2)"), names)
    assert names["y"].shape == (3, 2, 2)
    with pytest.raises((AssertionError, IndexError)):
        run(check, {})  # stride 2 against stride 1


def test_the_answer_on_the_smaller_kernel_is_what_the_table_says(images):
    names = applied("lenet5.py", block("nn.Conv2d(6, 16, 3)").splitlines())
    rows, answer = names["trace"](names["LeNet5"](), images[:1]), section("### 1. The layers").replace("\n", " ")
    for row in (rows[4], rows[8]):  # conv2, fc1
        assert f"{row.parameters:,} parameters, " in answer and f"{row.multiply_adds:,}" in answer
    assert f"field 6 + 2 · 2 = {rows[4].receptive_field}, " in answer and f"field 10 + 1 · 2 = {rows[6].receptive_field}. " in answer
    assert f"Total: {sum(row.parameters for row in rows):,} parameters, {sum(row.multiply_adds for row in rows):,} multiply-adds" in answer


def test_mean_standard_deviation_and_standard_error_of_the_measured_setting():
    text = section("### 6. Five settings")
    values = [float(value) for value in re.search(r"Here: ([\d., and]+) %", text)[1].replace(" and ", ", ").split(", ")]
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert (f"| 1 | {mean:.1f} % | {deviation:.1f} | {deviation / math.sqrt(len(values)):.1f} | {min(values)} | {max(values)} |") in text
    assert (f"validation accuracy on CIFAR-10: {', '.join(map(str, values))} %; mean {mean:.1f} %, standard deviation {deviation:.1f}, "
            f"lowest {min(values)}, highest {max(values)}") in text
    assert f"have the mean {mean:.1f}, the standard deviation {deviation:.3f}, and the standard error {deviation:.3f} / 1.732 = {deviation / 3 ** 0.5:.2f}" in \
        text.replace("\n", " ")
    assert round(100 * math.sqrt(0.6 * 0.4 / 5000), 1) == 0.7 and round(100 * math.sqrt(0.6 * 0.4 / 10_000), 1) == 0.5
    means = [float(row) for row in re.findall(r"^\| \d \| ([\d.]+) %", text, re.M)]
    assert f"the difference is {means[2] - means[0]:.1f}" in text and f"it differs by {means[2] - means[3]:.1f}" in text
    for shown, limit in re.findall(r"\$2\.8 \\sqrt\{([\d.^ +]+)\}\$ is (\d\.\d)", text):
        assert float(limit) == round(2.8 * math.sqrt(eval(shown.replace("^", "**"))), 1)


def test_what_works_against_overfitting_gains_what_the_table_says():
    text = section("### 2. Overfitting")
    means = dict(re.findall(r"^\*?([\w ,]+?)\*? \| .* \| [\d.]+ % \| ([\d.]+) % \([\d.]+ to [\d.]+\) \| [\d.]+ \| [\d.]+$", text, re.M))
    for name in ("augmentation", "early stopping", "weight decay"):
        assert re.search(rf"{name}[^,:;]* gains {float(means[name]) - float(means['nothing']):.1f} points", text, re.I), name


def test_the_confusion_matrix_adds_up_to_the_accuracies():
    rows = [[int(count) for count in row.split()] for row in re.findall(r"^ +[a-z]+((?: +\d+){10})$", README, re.M)]
    assert len(rows) == 10 and all(sum(row) == 1000 for row in rows)
    assert f"accuracy on CIFAR-10: {sum(rows[k][k] for k in range(10)) / 100:.1f} %" in README
    for name, k in ((name, k) for k, name in enumerate(data.CLASSES)):
        assert re.search(rf"^ +{name} +{rows[k][k] / 10:.1f} %$", README, re.M)
    matrix = torch.tensor(rows)
    for a, b in evaluate.most_confused(matrix):
        one, other = data.CLASSES[a], data.CLASSES[b]
        assert f"  {one} and {other}: {matrix[a, b] + matrix[b, a]} times ({matrix[a, b]} times {other} for {one}, " in README


def test_the_snippets_on_negatives_and_on_dead_units_run(few, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda train=True: few[0 if train else 1])
    torch.manual_seed(0)
    torch.save(lenet5.LeNet5().state_dict(), "cifar_net.pth")
    names = {}
    run(block("negatives = "), names)
    assert torch.equal(names["negatives"][:][0], -few[1][:][0]) and os.path.exists("negatives.png")
    run(block("dead"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6 and printed[2].startswith("6 units, ") and printed[5].startswith("84 units, ")


def test_a_negative_is_minus_x():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 256).repeat(3, 1, 1)
    assert torch.allclose(data.transform(255 - pixels), -data.transform(pixels), atol=1e-6)


def test_the_line_against_negatives_turns_about_half_of_the_images(images):
    names = {"torch": torch, "inputs": images[:1].repeat(1000, 1, 1, 1)}
    run(textwrap.dedent(block("torch.where")), names)
    turned = (names["inputs"] == -images[0]).flatten(1).all(1)
    kept = (names["inputs"] == images[0]).flatten(1).all(1)
    assert 400 < turned.sum() < 600 and (turned | kept).all()


def test_it_stands_before_zero_grad_in_train(few):
    zero_grad = "        optimizer.zero_grad()\n"
    names = edited("train", (zero_grad, block("torch.where") + "\n" + zero_grad))
    names["main"](["--dataset", "stripes", "--epochs", "1", "--batch-size", "50"])
    assert os.path.exists("stripes_net.pth")


# ---- Mistakes ---------------------------------------------------------------------------------

def test_the_two_lines_that_spoil_the_training_set(few, monkeypatch):
    for k, line in enumerate(block("argsort").splitlines()):
        first = "    trainset = data.load(train=True, dataset=args.dataset, root=args.data_dir)\n"
        names, seen = edited("train", (first, first + line + "\n")), []
        monkeypatch.setitem(names, "run", lambda args, seed, path, trainloader, testloader: seen.append(trainloader.dataset) or ([(1, 50, 1, 50)], 1))
        names["main"](["--dataset", "stripes"])
        labels = seen[0].tensors[1]
        assert (labels.diff() >= 0).all() == (k == 0) and labels.bincount().tolist() == [40] * 10  # the first sorts, the second shuffles


def test_the_lines_around_a_step_show_whether_it_reaches_the_network(images, capsys):
    for parameters_of in (lambda net: net, lambda net: lenet5.LeNet5()):
        net = lenet5.LeNet5()
        optimizer = torch.optim.SGD(parameters_of(net).parameters(), lr=0.1)
        net(images).sum().backward()
        run(textwrap.dedent(block("before = net.fc3")), {"net": net, "optimizer": optimizer})
    moved, still = map(float, capsys.readouterr().out.split())
    assert moved > 0 == still


def test_without_a_mistake_the_table_has_what_the_table_of_activation_functions_has():
    low, high = re.search(r"^none \| .+ \| .+ \| ([\d.]+) to ([\d.]+) % \|", README, re.M).groups()
    assert f"({low} to {high}) |" in re.search(r"^\| ReLU .+$", README, re.M)[0] and f"({low} to {high}) |" in re.search(r"^\| cross-entropy \| \d.+$", README, re.M)[0]
    assert f"{math.log(1 + 9 / math.e):.3f}" in section("## If it does not learn")  # the lowest loss of a softmax before the criterion


# ---- Other data --------------------------------------------------------------------------------

def test_the_snippet_trains_on_a_folder_of_photos(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        image_folder(os.path.join("photos", part))
    names = {}
    run(block("ImageFolder"), names)
    image, label = names["trainset"][3]
    assert image.shape == (3, 32, 32) and -1 <= image.min() and image.max() <= 1 and label == 0
    assert len(re.findall(r"epoch \d: test accuracy [\d.]+ %", capsys.readouterr().out)) == 3


def test_each_target_has_the_command_that_was_measured(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "run_seeds", seen.append)
    text = section("### 10. Three datasets")
    rows = re.findall(r"^(\S+) \| (\d+) % \| ([\d.]+) % \(([\d.]+) to ([\d.]+)\) \| (\d+) \| [\d.]+ to [\d.]+$", text, re.M)
    assert [(name, target) for name, target, *_ in rows] == [("MNIST", "99"), ("Fashion-MNIST", "90"), ("CIFAR-10", "65")]
    for (name, _, mean, low, high, epochs), flags in zip(rows, re.findall(r"^python train\.py (.+)$", text, re.M), strict=True):
        train.main(flags.split())
        assert data.KNOWN[name].flag == seen[-1].dataset and seen[-1].runs == 3 and not seen[-1].validation and seen[-1].epochs == int(epochs)
        assert float(low) <= float(mean) <= float(high)


def test_a_frozen_layer_keeps_its_weights_and_a_checkpoint_goes_on(images):
    names = {"torch": torch, "LeNet5": lenet5.LeNet5, "net": lenet5.LeNet5()}
    run(block("requires_grad = False"), names)
    net = names["net"]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    nn.CrossEntropyLoss()(net(images), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    same = {name: torch.equal(value, before[name]) for name, value in net.state_dict().items()}
    assert [name for name in same if same[name]] == ["conv1.weight", "conv1.bias"]


def test_training_goes_on_from_a_checkpoint(few):
    net = lenet5.LeNet5()
    torch.save(net.state_dict(), "cifar_net.pth")
    names = {"torch": torch, "LeNet5": lenet5.LeNet5}
    run(block('net.load_state_dict(torch.load("cifar_net.pth"'), names)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in names["net"].state_dict().items())


# ---- The scripts as such ---------------------------------------------------------------------

@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_plain_ascii_and_import_nothing_but_torch_torchvision_and_what_they_bring(name):
    assert read(name).isascii()
    allowed = {"torch", "torchvision", "PIL", *(script[:-3] for script in SCRIPTS), *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(read(name))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert {imported.split(".")[0] for imported in names} <= allowed


def test_imports_run_one_way():
    ours = {name: set(re.findall(r"^(?:import|from) (lenet5|data|train|evaluate)\b", read(name), re.M)) for name in SCRIPTS}
    assert ours == {"lenet5.py": set(), "data.py": set(), "evaluate.py": {"data", "lenet5"},
                    "train.py": {"data", "evaluate", "lenet5"}}


@pytest.mark.parametrize("main", [data.main, train.main, evaluate.main])
def test_help_says_what_a_script_does(main, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and "--dataset" in printed and printed.isascii()
