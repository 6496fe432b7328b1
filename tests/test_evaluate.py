"""Chapter 5, Prediction Test data set: the test is fair, and a bad file is met with a sentence."""
import contextlib
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import EpsImagePlugin, Image, ImageDraw, ImageOps
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

import data
import evaluate
from lenet5 import LeNet5, conv_by_hand, trace

PHOTO = Image.linear_gradient("L").rotate(30).resize((64, 64)).convert("RGB")
NET = LeNet5().state_dict()


@pytest.fixture
def checkpoint(few):
    torch.manual_seed(0)
    torch.save(LeNet5().state_dict(), "stripes_net.pth")
    return "stripes_net.pth"


@pytest.fixture
def drawn(monkeypatch):
    """Every text that is drawn: [(where, text, colour), ...]."""
    texts, draw_text = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, at, text, fill, **flags:
                        texts.append((at, text, fill)) or draw_text(self, at, text, fill, **flags))
    return texts


@pytest.fixture
def sheets(monkeypatch):
    """The groups of tiles that draw_sheet() gets, by the name of the file. It draws none."""
    of = {}
    monkeypatch.setattr(evaluate, "draw_sheet", lambda groups, path=None: of.update({path: groups}))
    return of


class Says(nn.Module):
    """A network that gives these answers, with the logits 1.00, 1.25, 1.50, ..."""
    def __init__(self, answers):
        super().__init__()
        self.logits = iter([(1 + k / 4) * row for k, row in enumerate(torch.eye(10)[answers])])

    def forward(self, x):
        assert not torch.is_grad_enabled() and not self.training
        return torch.stack([next(self.logits) for _ in x])


# ---- The test ------------------------------------------------------------------------------------

def test_predict_goes_through_the_whole_set_in_order_without_gradients_and_in_eval_mode(few):
    answers = [k % 7 for k in range(200)]
    batches = [(SimpleNamespace(to={"a device": images}.get), labels)  # .to("a device") gives them
               for images, labels in DataLoader(few[1], 64)]
    outputs, labels = evaluate.predict(Says(answers), batches, "a device")
    assert outputs.shape == (200, 10) and outputs.argmax(1).tolist() == answers
    assert torch.equal(labels, few[1][:][1])


def test_a_checkpoint_is_loaded_onto_the_device_in_eval_mode(checkpoint):
    net, saved = evaluate.load_checkpoint(checkpoint), torch.load(checkpoint, weights_only=True)
    assert not net.training and torch.equal(net.fc3.weight, saved["fc3.weight"])
    assert evaluate.load_checkpoint(checkpoint, "meta").fc3.bias.device.type == "meta"


def test_confusion_matrix_has_the_truth_in_rows_and_the_prediction_in_columns():
    matrix = evaluate.confusion_matrix(torch.eye(10)[[3, 3, 5]], torch.tensor([3, 5, 5]))
    assert matrix.shape == (10, 10) and matrix.nonzero().tolist() == [[3, 3], [5, 3], [5, 5]]
    assert evaluate.confusion_matrix(torch.eye(3), torch.tensor([12, 0, 1])).shape == (13, 13)


# Of 20 images of a class: ten cats are taken for dogs, one for a frog; four dogs for cats, five
# trucks for ships, one bird for a car.
ANSWERS = torch.arange(200) % 10
ANSWERS[3:100:10], ANSWERS[193], ANSWERS[5:45:10], ANSWERS[9:59:10], ANSWERS[2] = 5, 6, 3, 8, 1
PRINTED = """\
cifar_net.pth on the test set of CIFAR-10, 200 images
  ground truth:     plane     car    bird     cat
  prediction:       plane     car     car     dog
  its logit:         1.00    1.25    1.50    1.75
accuracy on CIFAR-10: 89.5 % (guessing: 10 %)
      cat   45.0 %
        plane   car  bird   cat  deer   dog  frog horse  ship truck
    cat     0     0     0     9     0    10     1     0     0     0
most often taken for each other
  cat and dog: 14 times (dog for cat 10, cat for dog 4)
  ship and truck: 5 times (truck for ship 0, ship for truck 5)
  car and bird: 1 times (bird for car 0, car for bird 1)
"""


def test_the_script_prints_accuracies_and_confusions_of_the_test_set(few, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(data, "load", lambda **flags: asked.append(flags) or few[1])
    monkeypatch.setattr(evaluate, "load_checkpoint", lambda *args: Says(ANSWERS))
    monkeypatch.setattr(evaluate, "draw_all", lambda *args: None)
    few[1].name, few[1].classes, _, _ = data.DATASETS["cifar10"]
    evaluate.main(["--dataset", "cifar10", "--data-dir", "elsewhere"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 38 and [line for line in PRINTED.splitlines() if line not in lines] == []
    assert asked == [{"train": False, "dataset": "cifar10", "root": "elsewhere"}]  # no training set


@pytest.mark.parametrize("dataset", ["cifar10", "stripes"])
def test_what_is_printed_fits_80_columns_and_names_the_drawings(checkpoint, capsys, dataset):
    os.rename(checkpoint, data.DATASETS[dataset].checkpoint)
    evaluate.main(["--dataset", dataset])
    printed = capsys.readouterr().out
    assert printed.isascii() and max(map(len, printed.splitlines())) <= 80
    names = "predictions mistakes confusion feature_maps filters convolution".split()
    assert re.findall(r"(\w+)\.png", printed) == names and len(os.listdir()) == 1 + len(names)


@pytest.mark.parametrize("wrong, warned", [(171, True), (170, False)])
def test_below_15_percent_the_last_line_says_so(few, monkeypatch, capsys, wrong, warned):
    answers = [(k + (k < wrong)) % 10 for k in range(200)]
    monkeypatch.setattr(evaluate, "load_checkpoint", lambda *args: Says(answers))
    monkeypatch.setattr(evaluate, "draw_all", lambda *args: None)
    evaluate.main(["--dataset", "stripes"])
    last = f'\n{100 - wrong / 2} % is about guessing: see "If it does not learn" in README.md.\n'
    assert capsys.readouterr().out.endswith(last) == warned


def test_mirror_takes_the_mean_of_each_image_and_of_its_rows_from_right_to_left(images):
    mirrored = torch.stack([images[..., 31 - column] for column in range(32)], 3)
    logits = evaluate.Mirrored(nn.Identity())(images)  # a network that hands its input on
    assert torch.equal(logits, (images + mirrored) / 2)


def test_a_result_with_the_mirror_image_says_so(checkpoint, sheets, monkeypatch, capsys):
    mirrored, mirror = [], "(with the mirror image)"
    monkeypatch.setattr(evaluate, "Mirrored", lambda net: mirrored.append(net) or net)
    os.rename(checkpoint, "cifar_net.pth")
    PHOTO.save("photo.png")
    for flags in [], ["--image", "photo.png"]:
        evaluate.main(["--dataset", "cifar10", "--mirror", *flags])
    printed = capsys.readouterr().out
    for words in f"{{}} on the test set of CIFAR-10 {mirror}, 2", f"{{}} {mirror} knows the ten ":
        assert words.format("cifar_net.pth") in printed
    assert f"accuracy on CIFAR-10 {mirror}: " in printed and len(mirrored) == 2
    assert all(mirror in heading for name in ("predictions.png", "mistakes.png", "images.png")
               for heading, _ in sheets[name])


# ---- Drawings ------------------------------------------------------------------------------------

def test_a_sheet_has_eight_tiles_in_a_row_each_in_a_frame_with_its_lines_below(drawn):
    tile = Image.new("RGB", (128, 128), "yellow")
    tiles = [(tile, "green" if k != 9 else "red", ("first", "second")) for k in range(10)]
    sheet = evaluate.draw_sheet([("one", tiles), ("none", []), ("two", tiles[:1])])
    assert sheet.size == (8 * 140, 30 + 2 * 176 + 30 + 176 + 8)
    corners = [(k % 8 * 140 + 2, 30 + k // 8 * 176) for k in range(10)] + [(2, 30 + 2 * 176 + 30)]
    for k, (x, y) in enumerate(corners):
        assert sheet.getpixel((x, y)) == ((255, 0, 0) if k == 9 else (0, 128, 0))  # the frame
        assert sheet.crop((x + 4, y + 4, x + 132, y + 132)).tobytes() == tile.tobytes()
    lines = 10 * ["first", "second"]
    assert [text for _, text, _ in drawn] == ["one", *lines, "two", *lines[:2]]
    assert drawn[19:21] == [((144, 342), "first", "red"), ((144, 360), "second", "black")]
    assert evaluate.draw_sheet([("none", [])]).size == (400, 8)  # of a network without mistakes


def test_predictions_png_and_mistakes_png(few, sheets):
    outputs = torch.stack([*Says(ANSWERS).logits])
    matrix = evaluate.confusion_matrix(outputs, few[1][:][1])
    evaluate.draw_all(LeNet5(), few[1], outputs, matrix, "a name")
    (heading, tiles), = sheets["predictions.png"]
    assert heading == "a name: 89.5 % right, 22 of these 32"
    assert len(tiles) == 32 and tiles[0][1:] == ("green", ("0deg 23 %", "truth: 0deg"))
    assert tiles[3][1:] == ("red", ("90deg 39 %", "truth: 54deg"))  # e^1.75 / (e^1.75 + 9)
    for k, picture in ((3, tiles[3][0]), (0, sheets["feature_maps.png"][0][1][0][0])):
        assert picture.tobytes() == data.imshow(few[1][k][0]).tobytes()
    headings, groups = zip(*sheets["mistakes.png"])
    pairs = "54deg and 90deg", "144deg and 162deg", "18deg and 36deg"
    assert all(f"a name: {pair}" in heading for pair, heading in zip(pairs, headings))
    assert [len(tiles) for tiles in groups] == [8, 5, 1]  # at most eight
    truths = [lines[1] for *_, lines in groups[0]]        # later images have greater logits here
    assert truths == ["truth: 54deg"] * 6 + ["truth: 90deg", "truth: 54deg"]


def test_confusion_png_has_percents_the_worst_mistake_as_dark_as_the_diagonal(drawn):
    matrix = torch.tensor([[150, 50, 0], [10, 70, 20], [0, 0, 0]])
    sheet = evaluate.draw_confusion(matrix, ("bag", "cat", "none"), "a name")
    numbers = [text for _, text, _ in drawn if re.fullmatch(r"[\d.]+", text)]
    assert numbers == "75.0 25.0 0.0 10.0 70.0 20.0 0.0 0.0 0.0".split()
    colors = [sheet.getpixel((145 + 84 * j, 110 + 50 * i)) for i in (0, 1) for j in range(3)]
    assert colors == [(55, 55, 55), (55, 55, 255), (255, 255, 255),  # 75, 25, 0 %
                      (175, 175, 255), (55, 55, 55), (95, 95, 255)]  # 10, 70, 20 %
    inks = [ink for _, text, ink in drawn if text in numbers]
    assert inks[:6] == ["white", "white", "black", "black", "white", "white"]
    assert [at for at, text, _ in drawn if text == "cat"] == [(130, 181), (266, 90)]
    perfect = evaluate.draw_confusion(torch.eye(2), ("cat", "dog"), "a name")  # no mistake at all
    assert pil_to_tensor(perfect)[:, :60, -5:].min() == 255  # the heading is whole
    assert [perfect.getpixel((145 + 84 * j, 110))[0] for j in (0, 1)] == [55, 255]


def test_filters_png_shows_the_weights_of_each_kernel_of_conv1_and_its_number(sheets):
    torch.manual_seed(0)
    net = LeNet5()
    net.conv1.weight.data[3] = 0  # a kernel that died is grey
    evaluate.draw_filters(net, "filters.png")
    (_, tiles), = sheets["filters.png"]
    for k, (picture, _, lines) in enumerate(tiles):
        weight = net.conv1.weight[k].detach()
        shown = pil_to_tensor(picture)[:, 12::24, 12::24] / 127.5 - 1  # the middle of each square
        assert torch.allclose(shown, weight / weight.abs().max().clamp(min=1e-9), atol=0.01)
        assert lines[-1] == f"kernel {k}"


@pytest.mark.parametrize("conv", [nn.Conv2d(3, 6, 5), nn.Conv2d(3, 2, 3, bias=False)])
def test_convolution_png_shows_the_numbers_of_conv_by_hand(few, drawn, conv):
    conv.weight.data[:, :, 0, 0] = -0.001  # which is shown as 0.00, not as -0.00
    image, K = few[1][0][0], conv.kernel_size[0]
    sheet = evaluate.draw_convolution(conv, image)
    bias = [0.0] * len(conv.weight) if conv.bias is None else conv.bias.tolist()
    maps = torch.tensor(conv_by_hand(image.tolist(), conv.weight.tolist(), bias))
    k, i, j = (maps == maps.max()).nonzero()[0].tolist()  # where the answer is the greatest
    value = maps[k, i, j].item()
    patch, kernel = image[:, i:i + K, j:j + K], conv.weight[k].detach()
    squares, sums = (patch, kernel, patch * kernel), (patch * kernel).sum((1, 2)).tolist()
    texts = [text for _, text, _ in drawn]
    numbers = [f"{number:.2f}".replace("-0.00", "0.00") for c in range(3) for square in squares
               for number in square[c].flatten()]
    assert [text for text in texts if re.fullmatch(r"-?\d\.\d\d", text)] == numbers
    assert [text for text in texts if text[:4] == "sum "] == [f"sum {each:.3f}" for each in sums]
    total = " + ".join(f"({number:.3f})" for number in (*sums, bias[k]))
    for line in (f"{total} = {value:.2f}", f"ReLU: max(0, {value:.2f}) = {value:.2f}",
                 f"in row {i}, column {j} of feature map {k}"):
        assert line in "\n".join(texts)

    for n, square in enumerate(squares):  # orange above 0, blue below, deeper for more
        for u, v in torch.cartesian_prod(torch.arange(K), torch.arange(K)).tolist():
            color = sheet.getpixel((10 + n * (50 * K + 40) + 50 * v + 2, 34 + 32 * u + 2))
            pale = 255 - 150 * square[0, u, v].abs().item() / square.abs().max().item()
            assert color[::1 if square[0, u, v] > 0 else -1] == pytest.approx(
                (255, (255 + pale) / 2, pale), abs=1)

    # Below: the image and the map, each with its title, and with the place in a red frame.
    top, right, n = 3 * (32 * K + 40) + 40, sheet.width - 192, len(maps[k])
    titles = [((10, top - 24), "the image"), ((right, top - 24), f"feature map {k}")]
    assert [(at, text) for at, text, _ in drawn[-2:]] == titles
    shown = pil_to_tensor(sheet)[0, top + 3:top + 6 * n:6, right + 3:right + 6 * n:6] / 255
    assert torch.allclose(shown, maps[k].relu() / value, atol=0.01)
    for left, size in ((10, K), (right, 1)):
        for x, y in ((left + 6 * j - 1, top + 6 * i + 3), (left + 6 * (j + size), top + 6 * i + 3)):
            assert sheet.getpixel((x, y)) == (255, 0, 0)


@pytest.mark.parametrize("died", [False, True])
def test_feature_maps_png_shows_every_map_on_the_way(images, sheets, died):
    torch.manual_seed(0)
    net = LeNet5()
    if died:  # ReLU lets nothing pass. (In convolution.png, a number that is 0 is on white.)
        net.conv1.weight.data.zero_()
        net.conv1.bias.data.fill_(-1)
        assert evaluate.draw_convolution(net.conv1, images[0]).getpixel((302, 36)) == (255,) * 3
    evaluate.draw_feature_maps(net, images[0], "feature_maps.png")
    (_, [(picture, _, _)]), *groups = sheets["feature_maps.png"]
    assert picture.tobytes() == data.imshow(images[0]).tobytes()
    names = "conv1, relu: 6 of 28x28; pool: 6 of 14x14; conv2, relu: 16 of 10x10; pool: 16 of 5x5"
    rows = [trace(net, images[:1])[k] for k in (2, 3, 5, 6)]
    for name, pixel, row, group in zip(names.split("; "), (4, 9, 12, 25), rows, groups):
        shown = [pil_to_tensor(picture)[0, ::pixel, ::pixel] / 255 for picture, _, _ in group[1]]
        expected = row.output[0] / row.output.max().clamp(min=1e-9)
        assert group[0] == name and torch.allclose(torch.stack(shown), expected, atol=0.01)


def test_a_curve_has_the_accuracies_at_the_left_and_the_losses_at_the_right(monkeypatch):
    drawn, epochs = [], range(1, 3)
    monkeypatch.setattr(evaluate, "plot", lambda *args: drawn.append(args))
    evaluate.draw_curve([(2.0, 30.0, 2.1, 40.0), (1.5, 50.0, 1.8, 45.0)], "a title", "a path")
    accuracies = {"training": (epochs, (30.0, 50.0)), "test": (epochs, (40.0, 45.0))}
    losses = {"training": (epochs, (2.0, 1.5)), "test": (epochs, (2.1, 1.8))}
    panels = [("accuracy, %", "epoch", None, accuracies), ("loss", "epoch", None, losses)]
    assert drawn == [(panels, "a title", "a path")]
    evaluate.draw_curve([(2.0, 30.0, 2.1, 40.0)], "a title", None, "validation")
    assert all(list(lines) == ["training", "validation"] for *_, lines in drawn[1][0])


@pytest.mark.parametrize("name, ys, limits", [
    ("accuracy, %", [31, 57], (30, 60)), ("test accuracy", [40], (40, 50)),
    ("loss", [2.3, 0.4], (0, 3)), ("loss", [12, 25], (0, 30)), ("loss", [0.4], (0, 0.4)),
    ("loss", [-5, 3], (-5, 3)), ("loss", [0, 0], (0, 1)), ("loss", [math.inf, math.nan], (0, 1))])
def test_the_axis_of_an_accuracy_goes_in_tens_and_that_of_a_loss_begins_at_0(name, ys, limits):
    lines = {"a": (range(1), ys[:1]), "b": (range(1), ys[1:])}
    assert evaluate.limits_of(name, lines) == pytest.approx(limits)


@pytest.mark.parametrize("title, down", [("a title", 0), ("a title\nin two lines", 20)])
def test_a_point_stands_where_its_numbers_say(drawn, title, down):
    """x from 2 to 6 is 400 pixels wide, from 60; y from -1 to 3 is 290 high, up from 388."""
    # What lies beyond the range, 9 and -5, is drawn at its edge, and what is infinite not at all.
    lines = {"a": ([2, 3, 4, 5, 6], [-1, 9, 3, math.inf, -5]), "b": ([2, 6], [1, 1])}
    sheet = evaluate.plot([("the y", "the x", (-1, 3), lines)], title)
    red, green, blue = pil_to_tensor(sheet)[:, down:].int()
    is_blue, is_red = blue - red.maximum(green) > 150, red - blue.maximum(green) > 150
    assert is_blue[388, [60, 460]].all() and is_blue[98, 160:260].all() and not is_blue[98, 360]
    assert is_red[243, 61:460:50].all() and not is_red[:218, 100:].any() and red.shape == (438, 500)
    steps = "-1 -0.6 -0.2 0.2 0.6 1 1.4 1.8 2.2 2.6 3".split()
    assert [text for _, text, _ in drawn] == [title, "the y", "the x", *steps, *"23456ab"]
    evaluate.draw_curve(75 * [(2.0, 30.0, 2.1, 40.0)], "")  # numbers of epochs: 1, 9, ..., 73
    assert [text for _, text, _ in drawn if text in ("9", "10", "73")] == 2 * ["9", "73"]


# ---- Photos of your own --------------------------------------------------------------------------

def seen(image, dataset="cifar10", name="photo.png", **flags):
    """What the network sees of an image that is saved in a file of this name: bytes (3, 32, 32)."""
    image.save(name, **flags)
    tensor = evaluate.read_image(name, dataset)
    assert tensor.shape == (3, 32, 32) and type(tensor) is torch.Tensor
    return pil_to_tensor(data.imshow(tensor, scale=1)).int()


def test_a_photo_is_seen_as_the_test_set_is_its_middle_square_shrunk_and_upright(few):
    stored, _ = data.stripes(train=False)
    Image.fromarray(stored[7].permute(1, 2, 0).numpy()).save("test.png")
    assert torch.equal(evaluate.read_image("test.png"), few[1][7][0])
    upright, wide = seen(PHOTO), Image.new("RGB", (300, 64), "green")
    wide.paste(PHOTO, (118, 0))
    assert torch.equal(seen(wide), upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay: "turn by 90 degrees to the right"
    assert torch.equal(seen(PHOTO.transpose(Image.Transpose.ROTATE_90), exif=exif), upright)


@pytest.mark.parametrize("mode, name", [
    ("L", "grey.png"), ("P", "palette.gif"), ("CMYK", "print.jpg"), ("I;16", "deep.png"),
    ("I", "deep.tiff"), ("LA", "grey_alpha.png"), ("RGBA", "alpha.png"), ("F", "float.tiff")])
def test_every_kind_of_image_file_is_seen_with_its_own_brightness(few, mode, name):
    grey = torch.tensor(40 * [20 * [64] + 20 * [250]])
    grey = (257 * grey).int() if "I" in mode else grey.byte()  # 16 bits: 0 to 65535
    image = Image.fromarray(grey.numpy())
    shown = seen((image.convert("RGB") if mode == "CMYK" else image).convert(mode), name=name)
    assert shown[:, 16, 4].tolist() == 3 * [64] and shown[:, 16, 28].tolist() == 3 * [250]


def test_what_is_transparent_is_white_and_of_an_animation_the_first_frame_counts(few):
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0)), Image.new("P", (40, 40))
    assert seen(clear[0])[:, 16, 16].tolist() == [255, 255, 255]
    assert seen(clear[1], name="a.gif", transparency=0)[:, 16, 16].tolist() == [255, 255, 255]
    flags = {"save_all": True, "append_images": [Image.new("RGB", (40, 40), "blue")]}
    red = seen(Image.new("RGB", (40, 40), "red"), name="moving.gif", **flags)
    assert red[:, 16, 16].tolist() == [255, 0, 0]


def test_no_photo_ever_starts_a_program(few, monkeypatch):
    """Pillow draws EPS by starting Ghostscript, whatever the file is called."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: pytest.fail("it started"))
    Path("photo.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with Image.open("photo.jpg") as image, pytest.raises(data.UserError, match="can't be read as"):
        assert image.format == "EPS"
        evaluate.read_image("photo.jpg")


@pytest.mark.parametrize("name, cause", [
    ("nowhere.png", "FileNotFoundError"), ("odd_exif.png", "SyntaxError"),
    ("notes.png", "UnidentifiedImageError"), ("short.jpg", "OSError"),
    ("huge.png", "DecompressionBombError"), ("a\x1b[2J\n.png", "FileNotFoundError")])
def test_what_is_no_photo_is_refused_with_a_sentence(checkpoint, monkeypatch, name, cause):
    PHOTO.save("odd_exif.png", exif=b"Exif\0\0garbage")
    Path("notes.png").write_text("buy milk")
    PHOTO.save("short.jpg")
    os.truncate("short.jpg", os.path.getsize("short.jpg") // 2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    Image.new("1", (150, 150)).save("huge.png")
    with pytest.raises(data.UserError) as error:
        evaluate.main(["--dataset", "stripes", "--image", name])
    sentence = f"{name!r} can't be read as an image of JPEG, PNG, GIF, BMP, TIFF, WEBP ({cause}: "
    assert str(error.value).startswith(sentence) and str(error.value).isprintable()


def test_a_photo_gets_three_classes_and_in_images_png_ten(checkpoint, sheets, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda *args, **flags: pytest.fail("it wants a dataset"))
    os.rename(checkpoint, "mnist_net.pth")
    PHOTO.save("cat.jpg")
    written().save("seven.png")
    evaluate.main("--dataset mnist --image cat.jpg cat.jpg --image seven.png".split())
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith("mnist_net.pth knows the ten classes of MNIST: whatever an image shows")
    net, (_, tiles) = evaluate.load_checkpoint("mnist_net.pth"), sheets["images.png"][0]
    assert len(lines) == len(tiles) == 3 and last.startswith("images.png shows what")
    for path, line, (picture, _, ten) in zip(("cat.jpg", "cat.jpg", "seven.png"), lines, tiles):
        image = evaluate.read_image(path, "mnist")
        p = net(image[None]).softmax(1)[0]
        assert ten == [f"{data.DIGITS[k]} {100 * p[k]:.1f} %" for k in p.argsort(descending=True)]
        assert line == f"  {path}: " + ", ".join(ten[:3])
        assert picture.tobytes() == data.imshow(image).tobytes()


def written(light=lambda x, y: 1):
    """A photo of a 7 on paper, 40x60 pixels. light: how bright the paper is, x and y below 1."""
    greys = torch.full((160, 120), 240.0)
    greys[30:44, 10:50] = greys[30:90, 35:45] = 48
    y, x = torch.meshgrid(torch.arange(160) / 160, torch.arange(120) / 120, indexing="ij")
    return Image.fromarray((greys * light(x, y)).round().to(torch.uint8).numpy())


def digit(image):
    """The ink that the network sees, in the smallest box; its centre of mass is in the middle."""
    ink = seen(image, "mnist")[0].float()
    y, x = (ink.sum(1 - k) @ torch.arange(0.5, 32) / ink.sum() for k in (0, 1))
    assert max(abs(y - 16), abs(x - 16)) <= 0.51
    (top, left), (bottom, right) = (ink > 127).nonzero().aminmax(dim=0)
    box = ink[top:bottom + 1, left:right + 1]
    assert box.max() == 255 and ink.sum() - box.sum() < 300  # black around it
    return box


def test_a_digit_is_20_pixels_long(few):
    assert digit(written()).shape == (20, 13)
    assert digit(written().transpose(Image.Transpose.ROTATE_90)).shape == (13, 20)
    assert digit(ImageOps.expand(Image.new("L", (3, 300), 48), 50, 240)).shape == (20, 1)


@pytest.mark.parametrize("other", [
    ImageOps.expand(written(lambda x, y: 1 - (x * y > .9) / 9), 90, 240), written(lambda x, y: .3),
    written(lambda x, y: 1 - .6 * x), written().point(lambda grey: 99 - grey // 3),
    written(lambda x, y: 1 - .6 * y), written(lambda x, y: (.6 + .4 * x) * (1 - .4 * y))],
    ids=["more paper, a spot on it", "dim", "light at the left", "chalk", "above", "in a corner"])
def test_a_digit_looks_the_same_on_other_paper_and_in_other_light(few, other):
    assert (digit(other) - digit(written())).abs().max() <= 25  # of 255


@pytest.mark.parametrize("dataset", ["mnist", "fashion"])
@pytest.mark.parametrize("edge", [(0, 0, 28, 1), (0, 27, 28, 28), (0, 0, 1, 28), (27, 0, 28, 28)])
def test_a_file_of_the_test_sets_own_size_is_padded_only(few, dataset, edge):
    """Also where what it shows touches an edge: most of the border is dark all the same."""
    image = Image.new("L", (28, 28), 3)
    image.paste(99, (5, 9, 13, 21))
    image.paste(222, edge)
    padded = F.pad(pil_to_tensor(image)[0], (2, 2, 2, 2))
    assert torch.equal(seen(image, dataset), padded.expand(3, 32, 32))
    negative = seen(image.point(lambda value: 255 - value), dataset)  # black on white is turned
    assert negative.median() == 0 and negative.max() > 200


@pytest.mark.parametrize("size, box", [((90, 60), (2, 7, 30, 25)), ((60, 120), (9, 2, 23, 30))])
@pytest.mark.parametrize("background, cloth", [(255, 40), (0, 200), (120, 60)])
def test_clothes_are_shrunk_whole_and_padded_on_black(few, size, box, background, cloth):
    image = Image.new("L", size, background)
    image.paste(cloth, (3, 3, size[0] - 3, size[1] - 3))
    shown = seen(image, "fashion")[0]
    (top, left), (bottom, right) = (shown > 127).nonzero().aminmax(dim=0)
    assert [left, top, right + 1, bottom + 1] == pytest.approx(box, abs=1)
    assert shown[16, 16] >= 254 and shown[0, 0] == shown[-1, -1] == 0


@pytest.mark.parametrize("paper, ink, nothing", [
    (200, 185, "185 to 200"), (200, 183, None), (10, 30, "10 to 30"), (10, 31, None)])
def test_a_blank_photo_is_refused_and_a_faint_one_not(few, paper, ink, nothing):
    image = Image.new("L", (40, 40), paper)
    image.paste(ink, (18, 15, 22, 25))
    refusal = pytest.raises(data.UserError, match=f"'photo.png' shows nothing: .* {nothing}.")
    with refusal if nothing else contextlib.nullcontext():
        assert seen(image, "mnist").max() == seen(image, "fashion").max() == 255


# ---- Which network -------------------------------------------------------------------------------

@pytest.mark.parametrize("flags, file, claim", [
    ("", "cifar_net.pth", "cifar_net.pth knows the ten classes of CIFAR-10: "),
    ("--dataset stripes --checkpoint mine.pth", "mine.pth", "mine.pth knows the ten"),
    ("--checkpoint mine.pth", "mine.pth", "mine.pth may know other classes: these are CIFAR-10's"),
    ("--checkpoint mine", "mine.pth", "mine.pth may"), ("--checkpoint as", "as", "as may")])
def test_which_file_is_read_and_what_it_knows(few, monkeypatch, capsys, flags, file, claim):
    for name in ("mine.pth", "as", "as.pth"):  # a name is taken as typed if it is there
        Path(name).touch()
    asked, predict = [], evaluate.predict
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(data, "download", lambda root: root)
    monkeypatch.setattr(evaluate, "read_image", lambda *args: torch.zeros(3, 32, 32))
    monkeypatch.setattr(evaluate, "draw_all", lambda *args: None)
    monkeypatch.setattr(evaluate, "load_checkpoint", lambda *args: asked.extend(args) or LeNet5())
    monkeypatch.setattr(evaluate, "predict", lambda net, loader, device: asked.append(device)
                        or predict(net, loader))
    evaluate.main([*flags.split(), "--device", "cuda", "--image", "cat\x1b[2J.png"])
    printed = capsys.readouterr().out  # where an odd name clears no screen
    assert printed.startswith(claim) and "\n  cat\\x1b[2J.png: " in printed
    evaluate.main([*flags.split(), "--device", "cuda"])
    assert asked == 2 * [file, "cuda", "cuda"]


@pytest.mark.parametrize("flags, folder, sentence", [
    ("--dataset mnist --mirror", "", "--mirror is not for MNIST"),
    ("--dataset stripes --mirror", "", "--mirror is not for STRIPES"),
    ("--dataset stripes", "predictions.png", "predictions.png can't be written"),
    ("--dataset stripes --image photo.png", "images.png", "images.png can't be written"),
    ("--dataset stripes", "", "stripes_net.pth has 26 outputs, and STRIPES .* has 10 classes: "),
    ("--dataset stripes --image photo.png", "", "stripes_net.pth has 26 outputs, and STRIPES ")])
def test_what_does_not_fit_is_refused_with_a_sentence(few, monkeypatch, flags, folder, sentence):
    PHOTO.save("photo.png")
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 26))
    monkeypatch.setattr(evaluate, "load_checkpoint", lambda *args: net)
    os.mkdir(folder or "another")
    with pytest.raises(data.UserError, match=f"^{sentence}"):
        evaluate.main(flags.split())


def refused(path, *parts):
    """load_checkpoint() refuses path with one printable sentence that holds all parts."""
    with pytest.raises(data.UserError) as error:
        evaluate.load_checkpoint(path)
    message = str(error.value)
    assert message.isprintable() and all(part in message for part in (path, *parts)), message
    return message


def test_a_checkpoint_that_is_not_there_or_cannot_be_read(checkpoint):
    assert refused("nowhere.pth").endswith("with its --dataset and --checkpoint makes one.")
    refused("mnist_net.pth", "mnist makes one. stripes_net.pth is there: add --dataset stripes.")
    os.mkdir("folder.pth")
    refused("folder.pth", "can't be read: ")


@pytest.mark.parametrize("content, cause", [
    (b"", "EOFError"), (b"a,b\n1,2\n", "IndexError"), (b"<html>404</html>", "UnpicklingError"),
    (b"h1", "KeyError"), (b"PK\3\4", "RuntimeError"), (b"\x80\2X\1\0\0\0\xff.", "UnicodeDecode")])
def test_a_file_that_is_no_checkpoint(few, content, cause):
    Path("bad.pth").write_bytes(content)
    refused("bad.pth", f"is damaged, or holds more than numbers, which could run code ({cause}",
            "Of your own network, save net.state_dict().")


def test_wherever_a_file_is_wrong_or_ends_it_is_loaded_or_refused(checkpoint):
    whole = Path(checkpoint).read_bytes()
    for k in [*range(0, 1000, 21), *range(-1000, -1, 21)]:  # at its beginning, and at its end
        Path("bad.pth").write_bytes(whole[:k] + bytes([whole[k] ^ 255]) + whole[k + 1:])
        with contextlib.suppress(data.UserError):  # and not with any other error
            evaluate.load_checkpoint("bad.pth")
    for size in (1, 100, 10_000, 200_000):
        Path("bad.pth").write_bytes(whole[:size])
        refused("bad.pth", "is damaged")


@pytest.mark.parametrize("saved, words", [
    ({**NET, "fc3.weight": torch.zeros(100, 84)}, ["size mismatch for fc3.weight", "[10, 84]"]),
    ({**NET, "fc4.weight": torch.zeros(1)}, ['Unexpected key(s) in state_dict: "fc4.weight".']),
    ({**NET, "a\n\x1b[2J": torch.zeros(1)}, ["\\x1b[2J"]), ([1, 2], ["<class 'list'>"]),
    ({"state_dict": NET, "epoch": 3}, ['Missing key(s) in state_dict: "conv1.weight", "conv1.bias"',
                                       'Unexpected key(s) in state_dict: "state_dict", "epoch".']),
    ({f"module.{name}": NET[name] for name in NET}, ["Missing key(s)", '"module.conv1.weight", '])])
def test_another_network_is_refused_with_a_few_of_the_keys_that_differ(few, saved, words):
    torch.save(saved, "other.pth")
    assert len(refused("other.pth", "this LeNet5: ", *words)) < 400


def test_code_hidden_in_a_checkpoint_is_not_run(few):
    Path("code.pth").write_bytes(b"cbuiltins\nopen\n(Vit_ran\nVw\ntR.")  # open("it_ran", "w")
    refused("code.pth", "holds more than numbers, which could run code (UnpicklingError: ")
    assert not os.path.exists("it_ran")
