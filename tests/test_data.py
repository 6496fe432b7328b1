"""Chapter 2, Data Download: the images, from bytes to mini-batches."""
import argparse
import io
import os
import socket
import stat
import subprocess
import sys
import urllib.error

import PIL
import pytest
import torch
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


# ---- The transform ---------------------------------------------------------------------------

def test_bytes_0_to_255_become_numbers_from_minus_1_to_1():
    shades = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).view(1, 1, 4).expand(3, 1, 4)
    assert data.transform(shades)[0, 0].tolist() == pytest.approx([-1, -0.004, 0.004, 1], abs=1e-4)


def test_the_compose_gives_what_the_tutorials_gives(stripes):
    """v2 multiplies by 1 / 255 where the older ToTensor divides by 255: the last digit of a float32 may differ."""
    compose = Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    photo = Image.fromarray(every.permute(1, 2, 0).contiguous().numpy())
    assert (data.transform(photo) - compose(photo)).abs().max() < 2.5e-7


def test_a_whole_set_at_once_gives_what_image_by_image_gives(stripes):
    pixels, _ = data.stripes(train=False)
    one_by_one = [data.transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in pixels[:20]]
    assert torch.equal(torch.stack(one_by_one).as_subclass(torch.Tensor), stripes[1][:20][0])


# ---- The set, and the loader -----------------------------------------------------------------

def test_one_image_and_its_label_and_a_slice_of_several(stripes):
    image, label = stripes[0][7]
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32 and label == 7 and type(image) is torch.Tensor
    images, labels = stripes[0][4:7]
    assert images.shape == (3, 3, 32, 32) and labels.tolist() == [4, 5, 6]


def test_a_validation_set_is_cut_off_the_end_of_the_training_set(few):
    rest, validation = data.validation_split(few[0], 50)
    for whole, one, other in zip(few[0][:], rest[:], validation[:]):
        assert torch.equal(torch.cat([one, other]), whole)
    assert (len(rest), len(validation)) == (350, 50)
    assert rest.classes == validation.classes == few[0].classes and rest.name == validation.name == few[0].name
    for n in (0, 400, -1):
        with pytest.raises(data.UserError, match="can't be taken from 400 training images: take 1 to 399"):
            data.validation_split(few[0], n)


# ---- imshow ----------------------------------------------------------------------------------

def test_imshow_undoes_the_normalisation_for_all_256_bytes():
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    picture = data.imshow(data.transform(image), scale=1)
    assert torch.equal(pil_to_tensor(picture), image)


def test_imshow_returns_a_pil_image_large_enough_to_see_and_writes_it(tmp_path, images):
    picture = data.imshow(make_grid(images), tmp_path / "grid.png", scale=8)
    assert isinstance(picture, Image.Image)
    assert picture.size == ((4 * 34 + 2) * 8, 36 * 8)  # four images of 32, a border of 2 around each
    with Image.open(tmp_path / "grid.png") as written:
        assert written.size == picture.size and written.tobytes() == picture.tobytes()


# ---- The synthetic dataset -------------------------------------------------------------------

def test_stripes_are_10000_and_2000_images_a_tenth_of_each_class(stripes):
    for dataset, n in zip(stripes, (10_000, 2_000)):
        images, labels = dataset[:]
        assert images.shape == (n, 3, 32, 32) and labels.bincount().tolist() == [n // 10] * 10
        assert dataset.classes == tuple(f"{angle} deg" for angle in range(0, 180, 18))


def test_stripes_are_the_same_every_time_whatever_the_seed(stripes):
    torch.manual_seed(99)
    assert torch.equal(data.load(False, "stripes")[:][0], stripes[1][:][0])


def test_no_test_stripe_is_a_training_stripe(stripes):
    train = {image.numpy().tobytes() for image in stripes[0][:][0]}
    assert not any(image.numpy().tobytes() in train for image in stripes[1][:][0])


def test_stripes_lie_flat_in_class_0_and_stand_in_class_5(stripes):
    images, labels = stripes[0][:]
    images = images.mean(1)  # (N, 32, 32), grey
    between_rows, between_columns = images.mean(2).std(1), images.mean(1).std(1)
    flat, upright = labels == 0, labels == 5
    assert between_rows[flat].mean() > 5 * between_columns[flat].mean()
    assert between_columns[upright].mean() > 5 * between_rows[upright].mean()


def test_load_knows_five_names_and_refuses_others(monkeypatch):
    monkeypatch.setattr(data, "download", lambda *args: pytest.fail("it downloaded"))
    with pytest.raises(data.UserError, match="auto, cifar10, mnist, fashion, stripes, not 'CIFAR10'"):
        data.load(dataset="CIFAR10")


# ---- MNIST and Fashion-MNIST -----------------------------------------------------------------

@pytest.fixture(params=["mnist", "fashion"])
def grey(request, tmp_path, monkeypatch):
    """(what --dataset calls it, its name, torchvision's name): 40 images for training and test each, in data/."""
    monkeypatch.chdir(tmp_path)
    flag, name, torchvisions = request.param, data.NAMES[request.param], data.GREY[request.param].__name__
    write_mnist("data", torchvisions, n=40)
    return flag, name, torchvisions


def test_a_grey_dataset_is_padded_to_32x32_in_three_equal_channels(grey):
    flag, name, torchvisions = grey
    for train_set in (True, False):
        dataset = data.load(train_set, flag)
        images, labels = dataset[:]
        stored = data.GREY[flag]("data", train=train_set).data
        inside = images[:, 0, 2:30, 2:30]
        assert images.shape == (40, 3, 32, 32) and labels.tolist() == [k % 10 for k in range(40)] and dataset.name == name
        assert torch.equal(images[:, 0], images[:, 1]) and torch.equal(images[:, 0], images[:, 2])
        assert torch.allclose(inside, stored / 127.5 - 1, atol=1e-6) and images.sum() == pytest.approx(3 * (inside.sum() - 40 * (1024 - 784)).item(), rel=1e-4)
    assert len(dataset.classes) == 10 and dataset.classes[9] == {"mnist": "nine", "fashion": "Ankle boot"}[flag]


def test_a_grey_dataset_goes_through_all_scripts_with_files_of_its_own(grey, capsys):
    flag, name, _ = grey
    data.main(["--dataset", flag])
    assert f"{name}: a training set of 40 images" in capsys.readouterr().out
    train.main(["--dataset", flag, "--epochs", "1", "--batch-size", "8"])
    assert f"Next: python evaluate.py --dataset {flag}" in capsys.readouterr().out.splitlines()
    evaluate.main(["--dataset", flag])
    printed = capsys.readouterr().out
    assert f"{flag}_net.pth on the test set of {name}, 40 images" in printed and printed.isascii()
    evaluate.main(["--dataset", flag, "--image", "samples.png"])
    wide = {"mnist": 7, "fashion": 11}[flag]  # "Ankle boot", "T-shirt/top": the matrix stays in its columns
    lines = printed.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("confusion matrix"))
    assert {len(line) for line in lines[start + 1:start + 12]} == {2 + 11 * wide + 9}
    assert {f"{flag}_net.pth", f"{flag}_net_curve.csv", "confusion.png", "mistakes.png", "convolution.png", "images.png"} <= set(os.listdir())


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("size", [0, 3, 10, 30])
def test_a_raw_file_that_is_cut_short_is_one_sentence(grey, file, size):
    flag, name, torchvisions = grey
    os.truncate(os.path.join("data", torchvisions, "raw", file), size)
    with pytest.raises(data.UserError) as error:
        data.load(True, flag)
    message = str(error.value)
    assert message.startswith(f"{name} can't be had (") and "\n" not in message
    assert message.endswith(f"or put its four files into {os.path.abspath(os.path.join('data', torchvisions, 'raw'))}; delete a damaged one first.")


@pytest.mark.parametrize("file, n", [("train-images-idx3-ubyte", 41), ("train-labels-idx1-ubyte", 12)])
def test_images_and_labels_that_are_not_of_one_set_are_not_trained_on(grey, file, n):
    flag, name, torchvisions = grey
    write_mnist("others", torchvisions, n)
    os.replace(os.path.join("others", torchvisions, "raw", file), os.path.join("data", torchvisions, "raw", file))
    with pytest.raises(data.UserError, match=f"{name} can't be had .ValueError: its images and labels are not of one set"):
        data.load(True, flag)


def test_without_a_network_a_grey_dataset_is_one_sentence_under_the_limit_on_silence_and_never_stripes(grey, monkeypatch, capsys):
    flag, name, torchvisions = grey
    limits = []

    def unreachable(*args, **flags):
        limits.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(sys.modules["torchvision.datasets.mnist"], "download_and_extract_archive", unreachable)
    with pytest.raises(data.UserError, match=f"{name} can't be had .*Try again later, or put its four files into .*raw; delete a damaged one first"):
        train.main(["--dataset", flag, "--data-dir", "elsewhere"])
    assert set(limits) == {data.TIMEOUT} and socket.getdefaulttimeout() is None and "STRIPES" not in capsys.readouterr().out


# ---- Augmentation ----------------------------------------------------------------------------

def shifted(image, down, right, flip):
    """By hand, pixel by pixel: image (3, 32, 32), moved, with its border repeated; flipped after that."""
    new = torch.empty_like(image)
    for y in range(32):
        for x in range(32):
            old_x = 31 - x if flip else x
            new[:, y, x] = image[:, min(max(y - down, 0), 31), min(max(old_x - right, 0), 31)]
    return new


def test_augment_flips_and_shifts_by_at_most_2_pixels_each_picture_on_its_own(images):
    every = [(down, right, flip) for down in range(-2, 3) for right in range(-2, 3) for flip in (False, True)]
    candidates = torch.stack([shifted(images[0], *move) for move in every])
    torch.manual_seed(0)
    changed = data.augment(images[:1].expand(2000, 3, 32, 32))
    found = [(candidates == image).flatten(1).all(1).nonzero().flatten().tolist() for image in changed]
    assert all(len(match) == 1 for match in found)           # each is one of the 50 moves,
    counts = torch.tensor(found).flatten().bincount(minlength=50)
    assert counts.min() >= 15 and counts.max() <= 75         # and each of the 50 comes about 40 times in 2,000


def test_augment_keeps_shape_range_and_what_it_was_given(images):
    before = images.clone()
    changed = data.augment(images)
    assert changed.shape == images.shape and changed.dtype == images.dtype
    assert changed.min() >= images.min() and changed.max() <= images.max()
    assert torch.equal(images, before)


def test_augment_follows_the_seed_and_is_new_each_time(images):
    torch.manual_seed(1)
    first, second = data.augment(images), data.augment(images)
    torch.manual_seed(1)
    assert torch.equal(data.augment(images), first) and not torch.equal(first, second)


def test_augment_draws_on_the_processor_and_works_where_the_images_are(images):
    """The meta device computes shapes only, but refuses to mix devices as a GPU does."""
    assert data.augment(images.to("meta")).shape == images.shape


def test_a_loader_with_collate_augmented_gives_the_images_that_augment_makes_of_its_own(few):
    torch.manual_seed(1)
    images, labels = next(iter(DataLoader(few[0], batch_size=50, shuffle=True)))
    expected = data.augment(images)
    torch.manual_seed(1)
    augmented, same_labels = next(iter(DataLoader(few[0], batch_size=50, shuffle=True, collate_fn=data.collate_augmented)))
    assert torch.equal(augmented, expected) and torch.equal(labels, same_labels) and not torch.equal(augmented, images)


# ---- python data.py, on either set -----------------------------------------------------------

def test_the_script_walks_through_one_batch_of_four(few, capsys):
    data.main(["--dataset", "stripes"])
    printed = capsys.readouterr().out
    assert printed.isascii()
    for part in ("STRIPES", "(4, 3, 32, 32)", "torch.float32", "torch.int64", "0 0 deg", "samples.png"):
        assert part in printed
    with Image.open("samples.png") as samples:
        assert samples.size == (1104, 288)


def test_real_cifar10_has_50000_and_10000_images_of_ten_classes(cifar):
    for dataset, n in zip(cifar, (50_000, 10_000)):
        images, labels = dataset[:]
        assert images.shape == (n, 3, 32, 32) and images.dtype == torch.float32
        assert labels.bincount().tolist() == [n // 10] * 10
    assert [dataset.name for dataset in cifar] == ["CIFAR-10", "CIFAR-10"]


def test_real_cifar10_is_bit_for_bit_what_the_tutorials_lines_give(cifar):
    theirs = data.CIFAR10(os.path.join(ROOT, "data"), train=False, transform=data.transform)
    for k in (0, 1, 2, 3, 9_999):
        image, label = cifar[1][k]
        assert torch.equal(image, theirs[k][0].as_subclass(torch.Tensor)) and label == theirs[k][1]
    short = {"airplane": "plane", "automobile": "car"}
    assert data.CLASSES == tuple(short.get(name, name) for name in theirs.classes)


def test_a_real_pixel_is_shown_as_it_is_stored(cifar):
    stored = data.CIFAR10(os.path.join(ROOT, "data"), train=True).data[0, 16, 16]
    assert f"as stored:   {stored.tolist()}" in data.__doc__


def test_the_script_prints_what_its_first_lines_quote(cifar, monkeypatch, tmp_path, capsys):
    folder = os.path.join(os.path.dirname(data.__file__), "data")
    monkeypatch.chdir(tmp_path)
    data.main(["--data-dir", folder])
    quoted = [line[4:] for line in data.__doc__.splitlines() if line.startswith("    ")][1:]
    assert quoted == [line for line in capsys.readouterr().out.splitlines() if line]


# ---- Files and the command line, as all scripts share them -----------------------------------

def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    with monkeypatch.context() as patch, pytest.raises(data.UserError, match="file can't be written: No space left"):
        patch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        data.write_whole(path, b"half")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]
    data.write_whole(path, b"new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_leaves_says_whose_part_it_is(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "replace", lambda part, path: seen.append(os.path.basename(part)))
    data.write_whole(tmp_path / "net.pth", b"new")
    assert seen == [f"net.pth.{os.getpid()}.part"]


def test_a_trial_finds_out_what_can_be_written_and_writes_nothing(tmp_path):
    path = tmp_path / "file"
    data.write_whole(path, b"", trial=True)
    assert os.listdir(tmp_path) == []
    path.write_text("old")
    data.write_whole(path, b"", trial=True)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]
    for name, why in (("missing/file", "No such file or directory"), ("x" * 300, "File name too long")):
        with pytest.raises(data.UserError, match=f"{name} can't be written: {why}"):
            data.write_whole(tmp_path / name, b"", trial=True)


def test_a_file_has_the_rights_that_any_new_file_has(tmp_path):
    data.write_whole(tmp_path / "ours", b"")
    open(tmp_path / "usual", "w").close()
    assert os.stat(tmp_path / "ours").st_mode == os.stat(tmp_path / "usual").st_mode


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_a_link_is_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "real").write_text("old")
    for link, to in (("link", "folder/real"), ("new", "folder/missing")):
        os.symlink(tmp_path / to, tmp_path / link)
        data.write_whole(tmp_path / link, b"new")
        assert os.path.islink(tmp_path / link) and (tmp_path / to).read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFO")
@pytest.mark.parametrize("trial", [True, False])
def test_a_device_a_fifo_a_folder_and_a_write_protected_file_stay_what_they_are(tmp_path, trial):
    (tmp_path / "protected").write_text("old")
    os.chmod(tmp_path / "protected", 0o444)
    os.mkfifo(tmp_path / "fifo")
    os.symlink("/dev/null", tmp_path / "device")
    (tmp_path / "folder").mkdir()
    for name in ("protected", "fifo", "device", "folder"):
        before = os.stat(tmp_path / name)
        with pytest.raises(data.UserError, match=f"{name} can't be written: it is a folder, a device or write-protected"):
            data.write_whole(tmp_path / name, b"new", trial)
        after = os.stat(tmp_path / name)
        assert (stat.S_IFMT(after.st_mode), after.st_ino) == (stat.S_IFMT(before.st_mode), before.st_ino)
    assert (tmp_path / "protected").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["device", "fifo", "folder", "protected"]


@pytest.mark.parametrize("module", [data, train, evaluate])
def test_in_a_notebook_main_does_not_read_the_kernels_arguments(monkeypatch, module):
    seen = []
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setattr(module, "run_seeds" if module is train else "run", seen.append)
    module.main()
    assert seen[0].dataset == "auto"


@pytest.mark.parametrize("error, sentence", [(data.UserError("wrong"), "data.py: wrong"),
                                             (KeyboardInterrupt(), "\nStopped by Ctrl-C. All is kept.")])
def test_what_a_user_can_mend_ends_a_script_with_a_sentence_and_ctrl_c_with_another(monkeypatch, error, sentence):
    def main(argv):
        raise error

    monkeypatch.setattr(sys, "argv", ["some/folder/data.py"])
    with pytest.raises(SystemExit) as stop:
        data.script(main, stopped="All is kept.")
    assert stop.value.code == sentence  # a string: Python prints it, and exits with 1


def test_a_pillow_that_is_too_old_to_draw_is_named_before_the_work(monkeypatch):
    """torchvision takes Pillow 9.5, which can't draw text of a size: found out after an epoch of training."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    for version, too_old in (("9.5.0", True), ("10.0.1", True), ("10.1.0", False), ("12.0.0", False)):
        monkeypatch.setattr(PIL, "__version__", version)
        ran = []
        if too_old:
            with pytest.raises(SystemExit, match=f"Pillow {version} is too old: pip install --upgrade pillow"):
                data.script(ran.append)
        else:
            data.script(ran.append)
        assert bool(ran) is not too_old


@pytest.mark.parametrize("name, given", [("net.pth", "net.pth"), ("-x.pth", os.path.join(".", "-x.pth")), ("", None)])
def test_a_file_name_is_no_flag_and_not_empty(name, given, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=data.file_name)
    if given:
        assert parser.parse_args([f"--checkpoint={name}"]).checkpoint == given
    else:
        with pytest.raises(SystemExit):
            parser.parse_args(["--checkpoint", name])
        assert "argument --checkpoint: the name is empty: name a file, or leave the flag out" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("a"), OSError("b"), RuntimeError("c"), NameError("d"), ImportError("e")])
def test_a_bug_ends_a_script_with_pythons_own_traceback(monkeypatch, error):
    def main(argv):
        raise error

    with pytest.raises(type(error)):
        data.script(main)


def test_a_console_that_cannot_show_a_letter_shows_its_number(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "argv", ["data.py"])
    data.script(lambda argv: print("\uace0\uc591\uc774.png"))
    assert console.buffer.getvalue().strip() == rb"\uace0\uc591\uc774.png"


@pytest.mark.skipif(os.name == "nt", reason="a pipe closes otherwise there")
def test_head_sees_two_lines_and_nobody_sees_an_error(tmp_path):
    scripts = ["lenet5.py", "data.py --dataset stripes"]  # which has train.py's and evaluate.py's way with it, script()
    pipes = []
    for script in scripts:  # all at once: they spend their time importing torch
        name, *flags = script.split()
        command = " ".join([f'"{sys.executable}" -u "{os.path.join(ROOT, name)}"', *flags, "| head -n 2"])
        pipes.append(subprocess.Popen(command, shell=True, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    for pipe in pipes:
        printed, errors = pipe.communicate()
        assert errors == b"" and len(printed.splitlines()) == 2
    assert all(left.endswith((".pth", ".png")) for left in os.listdir(tmp_path))  # nothing half-written
