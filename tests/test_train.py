"""Chapters 3 and 4, the loss, the optimiser and Model Training: the loop does what its comments say."""
import argparse
import csv
import inspect
import os
import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import data
import evaluate
import train
from conftest import edited
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


def plain_epochs(trainset, batch_size=50, epochs=1, seed=0, linear=None, augment=False, optimizer=torch.optim.SGD, **options):
    """The tutorial's loop and network, bare; linear: the warm-up of a linear schedule. The parameters at the end."""
    torch.manual_seed(seed)
    trainloader = DataLoader(TensorDataset(*trainset.tensors), batch_size=batch_size, shuffle=True)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    options = {"lr": 0.001, **({"momentum": 0.9} if optimizer is torch.optim.SGD else {}), **options}
    optimizer = optimizer(net.parameters(), **options)
    highest, step, steps = optimizer.param_groups[0]["lr"], 0, epochs * len(trainloader)
    for epoch in range(epochs):
        for inputs, labels in trainloader:
            if linear is not None:  # up to the full rate, then down to 0 one step after the last
                rising, falling = (step + 1) / max(1, linear * steps), (steps - step) / (steps - linear * steps)
                optimizer.param_groups[0]["lr"] = highest * min(1, rising, falling)
                step += 1
            optimizer.zero_grad()
            criterion(net(data.augment(inputs) if augment else inputs), labels).backward()
            optimizer.step()
        percent_right(net, trainset)  # the test after each epoch draws a random number, as each pass of a DataLoader does
    return net.state_dict()


def test_train_py_is_the_tutorials_loop_bit_for_bit(few):
    assert same(run(), plain_epochs(few[0]))


def test_batches_of_4_do_without_onednn_and_come_to_the_same_weights_but_for_rounding(few, monkeypatch):
    torch.backends.mkldnn.enabled = False
    plain = plain_epochs(few[0], batch_size=4)
    torch.backends.mkldnn.enabled = True
    used, real = [], train.train
    monkeypatch.setattr(train, "train", lambda *args, **flags: used.append(torch.backends.mkldnn.enabled) or real(*args, **flags))
    assert same(run("--batch-size", "4"), plain)
    run("--batch-size", "16")
    assert used == [False, True] and torch.backends.mkldnn.enabled  # it is on again


SETTINGS = [
    ("--batch-size 20", {"batch_size": 20}), ("--lr 0.01", {"lr": 0.01}), ("--momentum 0.5", {"momentum": 0.5}),
    ("--seed 7", {"seed": 7}), ("--epochs 2", {"epochs": 2}), ("--nesterov", {"nesterov": True}),
    ("--weight-decay 0.1", {"weight_decay": 0.1}), ("--schedule linear --epochs 2", {"linear": 0, "epochs": 2}),
    ("--schedule linear --warmup 0.5", {"linear": 0.5}), ("--augment", {"augment": True}),
    ("--optimizer adam", {"optimizer": torch.optim.Adam}), ("--optimizer adam --lr 0.01 --weight-decay 0.1 --schedule linear",
     {"optimizer": torch.optim.Adam, "lr": 0.01, "weight_decay": 0.1, "linear": 0}),
    ("--optimizer rmsprop --weight-decay 0.1", {"optimizer": torch.optim.RMSprop, "weight_decay": 0.1}),
    ("--epochs 2 --lr 0.01 --nesterov --weight-decay 0.01 --schedule linear --warmup 0.25",
     {"epochs": 2, "lr": 0.01, "nesterov": True, "weight_decay": 0.01, "linear": 0.25}),
    ("--optimizer muon --lr 0.02 --momentum 0.95 --weight-decay 0.05 --augment --schedule linear",
     {"optimizer": train.Muon, "lr": 0.02, "momentum": 0.95, "weight_decay": 0.05, "augment": True, "linear": 0})]


@pytest.mark.parametrize("flags, settings", SETTINGS, ids=[flags for flags, _ in SETTINGS])
def test_each_flag_is_the_plain_loop_with_that_setting_bit_for_bit(mirrorable, flags, settings):
    trained = run(*flags.split())
    assert same(trained, plain_epochs(mirrorable[0], **settings)) and not same(trained, plain_epochs(mirrorable[0]))


def test_the_defaults_are_the_tutorials_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "run_seeds", seen.append)
    train.main([])
    args = vars(seen[0])
    assert (args["batch_size"], args["lr"], args["momentum"]) == (4, 0.001, 0.9)
    assert args["schedule"] == "constant" and args["weight_decay"] == args["warmup"] == 0
    assert args["optimizer"] == "sgd" and not args["nesterov"] and not args["augment"]
    assert args["dataset"] == "auto" and args["device"] == "cpu" and args["epochs"] == 8
    assert not args["validation"] and args["runs"] == 1 and args["seed"] == 0
    assert inspect.signature(train.train).parameters["log_every"].default == 2000  # mini-batches between two lines of the log


def test_train_puts_the_network_into_training_mode(few):
    """predict() leaves it in eval mode, where dropout and BatchNorm do something else."""
    net = nn.Sequential(LeNet5(), nn.Dropout(0.5))
    evaluate.predict(net, loader(few[1], 50))
    modes = []
    net[1].register_forward_hook(lambda module, *_: modes.append(module.training))
    train.train(net, loader(few[0], 100), nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=0.1))
    assert modes == [True] * 4


def test_gradients_add_up_unless_zero_grad_clears_them(images):
    net, gradients = LeNet5(), []
    for clear in (False, False, True):
        if clear:
            net.zero_grad()
        nn.CrossEntropyLoss()(net(images), torch.tensor([0, 1, 2, 3])).backward()
        gradients.append(net.fc3.bias.grad.clone())
    assert torch.allclose(gradients[1], 2 * gradients[0]) and torch.allclose(gradients[2], gradients[0])


def test_running_loss_is_the_mean_since_the_last_line(few, capsys):
    torch.manual_seed(0)
    net = LeNet5()
    trainloader = loader(few[0], 4)
    still = torch.optim.SGD(net.parameters(), lr=1e-12)  # a net that does not move has losses that we can recompute
    loss, percent = train.train(net, trainloader, nn.CrossEntropyLoss(), still, log_every=30)
    lines = re.findall(r"^\[1, +(\d+)\] loss: (\d\.\d{3})$", capsys.readouterr().out, re.M)
    assert [int(batch) for batch, _ in lines] == [30, 60, 90]  # of 100
    with torch.no_grad():
        losses = [nn.CrossEntropyLoss()(net(inputs), labels).item() for inputs, labels in trainloader]
    assert float(lines[1][1]) == pytest.approx(sum(losses[30:60]) / 30, abs=6e-4)
    assert loss == pytest.approx(sum(losses) / 100, abs=1e-4) and percent == percent_right(net, few[0])


def test_the_line_of_an_epoch_tells_speed_and_time_left(few, monkeypatch, capsys):
    clock = iter(range(0, 10_000, 50))  # 50 seconds pass between two looks at it
    monkeypatch.setattr(train.time, "perf_counter", lambda: next(clock))
    run("--epochs", "4")
    printed = capsys.readouterr().out
    assert re.findall(r"(epoch \d): .* \| (\d+) images/s, (\d+) min (\d\d) s left$", printed, re.M) == [
        ("epoch 1", "8", "2", "30"), ("epoch 2", "8", "1", "40"), ("epoch 3", "8", "0", "50"), ("epoch 4", "8", "0", "00")]
    assert "200 s of training, 8 images/s." in printed


def test_the_mean_loss_counts_images_so_a_small_last_batch_counts_less(few):
    torch.manual_seed(0)
    net = LeNet5()
    still = torch.optim.SGD(net.parameters(), lr=1e-12)
    loss, _ = train.train(net, loader(few[0], 300), nn.CrossEntropyLoss(), still)
    assert loss == pytest.approx(nn.CrossEntropyLoss()(net(few[0][:][0]), few[0][:][1]).item(), abs=1e-5)


def test_a_line_every_8000_images_is_every_2000_batches_of_4(few, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "train", lambda *args: seen.append(args[-1]) or (1.0, 50.0))
    for batch_size in ("4", "64", "10000"):
        run("--batch-size", batch_size)
    assert seen == [2000, 125, 1]


def test_stripes_are_learned_in_an_epoch(stripes):
    torch.manual_seed(0)
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    train.train(net, loader(stripes[0], 32, shuffle=True), nn.CrossEntropyLoss(), optimizer)
    assert percent_right(net, stripes[1]) > 50  # guessing: 10


def watch(monkeypatch):
    """(images trained on, images tested on): what run() hands to train() and to predict(), for each epoch."""
    trained, tested, real_train, real_predict = [], [], train.train, train.predict
    monkeypatch.setattr(train, "train", lambda net, trainloader, *args: trained.append(trainloader.dataset[:][0]) or
                        real_train(net, trainloader, *args))
    monkeypatch.setattr(train, "predict", lambda net, testloader, *args: tested.append(testloader.dataset[:][0]) or
                        real_predict(net, testloader, *args))
    return trained, tested


def test_training_and_test_set_are_the_two_that_they_should_be_and_only_the_first_is_augmented(mirrorable, monkeypatch):
    augmented, augment, (trained, tested) = [], data.augment, watch(monkeypatch)
    monkeypatch.setattr(data, "augment", lambda images: augmented.append(images) or augment(images))
    before = mirrorable[1][:][0].clone()
    run("--augment")
    assert torch.equal(trained[0], mirrorable[0][:][0]) and torch.equal(tested[0], before) and len(trained) == len(tested) == 1
    given = {image.numpy().tobytes() for images in augmented for image in images}
    assert given == {image.numpy().tobytes() for image in trained[0]} and sum(map(len, augmented)) == 400  # each once an epoch


def test_validation_images_are_measured_on_never_trained_on_and_the_test_set_stays_shut(few, monkeypatch, capsys):
    trained, tested = watch(monkeypatch)
    load = data.load
    monkeypatch.setattr(data, "load", lambda train, **args: load(train, **args) if train else pytest.fail("the test set"))
    run("--validation", "50")
    images = few[0][:][0]
    assert torch.equal(trained[0], images[:350]) and torch.equal(tested[0], images[350:])
    printed = capsys.readouterr().out
    assert "350 training images" in printed and "validation accuracy on STRIPES" in printed and "test accuracy" not in printed
    assert "without --validation" in printed and "evaluate.py" not in printed


def test_a_trial_on_validation_images_leaves_the_network_alone(few):
    train.main([*QUICK, "--validation", "50"])
    assert sorted(os.listdir()) == ["validation_stripes_net.pth", "validation_stripes_net_curve.csv", "validation_stripes_net_curve.png"]


@pytest.mark.parametrize("number", ["400", "401"])
def test_a_validation_set_of_everything_is_refused(few, number):
    with pytest.raises(data.UserError, match=f"{number} can't be taken from 400 training images: take 1 to 399"):
        run("--validation", number)
    assert os.listdir() == []


# ---- Several runs ----------------------------------------------------------------------------

def test_runs_are_the_single_runs_of_their_seeds_each_with_files_of_its_own(few, capsys):
    train.main([*QUICK, "--seed", "5", "--runs", "2"])
    printed = capsys.readouterr().out
    assert sorted(os.listdir()) == [f"stripes_net_seed{seed}{end}" for seed in (5, 6) for end in (".pth", "_curve.csv", "_curve.png")]
    for seed in (5, 6):
        assert same(torch.load(f"stripes_net_seed{seed}.pth", weights_only=True), run("--seed", str(seed)))
    assert "Next: python evaluate.py --checkpoint stripes_net_seed5.pth --dataset stripes" in printed.splitlines()


@pytest.mark.parametrize("name, stem", [("my.pth", "my"), ("lr0.01", "lr0.01"), ("a.b/net", "a.b/net")])
def test_a_name_with_dots_keeps_them(tmp_path, monkeypatch, name, stem):
    args = argparse.Namespace(checkpoint=name, validation=0, runs=2, dataset="auto")
    os.makedirs(tmp_path / "a.b")
    monkeypatch.chdir(tmp_path)
    assert train.checkpoint_path(args, data.CIFAR, 7) == f"{stem}_seed7.pth"
    args.runs = 1
    assert train.checkpoint_path(args, data.CIFAR, 7) == name and train.curve_path(name) == f"{stem}_curve.png"


def results(monkeypatch, *results):
    """run() returns these, (test accuracy, seconds, training loss), one after the other."""
    left = iter(results)

    def run(*args):
        percent, seconds, loss = next(left)
        return [(9.0, 1.0, 9.0, 99.0), (loss, 50.0, 1.0, percent)], seconds  # of two epochs, the last one counts

    monkeypatch.setattr(train, "run", run)


def test_the_last_lines_of_several_runs_are_settings_each_accuracy_mean_deviation_lowest_highest(few, monkeypatch, capsys):
    results(monkeypatch, (60.0, 10.0, 1.0), (61.0, 20.0, 1.0), (65.0, 30.0, 1.0))
    train.main([*QUICK, "--runs", "3", "--lr", "0.02"])
    assert ("3 runs, seeds 0 to 2. --epochs 1 --batch-size 50 --lr 0.02\n"
            "test accuracy on STRIPES (not CIFAR-10): 60.0, 61.0, 65.0 %; mean 62.0 %, standard deviation 2.6, "
            "lowest 60.0, highest 65.0; 20 s of training each\n") in capsys.readouterr().out


def test_mirror_changes_the_test_but_not_the_training_and_is_named_beside_each_result(mirrorable, capsys, monkeypatch):
    titles, draw_curve = [], train.draw_curve
    monkeypatch.setattr(train, "draw_curve", lambda history, title, *args: titles.append(title) or draw_curve(history, title, *args))
    plain = run()
    capsys.readouterr()
    train.main([*QUICK, "--mirror", "--runs", "2"])
    printed = capsys.readouterr().out
    net = evaluate.load_checkpoint("cifar_net_seed0.pth")
    assert same(net.state_dict(), plain)
    both = evaluate.accuracy(*evaluate.predict(evaluate.Mirrored(net), loader(mirrorable[1], 50)))
    assert f"test accuracy on CIFAR-10 (with the mirror image) {both:.1f} %" in printed
    assert printed.count(", test accuracy on CIFAR-10 (with the mirror image) ") == 2  # an epoch of each run
    assert "\ntest accuracy on CIFAR-10 (with the mirror image): " in printed
    assert "Next: python evaluate.py --checkpoint cifar_net_seed0.pth --mirror" in printed.splitlines()
    assert titles[0].startswith("LeNet-5 on CIFAR-10, seed 0\n")
    assert [title.split("\n")[0] for title in titles[1:]] == [f"LeNet-5 on CIFAR-10 (with the mirror image), seed {k}" for k in (0, 1)]


# ---- What gave this result? --------------------------------------------------------------------

@pytest.mark.parametrize("flags, shown", [
    ("--lr 0.02 --momentum 0.5", " --lr 0.02 --momentum 0.5"), ("--nesterov --validation 50", " --nesterov --validation 50"),
    ("--optimizer muon --schedule linear --warmup 0.1 --weight-decay 0.5", " --optimizer muon --weight-decay 0.5 --schedule linear --warmup 0.1"),
    ("--momentum 0.9 --seed 3", "")])
def test_first_line_and_title_name_each_setting_that_is_not_the_default(few, monkeypatch, capsys, flags, shown):
    titles = []
    monkeypatch.setattr(train, "draw_curve", lambda history, title, *args: titles.append(title))
    run(*flags.split())
    seed = 3 if "seed" in flags else 0
    assert titles == [f"LeNet-5 on STRIPES (not CIFAR-10), seed {seed}\n--epochs 1 --batch-size 50{shown}"]
    n = 350 if "validation" in flags else 400
    assert (f"STRIPES (not CIFAR-10): {n} training images, 1 epoch, mini-batches of 50, seed {seed}, on cpu, --epochs 1 --batch-size 50{shown}"
            in capsys.readouterr().out.splitlines())


def test_at_the_defaults_there_is_nothing_to_name(few, monkeypatch):
    titles = []
    monkeypatch.setattr(train, "train", lambda *args: (1.0, 50.0))
    monkeypatch.setattr(train, "draw_curve", lambda history, title, *args: titles.append(title))
    train.main(["--dataset", "stripes"])
    assert set(titles) == {"LeNet-5 on STRIPES (not CIFAR-10), seed 0"} and len(titles) == 8


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
    optimizer.register_step_post_hook(lambda *_: scheduler.step())
    train.train(net, loader(stripes[0], 64, shuffle=True), nn.CrossEntropyLoss(), optimizer)
    assert percent_right(net, stripes[1]) > 80
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_muons_defaults_are_its_authors():
    muon = train.Muon([nn.Parameter(torch.ones(2, 2))])
    assert {key: muon.defaults[key] for key in ("lr", "momentum", "weight_decay")} == {"lr": 0.02, "momentum": 0.95, "weight_decay": 0}


def test_muon_skips_what_has_no_gradient():
    """A frozen layer, or one that forward() does not use."""
    frozen, used = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    used.grad = torch.eye(3)
    train.Muon([frozen, used], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(frozen, torch.ones(3, 3)) and not torch.equal(used, torch.ones(3, 3))


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


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "adam", "rmsprop"])
def test_each_step_gets_its_rate_whatever_the_optimizer(few, monkeypatch, optimizer):
    rates, normal_train = [], train.train

    def watched(net, trainloader, criterion, optimizer, *args):
        if not rates:
            optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
        return normal_train(net, trainloader, criterion, optimizer, *args)

    monkeypatch.setattr(train, "train", watched)
    run("--optimizer", optimizer, "--lr", "0.004", "--batch-size", "100", "--epochs", "2", "--schedule", "linear")
    assert rates == pytest.approx([0.004 * left / 8 for left in (8, 7, 6, 5, 4, 3, 2, 1)])


# ---- The log ---------------------------------------------------------------------------------

def test_the_log_shows_the_trace_then_each_epoch_then_what_to_do_next(few, capsys):
    run("--epochs", "2")
    printed = capsys.readouterr().out
    assert printed.isascii()
    parts = ["(32 - 5) + 1 = 28", "62,006", "STRIPES", "epoch 1: training loss", "epoch 2: training loss", "net.pth",
             "python evaluate.py"]
    places = [printed.index(part) for part in parts]
    assert places == sorted(places)
    net = evaluate.load_checkpoint("net.pth")
    percent = percent_right(net, few[1])
    assert f"epoch 2: training loss 2.3" in printed and f"test accuracy on STRIPES (not CIFAR-10) {percent:.1f} %" in printed
    assert re.search(r"^\d+ s of training, [\d,]+ images/s\. The network is in net\.pth, its curve in net_curve\.png, its numbers in net_curve\.csv\.$", printed, re.M)


LOG = r"epoch \d+: training loss ([\d.]+), training accuracy ([\d.]+) %, test loss ([\d.]+), test accuracy on .+? ([\d.]+) %"


@pytest.mark.parametrize("kind, flags", [("test", []), ("validation", ["--validation", "50"])])
def test_the_table_beside_the_curve_has_every_epochs_numbers_and_the_log_the_same(few, monkeypatch, capsys, kind, flags):
    drawn = []
    monkeypatch.setattr(train, "draw_curve", lambda *args: drawn.append((list(args[0]), *args[2:])))
    run("--epochs", "3", *flags)
    history, path, kind_drawn = drawn[-1]
    lines = re.findall(LOG.replace("test", kind), capsys.readouterr().out)
    assert len(drawn) == len(lines) == len(history) == 3 and (path, kind_drawn) == ("net_curve.png", kind)
    with open("net_curve.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["epoch", "training loss", "training accuracy", f"{kind} loss", f"{kind} accuracy"]
    for k, (line, entry, row) in enumerate(zip(lines, history, rows[1:], strict=True)):
        assert [float(number) for number in line] == pytest.approx(entry, abs=0.06)
        assert [float(number) for number in row] == pytest.approx([k + 1, *entry], abs=1e-6)


def test_the_test_loss_is_the_criterions_own_of_the_one_pass_over_the_test_set(few, monkeypatch):
    """An edited criterion shows up in both losses."""
    names = edited("train", ("    criterion = nn.CrossEntropyLoss()\n", "    criterion = nn.MultiMarginLoss()\n"))
    names["main"]([*QUICK, "--checkpoint", "net.pth"])
    with open("net_curve.csv") as file:
        training, _, test, _ = map(float, file.read().splitlines()[1].split(",")[1:])
    outputs, labels = evaluate.predict(evaluate.load_checkpoint("net.pth"), loader(few[1], 50))
    assert test == pytest.approx(nn.MultiMarginLoss()(outputs, labels).item(), abs=1e-5) and 0.8 < training < 1


def test_stripes_are_saved_under_a_name_of_their_own(few):
    train.main(QUICK)
    assert "stripes_net.pth" in os.listdir() and "cifar_net.pth" not in os.listdir()


@pytest.mark.parametrize("name", ["lenet5", "data", "train", "evaluate"])
def test_importing_a_script_prints_nothing_and_writes_nothing(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    edited(name)
    assert capsys.readouterr().out == "" and os.listdir() == []


# ---- When something goes wrong ---------------------------------------------------------------

@pytest.mark.parametrize("flag, value", [
    ("--epochs", "0"), ("--epochs", "-1"), ("--epochs", "1.5"), ("--batch-size", "0"), ("--batch-size", "four"),
    ("--lr", "-0.1"), ("--lr", "0"), ("--lr", "nan"), ("--lr", "inf"), ("--momentum", "1"), ("--momentum", "-0.1"),
    ("--momentum", "nan"), ("--validation", "-1"), ("--validation", "0.1"), ("--weight-decay", "-1"),
    ("--weight-decay", "nan"), ("--weight-decay", "1e39"), ("--warmup", "1"), ("--seed", "-1"), ("--seed", "99999999999999999999"),
    ("--batch-size", "99999999999999999999"), ("--epochs", "99999999999999999999"), ("--lr", "1e39"), ("--runs", "0"),
    ("--optimizer", "lion"), ("--dataset", "svhn"), ("--device", "tpu"), ("--schedule", "cosine"), ("--checkpoint", "")])
def test_values_that_make_no_sense_are_refused_by_name(capsys, flag, value):
    with pytest.raises(SystemExit) as stop:
        train.main([flag, value])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and f"argument {flag}" in error and value in error


@pytest.mark.parametrize("flags, missing", [
    ("--warmup 0.1", "--schedule linear"), ("--nesterov --momentum 0", "--momentum above 0"),
    ("--optimizer adam --momentum 0.9", "argument --momentum: has no effect with --optimizer adam"),
    ("--optimizer adam --momentum 0", "argument --momentum: has no effect with --optimizer adam"),
    ("--optimizer rmsprop --nesterov --momentum 0", "argument --nesterov: has no effect with --optimizer rmsprop")])
def test_flags_that_would_have_no_effect_are_refused(capsys, flags, missing):
    with pytest.raises(SystemExit):
        train.main(flags.split())
    assert missing in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="cmd.exe quotes otherwise")
@pytest.mark.parametrize("flags, advice", [
    ([], "python evaluate.py --dataset stripes"),
    (["--checkpoint", "my net.pth"], "python evaluate.py --checkpoint 'my net.pth' --dataset stripes"),
    (["--checkpoint", "net(1).pth"], "python evaluate.py --checkpoint 'net(1).pth' --dataset stripes"),
    (["--checkpoint", "a'b$c.pth"], "python evaluate.py --checkpoint 'a'\"'\"'b$c.pth' --dataset stripes"),
    (["--checkpoint=-x.pth"], "python evaluate.py --checkpoint ./-x.pth --dataset stripes"),
    (["--data-dir", "elsewhere"], "python evaluate.py --dataset stripes --data-dir elsewhere")])
def test_the_next_command_is_one_that_works_in_a_shell(few, capsys, flags, advice):
    train.main([*QUICK, *flags])
    assert f"Next: {advice}" in capsys.readouterr().out.splitlines()
    words = subprocess.run(["sh", "-c", f"python() {{ printf '%s\\n' \"$@\"; }}; {advice}"], capture_output=True, text=True).stdout
    evaluate.main(words.splitlines()[1:])


@pytest.mark.parametrize("percent, loss, warned", [(10.0, 2.33, True), (14.9, 2.2, True), (15.0, 2.2, False), (95.8, 6.66, False)])
def test_a_run_that_ends_at_guessing_says_so_last_whatever_its_loss(few, monkeypatch, capsys, percent, loss, warned):
    """Another loss function may be large, and the network right all the same."""
    results(monkeypatch, (percent, 1.0, loss))
    train.main([*QUICK, "--lr", "0.05"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"Accuracy {percent:.1f} %: it learned nothing." if warned else "Next")
    assert not warned or all(cause in last for cause in ("too high or too low", "activation function", "loss function"))


def test_of_several_runs_one_that_ends_at_guessing_is_enough_for_the_warning(few, monkeypatch, capsys):
    results(monkeypatch, (60.0, 1.0, 1.0), (10.0, 1.0, 2.3))
    train.main([*QUICK, "--runs", "2"])
    assert "it learned nothing" in capsys.readouterr().out.splitlines()[-1]


def test_a_place_that_cannot_be_written_is_found_out_before_training(few, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *args, **flags: pytest.fail("it trained"))
    os.mkdir("folder")
    os.mkdir("net_curve.png")  # where the curve of net.pth would go
    os.mkdir("other_curve.csv")
    for path, named in (("folder", "folder"), ("missing/net.pth", "missing/net.pth"), ("net.pth", "net_curve.png"), ("other.pth", "other_curve.csv"),
                        ("x" * 300, "x" * 300)):
        with pytest.raises(data.UserError, match=f"{named} can't be written: .*Choose another name"):
            run("--checkpoint", path)
    with pytest.raises(data.UserError, match="net_seed1.pth can't be written"):
        os.mkdir("net_seed1.pth")
        run("--checkpoint", "net", "--runs", "2")  # the second of two
    assert sorted(os.listdir()) == ["folder", "net_curve.png", "net_seed1.pth", "other_curve.csv"]


def test_a_named_checkpoint_is_not_lost_to_stripes_that_nobody_asked_for(few, monkeypatch):
    """Offline, with a mistyped --data-dir, auto means stripes: no file with a name of the user's is made of them."""
    monkeypatch.setattr(data, "download", lambda *args, **flags: False)
    monkeypatch.setattr(data, "stripes", lambda train: (torch.zeros(20, 3, 32, 32, dtype=torch.uint8), torch.arange(20) % 10))
    for name, sentence in (("best.pth", "--checkpoint best.pth would get a network for STRIPES.*add --dataset stripes"),
                           ("cifar_net.pth", "cifar_net.pth is the name of a network for CIFAR-10.*add --dataset cifar10")):
        with pytest.raises(data.UserError, match=sentence):
            train.main(["--epochs", "1", "--checkpoint", name])
    for flag in ("--augment", "--mirror"):
        with pytest.raises(data.UserError, match=f"{flag} is not for STRIPES.*: in the mirror"):
            train.main(["--epochs", "1", flag])
    assert os.listdir() == []
    train.main(["--epochs", "1"])
    assert "stripes_net.pth" in os.listdir()


@pytest.mark.parametrize("name, script", [("cifar_net.pth", train), ("old/mnist_net_seed3.pth", train), ("cifar_net.pth", evaluate)])
def test_a_file_with_the_default_name_of_another_dataset_is_refused(few, name, script):
    with pytest.raises(data.UserError, match=f"{name} is the name of a network for .*, and this is STRIPES.*: add --dataset (cifar10|mnist), or name"):
        script.main(["--dataset", "stripes", "--checkpoint", name])
    assert os.listdir() == []


def test_a_name_that_only_resembles_a_default_is_free(few):
    train.main([*QUICK, "--checkpoint", "my_cifar_net.pth"])
    assert data.checkpoint_name("fashion_mnist_net.pth", "Fashion-MNIST") == "fashion_mnist_net.pth"


def test_a_file_that_is_no_checkpoint_is_not_overwritten(few):
    with open("lenet5.py", "w") as file:
        file.write("class LeNet5: ...")
    with pytest.raises(data.UserError, match="lenet5.py is there, and no checkpoint: it is not overwritten. Choose another name"):
        run("--checkpoint", "lenet5.py")
    assert os.path.getsize("lenet5.py") == 17 and os.listdir() == ["lenet5.py"]


@pytest.mark.parametrize("flag", ["--augment", "--mirror"])
def test_digits_and_stripes_are_not_flipped(few, monkeypatch, flag):
    for name in ("MNIST", data.STRIPES):
        monkeypatch.setattr(few[0], "name", name)
        with pytest.raises(data.UserError, match=f"{flag} is not for {name[:5]}.*: in the mirror, its images are of another class, or of none"):
            run(flag)


def test_a_checkpoint_may_have_an_odd_name(few):
    train.main([*QUICK, "--checkpoint", ".pth"])
    evaluate.load_checkpoint(".pth")
    assert sorted(os.listdir()) == [".pth", "_curve.csv", "_curve.png"]


def disk_full(*args, **flags):
    raise OSError(28, "No space left on device")


def test_a_checkpoint_is_written_whole_or_not_at_all(few, monkeypatch):
    old = run()
    with monkeypatch.context() as patch, pytest.raises(data.UserError, match="net.pth can't be written: No space left"):
        patch.setattr(os, "replace", disk_full)
        run("--seed", "1")
    assert same(torch.load("net.pth", weights_only=True), old)
    assert sorted(os.listdir()) == ["net.pth", "net_curve.csv", "net_curve.png"]


def test_a_curve_that_cannot_be_drawn_does_not_cost_the_network(few, monkeypatch):
    write = data.write_whole

    def fails(path, content, trial=False):
        if path.endswith(".png") and not trial:
            raise data.UserError("no space")
        write(path, content, trial)

    monkeypatch.setattr(data, "write_whole", fails)
    with pytest.raises(data.UserError, match="no space"):
        run()
    assert os.listdir() == ["net.pth"]


def test_ctrl_c_keeps_the_last_epochs_checkpoint_and_its_curve(few, monkeypatch):
    one_epoch = run()
    os.remove("net_curve.png")
    real = train.train

    def stopping(net, trainloader, criterion, optimizer, epoch, *args, **flags):
        if epoch == 1:
            raise KeyboardInterrupt
        return real(net, trainloader, criterion, optimizer, epoch, *args, **flags)

    monkeypatch.setattr(train, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        run("--epochs", "3")
    assert same(torch.load("net.pth", weights_only=True), one_epoch) and os.path.exists("net_curve.png")


def test_ctrl_c_in_the_first_epoch_leaves_an_older_checkpoint_alone(few, monkeypatch):
    old = run()
    monkeypatch.setattr(train, "predict", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run("--seed", "1")
    assert same(torch.load("net.pth", weights_only=True), old)


def test_a_network_that_ran_away_is_not_saved_and_the_sentence_says_what_to_try(few):
    old = run()
    with pytest.raises(data.UserError, match="no longer finite: the steps are too long. Try a tenth of --lr"):
        run("--lr", "99", "--epochs", "50")
    assert same(torch.load("net.pth", weights_only=True), old)


@pytest.mark.parametrize("name, old, new, error, words", [
    ("lenet5", "        x = torch.flatten(x, 1)  ", "        x = x.view(-1, 16 * 5 * 6)  ", RuntimeError, "shape '[-1, 480]' is invalid"),
    ("lenet5", "16 * 5 * 5, 120)", "16 * 5 * 6, 120)", RuntimeError, "cannot be multiplied"),
    ("train", "for i, (inputs, labels) in", "for i, (inputs, labels, more) in", ValueError, "not enough values to unpack"),
    ("train", "optimizer.step()  ", "optimiser.step()  ", NameError, "optimiser"),
    ("train", "import io\n", "", NameError, "'io' is not defined"),
    ("evaluate", "net.load_state_dict(", "nett.load_state_dict(", NameError, "nett"), ("evaluate", "torch.load(path", "torch.laod(path", AttributeError, "laod"),
    ("evaluate", "weights_only=True))", "weights_only=True), strictt=True)", TypeError, "strictt"),
    ("evaluate", "torch.max(outputs, 1)  # of", "torch.max(outputs, 2)  # of", IndexError, "Dimension out of range"),
    ("evaluate", "import torch.nn.functional as F\n", "", NameError, "'F' is not defined"),
    ("data", "= next(dataiter)", "= dataiter.next()", AttributeError, "has no attribute 'next'")])
def test_a_students_bug_shows_as_python_shows_it(few, monkeypatch, name, old, new, error, words):
    """In every script: the error itself, from the line of the bug; no sentence of ours stands in for it."""
    run()
    module = edited(name, (old, new))
    if name == "lenet5":
        monkeypatch.setattr(train, "LeNet5", module["LeNet5"])
        module = vars(train)
    flags = {"data": [], "evaluate": ["--checkpoint", "net.pth"]}.get(name, ["--batch-size", "50", "--epochs", "1"])
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--dataset", "stripes", *flags])
    with pytest.raises(error, match=re.escape(words)) as bug:
        data.script(module["main"])
    assert f"{name}.py" in [frame.path.name for frame in bug.traceback if hasattr(frame.path, "name")]
