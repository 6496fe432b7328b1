"""What README.md says and what the project does are the same thing."""
import ast
import os
import re
import subprocess
import sys

import pytest

import train
from conftest import ROOT

SCRIPTS = ("lenet5.py", "data.py", "train.py", "evaluate.py")


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


README = read("README.md")


def test_it_begins_with_one_command_to_install_and_train_and_one_to_test():
    commands = re.findall(r"^```\n(.+?)\n```", README, re.M | re.S)
    assert commands[0] == "pip install torch torchvision pytest && python train.py"
    assert commands[1] == "python -m pytest"


def test_every_function_and_class_that_it_names_exists():
    defined = set()
    for name in (*SCRIPTS, "tests/benchmark.py", "tests/test_by_hand.py", "tests/test_lenet5.py"):
        defined |= {node.name for node in ast.walk(ast.parse(read(name))) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    elsewhere = {"iter", "next", "imshow", "ToTensor"}  # Python's and torchvision's
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    for name in re.findall(r"`(?:class )?(\w+)(?:\(\))?`", prose):
        if name.endswith("by_hand") or f"`{name}()`" in prose or name.startswith("test_"):
            assert name in defined | elsewhere, name


def test_every_command_has_flags_that_train_py_takes(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "run", seen.append)
    commands = re.findall(r"python train\.py((?: --[\w-]+(?: [\w.]+)?)*)", README)
    for flags in commands:
        if flags.split() != ["--help"]:
            train.main(flags.split())
    assert len(seen) >= 5


def test_the_ladder_has_a_command_for_each_rung_and_the_race_runs_the_fast_one(monkeypatch):
    import benchmark
    rungs = re.findall(r"^\| (\d+) \| (.+?) \| (\d+) \|", README, re.M)
    commands = re.search(r"one line for each rung:\n\n```\n(.+?)\n```", README, re.S)[1].splitlines()
    reasons = re.findall(r"^(\d+)\. \*\*", README.split("What each change does:")[1].split("## 7.")[0], re.M)
    numbers = [number for number, _, _ in rungs]
    assert numbers == reasons == [str(k + 1) for k in range(len(commands))]
    seen = []
    monkeypatch.setattr(train, "run", seen.append)
    for (_, change, epochs), command in zip(rungs, commands):
        train.main(command.split()[2:])
        assert seen[-1].epochs == int(epochs)
        if "**fast**" in change:
            fast = vars(seen[-1])
    assert benchmark.FAST == {flag: fast[flag] for flag in benchmark.FAST} and not fast["augment"]


def test_every_flag_in_the_readme_exists(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    flags = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert set(re.findall(r" `?(--\w[\w-]+)", README)) - {"--race", "--index-url"} <= flags


def test_the_trace_in_the_readme_is_what_lenet5_prints():
    import lenet5
    table = [line.rstrip()[4:] for line in lenet5.__doc__.splitlines() if re.match("    (layer|input|conv|pool|fc|total)", line)]
    for line in table:
        assert line in README, line


def test_the_walk_in_the_readme_is_what_data_py_prints():
    import data
    for line in data.__doc__.splitlines():
        if line.startswith("    ") and "python" not in line:
            assert line[4:] in README, line


def test_the_notebook_lines_run(few):
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "import data, evaluate" in block)
    code = code.replace("data.load()", 'data.load("stripes")')
    exec(compile(code, "README.md", "exec"), {})


def test_the_convolutions_hold_5_percent_of_the_parameters_and_do_91_percent_of_the_work():
    import torch
    import lenet5
    rows = lenet5.trace(lenet5.LeNet5(), torch.zeros(1, 3, 32, 32))
    conv = [row for row in rows if row.name.startswith("conv")]
    assert round(100 * sum(row.parameters for row in conv) / sum(row.parameters for row in rows)) == 5
    assert round(100 * sum(row.multiply_adds for row in conv) / sum(row.multiply_adds for row in rows)) == 91


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


@pytest.mark.parametrize("name", SCRIPTS[1:])
def test_help_says_what_a_script_does(name, tmp_path):
    done = subprocess.run([sys.executable, os.path.join(ROOT, name), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "--dataset" in done.stdout and done.stdout.isascii()


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_what_a_script_quotes_at_its_top_stands_in_the_readme_too(name):
    quoted = [line[4:] for line in ast.get_docstring(ast.parse(read(f"{name}.py")), clean=False).splitlines()
              if line.startswith("    ") and "python " + name not in line and "..." not in line]
    assert len(quoted) > 5
    for line in quoted:
        assert line in README, line


def test_the_run_in_the_readme_has_the_form_of_the_log_and_ends_above_the_tutorials_60():
    lines = re.findall(r"^\[\d, +\d+\] loss: \d\.\d{3} \| [\d,]+ images/s, \d+ min \d\d s left$", README, re.M)
    epochs = re.findall(r"^epoch (\d): training loss \d\.\d{3}, training accuracy [\d.]+ %, test accuracy on CIFAR-10 ([\d.]+) %$",
                        README, re.M)
    assert len(lines) == 6 and [int(epoch) for epoch, _ in epochs] == list(range(1, 9)) and float(epochs[-1][1]) >= 60
    assert f"accuracy on CIFAR-10: {epochs[-1][1]} %" in README  # evaluate.py found what train.py had found
