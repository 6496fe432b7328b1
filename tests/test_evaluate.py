"""Chapter 5, Prediction Test data set: the exam is fair, and a bad checkpoint is met with a sentence."""
import math
import os
import pickle

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

import data
import evaluate
from lenet5 import LeNet5, trace
from test_lenet5 import Net


@pytest.fixture
def checkpoint(few):
    """stripes_net.pth, an untrained network, in a new folder; the test set is 200 stripes."""
    torch.manual_seed(0)
    torch.save(LeNet5().state_dict(), "stripes_net.pth")
    return "stripes_net.pth"


class Says(nn.Module):
    """A network that gives its first answer the highest score for the first picture, and so on."""

    def __init__(self, answers):
        super().__init__()
        self.answers = iter(answers)

    def forward(self, x):
        assert not torch.is_grad_enabled()
        return torch.stack([torch.eye(10)[next(self.answers)] - 3 for _ in x])


def test_max_gives_the_greatest_value_of_each_row_and_where_it_stands():
    values, places = torch.max(torch.tensor([[1.0, 5.0, 2.0], [7.0, -1.0, 0.0]]), 1)
    assert values.tolist() == [5, 7] and places.tolist() == [1, 0]


def test_predict_goes_through_the_whole_set_in_order_without_gradients(few):
    answers = [k % 7 for k in range(200)]
    predicted, labels = evaluate.predict(Says(answers), data.loader(few[1], batch_size=64, shuffle=False))
    assert predicted.tolist() == answers and torch.equal(labels, few[1].labels)


def test_predict_takes_the_tutorials_network_with_its_view_too(few):
    torch.manual_seed(0)
    ours, theirs = LeNet5(), Net()
    theirs.load_state_dict(ours.state_dict())
    testloader = data.loader(few[1], batch_size=50, shuffle=False)
    assert torch.equal(evaluate.predict(ours, testloader)[0], evaluate.predict(theirs, testloader)[0])


def test_no_grad_keeps_no_graph(images):
    net = LeNet5()
    assert net(images).grad_fn is not None
    with torch.no_grad():
        assert net(images).grad_fn is None


def test_accuracy_is_the_percentage_of_right_answers():
    assert evaluate.accuracy(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 0])) == 75


def test_confusion_table_has_the_truth_in_rows_and_the_prediction_in_columns():
    table = evaluate.confusion_table(predicted=torch.tensor([3, 3, 5]), labels=torch.tensor([3, 5, 5]))
    assert table.sum() == 3 and table[3, 3] == 1 and table[5, 3] == 1 and table[5, 5] == 1


def test_the_script_prints_four_pictures_the_accuracy_each_class_and_the_table(checkpoint, few, capsys):
    evaluate.main([])
    printed = capsys.readouterr().out
    assert printed.isascii()
    predicted, labels = evaluate.predict(evaluate.load_checkpoint(checkpoint), data.loader(few[1], 50, shuffle=False))
    percent = evaluate.accuracy(predicted, labels)
    assert f"accuracy on STRIPES (not CIFAR-10): {percent:.1f} %" in printed
    for name in ("predictions.png", "filters.png", "feature_maps.png"):
        assert name in printed and os.path.exists(name)
    lines = printed.splitlines()
    assert "  ground truth:     0 deg  18 deg  36 deg  54 deg" in lines
    assert "  prediction:     " + " ".join(f"{few[1].classes[k]:>7}" for k in predicted[:4]) in lines
    rows = [[int(count) for count in line.split()[2:]] for line in lines[-13:-3]]
    assert rows == evaluate.confusion_table(predicted, labels).tolist()
    for k in range(10):
        name, share = f"{18 * k} deg", 100 * rows[k][k] / sum(rows[k])
        assert any(line.split() == f"{name} {share:.1f} %".split() for line in lines)


def test_predictions_png_frames_right_answers_green_and_wrong_ones_red(few):
    predicted = few[1].labels.clone()
    predicted[1] = 9
    evaluate.draw_predictions(few[1], predicted, "a title", "predictions.png", rows=2, columns=3)
    with Image.open("predictions.png") as sheet:
        frames = [sheet.getpixel((column * 140 + 3, 30 + row * 176 + 1)) for row in range(2) for column in range(3)]
        assert sheet.crop((6, 34, 134, 162)).tobytes() == data.imshow(few[1][0][0], scale=4).tobytes()
    green, red = (0, 128, 0), (255, 0, 0)
    assert frames == [green, red, green, green, green, green]


def test_filters_png_shows_the_weights_of_conv1():
    torch.manual_seed(0)
    net = LeNet5()
    picture = pil_to_tensor(evaluate.draw_filters(net, None)).float() / 127.5 - 1
    assert picture.shape == (3, 7 * 24, 37 * 24)  # six of 5x5 and a border of 1, each pixel 24x24
    for k in range(6):
        shown = picture[:, 24 + 12:7 * 24 - 24:24, 24 * (6 * k + 1) + 12:24 * (6 * k + 6):24]  # the middle of each square
        weight = net.conv1.weight[k].detach()
        assert torch.allclose(shown, weight / weight.abs().max(), atol=0.01)


def test_feature_maps_png_shows_every_map_on_the_way(few):
    torch.manual_seed(0)
    net = LeNet5()
    image = few[1][0][0]
    evaluate.draw_feature_maps(net, image, "feature_maps.png")
    rows = trace(net, image[None])
    with Image.open("feature_maps.png") as sheet:
        grey = pil_to_tensor(sheet.convert("L")).float()[0] / 255
    y = 28 + 128 + 30  # below the input: title, 32x32 pixels of 4x4, space
    for row, columns, side in ((rows[2], 6, 140), (rows[3], 6, 140), (rows[5], 8, 110), (rows[6], 8, 110)):
        maps = row.output[0].detach() / row.output.max()
        pixel = side // len(maps[0])
        for k, values in enumerate(maps):
            top, left = y + 4 + (k // columns) * (side + 4), 12 + (k % columns) * (side + 4)
            shown = grey[top:top + side, left:left + side][pixel // 2::pixel, pixel // 2::pixel]
            assert torch.allclose(shown, values, atol=0.01)
        y += 4 + math.ceil(len(maps) / columns) * (side + 4) + 30


# ---- Which file, which pictures --------------------------------------------------------------

@pytest.mark.parametrize("here, checkpoint, dataset, expected", [
    ([], None, "auto", ("cifar_net.pth", "cifar10")),
    (["stripes_net.pth"], None, "auto", ("stripes_net.pth", "stripes")),
    (["stripes_net.pth", "cifar_net.pth"], None, "auto", ("cifar_net.pth", "cifar10")),
    (["cifar_net.pth"], None, "stripes", ("stripes_net.pth", "stripes")),
    (["stripes_net.pth"], None, "cifar10", ("cifar_net.pth", "cifar10")),
    ([], "mine.pth", "auto", ("mine.pth", "cifar10")),
    ([], "mine.pth", "stripes", ("mine.pth", "stripes")),
])
def test_a_network_is_tested_on_what_it_learned_from(monkeypatch, tmp_path, here, checkpoint, dataset, expected):
    monkeypatch.chdir(tmp_path)
    for name in here:
        open(name, "w").close()
    assert evaluate.choose(checkpoint, dataset) == expected


def test_a_device_that_is_not_here_is_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="There is no cuda device here. Use --device"):
        evaluate.main(["--device", "cuda"])


def test_auto_is_cuda_then_mps_then_cpu(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        assert evaluate.pick_device("auto") == expected and evaluate.pick_device("cpu") == "cpu"


# ---- Checkpoints that are none ---------------------------------------------------------------

class Code:
    """What a hostile file does: names a function for pickle to call."""

    def __reduce__(self):
        return open, ("it_ran", "w")


def refused(path, *parts):
    """python evaluate.py refuses path with exit code 1 and one sentence that holds all parts."""
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--dataset", "stripes", "--checkpoint", path])
    message = stop.value.code  # a string: Python prints it and exits with 1
    assert isinstance(message, str) and "\n" not in message and all(part in message for part in (path, *parts)), message


def test_a_missing_checkpoint(few):
    refused("nowhere.pth", "There is no checkpoint", "python train.py")


def test_a_folder(few):
    os.mkdir("folder.pth")
    refused("folder.pth", "can't be read")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"<html>404</html>", bytes(1000)])
def test_a_file_that_is_no_checkpoint(few, content):
    with open("bad.pth", "wb") as file:
        file.write(content)
    refused("bad.pth", "is no checkpoint", "python train.py")


def test_half_a_checkpoint(few, checkpoint):
    os.truncate(checkpoint, os.path.getsize(checkpoint) // 2)
    refused(checkpoint, "is no checkpoint", "python train.py")


@pytest.mark.parametrize("other", [{"fc3.weight": torch.zeros(100, 84)}, {"fc3.weight": None}, {"fc4.weight": torch.zeros(1)}])
def test_a_checkpoint_of_another_network(few, other):
    torch.save({**LeNet5().state_dict(), **other}, "other.pth")
    refused("other.pth", "another network", "python train.py")


@pytest.mark.parametrize("other", [[1, 2], torch.zeros(3), {}])
def test_something_else_that_torch_saved(few, other):
    torch.save(other, "other.pth")
    refused("other.pth", "another network", "python train.py")


def test_code_hidden_in_a_checkpoint_is_not_run(few):
    torch.save({"conv1.weight": Code()}, "code.pth")
    refused("code.pth", "would run code")
    with open("code.pth", "wb") as file:
        pickle.dump(Code(), file, protocol=2)
    refused("code.pth", "would run code")
    assert not os.path.exists("it_ran")
    with pytest.raises(RuntimeError):
        torch.load("code.pth", weights_only=False)
    assert os.path.exists("it_ran")  # it would have, before anyone looked at what was read
