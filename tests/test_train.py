"""Chapters 3 and 4, the loss, the optimiser and Model Training: the loop does what its comments say."""
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
from torchvision.transforms.functional import pil_to_tensor

import data
import evaluate
import train
from conftest import ROOT
from lenet5 import LeNet5

QUICK = ["--dataset", "stripes", "--epochs", "1", "--batch-size", "50"]


def run(*flags):
    """python train.py on 400 stripes with these flags; returns the parameters that it saved."""
    train.main([*QUICK, "--checkpoint", "net.pth", *flags])
    return torch.load("net.pth", weights_only=True)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


# ---- The loop --------------------------------------------------------------------------------

def plain_epochs(trainset, batch_size=50, epochs=1, lr=0.001, momentum=0.9, seed=0):
    """The tutorial's loop, bare, on our loader: the parameters that it ends with."""
    torch.manual_seed(seed)
    trainloader = data.loader(trainset, batch_size, shuffle=True)
    net = LeNet5()
    if batch_size >= 16:
        net.to(memory_format=torch.channels_last)  # adds up in another order, and so rounds differently
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum, fused=True)
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


def test_the_order_in_memory_changes_no_answer(images):
    net = LeNet5()
    before = net(images)
    net.to(memory_format=torch.channels_last)
    assert torch.allclose(net(images), before, atol=1e-6)
    assert list(net.state_dict()) == list(LeNet5().state_dict())


def test_the_defaults_are_the_tutorials_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "run", seen.append)
    train.main([])
    args = vars(seen[0])
    assert (args["batch_size"], args["lr"], args["momentum"]) == (4, 0.001, 0.9)
    assert args["schedule"] == "constant" and args["weight_decay"] == args["warmup"] == 0
    assert not args["nesterov"] and not args["augment"] and not args["hold_out"]
    assert args["dataset"] == "auto" and args["device"] == "auto" and args["epochs"] == 8


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
                           "--hold-out", "0"))


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
    optimizer = torch.optim.SGD([weight], lr=0.001, momentum=0.9, fused=True)
    for _ in range(200):
        before = weight.item()
        weight.grad = torch.ones(1)
        optimizer.step()
    assert before - weight.item() == pytest.approx(10 * 0.001, rel=1e-3)


def test_running_loss_is_the_mean_since_the_last_line(few, capsys):
    torch.manual_seed(0)
    net = LeNet5()
    trainloader = data.loader(few[0], batch_size=4, shuffle=False)
    still = torch.optim.SGD(net.parameters(), lr=1e-12)  # a net that does not move has losses that we can recompute
    loss, percent = train.train(net, trainloader, nn.CrossEntropyLoss(), still, every=30)
    lines = re.findall(r"\[1, +(\d+)\] loss: (\d\.\d{3}) \| [\d,]+ images/s, \d+ min \d\d s left", capsys.readouterr().out)
    assert [int(batch) for batch, _ in lines] == [30, 60, 90]  # of 100
    with torch.no_grad():
        losses = [nn.CrossEntropyLoss()(net(inputs), labels).item() for inputs, labels in trainloader]
        predicted, labels = evaluate.predict(net, trainloader)
    assert float(lines[1][1]) == pytest.approx(sum(losses[30:60]) / 30, abs=6e-4)
    assert loss == pytest.approx(sum(losses) / 100, abs=1e-4) and percent == evaluate.accuracy(predicted, labels)


def test_the_mean_loss_counts_pictures_so_a_small_last_batch_counts_less(few):
    torch.manual_seed(0)
    net = LeNet5()
    still = torch.optim.SGD(net.parameters(), lr=1e-12)
    loss, _ = train.train(net, data.loader(few[0], batch_size=300, shuffle=False), nn.CrossEntropyLoss(), still)
    assert loss == pytest.approx(nn.CrossEntropyLoss()(net(few[0][:400][0]), few[0].labels).item(), abs=1e-5)


def test_a_line_every_8000_pictures_is_every_2000_batches_of_4(few, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "train", lambda *args, every, **flags: seen.append(every) or (1.0, 50.0))
    for batch_size in ("4", "64", "10000"):
        run("--batch-size", batch_size)
    assert seen == [2000, 125, 1]


def test_stripes_are_learned_in_three_epochs(stripes):
    torch.manual_seed(0)
    trainloader = data.loader(stripes[0], batch_size=16, shuffle=True)
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
    for epoch in range(3):
        train.train(net, trainloader, nn.CrossEntropyLoss(), optimizer, epoch, 3)
    assert evaluate.accuracy(*evaluate.predict(net, data.loader(stripes[1], 250, shuffle=False))) > 80


def test_the_test_set_is_never_augmented_and_never_trained_on(few, monkeypatch):
    augmented = []
    augment = data.augment
    monkeypatch.setattr(data, "augment", lambda images: augmented.append(images) or augment(images))
    before = few[1].images.clone()
    run("--augment")
    test_pictures = {image.numpy().tobytes() for image in data.normalise(few[1].images)}
    assert sum(len(images) for images in augmented) == 400  # the training pictures, once an epoch, and no more
    assert not any(image.numpy().tobytes() in test_pictures for images in augmented for image in images)
    assert torch.equal(few[1].images, before)


def test_held_out_pictures_are_examined_on_never_trained_on_and_the_test_set_stays_shut(few, monkeypatch, capsys):
    trained_on, examined = [], []
    normal_train, normal_predict = train.train, train.predict
    monkeypatch.setattr(train, "train", lambda net, trainloader, *args, **flags:
                        trained_on.append(trainloader.dataset.images) or normal_train(net, trainloader, *args, **flags))
    monkeypatch.setattr(train, "predict", lambda net, testloader, device:
                        examined.append(testloader.dataset.images) or normal_predict(net, testloader, device))
    run("--hold-out", "50")
    assert torch.equal(trained_on[0], few[0].images[:350]) and torch.equal(examined[0], few[0].images[350:])
    printed = capsys.readouterr().out
    assert "350 pictures" in printed and "held-out accuracy on STRIPES" in printed and "test accuracy" not in printed
    assert "without --hold-out" in printed and "evaluate.py" not in printed


def test_a_trial_on_held_out_pictures_leaves_the_network_alone(few):
    train.main([*QUICK, "--hold-out", "50"])
    assert "held_out_stripes_net.pth" in os.listdir() and "stripes_net.pth" not in os.listdir()


@pytest.mark.parametrize("number", ["400", "401"])
def test_holding_out_everything_is_refused(few, number):
    with pytest.raises(SystemExit, match=f"train.py: {number} pictures can't be held out of 400: take 1 to 399"):
        run("--hold-out", number)
    assert not os.path.exists("net.pth")


# ---- The schedule ----------------------------------------------------------------------------

def test_linear_starts_at_1_and_ends_one_step_above_0():
    assert train.linear(0, 100) == 1 and train.linear(50, 100) == 0.5 and train.linear(99, 100) == pytest.approx(0.01)


def test_linear_with_warmup_rises_first():
    values = [train.linear(step, 100, warmup=0.2) for step in range(100)]
    assert values[0] == pytest.approx(1 / 20) and values[9] == pytest.approx(0.5)
    assert values[19] == pytest.approx(1) and values[20] == 1     # the end of the warm-up
    assert values[60] == pytest.approx(0.5)                       # the middle of what is left
    assert values[99] == pytest.approx(1 / 80) and min(values) > 0
    assert values[:20] == sorted(values[:20]) and values[20:] == sorted(values[20:], reverse=True)


def test_the_loop_gives_each_step_its_rate(few):
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.4, fused=True)
    rates = []
    optimizer.register_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    trainloader = data.loader(few[0], batch_size=100, shuffle=True)
    for epoch in range(2):
        train.train(net, trainloader, nn.CrossEntropyLoss(), optimizer, epoch, 2, schedule="linear")
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
    percent = evaluate.accuracy(*evaluate.predict(net, data.loader(few[1], 50, shuffle=False)))
    assert f"test accuracy on STRIPES (not CIFAR-10) {percent:.1f} %" in printed.splitlines()[-3]
    assert re.match(r"\d+ s of training, [\d,]+ images/s\. The network is in net\.pth", printed.splitlines()[-2])


def test_the_log_alone_is_enough_to_draw_the_curve_again(few, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(train, "draw_curve", lambda *args: drawn.append(args))
    run("--epochs", "3")
    (history, title, path, exam), = drawn
    lines = re.findall(r"epoch \d+: training loss ([\d.]+), training accuracy ([\d.]+) %, test accuracy on .+? ([\d.]+) %",
                       capsys.readouterr().out)
    assert len(lines) == len(history) == 3 and (path, exam) == ("curve.png", "test") and "STRIPES (not CIFAR-10)" in title
    for line, entry in zip(lines, history):
        assert [float(number) for number in line] == pytest.approx(entry, abs=0.06)


def test_a_loss_that_shot_up_still_gets_a_readable_axis(tmp_path):
    train.draw_curve([(1e9, 10.0, 10.0), (2.3, 10.0, 10.0)], "a title", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").exists()


@pytest.mark.parametrize("epochs", [1, 2, 75])
def test_curve_png_rises_where_the_accuracy_rises(tmp_path, epochs):
    history = [(2.0 - epoch / 80, 30 + epoch / 2, 40 + epoch / 4) for epoch in range(epochs)]
    train.draw_curve(history, "a title", tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as sheet:
        pixels = pil_to_tensor(sheet.convert("RGB"))[:, 80:371, :]  # the panels
    blue = (pixels == torch.tensor([0, 0, 255]).view(3, 1, 1)).all(0)
    red = (pixels == torch.tensor([255, 0, 0]).view(3, 1, 1)).all(0)
    assert blue[:, 57:464].any() and red[:, 57:464].any() and blue[:, 557:964].any() and not red[:, 557:964].any()
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
    ("--momentum", "nan"), ("--hold-out", "-1"), ("--hold-out", "0.1"), ("--weight-decay", "-1"), ("--weight-decay", "nan"), ("--warmup", "1"), ("--seed", "-1"),
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
    (["--checkpoint", "my net.pth"], "python evaluate.py --checkpoint 'my net.pth' --dataset stripes"),
    (["--data-dir", "elsewhere"], "python evaluate.py --dataset stripes --data-dir elsewhere")])
def test_the_last_line_is_a_command_that_works(few, capsys, flags, advice):
    train.main([*QUICK, *flags])
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: {advice}"
    evaluate.main(shlex.split(advice)[2:])


def test_a_checkpoint_that_cannot_be_written_is_found_out_before_training(few, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *args, **flags: pytest.fail("it trained"))
    os.mkdir("folder")
    for path in ("folder", "missing/net.pth"):
        with pytest.raises(SystemExit, match=f"The checkpoint {path} can't be written"):
            run("--checkpoint", path)
    assert os.listdir() == ["folder"]


def test_checking_the_place_leaves_the_old_checkpoint_alone(few):
    old = run()
    train.check_writable("net.pth")
    assert same(torch.load("net.pth", weights_only=True), old) and "net.pth.part" not in os.listdir()


def test_a_checkpoint_is_written_whole_or_not_at_all(few, monkeypatch):
    old = run()

    def disk_full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(SystemExit, match="No space left on device"):
        run("--seed", "1")
    assert same(torch.load("net.pth", weights_only=True), old)
    assert not os.path.exists("net.pth.part")


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
    assert os.path.exists("curve.png") and torch.backends.mkldnn.enabled


def test_ctrl_c_in_the_first_epoch_leaves_an_older_checkpoint_alone(few, monkeypatch):
    old = run()
    monkeypatch.setattr(train, "predict", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(SystemExit, match="No epoch was finished; net.pth was not written."):
        run("--seed", "1")
    assert same(torch.load("net.pth", weights_only=True), old)


def test_a_loss_that_runs_away_stops_training_with_what_to_try(few):
    old = run()
    with pytest.raises(SystemExit, match=r"no longer a finite number .* Try a tenth of --lr 1e\+20. No epoch was finished"):
        run("--lr", "1e20")
    assert same(torch.load("net.pth", weights_only=True), old)


def test_parameters_that_only_the_last_step_broke_are_noticed_too(few):
    with pytest.raises(SystemExit, match="no longer a finite number"):
        run("--batch-size", "400", "--lr", "1e39")  # one step: its loss, before it, was finite
    assert not os.path.exists("net.pth")
