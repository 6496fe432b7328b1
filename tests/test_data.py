"""Chapter 2, Data Download: the images, from bytes to mini-batches; and what all scripts share."""
import argparse
import hashlib
import io
import os
import runpy
import shutil
import socket
import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, ToTensor
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid

import data
import evaluate
import train
from conftest import ROOT
from test_copies import write_mnist

# An image (3, 16, 16) with each byte once, 0 to 255, in each of its colours.
EVERY_BYTE = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)


def test_the_compose_gives_what_the_tutorials_gives_numbers_from_minus_1_to_1():
    """But for the last digit: ours multiplies by 1 / 255, and the older ToTensor divides by 255."""
    compose = Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    photo = Image.fromarray(EVERY_BYTE.permute(1, 2, 0).contiguous().numpy())
    numbers = data.transform(photo)
    assert (numbers - compose(photo)).abs().max() < 2.5e-7 and numbers.min() == -numbers.max() == -1


def test_a_whole_set_at_once_gives_what_image_by_image_gives(stripes):
    pixels, labels = data.stripes(train=False)
    for k in (0, 999, 1000, 1999):
        image, label = stripes[1][k]
        photo = Image.fromarray(pixels[k].permute(1, 2, 0).contiguous().numpy())
        assert type(image) is torch.Tensor and torch.equal(image, data.transform(photo))
        assert label == labels[k]


def test_a_validation_set_is_cut_off_the_end_of_the_training_set_but_never_all_of_it(few):
    others, validation = data.validation_split(few[0], 50)
    assert (len(others), len(validation)) == (350, 50)
    for whole, one, other in zip(few[0][:], others[:], validation[:]):
        assert torch.equal(torch.cat([one, other]), whole)
    assert others.name == validation.name == few[0].name
    assert others.classes == validation.classes == few[0].classes
    assert len(data.validation_split(few[0], 399)[0]) == 1
    for n in (-1, 0, 400):
        with pytest.raises(data.UserError, match=f"^A validation set of {n} can't be taken from "
                                                 "400 training images: take 1 to 399.$"):
            data.validation_split(few[0], n)


def test_imshow_undoes_the_normalisation_and_clips_what_lies_beyond():
    picture = data.imshow(data.transform(EVERY_BYTE), scale=1)
    assert torch.equal(pil_to_tensor(picture), EVERY_BYTE)
    picture = data.imshow(torch.tensor([-9.0, 9.0]).view(1, 1, 2).expand(3, 1, 2))
    assert pil_to_tensor(picture).tolist() == [[[0] * 4 + [255] * 4] * 4] * 3  # squares of 4x4


# ---- The synthetic dataset -----------------------------------------------------------------------

def test_stripes_are_10000_and_2000_images_a_tenth_of_each_class(stripes):
    for dataset, n in zip(stripes, (10_000, 2_000)):
        images, labels = dataset[:]
        assert images.shape == (n, 3, 32, 32) and labels.bincount().tolist() == [n // 10] * 10
        assert (images == 1).float().mean() > 0.01  # what noise lifts above white stays white


def test_stripes_are_the_same_every_time_and_no_test_image_is_a_training_image(stripes):
    torch.manual_seed(99)
    again, _ = data.load(False, "stripes")[:]
    assert torch.equal(again, stripes[1][:][0])
    known = {image.numpy().tobytes() for image in stripes[0][:][0]}
    assert not any(image.numpy().tobytes() in known for image in again)


def test_the_name_of_a_class_is_the_angle_of_its_stripes(stripes):
    """Brightness changes most straight across the stripes: downwards (y) if they lie flat."""
    images, labels = stripes[0][:]
    images = images.mean(1)  # (N, 32, 32), grey
    dy = images[:, 2:, 1:-1] - images[:, :-2, 1:-1]
    dx = images[:, 1:-1, 2:] - images[:, 1:-1, :-2]
    for k in range(10):
        y, x = dy[labels == k], dx[labels == k]
        angle = torch.atan2(2 * (x * y).mean(), (y * y - x * x).mean()).rad2deg().item() / 2
        assert stripes[0].classes[k] == f"{18 * round(angle % 180 / 18) % 180}deg"


# ---- MNIST and Fashion-MNIST ---------------------------------------------------------------------

@pytest.fixture(params=["mnist", "fashion"])
def grey(request, tmp_path, monkeypatch):
    """(a word for --dataset, the folder of its files): twice 40 made-up images, and MD5s to fit."""
    monkeypatch.chdir(tmp_path)
    raw = write_mnist("data", {"mnist": "MNIST", "fashion": "FashionMNIST"}[request.param], n=40)
    sets = [data.DATASETS[request.param].source("data", train=train_set) for train_set in (1, 0)]
    md5 = [hashlib.md5(each.data.numpy().tobytes() + bytes(each.targets.tolist())) for each in sets]
    monkeypatch.setitem(data.GREY_MD5, request.param, [each.hexdigest() for each in md5])
    return request.param, raw


def test_a_grey_dataset_is_padded_to_32x32_in_three_equal_channels(grey):
    name, ninth = {"mnist": ("MNIST", "nine"), "fashion": ("Fashion-MNIST", "Ankle boot")}[grey[0]]
    for train_set, first in ((True, 0), (False, 5)):  # see write_mnist()
        dataset = data.load(train_set, grey[0])
        images, labels = dataset[:]
        assert labels.tolist() == [(first + k) % 10 for k in range(40)]
        expected = F.pad(((torch.arange(28 * 28) + first) % 256).view(28, 28), (2, 2, 2, 2))
        assert torch.allclose(images[0], (expected / 127.5 - 1).expand(3, 32, 32), atol=1e-6)
        assert (dataset.name, len(dataset.classes), dataset.classes[9]) == (name, 10, ninth)


def test_a_grey_dataset_goes_through_all_scripts_with_files_of_its_own(grey):
    data.main(["--dataset", grey[0]])
    train.main(["--dataset", grey[0], "--epochs", "1", "--batch-size", "8"])
    evaluate.main(["--dataset", grey[0]])
    assert {f"{grey[0]}_net.pth", f"{grey[0]}_net_curve.csv", "confusion.png"} <= set(os.listdir())


@pytest.mark.parametrize("file", ["images-idx3-ubyte", "labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", [0, 3, 10, 30, "the other set's", "the test set's", "missing"])
def test_a_wrong_or_damaged_file_is_one_sentence(grey, monkeypatch, file, damage):
    """The files of MNIST and Fashion-MNIST have the same names, and their images the same size."""
    word, raw = grey
    limits, path = set(), os.path.join(raw, f"train-{file}")
    monkeypatch.setattr(sys.modules["torchvision.datasets.mnist"], "download_and_extract_archive",
                        lambda *args, **flags: limits.add(socket.getdefaulttimeout()))
    if damage == "missing":
        os.remove(path)
    elif damage == "the test set's":
        shutil.copy(os.path.join(raw, f"t10k-{file}"), path)
    elif damage == "the other set's":
        shutil.copy(os.path.join(write_mnist("others", n=40, first=1), f"train-{file}"), path)
    else:
        os.truncate(path, damage)
    with pytest.raises(data.UserError) as error:
        data.load(True, word)
    message, = str(error.value).splitlines()
    assert message.startswith(f"{data.DATASETS[word].name} can't be had (")
    assert message.endswith(
        "). Try again later, or put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-"
        f"idx3-ubyte, t10k-labels-idx1-ubyte into {raw}; delete a damaged one.")
    assert limits == ({data.TIMEOUT} if damage == "missing" else set())


@pytest.mark.parametrize("word", ["mnist", "fashion"])
def test_the_real_grey_datasets_are_taken(word):
    folder = os.path.join(ROOT, "data")
    if not os.path.exists(os.path.join(folder, data.DATASETS[word].source.__name__)):
        pytest.skip(f"it is not in data/: python data.py --dataset {word} brings it")
    (training, _), (test, _) = (data.grey(train_set, word, folder) for train_set in (True, False))
    assert (len(training), len(test)) == (60_000, 10_000)


def test_augment_flips_and_shifts_by_at_most_2_pixels_each_image_on_its_own(images):
    image = images[0, :, :, :20]  # not a square
    padded = F.pad(image[None], (2, 2, 2, 2), "replicate")[0]  # the border pixels, repeated
    shifted = [padded[:, y:y + 32, x:x + 20] for y in range(5) for x in range(5)]
    moved = torch.stack([*shifted, *(each.flip(2) for each in shifted)])
    torch.manual_seed(0)
    changed = data.augment(image.expand(2000, 3, 32, 20))
    same = (changed[:, None] == moved).flatten(2).all(2)  # (2000, 50)
    assert (same.sum(1) == 1).all()                       # each is one of the 50, and each of the
    assert same.sum(0).min() >= 15 and same.sum(0).max() <= 75  # 50 comes about 40 times in 2,000


def test_augment_brings_the_numbers_that_it_draws_to_where_the_images_are(images, monkeypatch):
    images, seen, to = images.to("meta"), [], torch.Tensor.to  # (on meta, there are only shapes)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, at: seen.append(at.type) or to(self, at))
    assert data.augment(images).shape == images.shape and seen == ["meta", "meta"]


def test_collate_augmented_makes_a_mini_batch_of_samples_and_augments_it(few):
    images, labels = few[0][:50]
    torch.manual_seed(1)
    expected = data.augment(images)
    torch.manual_seed(1)
    augmented, same_labels = data.collate_augmented([few[0][k] for k in range(50)])
    assert torch.equal(augmented, expected) and torch.equal(labels, same_labels)


@pytest.mark.parametrize("flag", ["augment", "mirror"])
def test_flips_are_for_cifar10_and_fashion_only(flag):
    """A mirrored 3 is no digit, and mirrored stripes of 18 degrees are stripes of 162."""
    for dataset, name in (("mnist", "MNIST"), ("stripes", "STRIPES .*")):
        data.refuse_flips(argparse.Namespace(dataset=dataset, **{flag: False}))
        sentence = f"--{flag} is not for {name}: in the mirror, its images are of another class, or"
        with pytest.raises(data.UserError, match=f"^{sentence} of none. Leave it out.$"):
            data.refuse_flips(argparse.Namespace(dataset=dataset, **{flag: True}))
    for dataset in ("cifar10", "fashion"):
        data.refuse_flips(argparse.Namespace(dataset=dataset, **{flag: True}))


def test_the_script_goes_through_the_chapter_in_80_columns(few, capsys):
    data.main(["--dataset", "stripes"])
    lines = capsys.readouterr().out.splitlines()
    torch.manual_seed(0)
    images, labels = next(iter(DataLoader(few[0], batch_size=4, shuffle=True)))
    pixel, stored = few[0][0][0][:, 16, 16].tolist(), data.stripes()[0][0, :, 16, 16].tolist()
    for line in ("STRIPES (not CIFAR-10): a training set of 400 images, a test set of 200",
                 f"classes: {', '.join(few[0].classes)}",
                 f"  transformed: {[round(value, 3) for value in pixel]}",
                 f"  as stored:   {stored}",
                 "a trainloader of 100 mini-batches, a testloader of 50",
                 "  images: shape (4, 3, 32, 32), torch.float32, "
                 f"from {images.min():.2f} to {images.max():.2f}",
                 f"  labels: shape (4,), torch.int64, {labels.tolist()}",
                 f"  names:  {', '.join(few[0].classes[label] for label in labels)}"):
        assert line in lines
    assert max(map(len, lines)) <= 80
    grid = data.imshow(make_grid(images, pad_value=1), scale=8)
    assert torch.equal(pil_to_tensor(Image.open("samples.png")), pil_to_tensor(grid))


def test_the_script_prints_what_its_first_lines_quote(cifar, few, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda train, **_: cifar[not train])
    data.main(["--dataset", "cifar10"])
    quoted = [line[4:] for line in data.__doc__.splitlines() if line.startswith("    ")][1:]
    assert quoted == [line for line in capsys.readouterr().out.splitlines() if line]
    assert max(map(len, quoted)) <= 80


# ---- Files and the command line, as all scripts share them ---------------------------------------

def test_a_look_whether_a_file_can_be_written_changes_nothing(tmp_path):
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        data.check_writable(tmp_path / name)
    assert (tmp_path / "old").read_text() == "old" and os.listdir(tmp_path) == ["old"]


def test_a_file_that_cannot_be_written_ends_a_script_before_its_work(few, monkeypatch, capsys):
    os.mkdir("samples.png")
    monkeypatch.setattr(sys, "argv", ["some/folder/data.py", "--dataset", "stripes"])
    with pytest.raises(SystemExit, match="^data.py: samples.png can't be written: "
                       "(Is a directory|Permission denied). Name another file or folder.$"):
        runpy.run_path(data.__file__, run_name="__main__")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("here", [[], ["cuda"], ["mps"]])
def test_the_flags_that_scripts_share_and_the_devices_that_are_here(monkeypatch, here):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in here)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in here)
    parser = data.command_line("What it does.", network=True)
    more = {"checkpoint": None, "mirror": False, "device": "cpu"}
    assert vars(data.command_line("").parse_args([])) == {"dataset": "auto", "data_dir": "data"}
    assert vars(parser.parse_args([])) == {"dataset": "auto", "data_dir": "data", **more}
    shown = " ".join(parser.format_help().split())
    assert "What it does." in shown and "folder of the datasets (default: data)" in shown
    assert "--dataset {auto,cifar10,mnist,fashion,stripes}" in shown
    assert f"--device {{{','.join(['cpu', *here])}}}" in shown


@pytest.mark.parametrize("module", [data, train, evaluate])
def test_in_a_notebook_main_does_not_read_the_kernels_arguments(few, monkeypatch, module):
    seen = []
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setattr(data, "find_dataset", lambda args: "cifar10")
    monkeypatch.setattr(module, "run_seeds" if module is train else "run", seen.append)
    module.main()
    assert len(seen) == 1


@pytest.mark.parametrize("raised, end", [
    (KeyboardInterrupt(), SystemExit("\nStopped by Ctrl-C.")), (OSError("bug"), OSError("bug"))])
def test_ctrl_c_ends_a_script_with_a_sentence_but_a_bug_with_a_traceback(raised, end):
    def main(argv):
        raise raised

    with pytest.raises(type(end)) as stop:
        data.script(main)
    assert stop.value.args == end.args


def test_a_console_that_cannot_show_a_letter_shows_its_number_and_each_line_at_once(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    data.script(lambda argv: print("\uace0\uc591\uc774.png"))
    assert console.buffer.getvalue().strip() == rb"\uace0\uc591\uc774.png"  # no flush() needed
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as a notebook's: it has no reconfigure()
    data.script(print)
