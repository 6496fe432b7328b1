"""Chapters 3 and 4, the loss, the optimiser and Model Training: the loop does what its comments say."""
import argparse
import contextlib
import math
import os
import re
import shlex
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.functional import pil_to_tensor

import data
import evaluate
import train
from conftest import ROOT
from lenet5 import LeNet5
from test_lenet5 import Net

QUICK = ["--dataset", "stripes", "--epochs", "1", "--batch-size", "50"]


def run(*flags):
    """python train.py on 400 stripes with these flags; returns the parameters that it saved."""
    train.main([*QUICK, "--checkpoint", "net.pth", *flags])
    return torch.load("net.pth", weights_only=True)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


# ---- The loop --------------------------------------------------------------------------------

def loader(dataset, batch_size, shuffle=False):
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)


def percent_right(net, dataset):
    return evaluate.accuracy(*evaluate.predict(net, loader(dataset, 50)))


def plain_epochs(trainset, batch_size=50, epochs=1, lr=0.001, momentum=0.9, seed=0):
    """The tutorial's loop and its network, bare, with PyTorch's own dataset and loader: the parameters at the end."""
    torch.manual_seed(seed)
    trainloader = DataLoader(TensorDataset(*trainset.tensors), batch_size=batch_size, shuffle=True)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    for epoch in range(epochs):
        for inputs, labels in trainloader:
            optimizer.zero_grad()
            criterion(net(inputs), labels).backward()
            optimizer.step()
    return net.state_dict()


def test_train_py_is_the_tutorials_loop_bit_for_bit(few):
    assert same(run(), plain_epochs(few[0]))


def test_batches_of_4_do_without_onednn_and_come_to_the_same_weights(few):
    ours, plain = run("--batch-size", "4"), plain_epochs(few[0], batch_size=4)
    assert all(torch.allclose(ours[name], plain[name], atol=1e-5) for name in plain)
    assert same(ours, run("--batch-size", "4"))
    assert torch.backends.mkldnn.enabled  # it is on again


def test_the_defaults_are_the_tutorials_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "run", seen.append)
    train.main([])
    args = vars(seen[0])
    assert (args["batch_size"], args["lr"], args["momentum"]) == (4, 0.001, 0.9)
    assert args["schedule"] == "constant" and args["weight_decay"] == args["warmup"] == 0
    assert args["optimizer"] == "sgd" and not args["nesterov"] and not args["augment"] and not args["teacher"]
    assert args["dataset"] == "auto" and args["device"] == "cpu" and args["epochs"] == 8
    assert not args["validation"] and args["runs"] == 1 and args["seed"] == 0


@pytest.mark.parametrize("flags, settings", [
    (["--batch-size", "20"], {"batch_size": 20}), (["--lr", "0.01"], {"lr": 0.01}),
    (["--momentum", "0.5"], {"momentum": 0.5}), (["--seed", "7"], {"seed": 7})])
def test_each_flag_of_the_tutorials_settings_arrives(few, flags, settings):
    assert same(run(*flags), plain_epochs(few[0], **settings))


def test_the_same_seed_gives_the_same_network_and_another_seed_another(few):
    first = run("--seed", "1")
    assert same(first, run("--seed", "1")) and not same(first, run("--seed", "2"))


def test_each_default_of_a_later_flag_changes_nothing(few):
    assert same(run(), run("--schedule", "constant", "--weight-decay", "0", "--warmup", "0",
                           "--validation", "0"))


@pytest.mark.parametrize("flags", [["--nesterov"], ["--weight-decay", "0.01"], ["--schedule", "linear"], ["--augment"],
                                   ["--schedule", "linear", "--warmup", "0.5"]])
def test_each_later_flag_changes_something(few, flags):
    assert not same(run(), run(*flags))


def test_warmup_differs_from_no_warmup(few):
    assert not same(run("--schedule", "linear"), run("--schedule", "linear", "--warmup", "0.5"))


def test_gradients_add_up_unless_zero_grad_clears_them(images):
    net, labels = LeNet5(), torch.tensor([0, 1, 2, 3])
    nn.CrossEntropyLoss()(net(images), labels).backward()
    once = net.fc3.bias.grad.clone()
    nn.CrossEntropyLoss()(net(images), labels).backward()
    assert torch.allclose(net.fc3.bias.grad, 2 * once)
    net.zero_grad()
    nn.CrossEntropyLoss()(net(images), labels).backward()
    assert torch.allclose(net.fc3.bias.grad, once)


def test_cross_entropy_is_minus_log_of_the_probability_given_to_the_truth():
    outputs = torch.tensor([[2.0, 0.0, -1.0]])
    probability = math.exp(2) / (math.exp(2) + math.exp(0) + math.exp(-1))
    assert nn.CrossEntropyLoss()(outputs, torch.tensor([0])).item() == pytest.approx(-math.log(probability))
    assert nn.CrossEntropyLoss()(torch.zeros(1, 10), torch.tensor([3])).item() == pytest.approx(2.303, abs=1e-3)


def test_steps_that_agree_add_up_to_ten_times_one_step():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.001, momentum=0.9)
    for _ in range(200):
        before = weight.item()
        weight.grad = torch.ones(1)
        optimizer.step()
    assert before - weight.item() == pytest.approx(10 * 0.001, rel=1e-3)


def test_running_loss_is_the_mean_since_the_last_line(few, capsys):
    torch.manual_seed(0)
    net = LeNet5()
    trainloader = loader(few[0], 4)
    still = torch.optim.SGD(net.parameters(), lr=1e-12)  # a net that does not move has losses that we can recompute
    loss, percent = train.train(net, trainloader, nn.CrossEntropyLoss(), still, every=30)
    lines = re.findall(r"\[1, +(\d+)\] loss: (\d\.\d{3}) \| [\d,]+ images/s, \d+ min \d\d s left", capsys.readouterr().out)
    assert [int(batch) for batch, _ in lines] == [30, 60, 90]  # of 100
    with torch.no_grad():
        losses = [nn.CrossEntropyLoss()(net(inputs), labels).item() for inputs, labels in trainloader]
    assert float(lines[1][1]) == pytest.approx(sum(losses[30:60]) / 30, abs=6e-4)
    assert loss == pytest.approx(sum(losses) / 100, abs=1e-4) and percent == percent_right(net, few[0])


def test_the_mean_loss_counts_images_so_a_small_last_batch_counts_less(few):
    torch.manual_seed(0)
    net = LeNet5()
    still = torch.optim.SGD(net.parameters(), lr=1e-12)
    loss, _ = train.train(net, loader(few[0], 300), nn.CrossEntropyLoss(), still)
    assert loss == pytest.approx(nn.CrossEntropyLoss()(net(few[0][:][0]), few[0][:][1]).item(), abs=1e-5)


def test_a_line_every_8000_images_is_every_2000_batches_of_4(few, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "train", lambda *args, every, **flags: seen.append(every) or (1.0, 50.0))
    for batch_size in ("4", "64", "10000"):
        run("--batch-size", batch_size)
    assert seen == [2000, 125, 1]


def test_stripes_are_learned_in_an_epoch(stripes):
    torch.manual_seed(0)
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    train.train(net, loader(stripes[0], 32, shuffle=True), nn.CrossEntropyLoss(), optimizer)
    assert percent_right(net, stripes[1]) > 50  # guessing: 10


def test_the_test_set_is_never_augmented_and_never_trained_on(few, monkeypatch):
    augmented = []
    augment = data.augment
    monkeypatch.setattr(data, "augment", lambda images: augmented.append(images) or augment(images))
    before = few[1][:][0].clone()
    run("--augment")
    test_images = {image.numpy().tobytes() for image in before}
    assert sum(len(images) for images in augmented) == 400  # the training images, once an epoch, and no more
    assert not any(image.numpy().tobytes() in test_images for images in augmented for image in images)
    assert torch.equal(few[1][:][0], before)


def test_validation_images_are_measured_on_never_trained_on_and_the_test_set_stays_shut(few, monkeypatch, capsys):
    trained_on, measured_on = [], []
    normal_train, normal_predict = train.train, train.predict
    monkeypatch.setattr(train, "train", lambda net, trainloader, *args, **flags:
                        trained_on.append(trainloader.dataset[:][0]) or normal_train(net, trainloader, *args, **flags))
    monkeypatch.setattr(train, "predict", lambda net, testloader, device:
                        measured_on.append(testloader.dataset[:][0]) or normal_predict(net, testloader, device))
    load = data.load
    monkeypatch.setattr(data, "load", lambda *args, train: load(*args, train=train) if train else pytest.fail("the test set"))
    run("--validation", "50")
    images = few[0][:][0]
    assert torch.equal(trained_on[0], images[:350]) and torch.equal(measured_on[0], images[350:])
    printed = capsys.readouterr().out
    assert "350 training images" in printed and "validation accuracy on STRIPES" in printed and "test accuracy" not in printed
    assert "without --validation" in printed and "evaluate.py" not in printed


def test_a_trial_on_validation_images_leaves_the_network_alone(few):
    train.main([*QUICK, "--validation", "50"])
    assert sorted(os.listdir()) == ["validation_stripes_net.pth", "validation_stripes_net_curve.png"]


@pytest.mark.parametrize("number", ["400", "401"])
def test_a_validation_set_of_everything_is_refused(few, number):
    with pytest.raises(ValueError, match=f"{number} can't be taken from 400 training images: take 1 to 399"):
        run("--validation", number)
    assert os.listdir() == []


# ---- Several runs ----------------------------------------------------------------------------

def test_runs_are_the_single_runs_of_their_seeds_each_with_files_of_its_own(few, capsys):
    train.main([*QUICK, "--seed", "5", "--runs", "2"])
    printed = capsys.readouterr().out
    assert sorted(os.listdir()) == ["stripes_net_seed5.pth", "stripes_net_seed5_curve.png",
                                    "stripes_net_seed6.pth", "stripes_net_seed6_curve.png"]
    for seed in (5, 6):
        assert same(torch.load(f"stripes_net_seed{seed}.pth", weights_only=True), run("--seed", str(seed)))
    assert "--checkpoint stripes_net_seed5.pth" in printed.splitlines()[-1]


@pytest.mark.parametrize("name, stem", [("my.pth", "my"), ("lr0.01", "lr0.01"), ("a.b/net", "a.b/net")])
def test_a_name_with_dots_keeps_them(name, stem):
    args = argparse.Namespace(checkpoint=name, validation=0, runs=2)
    assert train.checkpoint_path(args, "cifar10", 7) == f"{stem}_seed7.pth"
    args.runs = 1
    assert train.checkpoint_path(args, "cifar10", 7) == name and train.curve_path(name) == f"{stem}_curve.png"


def test_the_last_line_of_several_runs_is_mean_deviation_lowest_highest(few, monkeypatch, capsys):
    results = iter([(60.0, 10.0), (61.0, 20.0), (65.0, 30.0)])
    monkeypatch.setattr(train, "fit", lambda *args: next(results))
    train.main([*QUICK, "--runs", "3"])
    assert ("3 runs, seeds 0 to 2: test accuracy on STRIPES (not CIFAR-10) mean 62.0 %, standard deviation 2.6, "
            "lowest 60.0, highest 65.0; 20 s of training each") in capsys.readouterr().out


# ---- Muon: singular value decomposition is the referee -----------------------------------------

SHAPES = [(84, 120), (120, 400), (400, 120), (10, 84), (7, 7), (6, 3, 5, 5), (16, 6, 5, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_keeps_the_directions_and_makes_all_lengths_nearly_one(shape):
    step = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = train.orthogonal(step).flatten(1)
    matrix = matrix / max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
    assert 0.65 < torch.linalg.svdvals(matrix).min() and torch.linalg.svdvals(matrix).max() < 1.25
    u, s, v = torch.linalg.svd(step.flatten(1), full_matrices=False)
    inside = u.T @ matrix @ v.T  # seen along step's own directions, it must be diagonal
    assert (inside - inside.diagonal().diag()).abs().max() < 1e-9


def test_orthogonal_of_a_step_with_one_huge_direction_and_of_no_step_at_all():
    u, _, v = torch.linalg.svd(torch.randn(20, 30, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    values = torch.linalg.svdvals(train.orthogonal(u @ torch.linspace(1, 0.1, 20).diag() @ v))
    assert 0.5 < values.min() and values.max() < 1.25
    assert torch.equal(train.orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_orthogonal_cannot_lengthen_what_is_not_there():
    values = torch.linalg.svdvals(train.orthogonal(torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 8))))  # rank 1
    assert 0.65 < values[0] < 1.25 and values[1:].max() < 0.01


def test_a_tall_matrix_takes_longer_steps():
    tall = torch.linalg.qr(torch.randn(400, 100, generator=torch.Generator().manual_seed(0)))[0]
    assert torch.linalg.svdvals(train.orthogonal(tall)).mean() == pytest.approx(2, rel=0.3)  # sqrt(400 / 100)


def test_muon_moves_a_bias_as_nesterovs_sgd_does_and_a_matrix_by_its_orthogonal_step():
    torch.manual_seed(0)
    bias, weight = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(4, 5))
    other = nn.Parameter(bias.detach().clone())
    before = weight.detach().clone()
    muon = train.Muon([bias, weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    sgd = torch.optim.SGD([other], lr=0.1, momentum=0.9, nesterov=True)
    for step in range(3):
        gradient, bias.grad = torch.randn(4, 5), torch.randn(5)
        other.grad, weight.grad = bias.grad.clone(), gradient
        if step == 0:  # the momentum of one step points where that step points
            expected = before * (1 - 0.1 * 0.5) - 0.1 * train.orthogonal(gradient)
        muon.step()
        sgd.step()
        if step == 0:
            assert torch.allclose(weight, expected, atol=1e-3)
    assert torch.allclose(bias, other, atol=1e-6)


def test_muon_learns_stripes_in_one_epoch_and_obeys_the_schedule(stripes):
    torch.manual_seed(0)
    net = LeNet5()
    optimizer = train.Muon(net.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: train.linear_factor(step, 157))
    train.train(net, loader(stripes[0], 64, shuffle=True), nn.CrossEntropyLoss(), optimizer, scheduler=scheduler)
    assert percent_right(net, stripes[1]) > 80
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


# ---- Distillation ----------------------------------------------------------------------------

@pytest.fixture
def teachers():
    torch.manual_seed(7)
    return [LeNet5(), LeNet5()]


def test_distillation_by_hand(teachers, images):
    torch.manual_seed(0)
    outputs, labels = LeNet5()(images), torch.tensor([0, 1, 2, 3])
    loss = nn.CrossEntropyLoss()(outputs, labels)
    kl = 0.0
    for n in range(4):
        q = [sum(teacher(images)[n].div(2).softmax(0)[k].item() for teacher in teachers) / 2 for k in range(10)]
        p = outputs[n].div(2).softmax(0).tolist()
        kl += sum(q[k] * (math.log(q[k]) - math.log(p[k])) for k in range(10)) / 4
    expected = (1 - train.SHARE) * loss.item() + train.SHARE * 2**2 * kl
    assert train.TEMPERATURE == 2
    assert train.distillation(loss, outputs, images, teachers).item() == pytest.approx(expected, rel=1e-4)


def test_teachers_learn_nothing_and_no_gradient_reaches_them(few, teachers):
    before = [parameter.clone() for teacher in teachers for parameter in teacher.parameters()]
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    train.train(net, loader(few[0], 50), nn.CrossEntropyLoss(), optimizer, teachers=teachers)
    after = [parameter for teacher in teachers for parameter in teacher.parameters()]
    assert all(torch.equal(one, other) and other.grad is None for one, other in zip(before, after))


def test_teachers_see_the_same_augmented_images_as_the_network(few, monkeypatch):
    seen = {"teacher": [], "net": []}

    class Watched(LeNet5):
        def forward(self, x):
            seen["teacher" if not torch.is_grad_enabled() else "net"].append(x)
            return super().forward(x)

    net = Watched()
    train.train(net, loader(few[0], 100), nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=0.1), augment=True,
                teachers=[Watched()])
    assert len(seen["net"]) == 4 and not torch.equal(seen["net"][0], few[0][:100][0])
    assert all(torch.equal(one, other) for one, other in zip(seen["net"], seen["teacher"]))


def test_learning_from_a_teacher_alone_brings_the_outputs_closer(images, teachers):
    torch.manual_seed(0)
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    distances = []
    for _ in range(20):
        optimizer.zero_grad()
        distance = train.distillation(torch.tensor(0.0), net(images), images, teachers[:1])
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert distances[-1] < distances[0] / 2


def test_teacher_on_the_command_line_changes_the_run_and_a_bad_file_is_refused(few):
    alone = run()
    assert not same(alone, run("--teacher", "net.pth"))
    with open("bad.pth", "w") as file:
        file.write("no network")
    with pytest.raises(ValueError, match="bad.pth is no checkpoint"):
        run("--teacher", "net.pth", "bad.pth")


# ---- The schedule ----------------------------------------------------------------------------

def test_linear_starts_at_1_and_ends_one_step_above_0():
    assert train.linear_factor(0, 100) == 1 and train.linear_factor(50, 100) == 0.5 and train.linear_factor(99, 100) == pytest.approx(0.01)


def test_linear_with_warmup_rises_first():
    values = [train.linear_factor(step, 100, warmup=0.2) for step in range(100)]
    assert values[0] == pytest.approx(1 / 20) and values[9] == pytest.approx(0.5)
    assert values[19] == pytest.approx(1) and values[20] == 1     # the end of the warm-up
    assert values[60] == pytest.approx(0.5)                       # the middle of what is left
    assert values[99] == pytest.approx(1 / 80) and min(values) > 0
    assert values[:20] == sorted(values[:20]) and values[20:] == sorted(values[20:], reverse=True)


def test_the_loop_gives_each_step_its_rate(few):
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.4)
    rates = []
    optimizer.register_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    trainloader = loader(few[0], 100, shuffle=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: train.linear_factor(step, 8))
    for epoch in range(2):
        train.train(net, trainloader, nn.CrossEntropyLoss(), optimizer, epoch, 2, scheduler=scheduler)
    assert rates == pytest.approx([0.4 * left / 8 for left in (8, 7, 6, 5, 4, 3, 2, 1)])


# ---- The log ---------------------------------------------------------------------------------

def test_the_log_shows_the_trace_then_each_epoch_then_what_to_do_next(few, capsys):
    run("--epochs", "2")
    printed = capsys.readouterr().out
    assert printed.isascii()
    parts = ["STRIPES", "(32 - 5) + 1 = 28", "62,006", "epoch 1: training loss", "epoch 2: training loss", "net.pth",
             "python evaluate.py"]
    places = [printed.index(part) for part in parts]
    assert places == sorted(places)
    net = evaluate.load_checkpoint("net.pth")
    percent = percent_right(net, few[1])
    assert f"test accuracy on STRIPES (not CIFAR-10) {percent:.1f} %" in printed.splitlines()[-3]
    assert re.match(r"\d+ s of training, [\d,]+ images/s\. The network is in net\.pth", printed.splitlines()[-2])


LOG = r"epoch \d+: training loss ([\d.]+), training accuracy ([\d.]+) %, test accuracy on .+? ([\d.]+) %"


def test_the_log_alone_is_enough_to_draw_the_curve_again(few, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(train, "draw_curve", lambda *args: drawn.append(args) or "drawn")
    run("--epochs", "3")
    (history, title, path, validation), = drawn
    lines = re.findall(LOG, capsys.readouterr().out)
    assert len(lines) == len(history) == 3 and path == "net_curve.png" and "STRIPES (not CIFAR-10)" in title
    for line, entry in zip(lines, history):
        assert [float(number) for number in line] == pytest.approx(entry, abs=0.06)


def test_a_loss_that_shot_up_still_gets_a_readable_axis(tmp_path):
    path = str(tmp_path / "curve.png")
    assert train.draw_curve([(1e9, 10.0, 10.0), (2.3, 10.0, 10.0)], "a title", path) == f"in {path}"
    assert os.path.exists(path)


@pytest.mark.parametrize("epochs", [1, 2, 75])
def test_the_curve_rises_where_the_accuracy_rises(tmp_path, epochs):
    history = [(2.0 - epoch / 80, 30 + epoch / 2, 40 + epoch / 4) for epoch in range(epochs)]
    train.draw_curve(history, "a title", str(tmp_path / "net_curve.png"))
    with Image.open(tmp_path / "net_curve.png") as sheet:
        pixels = pil_to_tensor(sheet.convert("RGB"))[:, 80:371, :].int()  # the panels
    blue = (pixels[2] - pixels[0] > 150) & (pixels[2] - pixels[1] > 150)
    red = (pixels[0] - pixels[2] > 150) & (pixels[0] - pixels[1] > 150)
    assert blue[:, 55:464].any() and red[:, 55:464].any() and blue[:, 555:964].any() and not red[:, 555:964].any()
    if epochs > 1:
        def height(line, columns):  # the mean row of a colour there, counted upwards
            return -line[:, columns].nonzero()[:, 0].float().mean()
        assert height(blue, slice(440, 464)) > height(blue, slice(57, 80))    # training accuracy went up,
        assert height(red, slice(440, 464)) > height(red, slice(57, 80))      # so did test accuracy,
        assert height(blue, slice(940, 964)) < height(blue, slice(557, 580))  # the loss went down


def test_stripes_are_saved_under_a_name_of_their_own(few):
    train.main(QUICK)
    assert "stripes_net.pth" in os.listdir() and "cifar_net.pth" not in os.listdir()


def test_importing_a_script_prints_nothing_and_trains_nothing(tmp_path):
    code = "import lenet5, data, train, evaluate"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ROOT},
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, os.listdir(tmp_path)) == (0, "", [])


# ---- When something goes wrong ---------------------------------------------------------------

@pytest.mark.parametrize("flag, value", [
    ("--epochs", "0"), ("--epochs", "-1"), ("--epochs", "1.5"), ("--batch-size", "0"), ("--batch-size", "four"),
    ("--lr", "-0.1"), ("--lr", "0"), ("--lr", "nan"), ("--lr", "inf"), ("--momentum", "1"), ("--momentum", "-0.1"),
    ("--momentum", "nan"), ("--validation", "-1"), ("--validation", "0.1"), ("--weight-decay", "-1"),
    ("--weight-decay", "nan"), ("--weight-decay", "1e39"), ("--warmup", "1"), ("--seed", "-1"), ("--seed", "99999999999999999999"),
    ("--batch-size", "99999999999999999999"), ("--epochs", "99999999999999999999"), ("--lr", "1e39"), ("--runs", "0"),
    ("--optimizer", "adam"),
    ("--dataset", "mnist"), ("--device", "tpu"), ("--schedule", "cosine")])
def test_values_that_make_no_sense_are_refused_by_name(capsys, flag, value):
    with pytest.raises(SystemExit) as stop:
        train.main([flag, value])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and f"argument {flag}" in error and value in error


@pytest.mark.parametrize("flags, missing", [("--warmup 0.1", "--schedule linear"), ("--nesterov --momentum 0", "--momentum above 0")])
def test_flags_that_would_have_no_effect_are_refused(capsys, flags, missing):
    with pytest.raises(SystemExit):
        train.main(flags.split())
    assert missing in capsys.readouterr().err


def test_augmented_stripes_come_with_a_warning(few, capsys):
    run("--augment")
    assert "another class" in capsys.readouterr().out


@pytest.mark.parametrize("flags, advice", [
    ([], "python evaluate.py --dataset stripes"),
    (["--checkpoint", "my net.pth"], 'python evaluate.py --checkpoint "my net.pth" --dataset stripes'),
    (["--data-dir", "elsewhere"], "python evaluate.py --dataset stripes --data-dir elsewhere")])
def test_the_last_line_is_a_command_that_works(few, capsys, flags, advice):
    train.main([*QUICK, *flags])
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: {advice}"
    evaluate.main(shlex.split(advice)[2:])


def test_a_place_that_cannot_be_written_is_found_out_before_training(few, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *args, **flags: pytest.fail("it trained"))
    os.mkdir("folder")
    os.mkdir("net_curve.png")  # where the curve of net.pth would go
    for path, named in (("folder", "folder"), ("missing/net.pth", "missing/net.pth"), ("net.pth", "net_curve.png")):
        with pytest.raises(OSError, match=f"{named} can't be written.*Name another place with --checkpoint"):
            run("--checkpoint", path)
    assert sorted(os.listdir()) == ["folder", "net_curve.png"]


def test_checking_the_place_leaves_the_old_checkpoint_alone(few):
    old = run()
    data.check_writable("net.pth")
    assert same(torch.load("net.pth", weights_only=True), old) and sorted(os.listdir()) == ["net.pth", "net_curve.png"]


def disk_full(*args, **flags):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["os.replace", "torch.save"])
def test_a_checkpoint_is_written_whole_or_not_at_all(few, monkeypatch, capsys, where):
    old = run()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="net.pth could not be written"):
        patch.setattr(where, disk_full)
        run("--seed", "1")
    assert "net.pth could not be written: No space left on device" in capsys.readouterr().out
    assert same(torch.load("net.pth", weights_only=True), old)
    assert sorted(os.listdir()) == ["net.pth", "net_curve.png"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_really_full_disk_is_an_oserror_from_save_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "written_whole", lambda path: contextlib.nullcontext("/dev/full"))
    with pytest.raises(OSError):
        train.save(LeNet5(), "net.pth")


def test_a_save_that_fails_once_costs_a_line_and_the_next_epoch_saves(few, monkeypatch, capsys):
    save, calls = train.save, []

    def once(net, path):
        calls.append(path)
        if len(calls) == 1:
            raise PermissionError(13, "Permission denied")
        save(net, path)

    monkeypatch.setattr(train, "save", once)
    run("--epochs", "2")
    assert "net.pth could not be written: Permission denied. The next epoch will try again." in capsys.readouterr().out


def test_a_curve_that_cannot_be_drawn_costs_a_sentence_not_the_result(few, monkeypatch, capsys):
    monkeypatch.setattr(Image.Image, "save", disk_full)
    run()
    assert "The network is in net.pth, its curve could not be written (No space left on device)." in capsys.readouterr().out


def stop_in_epoch_2(monkeypatch, error):
    real = train.train

    def stopping(net, trainloader, criterion, optimizer, epoch, *args, **flags):
        if epoch == 1:
            raise error
        return real(net, trainloader, criterion, optimizer, epoch, *args, **flags)

    monkeypatch.setattr(train, "train", stopping)


def test_ctrl_c_keeps_the_last_epochs_checkpoint_and_says_so(few, monkeypatch):
    one_epoch = run()
    stop_in_epoch_2(monkeypatch, KeyboardInterrupt())
    with pytest.raises(SystemExit, match=r"Stopped by Ctrl-C. net.pth keeps epoch 1."):
        run("--epochs", "3")
    assert same(torch.load("net.pth", weights_only=True), one_epoch)
    assert os.path.exists("net_curve.png") and torch.backends.mkldnn.enabled


def test_ctrl_c_in_the_first_epoch_leaves_an_older_checkpoint_alone(few, monkeypatch):
    old = run()
    monkeypatch.setattr(train, "predict", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(SystemExit, match="No epoch was saved; net.pth was not written."):
        run("--seed", "1")
    assert same(torch.load("net.pth", weights_only=True), old)


def test_a_loss_that_runs_away_stops_training_with_what_to_try(few):
    old = run()
    with pytest.raises(SystemExit, match=r"no longer a finite number .* Try a tenth of --lr 99\. No epoch was saved"):
        run("--lr", "99", "--epochs", "50")
    assert same(torch.load("net.pth", weights_only=True), old)


def test_parameters_that_only_the_last_step_broke_are_noticed_too(few):
    class Breaks(torch.optim.SGD):
        def step(self):
            self.param_groups[0]["params"][0].data.fill_(math.inf)

    net = LeNet5()
    with pytest.raises(FloatingPointError, match="no longer a finite number"):
        train.train(net, loader(few[0], 400), nn.CrossEntropyLoss(), Breaks(net.parameters(), lr=0.1))  # one mini-batch
