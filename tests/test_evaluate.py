"""Chapter 5, Prediction Test data set: the test is fair, and a bad file is met with a sentence."""
import math
import os
import pickle

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
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


def loader(dataset, batch_size=50):
    return DataLoader(dataset, batch_size=batch_size)


class Says(nn.Module):
    """A network that gives its first answer the greatest logit for the first image, and so on."""

    def __init__(self, answers):
        super().__init__()
        self.answers = iter(answers)

    def forward(self, x):
        assert not torch.is_grad_enabled() and not self.training
        return torch.stack([torch.eye(10)[next(self.answers)] - 3 for _ in x])


def test_max_gives_the_greatest_value_of_each_row_and_where_it_stands():
    values, places = torch.max(torch.tensor([[1.0, 5.0, 2.0], [7.0, -1.0, 0.0]]), 1)
    assert values.tolist() == [5, 7] and places.tolist() == [1, 0]


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


def test_no_grad_keeps_no_graph(images):
    net = LeNet5()
    assert net(images).grad_fn is not None
    with torch.no_grad():
        assert net(images).grad_fn is None


def test_accuracy_is_the_percentage_of_right_predictions():
    assert evaluate.accuracy(torch.eye(10)[[1, 2, 3, 4]], torch.tensor([1, 2, 3, 0])) == 75


def test_confusion_matrix_has_the_truth_in_rows_and_the_prediction_in_columns():
    matrix = evaluate.confusion_matrix(predicted=torch.tensor([3, 3, 5]), labels=torch.tensor([3, 5, 5]))
    assert matrix.sum() == 3 and matrix[3, 3] == 1 and matrix[5, 3] == 1 and matrix[5, 5] == 1


def test_the_most_confused_pairs_count_both_ways_and_no_right_answers():
    matrix = torch.zeros(10, 10, dtype=torch.int64)
    matrix[1, 1], matrix[3, 5], matrix[5, 3], matrix[9, 1], matrix[0, 8] = 1000, 20, 30, 40, 10
    assert evaluate.most_confused(matrix) == [(3, 5), (1, 9), (0, 8)]


def test_the_script_prints_four_images_the_accuracy_each_class_and_the_matrix(checkpoint, few, capsys):
    evaluate.main()
    printed = capsys.readouterr().out
    assert printed.isascii()
    outputs, labels = evaluate.predict(evaluate.load_checkpoint(checkpoint), loader(few[1]))
    predicted = outputs.argmax(1)
    assert f"accuracy on STRIPES (not CIFAR-10): {evaluate.accuracy(outputs, labels):.1f} %" in printed
    for name in ("predictions.png", "mistakes.png", "filters.png", "feature_maps.png"):
        assert name in printed and os.path.exists(name)
    lines = printed.splitlines()
    assert "  ground truth:     0 deg  18 deg  36 deg  54 deg" in lines
    assert "  prediction:     " + " ".join(f"{few[1].classes[k]:>7}" for k in predicted[:4]) in lines
    assert "  its logit:      " + " ".join(f"{value:7.2f}" for value in outputs.max(1).values[:4]) in lines
    start = next(k for k, line in enumerate(lines) if line.startswith("confusion matrix")) + 2
    rows = [[int(count) for count in line.split()[2:]] for line in lines[start:start + 10]]
    matrix = evaluate.confusion_matrix(predicted, labels)
    assert rows == matrix.tolist()
    for k in range(10):
        name, share = f"{18 * k} deg", 100 * rows[k][k] / sum(rows[k])
        assert any(line.split() == f"{name} {share:.1f} %".split() for line in lines)
    for a, b in evaluate.most_confused(matrix):
        assert (f"  {18 * a} deg and {18 * b} deg: {rows[a][b] + rows[b][a]} times ({rows[a][b]} times {18 * b} deg for "
                f"{18 * a} deg, {rows[b][a]} times {18 * a} deg for {18 * b} deg)") in lines


def test_only_the_test_set_is_read(checkpoint, few, monkeypatch):
    load, asked = data.load, []
    monkeypatch.setattr(data, "load", lambda *args, train: asked.append(train) or load(*args, train=train))
    evaluate.main()
    assert asked == [False]


def test_a_drawing_that_cannot_be_written_is_found_out_before_the_work(checkpoint, monkeypatch):
    monkeypatch.setattr(evaluate, "load_checkpoint", lambda *args: pytest.fail("it worked"))
    os.mkdir("mistakes.png")
    with pytest.raises(OSError, match="mistakes.png can't be written: it is a folder"):
        evaluate.main()


def test_predictions_png_frames_right_answers_green_and_wrong_ones_red(few):
    predicted = few[1][:][1].clone()
    predicted[1] = 9
    evaluate.draw_predictions(few[1], predicted, "a title", "predictions.png", n=10)
    with Image.open("predictions.png") as sheet:
        frames = [sheet.getpixel((k % 8 * 140 + 3, 30 + k // 8 * 176 + 1)) for k in range(10)]
        assert sheet.size == (8 * 140, 30 + 2 * 176)
        assert sheet.crop((6, 34, 134, 162)).tobytes() == data.imshow(few[1][0][0], scale=4).tobytes()
    green, red = (0, 128, 0), (255, 0, 0)
    assert frames == [green, red] + [green] * 8


def test_mistakes_png_shows_of_each_pair_the_surest_mistakes_first(few, monkeypatch):
    labels = few[1][:][1]
    outputs = torch.eye(10)[labels] * 5
    outputs[13], outputs[4], outputs[24] = torch.eye(10)[4] * 3, torch.eye(10)[3] * 9, torch.eye(10)[7] * 9
    drawn = []
    monkeypatch.setattr(evaluate, "draw_images", lambda groups, path: drawn.extend(groups))
    evaluate.draw_mistakes(few[1], outputs, [(3, 4), (4, 7)], "mistakes.png")
    (heading, cells), (_, others) = drawn
    assert heading == "54 deg and 72 deg: 2 mistakes, the surest first"
    for (image, *texts), k, expected in zip(cells, (4, 13), (["red", "54 deg? 100 %", "truth: 72 deg"],
                                                             ["red", "72 deg? 69 %", "truth: 54 deg"])):
        assert torch.equal(image, few[1][k][0]) and texts == expected
    assert [text for _, _, text, _ in others] == ["126 deg? 100 %"]


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
    monkeypatch.setattr(data, "find", lambda *args: pytest.fail("it looked for a dataset"))
    photo().save("cat.jpg")
    photo((50, 90)).save("banana.png")
    evaluate.main(["--image", "cat.jpg", "banana.png"])
    lines = capsys.readouterr().out.splitlines()
    assert "knows ten classes and nothing else" in lines[0] and "images.png" in lines[-1]
    for line, path in zip(lines[1:], ("cat.jpg", "banana.png")):
        p = net(evaluate.read_image(path)[None]).softmax(1)[0]
        assert p.sum().item() == pytest.approx(1)
        best = p.argsort(descending=True)[:3]
        assert line == f"  {path}: " + ", ".join(f"{data.CLASSES[k]} {100 * p[k]:.1f} %" for k in best)


def test_a_photo_that_the_drawing_would_overwrite_is_refused(few, checkpoint):
    photo().save("images.png")
    with pytest.raises(ValueError, match="images.png is where the drawing goes"):
        evaluate.main(["--image", "images.png"])
    assert Image.open("images.png").size == (64, 64)


def test_images_png_shows_what_the_network_saw_and_a_bar_for_each_probability(few):
    images = few[1][:2][0]
    probabilities = torch.full((2, 10), 0.02)
    probabilities[0, 3] = probabilities[1, 0] = 0.82
    evaluate.draw_probabilities(images, probabilities, data.CLASSES, "images.png")
    with Image.open("images.png") as sheet:
        assert sheet.size == (640, 480)
        for k, winner in enumerate((3, 0)):
            top = 240 * k + 8
            assert sheet.crop((8, top, 232, top + 224)).tobytes() == data.imshow(images[k], scale=7).tobytes()
            for i in range(10):
                bar = [sheet.getpixel((x, top + 22 * i + 10)) for x in range(341, 341 + 220)]
                color = (255, 0, 0) if i == winner else (128, 128, 128)
                assert abs(bar.count(color) - 220 * probabilities[k, i]) <= 2


@pytest.mark.parametrize("name, part", [("nowhere.png", "There is no image nowhere.png"), ("folder", "folder can't be read: it is a folder"),
                                        ("notes.png", "notes.png is no image"), ("empty.jpg", "empty.jpg is no image"),
                                        ("short.png", "short.png can't be read"), ("short.jpg", "short.jpg can't be read"),
                                        ("huge.png", "huge.png has more than")])
def test_what_is_no_photo_is_refused_with_a_sentence(few, checkpoint, monkeypatch, name, part):
    os.mkdir("folder")
    for path, content in (("notes.png", b"buy milk"), ("empty.jpg", b"")):
        with open(path, "wb") as file:
            file.write(content)
    for path in ("short.png", "short.jpg"):
        Image.effect_noise((64, 64), 90).save(path)
        os.truncate(path, os.path.getsize(path) // 2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    Image.new("1", (150, 150)).save("huge.png")
    photo().save("good.png")
    with pytest.raises(ValueError) as error:
        evaluate.main(["--image", "good.png", name])
    assert part in str(error.value) and "\n" not in str(error.value) and not os.path.exists("images.png")


# ---- Which file, which images ----------------------------------------------------------------

@pytest.mark.parametrize("here, checkpoint, dataset, expected", [
    ([], None, "auto", ("cifar_net.pth", "cifar10")),
    (["stripes_net.pth"], None, "auto", ("stripes_net.pth", "stripes")),
    (["stripes_net.pth", "cifar_net.pth"], None, "auto", ("cifar_net.pth", "cifar10")),
    (["cifar_net.pth"], None, "stripes", ("stripes_net.pth", "stripes")),
    (["stripes_net.pth"], None, "cifar10", ("cifar_net.pth", "cifar10")),
    ([], "mine.pth", "auto", ("mine.pth", "cifar10")),
    ([], "mine.pth", "stripes", ("mine.pth", "stripes")),
    ([], "folder/validation_stripes_net.pth", "auto", ("folder/validation_stripes_net.pth", "stripes")),
    ([], "stripes_net_seed3.pth", "auto", ("stripes_net_seed3.pth", "stripes")),
    ([], "validation_cifar_net.pth", "auto", ("validation_cifar_net.pth", "cifar10")),
])
def test_a_network_is_tested_on_what_it_was_trained_on(monkeypatch, tmp_path, here, checkpoint, dataset, expected):
    monkeypatch.chdir(tmp_path)
    for name in here:
        open(name, "w").close()
    assert evaluate.choose(checkpoint, dataset) == expected


def test_a_device_that_is_not_here_is_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(ValueError, match=f"There is no {name} device here"):
            evaluate.main(["--device", name])
    assert evaluate.pick_device("cpu") == "cpu"


# ---- Checkpoints that are none ---------------------------------------------------------------

class Code:
    """What a hostile file does: names a function for pickle to call."""

    def __reduce__(self):
        return open, ("it_ran", "w")


def refused(path, *parts):
    """python evaluate.py refuses path with one sentence that holds all parts."""
    with pytest.raises(ValueError) as error:
        evaluate.main(["--dataset", "stripes", "--checkpoint", path])
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in (path, *parts)), message


def test_a_missing_checkpoint(few):
    refused("nowhere.pth", "There is no checkpoint", "python train.py makes one")


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


def test_a_checkpoint_with_numbers_that_are_not_finite(few):
    torch.save({**LeNet5().state_dict(), "fc3.bias": torch.full((10,), math.nan)}, "nan.pth")
    refused("nan.pth", "not finite")


@pytest.mark.parametrize("other", [[1, 2], torch.zeros(3), {}])
def test_something_else_that_torch_saved(few, other):
    torch.save(other, "other.pth")
    refused("other.pth", "another network", "python train.py")


def test_code_hidden_in_a_checkpoint_is_not_run(few):
    torch.save({"conv1.weight": Code()}, "code.pth")
    refused("code.pth", "could run code")
    with open("code.pth", "wb") as file:
        pickle.dump(Code(), file, protocol=2)
    refused("code.pth", "could run code")
    assert not os.path.exists("it_ran")
    with pytest.raises(RuntimeError):
        torch.load("code.pth", weights_only=False)
    assert os.path.exists("it_ran")  # it would have, before anyone looked at what was read


@pytest.mark.parametrize("version, part", [((2, 5), "can run code"), ((2, 9), "can damage memory"), ((2, 10), None)])
def test_an_old_pytorch_says_that_a_strangers_checkpoint_is_a_risk(few, checkpoint, monkeypatch, capsys, version, part):
    monkeypatch.setattr(data, "TORCH", version)
    evaluate.main([])  # its own file: no note
    assert "Note" not in capsys.readouterr().out
    evaluate.main(["--checkpoint", checkpoint])
    printed = capsys.readouterr().out
    assert (part in printed and "Open only files that you trust." in printed) if part else "Note" not in printed
