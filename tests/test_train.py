"""Chapters 3 and 4, loss, optimiser, Model Training: the loop does what its comments say."""
import itertools
import os
import re
import runpy
import shlex
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import data
import evaluate
import train
from conftest import ROOT, edited
from lenet5 import LeNet5
from test_lenet5 import Net

QUICK = ["--dataset", "cifar10", "--epochs", "1", "--batch-size", "50"]


def run(*flags):
    """python train.py on 400 images with these flags. Returns the parameters that it saved."""
    train.main([*QUICK, "--checkpoint", "net.pth", *flags])
    return torch.load("net.pth", weights_only=True)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def loader(dataset, batch_size, shuffle=False):
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)


def percent_right(net, dataset):
    return evaluate.accuracy(*evaluate.predict(net, loader(dataset, 50)))


def ctrl_c(*args):
    raise KeyboardInterrupt


# ---- The loop --------------------------------------------------------------------------------

def plain_epochs(trainset, batch_size=50, epochs=1, seed=0, optimizer=torch.optim.SGD, linear=None,
                 augment=False, **options):
    """The tutorial's network and loop, bare: the parameters. linear: the schedule's warm-up."""
    torch.manual_seed(seed)
    trainloader = loader(trainset, batch_size, shuffle=True)
    net, criterion = Net(), nn.CrossEntropyLoss()
    momentum = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    optimizer = optimizer(net.parameters(), **{"lr": 0.001, **momentum, **options})
    highest, step, steps = optimizer.param_groups[0]["lr"], 0, epochs * len(trainloader)
    for epoch in range(epochs):
        for inputs, labels in trainloader:
            if linear is not None:  # up to the full rate, then down to 0 one step after the last
                rising = (step + 1) / max(1, linear * steps)
                falling = (steps - step) / (steps - linear * steps)
                optimizer.param_groups[0]["lr"] = highest * min(1, rising, falling)
                step += 1
            optimizer.zero_grad()
            criterion(net(data.augment(inputs) if augment else inputs), labels).backward()
            optimizer.step()
        percent_right(net, trainset)  # a pass of any DataLoader draws a random number: so here too
    return net.state_dict()


def test_train_py_is_the_tutorials_loop_bit_for_bit(few):
    assert same(run(), plain_epochs(few[0]))


@pytest.mark.parametrize("flags, settings", [
    ("--batch-size 20", {"batch_size": 20}), ("--seed 7", {"seed": 7}),
    ("--epochs 2", {"epochs": 2}), ("--lr 0.01", {"lr": 0.01}), ("--momentum 0", {"momentum": 0}),
    ("--nesterov", {"nesterov": True}), ("--weight-decay 0.1", {"weight_decay": 0.1}),
    ("--augment", {"augment": True}), ("--schedule linear --epochs 2", {"linear": 0, "epochs": 2}),
    ("--schedule linear --warmup 0.5", {"linear": 0.5}),
    ("--optimizer rmsprop --weight-decay 0.1",
     {"optimizer": torch.optim.RMSprop, "weight_decay": 0.1}),
    ("--optimizer adam --lr 0.01 --weight-decay 0.1 --schedule linear",
     {"optimizer": torch.optim.Adam, "lr": 0.01, "weight_decay": 0.1, "linear": 0}),
    ("--optimizer muon --lr 0.02 --momentum 0.8 --weight-decay 0.05 --schedule linear",
     {"optimizer": train.Muon, "lr": 0.02, "momentum": 0.8, "weight_decay": 0.05, "linear": 0})])
def test_each_flag_is_the_plain_loop_with_that_setting_bit_for_bit(few, flags, settings):
    trained = run(*flags.split())
    assert same(trained, plain_epochs(few[0], **settings))
    assert not same(trained, plain_epochs(few[0]))


def test_the_defaults_are_the_tutorials_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "run_seeds", lambda args: seen.append(vars(args)))
    train.main([])
    assert seen[0].items() >= {
        "batch_size": 4, "lr": 0.001, "momentum": 0.9, "optimizer": "sgd", "nesterov": False,
        "weight_decay": 0, "schedule": "constant", "warmup": 0, "augment": False, "epochs": 8,
        "validation": 0, "seed": 0, "runs": 1, "dataset": "auto", "device": "cpu"}.items()
    assert train.train.__defaults__ == (0, "cpu", 2000)  # epoch, device, log_every
    assert train.Muon.__init__.__defaults__ == (0.02, 0.95, 0)  # its authors': lr, momentum, decay


def test_train_puts_the_network_into_training_mode(few):
    """predict() leaves it in eval mode, where dropout and BatchNorm do something else."""
    net, modes = LeNet5().eval(), []
    net.register_forward_hook(lambda *_: modes.append(net.training))
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    train.train(net, loader(few[0], 100), nn.CrossEntropyLoss(), sgd)
    assert modes == [True] * 4


def test_a_line_has_the_mean_loss_since_the_last_line_and_the_end_that_of_all_images(few, capsys):
    torch.manual_seed(0)
    net, criterion, trainloader = LeNet5(), nn.CrossEntropyLoss(), loader(few[0], 7)
    still = torch.optim.SGD(net.parameters(), lr=1e-12)  # its losses can be computed once more
    loss, percent = train.train(net, trainloader, criterion, still, epoch=1, log_every=20)
    with torch.no_grad():
        losses = [criterion(net(inputs), labels).item() for inputs, labels in trainloader]
        of_all = criterion(net(few[0][:][0]), few[0][:][1]).item()  # the last batch has one image
    assert capsys.readouterr().out == (f"[2,    20] loss: {sum(losses[:20]) / 20:.3f}\n"
                                       f"[2,    40] loss: {sum(losses[20:40]) / 20:.3f}\n")
    assert loss == pytest.approx(of_all, abs=1e-5) and percent == percent_right(net, few[0])


@pytest.mark.parametrize("batch_size, log_every, used", [
    (4, 2000, False), (15, 533, False), (16, 500, True), (10_000, 1, True)])
def test_the_batch_size_sets_that_a_line_comes_every_8000_images_and_onednn_from_16_on(
        few, monkeypatch, batch_size, log_every, used):
    """And oneDNN is afterwards what it was before, even after Ctrl-C."""
    seen, onednn = [], torch.backends.mkldnn
    monkeypatch.setattr(onednn, "enabled", not used)
    monkeypatch.setattr(train, "train", lambda *args: ctrl_c(
        seen.extend([args[-1], onednn.enabled])))
    with pytest.raises(KeyboardInterrupt):
        run("--batch-size", str(batch_size))
    assert seen == [log_every, used] and onednn.enabled == (not used)


def test_the_network_and_all_images_and_labels_go_to_the_device(few, monkeypatch):
    moved = []
    for kind in (nn.Module, torch.Tensor):
        monkeypatch.setattr(kind, "to", lambda self, to: moved.append((type(self), to)) or self)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # so that the flag takes it
    run("--device", "cuda", "--batch-size", "400")
    # The network, the images and labels that it trains on, and the images that it is tested on.
    assert moved == [(LeNet5, "cuda")] + 3 * [(torch.Tensor, "cuda")]


@pytest.mark.parametrize("flag", ["", "--augment", "--mirror", "--validation 50"])
def test_after_an_epoch_it_tests_on_images_that_it_was_not_trained_on_as_they_are(few, flag):
    n = 350 if "--validation" in flag else 400
    others = few[1] if n == 400 else TensorDataset(*few[0][n:])
    trained = run(*flag.split())
    assert same(trained, plain_epochs(TensorDataset(*few[0][:n]), augment=flag == "--augment"))
    net = evaluate.load_checkpoint("net.pth")
    net = evaluate.Mirrored(net) if flag == "--mirror" else net
    outputs, labels = evaluate.predict(net, loader(others, 50))
    with open("net_curve.csv") as file:
        *_, loss, percent = map(float, file.readlines()[1].split(","))
    assert loss == pytest.approx(nn.CrossEntropyLoss()(outputs, labels).item(), abs=1e-6)
    assert percent == evaluate.accuracy(outputs, labels)


# ---- The log ---------------------------------------------------------------------------------

@pytest.fixture
def quick(few, monkeypatch):
    """An epoch takes 50 seconds on the clock, and no time: nothing is learned, all is right."""
    clock = itertools.count(0, 50)
    monkeypatch.setattr(train.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(train, "train", lambda *args: (1.5, 40.0))
    monkeypatch.setattr(train, "predict", lambda *args: (4 * torch.eye(10), torch.arange(10)))


def test_the_log_line_by_line(quick, capsys):
    run("--epochs", "3", "--lr", "0.02")
    table, log = capsys.readouterr().out.split("\n\n")
    assert table.startswith("layer ") and table.splitlines()[-1].startswith("total ")
    assert log == """\
CIFAR-10: 400 training images, seed 0, on cpu
3 epochs, mini-batches of 50 --lr 0.02
epoch 1: test accuracy 100.0 %, loss 0.153; training 40.0 %, 1.500; 100 s left
epoch 2: test accuracy 100.0 %, loss 0.153; training 40.0 %, 1.500; 50 s left
epoch 3: test accuracy 100.0 %, loss 0.153; training 40.0 %, 1.500; 0 s left
150 s of training, 8 images/s
network: net.pth
curve: net_curve.png, its numbers: net_curve.csv
test accuracy on CIFAR-10: 100.0 %
Next: python evaluate.py --checkpoint net.pth
"""


@pytest.mark.parametrize("dataset, n", [("cifar10", 50_000), ("stripes", 10_000)])
def test_at_the_defaults_no_line_of_the_log_is_wider_than_80_columns(
        quick, monkeypatch, capsys, dataset, n):
    images = TensorDataset(torch.zeros(1).expand(n, 3, 32, 32), torch.zeros(n))
    images.name = data.DATASETS[dataset].name
    monkeypatch.setattr(data, "load", lambda **args: images)
    train.main(["--dataset", dataset])
    printed = capsys.readouterr().out
    assert f"{images.name}: {n:,} training images" in printed and printed.isascii()
    assert [line for line in printed.splitlines() if len(line) > 80] == []


def test_the_curve_and_the_table_beside_it_have_the_numbers_of_every_epoch(quick, monkeypatch):
    drawn, losses = [], iter([1.5, 1.25])
    monkeypatch.setattr(train, "train", lambda *args: (next(losses), 40.0))
    monkeypatch.setattr(train, "draw_curve", lambda history, *args: drawn.append([*history, *args]))
    run("--epochs", "2", "--seed", "3", "--validation", "50")
    loss = nn.CrossEntropyLoss()(4 * torch.eye(10), torch.arange(10)).item()
    first, second = (1.5, 40.0, loss, 100.0), (1.25, 40.0, loss, 100.0)
    title = "LeNet-5 on CIFAR-10, seed 3, 2 epochs, mini-batches of 50\n--validation 50"
    others = title, "net_curve.png", "validation"
    assert drawn == [[first, *others], [first, second, *others]]
    with open("net_curve.csv", newline="") as file:
        assert file.read() == (
            "epoch,training loss,training accuracy,validation loss,validation accuracy\n"
            f"1,1.5,40.0,{loss},100.0\n2,1.25,40.0,{loss},100.0\n")


def test_an_edited_criterion_shows_up_in_both_losses(few):
    module = edited("train", ("nn.CrossEntropyLoss()\n", "lambda x, labels: 0 * x.sum() + 2\n"))
    module["main"]([*QUICK, "--checkpoint", "net.pth"])
    with open("net_curve.csv") as file:
        assert re.match(r"1,2.0,[\d.]+,2.0,", file.readlines()[1])


def test_with_validation_the_test_set_stays_shut(quick, monkeypatch, capsys):
    load = data.load
    monkeypatch.setattr(data, "load", lambda train, **args: (
        load(train, **args) if train else pytest.fail("it was opened")))
    run("--validation", "50")
    printed = capsys.readouterr().out
    assert "\nCIFAR-10: 350 training images, " in printed and "test accuracy" not in printed
    assert printed.endswith("\nvalidation accuracy on CIFAR-10: 100.0 %\n")  # and no Next


@pytest.mark.parametrize("flags, shown", [
    ("--lr 0.02 --weight-decay 0 --device cpu --seed 3 --data-dir there", "--lr 0.02"),
    ("--nesterov --momentum 0.5", "--momentum 0.5 --nesterov"),
    ("--warmup 0.125 --schedule linear --optimizer muon --lr 0.0125 --augment --validation 50 "
     "--weight-decay 0.0125", "--optimizer muon --lr 0.0125 --weight-decay 0.0125 --schedule "
     "linear --warmup 0.125 --augment --validation 50")])
def test_log_and_title_name_each_changed_setting(quick, monkeypatch, capsys, flags, shown):
    titles = []
    monkeypatch.setattr(train, "draw_curve", lambda history, title, *args: titles.append(title))
    run(*flags.split())
    _, *lines = titles[0].split("\n")
    assert " ".join(lines) == shown and max(map(len, lines)) < 100  # so that it fits
    printed = capsys.readouterr().out
    assert f" on cpu\n1 epoch, mini-batches of 50 {shown}\nepoch 1: " in printed


def test_mirror_is_named_beside_each_result(quick, monkeypatch, capsys):
    titles, name = [], "CIFAR-10 (with the mirror image)"
    monkeypatch.setattr(train, "draw_curve", lambda history, title, *args: titles.append(title))
    train.main([*QUICK, "--mirror", "--runs", "2"])
    printed, start = capsys.readouterr().out, f"LeNet-5 on {name}, seed"
    assert titles == [f"{start} {seed}, 1 epoch, mini-batches of 50" for seed in (0, 1)]
    assert ", seed 1, on cpu\n" in printed and f"test accuracy on {name}: 100.0, 100.0 %" in printed


def results(monkeypatch, *results):
    """run() returns these, (test accuracy, seconds, training accuracy), one after the other."""
    history = lambda percent, training: [(9.0, 9.0, 9.0, 99.0), (1.0, training, 1.0, percent)]
    left = iter([(history(percent, training), seconds) for percent, seconds, training in results])
    monkeypatch.setattr(train, "run", lambda *args: next(left))


def test_the_last_lines_of_several_runs_have_each_result_and_the_mean(few, monkeypatch, capsys):
    results(monkeypatch, (61.0, 10.0, 50.0), (60.0, 20.0, 50.0), (65.0, 30.0, 50.0))
    train.main([*QUICK, "--runs", "3", "--seed", "2", "--lr", "0.02"])
    assert capsys.readouterr().out.endswith("""
test accuracy on CIFAR-10: 61.0, 60.0, 65.0 %
3 runs, seeds 2 to 4, 1 epoch, mini-batches of 50 --lr 0.02
mean 62.0 %, standard deviation 2.6, lowest 60.0, highest 65.0; 20 s of training each
Next: python evaluate.py --checkpoint cifar_net_seed2.pth
""")


@pytest.mark.parametrize("flags, command", [
    ("", "python evaluate.py"), ("--mirror", "python evaluate.py --mirror"),
    ("--dataset stripes --data-dir data", "python evaluate.py --dataset stripes"),
    ('--checkpoint "my $(1).pt"', "python evaluate.py --checkpoint 'my $(1).pt'"),
    ("--data-dir b --runs 2", "python evaluate.py --checkpoint cifar_net_seed0.pth --data-dir b")])
def test_the_next_command_has_what_evaluate_py_must_know_and_works_in_a_shell(
        few, monkeypatch, capsys, flags, command):
    results(monkeypatch, (60.0, 1.0, 50.0), (60.0, 1.0, 50.0))
    train.main([*QUICK, *shlex.split(flags)])
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: {command}"


@pytest.mark.parametrize("percents, last", [
    ([14.94], "14.9 % is about guessing: "), ([15.0], "Next: "),
    ([60.0, 10.0, 20.0], '10.0 % is about guessing: see "If it does not learn" in README.md. '
                         "(The training accuracy is 13.0 %.)")])
def test_a_run_that_ends_at_guessing_says_so_last(few, monkeypatch, capsys, percents, last):
    """With its own training accuracy: a high one has other causes than a low one."""
    results(monkeypatch, *((percent, 1.0, percent + 3) for percent in percents))
    train.main([*QUICK, "--runs", str(len(percents))])
    assert capsys.readouterr().out.splitlines()[-1].startswith(last)


def test_runs_are_the_single_runs_of_their_seeds_each_with_files_of_its_own(few):
    train.main([*QUICK, "--seed", "5", "--runs", "2"])
    assert sorted(os.listdir()) == [f"cifar_net_seed{seed}{end}" for seed in (5, 6)
                                    for end in (".pth", "_curve.csv", "_curve.png")]
    for seed in (5, 6):
        saved = torch.load(f"cifar_net_seed{seed}.pth", weights_only=True)
        assert same(saved, run("--seed", str(seed)))


# ---- Muon: singular value decomposition is the referee ---------------------------------------

@pytest.mark.parametrize("shape", [(84, 120), (400, 120), (7, 7), (6, 3, 5, 5)])
def test_orthogonal_keeps_the_directions_and_makes_all_lengths_nearly_one(shape):
    step = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(step.flatten(1), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s ** 3 + 2.0315 * s ** 5
    assert 0.65 < s.min() and s.max() < 1.25
    longer = max(1, shape[0] / step[0].numel()) ** 0.5  # with more rows than columns
    expected = (longer * u @ s.diag() @ v).reshape(shape)
    assert torch.allclose(train.orthogonal(step), expected, atol=1e-5)
    assert torch.equal(train.orthogonal(0 * step), 0 * step)  # what is not there is not lengthened


def test_muon_moves_a_bias_as_nesterovs_sgd_does_and_a_matrix_by_its_orthogonal_step():
    torch.manual_seed(0)
    bias, weight = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(4, 5))
    other, expected = nn.Parameter(bias.detach().clone()), weight.detach().clone()
    muon = train.Muon([bias, weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    sgd, buffer = torch.optim.SGD([other], lr=0.1, momentum=0.9, nesterov=True), 0
    for _ in range(3):
        weight.grad, bias.grad = torch.randn(4, 5), torch.randn(5)
        other.grad = bias.grad.clone()
        muon.step()
        sgd.step()
        buffer = 0.9 * buffer + weight.grad
        expected = expected - 0.1 * 0.5 * expected  # the decay, then the step
        expected = expected - 0.1 * train.orthogonal(weight.grad + 0.9 * buffer)
    assert torch.allclose(bias, other, atol=1e-6)
    assert torch.allclose(weight, expected, atol=1e-4)


def test_muon_skips_what_has_no_gradient():
    """A frozen layer, or one that forward() does not use. What comes after it still moves."""
    frozen, used = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    used.grad = torch.eye(3)
    train.Muon([frozen, used], weight_decay=0.5).step()
    assert torch.equal(frozen, torch.ones(3, 3)) and not torch.equal(used, torch.ones(3, 3))


@pytest.mark.parametrize("warmup, factors", [
    (0, {0: 1, 50: 0.5, 99: 0.01}),
    (0.2, {0: 1 / 20, 9: 0.5, 19: 1, 20: 1, 60: 0.5, 99: 1 / 80})])
def test_the_linear_schedule_rises_while_it_warms_up_and_ends_one_step_above_0(warmup, factors):
    for step, factor in factors.items():
        assert train.linear_factor(step, 100, warmup) == pytest.approx(factor)


# ---- Files -----------------------------------------------------------------------------------

@pytest.mark.parametrize("flags, path", [
    ("", "cifar_net.pth"), ("--dataset stripes", "stripes_net.pth"),
    ("--validation 50", "validation_cifar_net.pth"), ("--runs 2", "cifar_net_seed7.pth"),
    ("--validation 50 --runs 2", "validation_cifar_net_seed7.pth"),
    ("--checkpoint my", "my.pth"), ("--checkpoint my.pt --validation 50", "my.pt"),
    ("--checkpoint lr0.01", "lr0.01.pth"), ("--checkpoint a.b/net", "a.b/net.pth"),
    ("--checkpoint my.pt --runs 2", "my_seed7.pt"), ("--checkpoint a --runs 2", "a_seed7.pth"),
    # Names that only resemble the default of another dataset are free.
    ("--dataset fashion --checkpoint mnist_net_on_fashion.pth", "mnist_net_on_fashion.pth"),
    ("--dataset fashion --checkpoint my_mnist_net", "my_mnist_net.pth"),
    ("--dataset fashion --checkpoint fashion_net.pth", "fashion_net.pth")])
def test_a_checkpoint_ends_in_pth_or_pt_and_no_kind_of_run_overwrites_another(
        few, monkeypatch, flags, path):
    os.mkdir("a.b")
    seen = []
    monkeypatch.setattr(train, "run_seeds", seen.append)
    train.main([*QUICK, *flags.split()])
    assert train.checkpoint_path(seen[0], 7) == path and os.listdir() == ["a.b"]
    assert train.curve_path(path) == re.sub(r"\.pth?$", "_curve.png", path)


@pytest.mark.parametrize("script", [train, evaluate])
@pytest.mark.parametrize("name, sentence", [
    ("cifar_net.pth", "is the name of a network for CIFAR-10. .* add --dataset cifar10."),
    ("old/mnist_net_seed34.pt", "is the name of a network for MNIST. .* add --dataset mnist."),
    ("validation_FASHION_net", "is the name of a network for Fashion-MNIST. Name another file, or"),
    ("", "the name after --checkpoint is empty: name a file, or leave the flag out.")])
def test_default_names_of_other_datasets_and_an_empty_one_are_refused(few, script, name, sentence):
    with pytest.raises(data.UserError, match=f"^{name} ?{sentence}"):
        script.main(["--dataset", "stripes", "--checkpoint", name])
    assert os.listdir() == []


def test_a_named_checkpoint_is_not_lost_to_stripes_that_nobody_asked_for(few, monkeypatch, capsys):
    """--dataset auto means stripes where CIFAR-10 can't be had."""
    monkeypatch.setattr(data, "find_dataset", lambda args: "stripes")
    for flags, sentence in ((["--checkpoint", "my"], "my would get a network of stripes"),
                            (["--augment"], "not for STRIPES"), (["--mirror"], "not for STRIPES")):
        with pytest.raises(data.UserError, match=sentence):
            train.main([*QUICK, "--dataset", "auto", *flags])
    assert os.listdir() == []
    train.main([*QUICK, "--dataset", "auto"])
    assert "stripes_net.pth" in os.listdir()
    monkeypatch.setattr(data, "find_dataset", lambda args: "cifar10")
    run("--dataset", "auto")
    assert "\nCIFAR-10: 400 training images" in capsys.readouterr().out


@pytest.mark.parametrize("flags, sentence", [
    ("--epochs 0", "--epochs: must be from 1 to below 100,000, not 0"),
    ("--epochs 1.5", "--epochs: invalid int value: '1.5'"), ("--batch-size 0", "--batch-size: m"),
    ("--lr 0", "--lr: must be from 1e-09 to below 100, not 0"), ("--lr nan", "--lr: must"),
    ("--momentum 1", "--momentum: must"), ("--momentum -0.1", "--momentum: must be from 0"),
    ("--warmup 1", "--warmup: must"), ("--weight-decay -1", "--weight-decay: must be from 0"),
    ("--validation -1", "--validation: m"), ("--seed -1", "--seed: m"), ("--runs 0", "--runs: m"),
    ("--warmup 0.1", "--warmup: has no effect without --schedule linear"),
    ("--optimizer adam --momentum 0.9", "--momentum: has no effect with --optimizer adam"),
    ("--nesterov --momentum 0", "--nesterov: needs a --momentum above 0, and --optimizer sgd"),
    ("--optimizer muon --nesterov", "--nesterov: "), ("--optimizer rmsprop --momentum 0", "--mom")])
def test_flags_that_make_no_sense_are_refused_by_name(monkeypatch, capsys, flags, sentence):
    monkeypatch.setattr(train, "run_seeds", lambda args: None)
    with pytest.raises(SystemExit, match="2"):
        train.main(flags.split())
    assert f"error: argument {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize("folder, flags", [
    ("net.pth", ""), ("net_curve.png", ""), ("net_curve.csv", ""), ("net_seed1.pth", "--runs 2")])
def test_a_place_that_cannot_be_written_is_found_out_first(few, monkeypatch, folder, flags):
    monkeypatch.setattr(data, "load", lambda **args: pytest.fail("it began"))
    os.mkdir(folder)  # where a file should go
    with pytest.raises(data.UserError, match=f"{folder} can't be written"):
        run(*flags.split())
    assert os.listdir() == [folder]


@pytest.mark.parametrize("name", ["net_curve.png", "net_curve.csv"])
def test_a_curve_that_cannot_be_written_later_is_a_line_in_the_log(few, monkeypatch, capsys, name):
    check = train.checkpoint_path
    monkeypatch.setattr(train, "checkpoint_path", lambda *args: (check(*args), os.mkdir(name))[0])
    assert same(run("--epochs", "2"), plain_epochs(few[0], epochs=2))
    assert re.search(f"\nThe curve can't be written: .*{name}.*\nepoch 2", capsys.readouterr().out)


@pytest.mark.parametrize("module, function", [(train, "predict"), (torch, "save"), (os, "replace")])
def test_ctrl_c_before_a_network_is_saved_leaves_the_old_one(few, monkeypatch, module, function):
    old = run()
    monkeypatch.setattr(module, function, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        run("--seed", "1")
    assert same(torch.load("net.pth", weights_only=True), old)


def test_ctrl_c_later_keeps_the_network_of_the_last_finished_epoch(few, monkeypatch):
    real = train.train
    monkeypatch.setattr(train, "train", lambda *args: ctrl_c() if args[4] == 1 else real(*args))
    with pytest.raises(KeyboardInterrupt):
        run("--epochs", "3")
    assert same(torch.load("net.pth", weights_only=True), plain_epochs(few[0]))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_network_with_one_weight_that_is_not_finite_is_not_saved(few, number):
    net = LeNet5()
    net.fc2.bias.data[4] = number
    with pytest.raises(data.UserError, match="no longer finite: .* Try a tenth of --lr"):
        train.save(net, "net.pth")
    assert os.listdir() == []


def test_the_command_says_what_ctrl_c_leaves(few, monkeypatch):
    monkeypatch.setattr(data, "find_dataset", ctrl_c)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit, match="The checkpoint keeps the last finished epoch, if any."):
        runpy.run_path(os.path.join(ROOT, "train.py"), run_name="__main__")


@pytest.mark.parametrize("name, old, new, error, words", [
    ("lenet5", "torch.flatten(x, 1)  ", "x.view(-1, 480)  ", RuntimeError, "is invalid for input"),
    ("train", "optimizer.step()  ", "optimiser.step()  ", NameError, "optimiser"),
    ("evaluate", "torch.load(path", "torch.laod(path", AttributeError, "laod"),
    ("data", "= next(dataiter)", "= dataiter.next()", AttributeError, "has no attribute 'next'")])
def test_a_students_bug_shows_as_python_shows_it(few, monkeypatch, name, old, new, error, words):
    """In every script: the error itself, from the line of the bug, and no sentence of ours."""
    run()
    module = edited(name, (old, new))
    if name == "lenet5":
        monkeypatch.setattr(train, "LeNet5", module["LeNet5"])
        module = vars(train)
    flags = {"data": ["--dataset", "stripes"], "evaluate": ["--checkpoint", "net.pth", *QUICK[:2]]}
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *flags.get(name, QUICK)])
    with pytest.raises(error, match=words) as bug:
        data.script(module["main"])
    assert f"{name}.py" in [os.path.basename(str(frame.path)) for frame in bug.traceback]
