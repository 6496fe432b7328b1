"""What README.md says and what the project does are the same thing."""
import ast
import os
import re
import sys

import pytest
import torch
from PIL import Image, ImageChops
from torch import nn

import data
import evaluate
import lenet5
import train
from conftest import ROOT

SCRIPTS = ("lenet5.py", "data.py", "train.py", "evaluate.py")


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


README = read("README.md")


def blocks(language=""):
    return [text for name, text in re.findall(r"^```(\w*)\n(.+?)\n```$", README, re.M | re.S) if name == language]


def quoted(name):
    """The lines that a script quotes of its own output, at its top."""
    return [line[4:] for line in ast.get_docstring(ast.parse(read(name)), clean=False).splitlines()
            if line.startswith("    ") and "python " not in line and "..." not in line]


# ---- Commands and names ----------------------------------------------------------------------

def test_it_begins_with_one_command_to_install_and_train_and_one_to_test():
    assert blocks()[:2] == ["pip install torch torchvision pytest && python train.py", "python -m pytest"]


def test_every_function_and_class_that_it_names_exists():
    defined = set()
    for name in (*SCRIPTS, *(f"tests/{test}" for test in os.listdir(os.path.join(ROOT, "tests")) if test.endswith(".py"))):
        defined |= {node.name for node in ast.walk(ast.parse(read(name))) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    elsewhere = {"iter", "next", "ToTensor", "ToImage", "ToDtype", "backward"}  # Python's, PyTorch's and torchvision's
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    for name in re.findall(r"`(?:class )?(\w+)(?:\(\))?`", prose):
        if name.endswith("by_hand") or f"`{name}()`" in prose or name.startswith("test_"):
            assert name in defined | elsewhere, name


def test_every_command_has_flags_that_its_script_takes(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "run", seen.append)
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
    assert set(re.findall(r"[ `](--\w[\w-]+)", README)) - {"--race", "--index-url"} <= flags


@pytest.mark.parametrize("row", re.findall(r"^\| .+ \| `(\w+\.py)`: `(\w+)` \|$", README, re.M), ids=lambda row: row[1])
def test_the_glossary_points_at_something_that_is_there(row):
    script, name = row
    assert re.search(rf"\b{name}\b", read(script))


def test_every_link_inside_the_readme_leads_to_a_heading():
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", README, re.M)}
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert len(links) >= 5 and set(links) <= slugs


def test_the_glossary_has_each_term_in_korean_too_and_the_text_uses_it():
    rows = re.findall(r"^\| (.+?) \| (.+?) \| .+ \| `\w+\.py`: `\w+` \|$", README, re.M)
    assert len(rows) >= 28
    text = (README.split("## Glossary")[0] + "".join(read(name) for name in SCRIPTS)).lower()
    for terms, korean in rows:
        assert re.search("[\uac00-\ud7a3]", korean)
        for term in re.sub(r" \(.+?\)", "", terms).split(","):
            assert re.sub("(ion|e)$", "", term.strip().lower()) in text, term


# ---- Quoted output ---------------------------------------------------------------------------

@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_quotes_at_its_top_stands_in_the_readme_too(name):
    lines = quoted(name)
    assert len(lines) > 5
    for line in lines:
        assert line.rstrip() in README, line


def test_the_run_in_the_readme_ends_above_the_tutorials_60():
    epochs = re.findall(r"^epoch (\d): training loss \d\.\d{3}, training accuracy [\d.]+ %, test accuracy on CIFAR-10 ([\d.]+) %$",
                        README, re.M)
    assert [int(epoch) for epoch, _ in epochs] == list(range(1, 9)) and float(epochs[-1][1]) >= 60
    assert f"accuracy on CIFAR-10: {epochs[-1][1]} %" in README  # evaluate.py found what train.py had found


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
    assert sum(os.path.getsize(os.path.join(ROOT, ".images", file)) for file in files) < 800_000


def test_the_pictures_have_the_size_that_todays_code_draws(few, images, monkeypatch):
    torch.manual_seed(0)
    torch.save(lenet5.LeNet5().state_dict(), "stripes_net.pth")
    data.main(["--dataset", "stripes"])
    evaluate.main(["--dataset", "stripes"])
    data.imshow(images[0], "photo.png")
    evaluate.main(["--dataset", "stripes", "--image", "photo.png"])
    evaluate.draw_curve([(2.0, 30.0, 40.0)], "a title", "curve.png")
    evaluate.draw_curve([(2.0, 30.0, 40.0)], "a title", "overfitting.png")
    for name in IMAGES:
        with Image.open(f"{name}.png") as image:
            assert image.size[0] == size(name)[0], name
            assert image.size == size(name) or name == "mistakes", name  # which has a row for each pair


def test_the_curve_in_the_readme_is_the_one_of_the_log_in_the_readme(tmp_path):
    """Lines and dots, pixel by pixel; letters may differ with Pillow's version."""
    epochs = re.findall(r"^epoch \d: training loss ([\d.]+), training accuracy ([\d.]+) %, test accuracy on CIFAR-10 ([\d.]+) %$",
                        README, re.M)
    evaluate.draw_curve([tuple(map(float, epoch)) for epoch in epochs], "LeNet-5 on CIFAR-10", str(tmp_path / "curve.png"))
    with Image.open(tmp_path / "curve.png") as drawn, Image.open(os.path.join(ROOT, ".images", "curve.png")) as shown:
        for left in (56, 556):  # the two panels, without their letters
            box = (left, 76, left + 410, 374)
            difference = ImageChops.difference(drawn.convert("RGB").crop(box), shown.convert("RGB").crop(box))
            # The log rounds to a tenth of a percent, a third of a pixel: edges may differ in shade, lines not in place.
            assert max(high for _, high in difference.getextrema()) < 128


# ---- The ladder ------------------------------------------------------------------------------

def test_the_ladder_has_a_command_for_each_rung_and_the_benchmark_races_the_fast_one(monkeypatch):
    import benchmark
    rungs = re.findall(r"^\| (\d+) \| (.+?) \| (\d+) \|", README, re.M)
    commands = [block for block in blocks() if block.startswith("python train.py --runs 3 --checkpoint tutorial.pth\n")][0].splitlines()
    reasons = re.findall(r"^(\d+)\. \*\*", README.split("## 6.")[1].split("## 7.")[0], re.M)
    assert [number for number, _, _ in rungs] == reasons == [str(k + 1) for k in range(len(commands))]
    seen = []
    monkeypatch.setattr(train, "run", seen.append)
    for (_, change, epochs), command in zip(rungs, commands):
        train.main(command.split()[2:])
        assert seen[-1].checkpoint not in [args.checkpoint for args in seen[:-1]]  # no rung overwrites another's
        assert seen[-1].epochs == int(epochs) and seen[-1].runs >= 3
        if "**fast**" in change:
            fast = vars(seen[-1])
    assert benchmark.FAST == {flag: fast[flag] for flag in benchmark.FAST}


def test_each_row_of_the_ladder_has_its_mean_inside_its_spread():
    rows = re.findall(r"([\d.]+) % \(([\d.]+) to ([\d.]+)\)", README.split("## 6.")[1].split("## 7.")[0])
    assert len(rows) >= 7 and all(float(low) <= float(mean) <= float(high) for mean, low, high in rows)


# ---- Snippets: each runs as it stands --------------------------------------------------------

def run(code, names):
    exec(compile(code, "README.md", "exec"), names)


def test_the_four_cells_of_the_notebook_run_in_order(few, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda train=True: few[0 if train else 1])
    cells = [block for block in blocks("python") if "Image.open" in block or "imshow(make_grid(" in block]
    assert len(cells) == 4
    names = {}
    for cell in cells:
        run(cell, names)
    assert isinstance(names["predicted"], torch.Tensor) and os.path.exists("notebook_curve.png")
    assert len(names["history"]) == 3 and capsys.readouterr().out.count(" %") >= 4


def test_the_snippets_on_negatives_and_on_dead_units_run(few, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda train=True: few[0 if train else 1])
    torch.manual_seed(0)
    torch.save(lenet5.LeNet5().state_dict(), "cifar_net.pth")
    names = {}
    run(next(block for block in blocks("python") if "negatives" in block), names)
    assert torch.equal(names["negatives"][:][0], -few[1][:][0])
    run(next(block for block in blocks("python") if "dead" in block), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6 and printed[2].startswith("6 units, ") and printed[5].startswith("84 units, ")


def test_the_line_against_negatives_turns_about_half_of_the_images(images):
    names = {"torch": torch, "inputs": images[:1].repeat(1000, 1, 1, 1)}
    run(next(block for block in blocks("python") if "torch.where" in block), names)
    turned = (names["inputs"] == -images[0]).flatten(1).all(1)
    kept = (names["inputs"] == images[0]).flatten(1).all(1)
    assert 400 < turned.sum() < 600 and (turned | kept).all()


def test_losses_by_hand(images):
    """The three lines of homework 4, each against its formula, and each lowest where the outputs are right."""
    labels, targets = torch.tensor([3, 0, 9, 5]), torch.zeros(4, 10)
    for n, label in enumerate((3, 0, 9, 5)):
        targets[n, label] = 1
    outputs = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    p = 1 / (1 + (-outputs).exp())
    formulas = [((outputs - targets) ** 2).mean(), (outputs - targets).abs().mean(),
                -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()]
    lines = next(block for block in blocks("python") if "mse_loss" in block).splitlines()
    right, wrong = targets * 20 - 10, (1 - targets) * 20 - 10
    for line, formula in zip(lines, formulas):
        names = {"F": nn.functional}
        run(line, names)
        assert torch.allclose(names["criterion"](outputs, labels), formula)
        assert names["criterion"](right, labels) < names["criterion"](wrong, labels)
    assert len(lines) == 3 and "    criterion = nn.CrossEntropyLoss()" in read("train.py").splitlines()


@pytest.mark.parametrize("name, activation", [("leaky_relu", "F.leaky_relu("), ("elu", "F.elu("), ("tanh", "torch.tanh(")])
def test_one_edit_of_lenet5_py_changes_the_activation_function(tmp_path, images, name, activation):
    names = {"__name__": "edited"}
    source = read("lenet5.py")
    assert source.count("F.relu(") == 4
    exec(compile(source.replace("F.relu(", activation), "lenet5.py", "exec"), names)
    rows = names["trace"](names["LeNet5"](), images)
    assert [row.name for row in rows].count(name) == 4
    x = torch.linspace(-2, 2, 5, dtype=torch.float64, requires_grad=True)
    eval(activation + "x)", {"F": nn.functional, "torch": torch, "x": x}).sum().backward()
    slope = {"leaky_relu": 0.01, "elu": torch.tensor(-2.0).exp(), "tanh": 1 - torch.tensor(-2.0).tanh() ** 2}[name]
    assert x.grad[0].item() == pytest.approx(float(slope), rel=1e-5)  # at x = -2, where ReLU's is 0


# ---- The scripts as such ---------------------------------------------------------------------

@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_plain_ascii(name):
    assert read(name).isascii()


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_but_torch_torchvision_and_what_they_bring_is_imported(name):
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
