"""Chapter 5, Prediction Test data set: the test is fair, and a bad file is met with a sentence."""
import math
import os
import pickle
import random
import re

import pytest
import torch
import torchvision
from PIL import Image, ImageDraw
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.functional import pil_to_tensor

import data
import evaluate
import lenet5
import train
from lenet5 import LeNet5, trace
from test_lenet5 import Net


@pytest.fixture
def checkpoint(few):
    """stripes_net.pth, an untrained network, in a new folder; the test set is 200 stripes."""
    torch.manual_seed(0)
    torch.save(LeNet5().state_dict(), "stripes_net.pth")
    return "stripes_net.pth"


def loader(dataset, batch_size=50):
    return DataLoader(dataset, batch_size=batch_size)


@pytest.fixture
def drawn(monkeypatch):
    """Every text that is drawn: [(where, text, colour), ...]."""
    texts, draw_text = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, at, text, fill, **flags:
                        texts.append((at, text, fill)) or draw_text(self, at, text, fill, **flags))
    return texts


class Says(nn.Module):
    """A network that gives its first answer the greatest logit for the first image, and so on."""

    def __init__(self, answers):
        super().__init__()
        self.answers = iter(answers)

    def forward(self, x):
        assert not torch.is_grad_enabled() and not self.training
        return torch.stack([torch.eye(10)[next(self.answers)] - 3 for _ in x])


def test_predict_goes_through_the_whole_set_in_order_without_gradients_and_in_eval_mode(few):
    answers = [k % 7 for k in range(200)]
    outputs, labels = evaluate.predict(Says(answers), loader(few[1], 64))
    assert outputs.shape == (200, 10) and outputs.argmax(1).tolist() == answers
    assert torch.equal(labels, few[1][:][1])


def test_predict_takes_the_tutorials_network_with_its_view_too(few):
    torch.manual_seed(0)
    ours, theirs = LeNet5(), Net()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(evaluate.predict(ours, loader(few[1]))[0], evaluate.predict(theirs, loader(few[1]))[0])


class LeftOrRight(nn.Module):
    """A network that knows left from right: logit 3 is what is bright on the left, logit 5 on the right."""

    def __init__(self):
        super().__init__()
        self.looks = []

    def forward(self, x):
        self.looks.append(x)
        outputs = torch.zeros(len(x), 10)
        outputs[:, 3], outputs[:, 5] = x[..., :16].sum((1, 2, 3)), 3 * x[..., 16:].sum((1, 2, 3))
        return outputs


def test_mirror_averages_the_logits_of_each_image_and_of_its_mirror_image():
    images = torch.zeros(3, 3, 32, 32)
    images[0, 0, 5, 2], images[1, 0, 5, 30] = 1, 1  # bright on the left; on the right; nowhere
    dataset = TensorDataset(images, torch.tensor([3, 5, 0]))
    one, _ = evaluate.predict(LeftOrRight(), loader(dataset, 2))
    both, labels = evaluate.predict(evaluate.Mirrored(LeftOrRight()), loader(dataset, 2))
    assert one[:, [3, 5]].tolist() == [[1, 0], [0, 3], [0, 0]]
    assert both[:, [3, 5]].tolist() == [[0.5, 1.5], [0.5, 1.5], [0, 0]]  # it can't tell any longer
    assert labels.tolist() == [3, 5, 0]


def test_the_mirror_image_has_the_same_rows_from_right_to_left_and_costs_a_second_look(images):
    net, mirrored = LeftOrRight(), torch.empty_like(images)
    for column in range(32):
        mirrored[..., column] = images[..., 31 - column]
    evaluate.predict(evaluate.Mirrored(net), [(images, torch.zeros(4))])
    assert len(net.looks) == 2 and torch.equal(net.looks[0], images) and torch.equal(net.looks[1], mirrored)
    evaluate.predict(net, [(images, torch.zeros(4))])
    assert len(net.looks) == 3


def test_a_result_with_the_mirror_image_says_so(mirrorable, images, monkeypatch, capsys):
    sheets = {}
    monkeypatch.setattr(evaluate, "draw_sheet", lambda groups, path: sheets.update({path: groups}))
    monkeypatch.setattr(data, "load", lambda train, **_: mirrorable[0 if train else 1])
    torch.save(LeNet5().state_dict(), "cifar_net.pth")
    net = evaluate.Mirrored(evaluate.load_checkpoint("cifar_net.pth"))
    both = evaluate.accuracy(*evaluate.predict(net, loader(mirrorable[1])))
    evaluate.main(["--mirror"])
    lines = capsys.readouterr().out.splitlines()
    name = "CIFAR-10 (with the mirror image)"
    assert f"cifar_net.pth on the test set of {name}, 200 images" in lines
    assert f"accuracy on {name}: {both:.1f} % (guessing: 10 %)" in lines
    assert all(heading.startswith(name) for png in ("predictions.png", "mistakes.png") for heading, _ in sheets[png])

    data.imshow(images[0], "photo.png", scale=1)
    evaluate.main(["--mirror", "--image", "photo.png"])
    highest, k = net(evaluate.read_image("photo.png")[None]).softmax(1)[0].max(0)
    printed = capsys.readouterr().out
    assert "cifar_net.pth (with the mirror image) knows the ten classes of CIFAR-10 and nothing else" in printed
    assert f"photo.png: {data.CLASSES[k]} {100 * highest:.1f} %" in printed and "(with the mirror image)" in sheets["images.png"][0][0]


def test_accuracy_is_the_percentage_of_right_predictions():
    assert evaluate.accuracy(torch.eye(10)[[1, 2, 3, 4]], torch.tensor([1, 2, 3, 0])) == 75


def test_confusion_matrix_has_the_truth_in_rows_and_the_prediction_in_columns():
    matrix = evaluate.confusion_matrix(torch.eye(10)[[3, 3, 5]], torch.tensor([3, 5, 5]))
    assert matrix.shape == (10, 10) and matrix.sum() == 3
    assert matrix[3, 3] == 1 and matrix[5, 3] == 1 and matrix[5, 5] == 1


@pytest.mark.parametrize("classes, labels, size", [(2, [0, 1], 2), (26, [25, 0], 26), (10, [12, 0], 13)])
def test_the_confusion_matrix_has_as_many_classes_as_there_are(classes, labels, size):
    matrix = evaluate.confusion_matrix(torch.eye(classes)[[0, 1]], torch.tensor(labels))
    assert matrix.shape == (size, size) and matrix[labels[0], 0] == 1


def test_the_most_confused_pairs_count_both_ways_and_no_right_answers():
    matrix = torch.zeros(10, 10, dtype=torch.int64)
    matrix[1, 1], matrix[3, 5], matrix[5, 3], matrix[9, 1], matrix[0, 8] = 1000, 20, 30, 40, 10
    assert evaluate.most_confused(matrix) == [(3, 5), (1, 9), (0, 8)]


def test_the_script_prints_four_images_the_accuracy_each_class_and_the_matrix(checkpoint, few, capsys):
    evaluate.main(["--dataset", "stripes"])
    printed = capsys.readouterr().out
    assert printed.isascii()
    outputs, labels = evaluate.predict(evaluate.load_checkpoint(checkpoint), loader(few[1]))
    predicted = outputs.argmax(1)
    assert f"accuracy on STRIPES (not CIFAR-10): {evaluate.accuracy(outputs, labels):.1f} %" in printed
    for name in ("predictions.png", "mistakes.png", "confusion.png", "filters.png", "convolution.png", "feature_maps.png"):
        assert name in printed and os.path.exists(name)
    lines = printed.splitlines()
    assert "  ground truth:     0 deg  18 deg  36 deg  54 deg" in lines
    assert "  prediction:     " + " ".join(f"{few[1].classes[k]:>7}" for k in predicted[:4]) in lines
    assert "  its logit:      " + " ".join(f"{value:7.2f}" for value in outputs.max(1).values[:4]) in lines
    start = next(k for k, line in enumerate(lines) if line.startswith("confusion matrix")) + 2
    rows = [[int(count) for count in line.split()[2:]] for line in lines[start:start + 10]]
    matrix = evaluate.confusion_matrix(outputs, labels)
    assert rows == matrix.tolist()
    for k in range(10):
        name, share = f"{18 * k} deg", 100 * rows[k][k] / sum(rows[k])
        assert any(line.split() == f"{name} {share:.1f} %".split() for line in lines)
    for a, b in evaluate.most_confused(matrix):
        assert (f"  {18 * a} deg and {18 * b} deg: {rows[a][b] + rows[b][a]} times ({rows[a][b]} times {18 * b} deg for "
                f"{18 * a} deg, {rows[b][a]} times {18 * a} deg for {18 * b} deg)") in lines


def test_only_the_test_set_is_read(checkpoint, few, monkeypatch):
    load, asked = data.load, []
    monkeypatch.setattr(data, "load", lambda train, **args: asked.append(train) or load(train, **args))
    evaluate.main(["--dataset", "stripes"])
    assert asked == [False]


def test_a_drawing_that_cannot_be_written_is_named(checkpoint, capsys):
    os.mkdir("mistakes.png")
    with pytest.raises(data.UserError, match="mistakes.png can't be written: it is a folder"):
        evaluate.main(["--dataset", "stripes"])
    assert "accuracy on STRIPES" in capsys.readouterr().out and os.path.isdir("mistakes.png")


def test_a_network_that_guesses_is_said_to_have_learned_nothing(few, capsys):
    """Also where every image gets one class; and nothing about another dataset: train.py tested it on this one."""
    torch.manual_seed(1)
    net = LeNet5()
    net.fc3.bias.data[4] = 1000
    torch.save(net.state_dict(), "stripes_net.pth")
    evaluate.main(["--dataset", "stripes"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("This is about guessing: it learned nothing.") and "other images" not in last
    assert all(cause in last for cause in ("too high or too low", "activation function", "loss function"))
    os.rename("stripes_net.pth", "mine.pth")
    evaluate.main(["--dataset", "stripes", "--checkpoint", "mine.pth"])  # of this file, nobody knows what it was trained on
    assert capsys.readouterr().out.splitlines()[-1].endswith("Or it learned other images than those of STRIPES (not CIFAR-10).")


def test_a_network_that_learned_is_told_nothing(few, capsys, monkeypatch):
    torch.save(LeNet5().state_dict(), "net.pth")
    labels = few[1][:][1]
    monkeypatch.setattr(evaluate, "predict", lambda *args: (torch.eye(10)[labels], labels))
    evaluate.main(["--dataset", "stripes", "--checkpoint", "net.pth"])
    assert "learned nothing" not in capsys.readouterr().out  # and with no mistakes at all there is still a mistakes.png
    with Image.open("mistakes.png") as sheet:
        assert sheet.size == (400, 8)


def test_predictions_png_frames_right_answers_green_and_wrong_ones_red(few):
    outputs = torch.eye(10)[few[1][:][1]] * 9
    outputs[1] = torch.eye(10)[9] * 9
    evaluate.draw_sheet([("a title", [evaluate.tile(few[1], outputs, k) for k in range(10)])], "predictions.png")
    with Image.open("predictions.png") as sheet:
        frames = [sheet.getpixel((k % 8 * 140 + 3, 30 + k // 8 * 176 + 1)) for k in range(10)]
        assert sheet.size == (8 * 140, 30 + 2 * 176 + 8)
        assert sheet.crop((6, 34, 134, 162)).tobytes() == data.imshow(few[1][0][0], scale=4).tobytes()
    green, red = (0, 128, 0), (255, 0, 0)
    assert frames == [green, red] + [green] * 8


def test_a_tile_says_what_the_network_says_and_what_is_true(few):
    outputs = torch.zeros(200, 10)
    outputs[13, 4] = math.log(9 * 3)  # 3/4 of the probability: nine others have 1 each
    image, color, lines = evaluate.tile(few[1], outputs, 13)
    assert (color, lines) == ("red", ("72 deg 75 %", "truth: 54 deg"))
    assert image.tobytes() == data.imshow(few[1][13][0], scale=4).tobytes()


def test_the_most_confident_mistakes_of_a_pair_come_first():
    labels = torch.tensor([3, 4, 3, 4, 7, 3])
    outputs = torch.zeros(6, 10)
    for k, (predicted, sure) in enumerate([(4, 3.0), (3, 9.0), (3, 9.0), (7, 9.0), (4, 9.0), (4, 5.0)]):
        outputs[k, predicted] = sure
    assert evaluate.most_confident_mistakes(outputs, labels, 3, 4) == [1, 5, 0]
    assert evaluate.most_confident_mistakes(outputs, labels, 3, 4, n=2) == [1, 5]


def test_mistakes_png_has_the_most_confident_mistakes_of_the_three_pairs(few, monkeypatch):
    torch.manual_seed(0)
    torch.save(LeNet5().state_dict(), "stripes_net.pth")
    sheets = {}
    monkeypatch.setattr(evaluate, "draw_sheet", lambda groups, path: sheets.update({path: groups}))
    evaluate.main(["--dataset", "stripes"])
    outputs, labels = evaluate.predict(evaluate.load_checkpoint("stripes_net.pth"), loader(few[1]))
    pairs = evaluate.most_confused(evaluate.confusion_matrix(outputs, labels))
    for (a, b), (heading, tiles) in zip(pairs, sheets["mistakes.png"]):
        assert heading == f"STRIPES (not CIFAR-10): {18 * a} deg and {18 * b} deg, the most confident mistakes"
        assert [lines for _, _, lines in tiles] == [evaluate.tile(few[1], outputs, k)[2] for k in
                                                    evaluate.most_confident_mistakes(outputs, labels, a, b)]
    (heading, tiles), = sheets["predictions.png"]
    assert heading == f"STRIPES (not CIFAR-10): {evaluate.accuracy(outputs, labels):.1f} % right, the first 32 here" and len(tiles) == 32


def test_confusion_png_has_the_percent_of_each_row_darker_for_more(drawn, tmp_path):
    matrix = torch.tensor([[150, 50, 0], [10, 70, 20], [0, 0, 0]])
    sheet = evaluate.draw_confusion(matrix, ("T-shirt/top", "bag", "none"), "a title", str(tmp_path / "confusion.png"))
    assert [text for _, text, _ in drawn if re.fullmatch(r"[\d.]+", text)] == ["75.0", "25.0", "0.0", "10.0", "70.0", "20.0", "0.0", "0.0", "0.0"]
    shades = [[sheet.getpixel((145 + 84 * j, 85 + 50 * i))[0] for j in range(3)] for i in range(2)]
    assert shades[0] == sorted(shades[0]) and shades[1][1] < shades[1][2] < shades[1][0]
    assert shades[0][0] < shades[1][1] and sheet.size == Image.open(tmp_path / "confusion.png").size


def test_each_drawing_returns_its_picture_and_writes_none_without_a_path(few, monkeypatch):
    monkeypatch.setattr(data, "write_whole", lambda *args: pytest.fail("it wrote a file"))
    net, image = LeNet5(), few[1][0][0]
    outputs, labels = evaluate.predict(net, loader(few[1]))
    pictures = [evaluate.draw_sheet([("a title", [evaluate.tile(few[1], outputs, 0)])]), evaluate.draw_filters(net),
                evaluate.draw_convolution(net.conv1, image), evaluate.draw_feature_maps(net, image),
                evaluate.draw_curve([(2.0, 30.0, 2.1, 40.0)], "a title"), evaluate.plot([("y", "x", (0, 1), {"a": ([0, 1], [0, 1])})], "a title"),
                evaluate.draw_confusion(evaluate.confusion_matrix(outputs, labels), few[1].classes, "a title"), data.imshow(image)]
    assert all(isinstance(picture, Image.Image) for picture in pictures)


def test_filters_png_shows_the_weights_of_conv1():
    torch.manual_seed(0)
    net = LeNet5()
    picture = pil_to_tensor(evaluate.draw_filters(net, None)).float() / 127.5 - 1
    assert picture.shape == (3, 7 * 24, 37 * 24)  # six of 5x5 and a border of 1, each pixel 24x24
    for k in range(6):
        shown = picture[:, 24 + 12:7 * 24 - 24:24, 24 * (6 * k + 1) + 12:24 * (6 * k + 6):24]  # the middle of each square
        weight = net.conv1.weight[k].detach()
        assert torch.allclose(shown, weight / weight.abs().max(), atol=0.01)


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 6, 5), nn.Conv2d(3, 2, 3, bias=False)], ids=["conv1", "another"])
def test_convolution_png_shows_the_numbers_of_conv_by_hand(few, drawn, conv):
    image = few[1][0][0]
    evaluate.draw_convolution(conv, image, "convolution.png")
    texts = [text for _, text, _ in drawn]
    weight = conv.weight.tolist()
    bias = [0.0] * len(weight) if conv.bias is None else conv.bias.tolist()
    maps = lenet5.conv_by_hand(image.tolist(), weight, bias)
    value, k, i, j = max((value, k, i, j) for k, rows in enumerate(maps) for i, row in enumerate(rows) for j, value in enumerate(row))
    assert texts[-1] == f"in row {i}, column {j} of feature map {k}"
    assert texts[-2] == f"ReLU: max(0, {value:.3f}) = {lenet5.relu_by_hand(value):.3f}" and texts[-3].endswith(f" = {value:.3f}")
    K, expected, sums = len(weight[0][0]), [], []
    for c in range(3):
        patch = [[image[c, i + u, j + v].item() for v in range(K)] for u in range(K)]
        products = [[patch[u][v] * weight[k][c][u][v] for v in range(K)] for u in range(K)]
        sums.append(sum(map(sum, products)))
        for square in (patch, weight[k][c], products):
            expected += [f"{number:.2f}" for row in square for number in row]
    assert [text for text in texts if re.fullmatch(r"-?\d\.\d\d", text)] == expected
    assert [text for text in texts if text.startswith("sum")] == [f"sum {number:.3f}" for number in sums]
    assert " + ".join(f"({number:.3f})" for number in (*sums, bias[k])) in texts[-3] and sum(sums) + bias[k] == pytest.approx(value, abs=1e-4)
    with Image.open("convolution.png") as sheet:  # the place is framed in the image, and the cell in the map
        top, right = 3 * (32 * K + 40) + 20, sheet.width - 192
        for left, size in ((10, K), (right, 1)):
            for x, y in ((left + 6 * j - 1, top + 6 * i + 3), (left + 6 * (j + size), top + 6 * i + 3)):
                assert sheet.getpixel((x, y)) == (255, 0, 0)


def test_feature_maps_png_shows_every_map_on_the_way(few):
    torch.manual_seed(0)
    net = LeNet5()
    image = few[1][0][0]
    evaluate.draw_feature_maps(net, image, "feature_maps.png")
    rows = trace(net, image[None])
    with Image.open("feature_maps.png") as sheet:
        grey = pil_to_tensor(sheet.convert("L")).float()[0] / 255
    y = 30 + 128 + 12  # below the image
    for row in (rows[2], rows[3], rows[5], rows[6]):
        maps = row.output[0].detach() / row.output.max()
        pixel = 128 // len(maps[0])
        side = pixel * len(maps[0])
        for k, values in enumerate(maps):
            top, left = y + 30 + 4 + (k // 8) * (side + 12), 6 + (k % 8) * (side + 12)
            shown = grey[top:top + side, left:left + side][pixel // 2::pixel, pixel // 2::pixel]
            assert torch.allclose(shown, values, atol=0.01)
        y += 30 + math.ceil(len(maps) / 8) * (side + 12)


# ---- Lines ---------------------------------------------------------------------------------------

def colors(path):
    """Where a drawing is blue and where red: two boolean tensors, (height, width)."""
    with Image.open(path) as sheet:
        pixels = pil_to_tensor(sheet.convert("RGB")).int()
    blue = (pixels[2] - pixels[0] > 150) & (pixels[2] - pixels[1] > 150)
    red = (pixels[0] - pixels[2] > 150) & (pixels[0] - pixels[1] > 150)
    return blue, red


@pytest.mark.parametrize("epochs", [1, 2, 75])
def test_the_curve_rises_where_the_accuracy_rises(tmp_path, epochs):
    history = [(2.0 - epoch / 80, 30 + epoch / 2, 2.2 - epoch / 90, 40 + epoch / 4) for epoch in range(epochs)]
    evaluate.draw_curve(history, "a title", str(tmp_path / "net_curve.png"))
    blue, red = (color[98:389] for color in colors(tmp_path / "net_curve.png"))  # the panels
    assert all(color[:, left:left + 409].any() for color in (blue, red) for left in (55, 555))
    if epochs > 1:
        def height(line, columns):  # the mean row of a colour there, counted upwards
            return -line[:, columns].nonzero()[:, 0].float().mean()
        for line in (blue, red):
            assert height(line, slice(440, 464)) > height(line, slice(57, 80))    # both accuracies went up,
            assert height(line, slice(940, 964)) < height(line, slice(557, 580))  # both losses went down


@pytest.mark.parametrize("title, down", [("a title", 0), ("a title\nin two lines", 20)])
def test_a_point_stands_where_its_numbers_say(tmp_path, title, down):
    """x from 2 to 6 is 400 pixels wide, from 60; y from -1 to 3 is 290 high, up from 388, below two names of lines."""
    lines = {"a": ([2, 3, 6], [-1, 3, 0]), "b": ([2, 6], [1, 1])}
    sheet = evaluate.plot([("y", "x", (-1, 3), lines)], title, str(tmp_path / "plot.png"))
    blue, red = (color[down:] for color in colors(tmp_path / "plot.png"))
    assert sheet.size == (500, 438 + down)
    for x, y in ((60, 388), (160, 98), (460, 388 - 72)):
        assert blue[y, x]
    assert red[243, 61:460:50].all() and not red[:218, 100:].any()


def test_any_number_of_lines_is_drawn_no_two_neighbours_in_one_colour_and_each_name_inside(drawn):
    lines = {f"line {k}": ([0, 1], [k, k]) for k in range(20)}
    sheet = evaluate.plot([("y", "x", (0, 20), lines), ("y", "x", (0, 1), {"a": ([0, 1], [0, 1])})], "a title")
    legend = [(at, fill) for at, text, fill in drawn if text.startswith("line ")]
    assert len(legend) == 20 and all(one[1] != other[1] for one, other in zip(legend, legend[1:]))
    assert len({at for at, _ in legend}) == 20 and all(y < 124 + 36 * 20 < 2 * sheet.height - 580 for (_, y), _ in legend)


def test_a_loss_that_shot_up_still_gets_a_readable_axis_and_one_that_is_infinite_no_point(tmp_path):
    evaluate.draw_curve([(1e27, 10.0, math.inf, 10.0), (2.3, 10.0, 2.3, 10.0)], "a title", str(tmp_path / "curve.png"))
    assert os.path.exists(tmp_path / "curve.png")


# ---- Photos of your own ------------------------------------------------------------------------

def photo(size=(64, 64), mode="RGB"):
    """Red at the left, blue at the right; the upper quarter is white."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, *size))
    image.paste("white", (0, 0, size[0], size[1] // 4))
    return image.convert(mode)


def seen(path):
    """What the network sees, as a PIL image of 32x32."""
    tensor = evaluate.read_image(str(path))
    assert tensor.shape == (3, 32, 32) and type(tensor) is torch.Tensor
    return data.imshow(tensor, scale=1)


def test_a_photo_goes_through_the_same_compose_as_the_test_set(few, tmp_path):
    stored, _ = data.stripes(train=False)
    for k in range(5):
        Image.fromarray(stored[k].permute(1, 2, 0).numpy()).save("test.png")
        assert torch.equal(evaluate.read_image("test.png"), few[1][k][0])


def test_the_middle_square_of_a_wide_photo_is_shrunk(tmp_path):
    wide = Image.new("RGB", (300, 64), "green")
    wide.paste(photo(), (118, 0))
    wide.save(tmp_path / "wide.png")
    photo().save(tmp_path / "square.png")
    assert seen(tmp_path / "wide.png").tobytes() == seen(tmp_path / "square.png").tobytes()


def test_a_photo_that_the_camera_stored_lying_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to the right"
    photo().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    photo().save(tmp_path / "upright.png")
    assert seen(tmp_path / "turned.png").tobytes() == seen(tmp_path / "upright.png").tobytes()


@pytest.mark.parametrize("mode, name", [("L", "grey.png"), ("P", "palette.png"), ("P", "palette.gif"), ("CMYK", "print.jpg"),
                                        ("I;16", "deep.png"), ("I", "deep.tiff"), ("LA", "grey_alpha.png"), ("RGBA", "alpha.png"), ("F", "float.tiff")])
def test_every_kind_of_image_file_is_seen_with_its_own_brightness(tmp_path, mode, name):
    grey = Image.new("L", (40, 40), 64)
    grey.paste(192, (20, 0, 40, 40))
    if mode in ("I", "I;16"):
        image = Image.new("I", grey.size)
        image.putdata([value * 257 for value in grey.tobytes()])  # 16 bits: 0 to 65535
        image = image.convert(mode)
    elif mode == "P":
        image = grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    else:
        image = grey.convert("RGB" if mode == "CMYK" else "L").convert(mode)
    image.save(tmp_path / name)
    left, right = seen(tmp_path / name).getpixel((4, 16)), seen(tmp_path / name).getpixel((28, 16))
    assert all(abs(value - 64) <= 3 for value in left) and all(abs(value - 192) <= 3 for value in right)


def test_what_is_transparent_is_white_and_the_first_frame_of_an_animation_counts(tmp_path):
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert seen(tmp_path / "clear.png").getpixel((16, 16)) == (255, 255, 255)
    first, second = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert seen(tmp_path / "moving.gif").getpixel((16, 16)) == (255, 0, 0)


def test_a_photo_gets_the_three_most_probable_classes_without_any_dataset(few, monkeypatch, capsys):
    torch.manual_seed(0)
    net = LeNet5()
    torch.save(net.state_dict(), "cifar_net.pth")
    monkeypatch.setattr(data, "load", lambda *args, **flags: pytest.fail("it looked for a dataset"))
    photo().save("cat.jpg")
    photo((50, 90)).save("banana.png")
    evaluate.main(["--image", "cat.jpg", "banana.png"])
    lines = capsys.readouterr().out.splitlines()
    assert "cifar_net.pth knows the ten classes of CIFAR-10 and nothing else" in lines[0] and "images.png" in lines[-1]
    for line, path in zip(lines[1:], ("cat.jpg", "banana.png")):
        p = net(evaluate.read_image(path)[None]).softmax(1)[0]
        assert p.sum().item() == pytest.approx(1)
        best = p.argsort(descending=True)[:3]
        assert line == f"  {path}: " + ", ".join(f"{data.CLASSES[k]} {100 * p[k]:.1f} %" for k in best)


def test_class_names_are_those_of_the_dataset_and_a_network_of_another_one_is_refused(few, checkpoint, capsys):
    """A network of stripes once called a photo a frog."""
    photo().save("cat.jpg")
    for flags in (["--checkpoint", checkpoint], ["--dataset", "mnist", "--checkpoint", checkpoint]):
        with pytest.raises(data.UserError, match=f"{checkpoint} is the name of a network for STRIPES.*add --dataset stripes"):
            evaluate.main(["--image", "cat.jpg", *flags])
    with pytest.raises(data.UserError, match="cifar_net.pth is not there. python train.py --dataset cifar10 makes one. stripes_net.pth is there: add --dataset stripes."):
        evaluate.main(["--image", "cat.jpg"])
    os.rename(checkpoint, "mnist_net.pth")
    evaluate.main(["--dataset", "mnist", "--image", "cat.jpg", "--image", "cat.jpg"])  # the flag twice: both are classified
    printed = capsys.readouterr().out
    assert "knows the ten classes of MNIST and nothing else" in printed and len(re.findall(r"^  cat.jpg: (?:zero|one|two|three|four|five|six|seven|eight|nine) [\d.]+ %, ", printed, re.M)) == 2


def test_a_photo_that_the_drawing_would_overwrite_is_refused(few, checkpoint):
    photo().save("images.png")
    with pytest.raises(data.UserError, match="images.png is where the drawing goes"):
        evaluate.main(["--image", "images.png"])
    assert Image.open("images.png").size == (64, 64)


def test_images_png_shows_what_the_network_saw_and_all_ten_probabilities(few, checkpoint, monkeypatch):
    sheets = []
    monkeypatch.setattr(evaluate, "draw_sheet", lambda groups, path: sheets.append((groups, path)))
    photo().save("cat.jpg")
    evaluate.main(["--dataset", "stripes", "--image", "cat.jpg"])
    ([(_, [(image, _, lines)])], path), = sheets
    assert path == "images.png" and image.tobytes() == data.imshow(evaluate.read_image("cat.jpg")).tobytes()
    percents = [float(line.split()[-2]) for line in lines]
    assert percents == sorted(percents, reverse=True) and sum(percents) == pytest.approx(100, abs=0.6)
    assert sorted(line.rsplit(" ", 2)[0] for line in lines) == sorted(data.ANGLES)


@pytest.mark.skipif(os.name == "nt", reason="the mark is left by a shell script")
def test_no_photo_ever_starts_a_program(few, checkpoint, monkeypatch):
    """Pillow draws EPS by starting Ghostscript, gs, whatever the file is called."""
    with open("gs", "w") as file:
        file.write("#!/bin/sh\ntouch it_ran\n")
    os.chmod("gs", 0o755)
    monkeypatch.setenv("PATH", os.getcwd() + os.pathsep + os.environ["PATH"])
    for name in ("photo.jpg", "photo.eps"):
        with open(name, "w") as file:
            file.write("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n")
        with pytest.raises(data.UserError, match=f"{name} can't be read as an image of JPEG"):
            evaluate.read_image(name)
        assert not os.path.exists("it_ran")
    from PIL import EpsImagePlugin
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it looks for gs once; here it would find ours
    with pytest.raises(Exception):
        Image.open("photo.eps").load()
    assert os.path.exists("it_ran")


@pytest.mark.parametrize("name, cause", [
    ("nowhere.png", "FileNotFoundError"), ("odd_exif.png", "SyntaxError"), ("notes.png", "UnidentifiedImageError"),
    ("empty.jpg", "UnidentifiedImageError"), ("short.png", "OSError"), ("short.jpg", "OSError"),
    ("huge.png", "DecompressionBombError")])
def test_what_is_no_photo_is_refused_with_a_sentence(few, checkpoint, monkeypatch, name, cause):
    photo().save("odd_exif.png", exif=b"Exif\0\0garbage")
    for path, content in (("notes.png", b"buy milk"), ("empty.jpg", b"")):
        with open(path, "wb") as file:
            file.write(content)
    for path in ("short.png", "short.jpg"):
        Image.effect_noise((64, 64), 90).save(path)
        os.truncate(path, os.path.getsize(path) // 2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    Image.new("1", (150, 150)).save("huge.png")
    photo().save("good.png")
    with pytest.raises(data.UserError) as error:
        evaluate.main(["--dataset", "stripes", "--image", "good.png", name])
    assert str(error.value).startswith(f"{name} can't be read as an image of JPEG, PNG, GIF, BMP, TIFF, WEBP ({cause}: ")
    assert "\n" not in str(error.value) and not os.path.exists("images.png")


# ---- Which file, which images ----------------------------------------------------------------

@pytest.mark.parametrize("flags, file", [
    ([], "cifar_net.pth"), (["--dataset", "stripes"], "stripes_net.pth"), (["--checkpoint", "mine.pth"], "mine.pth"),
    (["--dataset", "stripes", "--checkpoint", "mine.pth"], "mine.pth")])
def test_the_default_checkpoint_is_that_of_the_dataset_that_was_found(few, monkeypatch, flags, file):
    """--image looks for none: CIFAR-10's unless --dataset stripes."""
    asked = []
    monkeypatch.setattr(evaluate, "load_checkpoint", lambda path, device: asked.append(path) or LeNet5())
    photo().save("cat.png")
    evaluate.main([*flags, "--image", "cat.png"])
    found = few[1]
    monkeypatch.setattr(data, "load", lambda **args: found)
    monkeypatch.setattr(found, "name", data.STRIPES if "stripes" in flags else data.CIFAR)
    evaluate.main(flags)
    assert asked == [file, file]


@pytest.mark.parametrize("main", [evaluate.main, train.main])
def test_a_device_that_is_not_here_is_refused(monkeypatch, capsys, main):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps", "tpu"):
        with pytest.raises(SystemExit) as stop:
            main(["--device", name])
        assert stop.value.code == 2 and f"there is no {name} device here" in capsys.readouterr().err
    assert data.device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert data.device("cuda") == "cuda"


# ---- Checkpoints that are none ---------------------------------------------------------------

class Code:
    """What a hostile file does: names a function for pickle to call."""

    def __reduce__(self):
        return open, ("it_ran", "w")


def refused(path, *parts):
    """load_checkpoint() refuses path with one sentence that holds all parts, and gives no advice that costs a file."""
    with pytest.raises(data.UserError) as error:
        evaluate.load_checkpoint(path)
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in (path, *parts)), message
    assert "is not there" in message or "train.py" not in message


def test_a_missing_checkpoint(few):
    refused("nowhere.pth", "is not there. python train.py --checkpoint nowhere.pth makes one.")
    refused("mnist_net.pth", "is not there. python train.py --dataset mnist makes one.")


def test_a_file_that_may_not_be_read_and_a_path_through_a_file(few, checkpoint, monkeypatch):
    refused(f"{checkpoint}/x", "can't be read: Not a directory")

    def denied(path, **flags):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(torch, "load", denied)
    refused(checkpoint, "can't be read: Permission denied")


def test_a_folder(few):
    os.mkdir("folder.pth")
    refused("folder.pth", "is a folder or a device, not a file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFO")
@pytest.mark.parametrize("flags", [["--checkpoint", "fifo"], ["--image", "fifo"]])
def test_a_device_is_refused_and_not_waited_for(few, flags):
    os.mkfifo("fifo")
    torch.save(LeNet5().state_dict(), "stripes_net.pth")
    with pytest.raises(data.UserError, match="fifo is a folder or a device, not a file"):
        evaluate.main(["--dataset", "stripes", *flags])


def test_a_checkpoint_with_numbers_that_are_not_finite(few):
    torch.save({**LeNet5().state_dict(), "fc3.bias": torch.full((10,), math.nan)}, "nan.pth")
    refused("nan.pth", "numbers that are not finite")


def test_a_network_whose_kernels_died_is_still_drawn(few):
    net = LeNet5()
    net.conv1.weight.data.zero_()
    net.conv1.bias.data.fill_(-1)
    torch.save(net.state_dict(), "stripes_net.pth")
    evaluate.main(["--dataset", "stripes"])
    assert os.path.exists("convolution.png")


@pytest.mark.parametrize("content, cause", [
    (b"", "EOFError"), (b"not a checkpoint", ": "), (b"<html>404</html>", "operand 60"), (bytes(1000), ": "),
    (b"\x89PNG\r\n\x1a\n", "operand"), (b"\x93NUMPY\1\0v\0{'descr'", "operand 147"), (b"version https://git-lfs", "operand 118")])
def test_a_file_that_is_no_checkpoint(few, content, cause):
    with open("bad.pth", "wb") as file:
        file.write(content)
    refused("bad.pth", "is damaged, or holds more than numbers", cause)


def test_damaged_files_of_all_kinds_get_a_sentence(few, checkpoint):
    """Bytes flipped and files cut short: what torch.load() raises then is of many classes."""
    random.seed(0)
    with open(checkpoint, "rb") as file:
        whole = file.read()
    for k in range(60):
        content = bytearray(whole)
        for _ in range(3):
            content[random.randrange(2000) - 1000] ^= 1 << random.randrange(8)  # its beginning, or its end
        with open("bad.pth", "wb") as file:
            file.write(content if k % 3 else whole[:random.randrange(len(whole))])
        try:
            evaluate.load_checkpoint("bad.pth")
        except data.UserError as error:
            assert "bad.pth" in str(error) and not re.search(r": ?\)", str(error))


def test_half_a_checkpoint(few, checkpoint):
    os.truncate(checkpoint, os.path.getsize(checkpoint) // 2)
    refused(checkpoint, "is damaged", "RuntimeError: PytorchStreamReader failed")


@pytest.mark.parametrize("other", [{"fc3.weight": torch.zeros(100, 84)}, {"fc3.weight": None}, {"fc4.weight": torch.zeros(1)}])
def test_a_checkpoint_of_another_network(few, other):
    torch.save({**LeNet5().state_dict(), **other}, "other.pth")
    refused("other.pth", "another network", list(other)[0])


@pytest.mark.parametrize("other", [[1, 2], torch.zeros(3), {}])
def test_something_else_that_torch_saved(few, other):
    torch.save(other, "other.pth")
    refused("other.pth", "another network")


@pytest.mark.parametrize("made, keys", [
    (lambda: {"net": LeNet5().state_dict(), "epoch": 3}, ['Missing key(s) in state_dict: "conv1.weight"', 'Unexpected key(s) in state_dict: "net", "epoch"']),
    (lambda: {f"module.{name}": value for name, value in LeNet5().state_dict().items()}, ['"module.conv1.weight"']),
    (lambda: torchvision.models.resnet18().state_dict(), ['Missing key(s) in state_dict: "conv1.bias"', '"bn1.weight"'])])
def test_another_network_shows_a_few_of_the_keys_that_differ_and_no_advice(few, made, keys):
    torch.save(made(), "other.pth")
    refused("other.pth", "holds another network than this LeNet5", *keys)
    with pytest.raises(data.UserError) as error:
        evaluate.load_checkpoint("other.pth")
    assert len(str(error.value)) < 450 and "torch.save" not in str(error.value)


def test_code_hidden_in_a_checkpoint_is_not_run(few):
    torch.save({"conv1.weight": Code()}, "code.pth")
    refused("code.pth", "could run code", "UnpicklingError: Unsupported")
    with open("code.pth", "wb") as file:
        pickle.dump(Code(), file, protocol=2)
    refused("code.pth", "could run code")
    assert not os.path.exists("it_ran")
    with pytest.raises(RuntimeError):
        torch.load("code.pth", weights_only=False)
    assert os.path.exists("it_ran")  # it would have, before anyone looked at what was read
