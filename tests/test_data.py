"""Chapter 2, Data Download: the pictures, from bytes to batches."""
import os

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, ToTensor
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid

import data


# ---- Normalisation ---------------------------------------------------------------------------

def test_bytes_0_to_255_become_numbers_from_minus_1_to_1():
    assert data.normalise(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
    assert data.normalise(torch.tensor([127, 128], dtype=torch.uint8)).tolist() == pytest.approx([-0.004, 0.004], abs=1e-4)


def test_normalise_is_the_tutorials_compose_bit_for_bit(stripes):
    compose = Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    images = stripes[0].images[:50]
    one_by_one = torch.stack([compose(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    assert torch.equal(data.normalise(images), one_by_one)


# ---- The set, and the loader -----------------------------------------------------------------

def test_one_picture_and_its_label(stripes):
    image, label = stripes[0][7]
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32 and label == 7


def test_a_list_of_indices_is_a_batch(stripes):
    images, labels = stripes[0][[4, 1, 7]]
    assert images.shape == (3, 3, 32, 32) and labels.tolist() == [4, 1, 7]
    assert torch.equal(images[1], stripes[0][1][0])


def test_60000_pictures_fill_184_mb_as_the_bytes_they_are_and_would_fill_737_as_floats(stripes):
    images = stripes[0].images
    assert round(60_000 / len(images) * images.nbytes / 1e6) == 184
    assert round(60_000 / len(images) * data.normalise(images[:100]).nbytes * len(images) / 100 / 1e6) == 737


def test_a_batch_is_images_and_labels(few):
    images, labels = next(iter(data.loader(few[0], batch_size=4, shuffle=True)))
    assert images.shape == (4, 3, 32, 32) and images.dtype == torch.float32
    assert labels.shape == (4,) and labels.dtype == torch.int64
    assert 0 <= labels.min() and labels.max() <= 9


def test_an_epoch_shows_each_picture_once_and_the_last_batch_is_what_remains(few):
    batches = list(data.loader(few[0], batch_size=64, shuffle=True))
    assert [len(labels) for _, labels in batches] == [64] * 6 + [16]
    seen = torch.cat([images for images, _ in batches]).flatten(1)
    every = data.normalise(few[0].images).flatten(1)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, every.tolist()))


def test_images_keep_their_labels_through_shuffling(few):
    labels_of = {tuple(image.flatten().tolist()): int(label) for image, label in zip(few[0].images, few[0].labels)}
    for images, labels in data.loader(few[0], batch_size=50, shuffle=True):
        bytes_again = ((images / 2 + 0.5) * 255).round().to(torch.uint8)
        assert [labels_of[tuple(image.flatten().tolist())] for image in bytes_again] == labels.tolist()


def test_shuffle_draws_a_new_order_each_epoch_and_a_seed_repeats_it(few):
    def two_epochs():
        torch.manual_seed(5)
        trainloader = data.loader(few[0], batch_size=400, shuffle=True)
        return [next(iter(trainloader))[1].tolist() for _ in range(2)]

    first, second = two_epochs()
    assert first != second and [first, second] == two_epochs()


def test_without_shuffle_pictures_come_in_order(few):
    labels = torch.cat([labels for _, labels in data.loader(few[1], batch_size=30, shuffle=False)])
    assert torch.equal(labels, few[1].labels)


def test_len_of_a_loader_counts_batches_and_no_worker_process_is_needed(few):
    trainloader = data.loader(few[0], batch_size=4, shuffle=True)
    assert len(trainloader) == 100 and trainloader.num_workers == 0


def test_the_tutorials_own_line_works_too(few):
    images, labels = next(iter(DataLoader(few[0], batch_size=4, shuffle=False)))
    ours = next(iter(data.loader(few[0], batch_size=4, shuffle=False)))
    assert torch.equal(images, ours[0]) and torch.equal(labels, ours[1])


def test_hold_out_parts_a_set_in_two(few):
    rest, held_out = data.hold_out(few[0], 50)
    assert torch.equal(torch.cat([rest.images, held_out.images]), few[0].images)
    assert torch.equal(torch.cat([rest.labels, held_out.labels]), few[0].labels)
    assert (len(rest), len(held_out)) == (350, 50) and rest.classes == held_out.classes == few[0].classes
    for n in (0, 400, -1):
        with pytest.raises(ValueError, match="can't be held out"):
            data.hold_out(few[0], n)


# ---- imshow ----------------------------------------------------------------------------------

def test_imshow_undoes_the_normalisation_for_all_256_bytes():
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    picture = data.imshow(data.normalise(image), scale=1)
    assert torch.equal(pil_to_tensor(picture), image)


def test_imshow_returns_a_pil_image_large_enough_to_see_and_writes_it(tmp_path, images):
    picture = data.imshow(make_grid(images), tmp_path / "grid.png", scale=8)
    assert isinstance(picture, Image.Image)
    assert picture.size == ((4 * 34 + 2) * 8, 36 * 8)  # four pictures of 32, a border of 2 around each
    with Image.open(tmp_path / "grid.png") as written:
        assert written.size == picture.size and written.tobytes() == picture.tobytes()


# ---- The stand-in ----------------------------------------------------------------------------

def test_stripes_are_10000_and_2000_pictures_a_tenth_of_each_class(stripes):
    trainset, testset = stripes
    assert trainset.images.shape == (10_000, 3, 32, 32) and testset.images.shape == (2_000, 3, 32, 32)
    assert trainset.labels.bincount().tolist() == [1000] * 10 and testset.labels.bincount().tolist() == [200] * 10


def test_stripes_are_the_same_every_time_whatever_the_seed(stripes):
    torch.manual_seed(99)
    again = data.stripes()
    assert all(torch.equal(old.images, new.images) for old, new in zip(stripes, again))


def test_no_test_stripe_is_a_training_stripe(stripes):
    train = {image.numpy().tobytes() for image in stripes[0].images}
    assert not any(image.numpy().tobytes() in train for image in stripes[1].images)


def test_stripes_lie_flat_in_class_0_and_stand_in_class_5(stripes):
    images = stripes[0].images.float().mean(1)  # (N, 32, 32), grey
    between_rows, between_columns = images.mean(2).std(1), images.mean(1).std(1)
    flat, upright = stripes[0].labels == 0, stripes[0].labels == 5
    assert between_rows[flat].mean() > 5 * between_columns[flat].mean()
    assert between_columns[upright].mean() > 5 * between_rows[upright].mean()


def test_classes_of_the_stand_in_are_angles(stripes):
    assert stripes[0].classes == tuple(f"{angle} deg" for angle in range(0, 180, 18))


def test_load_knows_three_names_and_refuses_others(monkeypatch):
    monkeypatch.setattr(data, "cifar10", lambda root: pytest.fail("it looked for CIFAR-10"))
    with pytest.raises(ValueError, match="auto, cifar10, stripes, not 'CIFAR10'"):
        data.load("CIFAR10")


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


# ---- python data.py, on either set -----------------------------------------------------------

def test_the_script_walks_through_one_batch_of_four(few, capsys):
    data.main(["--dataset", "stripes"])
    printed = capsys.readouterr().out
    assert printed.isascii()
    for part in ("STRIPES", "(4, 3, 32, 32)", "torch.float32", "torch.int64", "0 0 deg", "samples.png"):
        assert part in printed
    with Image.open("samples.png") as samples:
        assert samples.size == (1104, 288)


def test_real_cifar10_has_50000_and_10000_pictures_of_ten_classes(cifar):
    trainset, testset = cifar
    assert trainset.images.shape == (50_000, 3, 32, 32) and testset.images.shape == (10_000, 3, 32, 32)
    assert trainset.images.dtype == torch.uint8
    assert trainset.labels.bincount().tolist() == [5000] * 10 and testset.labels.bincount().tolist() == [1000] * 10


def test_real_cifar10_is_what_the_tutorials_lines_give(cifar):
    transform = Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    theirs = data.CIFAR10(os.path.join(os.path.dirname(data.__file__), "data"), train=False, transform=transform)
    for k in (0, 1, 2, 3, 9_999):
        image, label = cifar[1][k]
        assert torch.equal(image, theirs[k][0]) and label == theirs[k][1]
    short = {"airplane": "plane", "automobile": "car"}
    assert data.CLASSES == tuple(short.get(name, name) for name in theirs.classes)


def test_the_script_prints_what_its_first_lines_quote(cifar, monkeypatch, tmp_path, capsys):
    folder = os.path.join(os.path.dirname(data.__file__), "data")
    monkeypatch.chdir(tmp_path)
    data.main(["--data-dir", folder])
    quoted = [line[4:] for line in data.__doc__.splitlines() if line.startswith("    ")][1:]
    assert quoted == [line for line in capsys.readouterr().out.splitlines() if line]
