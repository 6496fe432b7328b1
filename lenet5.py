"""LeNet-5 for CIFAR-10: the network (chapter 3 of the tutorial, "Build Model").

    python lenet5.py

sends one picture through the network and prints what each layer makes of it:

    layer    size                 output shape     parameters  multiply-adds
    input                         (1, 3, 32, 32)            0              0
    conv1    (32 - 5) + 1 = 28    (1, 6, 28, 28)          456        352,800
    relu     max(0, x)            (1, 6, 28, 28)            0              0
    pool     28 / 2 = 14          (1, 6, 14, 14)            0              0
    conv2    (14 - 5) + 1 = 10    (1, 16, 10, 10)       2,416        240,000
    relu     max(0, x)            (1, 16, 10, 10)           0              0
    pool     10 / 2 = 5           (1, 16, 5, 5)             0              0
    flatten  16 * 5 * 5 = 400     (1, 400)                  0              0
    fc1      400 -> 120           (1, 120)             48,120         48,000
    relu     max(0, x)            (1, 120)                  0              0
    fc2      120 -> 84            (1, 84)              10,164         10,080
    relu     max(0, x)            (1, 84)                   0              0
    fc3      84 -> 10             (1, 10)                 850            840
    total                                              62,006        651,720

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
Document Recognition", Proceedings of the IEEE 86(11), 1998. The paper's network reads grey
digits; the tutorial's, and so this one, reads colour, with ReLU where the paper has tanh
and max-pooling where it averages.
"""
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn


class LeNet5(nn.Module):
    """The tutorial's network: two convolutions find patterns, three linear layers weigh them.

    Input: images (N, 3, 32, 32), float, in [-1, 1]. Output: (N, 10), one score for each class;
    a score is any real number, and the highest one is the prediction.
    Raises ValueError for images of any other shape.
    """

    def __init__(self):
        super().__init__()  # nn.Module must be ready before it can take in layers
        # A layer's parameters: outputs * (inputs that each output sees + 1 for its bias).
        self.conv1 = nn.Conv2d(3, 6, 5)        # 6 filters of 3x5x5      6 * (75 + 1)   =    456
        self.pool = nn.MaxPool2d(2, 2)         # the largest of each 2x2 square: nothing to learn
        self.conv2 = nn.Conv2d(6, 16, 5)       # 16 filters of 6x5x5     16 * (150 + 1) =  2,416
        self.fc1 = nn.Linear(16 * 5 * 5, 120)  # all inputs to each      120 * (400 + 1) = 48,120
        self.fc2 = nn.Linear(120, 84)          #                         84 * (120 + 1) = 10,164
        self.fc3 = nn.Linear(84, 10)           # ten classes, ten scores 10 * (84 + 1)  =    850

    def forward(self, x):
        # The tutorial flattens with x.view(-1, 16 * 5 * 5), and -1 means "however many rows it takes":
        # four pictures of 52x52 would leave as sixteen rows, sixteen answers, and no error.
        # So we look at the shape first, and below we flatten each picture by itself.
        if x.shape[1:] != (3, 32, 32):
            raise ValueError(f"LeNet5 expects images of shape (N, 3, 32, 32), got {tuple(x.shape)}")
        x = self.pool(F.relu(self.conv1(x)))  # (N, 3, 32, 32) -> (N, 6, 28, 28)  -> (N, 6, 14, 14)
        x = self.pool(F.relu(self.conv2(x)))  # (N, 6, 14, 14) -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        x = torch.flatten(x, 1)               # (N, 16, 5, 5)  -> (N, 400)
        x = F.relu(self.fc1(x))               # (N, 400) -> (N, 120)
        x = F.relu(self.fc2(x))               # (N, 120) -> (N, 84)
        return self.fc3(x)                    # (N, 84)  -> (N, 10), and no ReLU: scores may be negative


# ---- The shape trace: stop after every layer and look ----------------------------------------

Row = namedtuple("Row", "name size shape parameters multiply_adds output")


def trace(net, images):
    """Run forward() one step at a time and return a list of Rows, one for each step.

    images: (N, 3, 32, 32). Row.output is the tensor that the step returned and Row.shape its
    shape; Row.size is the arithmetic behind it; Row.multiply_adds counts one picture's.
    Raises RuntimeError if the last output is not what net(images) returns.
    """
    steps = [("conv1", net.conv1), ("relu", F.relu), ("pool", net.pool),
             ("conv2", net.conv2), ("relu", F.relu), ("pool", net.pool),
             ("flatten", nn.Flatten()),
             ("fc1", net.fc1), ("relu", F.relu), ("fc2", net.fc2), ("relu", F.relu), ("fc3", net.fc3)]
    rows = [Row("input", "", tuple(images.shape), 0, 0, images)]
    x = images
    for name, step in steps:
        y = step(x)
        parameters = multiply_adds = 0
        if isinstance(step, nn.Conv2d):
            padding = f" + {2 * step.padding[0]}" if step.padding[0] else ""  # none here, but try some
            stride = f" // {step.stride[0]}" if step.stride[0] > 1 else ""
            size = f"({x.shape[2]}{padding} - {step.kernel_size[0]}){stride} + 1 = {y.shape[2]}"
        elif isinstance(step, nn.MaxPool2d):
            size = f"{x.shape[2]} / {step.kernel_size} = {y.shape[2]}"
        elif isinstance(step, nn.Flatten):
            size = f"{x.shape[1]} * {x.shape[2]} * {x.shape[3]} = {y.shape[1]}"
        elif isinstance(step, nn.Linear):
            size = f"{x.shape[1]} -> {y.shape[1]}"
        else:
            size = "max(0, x)"
        if hasattr(step, "weight"):
            parameters = step.weight.numel() + step.bias.numel()
            # Each weight is used once for each position of its output map: 28 * 28 times in conv1,
            # once in a linear layer. Few weights, much work; then many weights, little work.
            positions = y[0, 0].numel()
            multiply_adds = step.weight.numel() * positions
        rows.append(Row(name, size, tuple(y.shape), parameters, multiply_adds, y))
        x = y
    if not torch.equal(x, net(images)):
        raise RuntimeError("trace() and forward() disagree: whoever changes one must change the other")
    return rows


def print_trace(rows):
    """Print the Rows of trace() as a table, with the totals under it."""
    line = "{:<8} {:<20} {:<16} {:>10} {:>14}"
    print(line.format("layer", "size", "output shape", "parameters", "multiply-adds"))
    for row in rows:
        print(line.format(row.name, row.size, str(row.shape), f"{row.parameters:,}", f"{row.multiply_adds:,}"))
    print(line.format("total", "", "", f"{sum(row.parameters for row in rows):,}",
                      f"{sum(row.multiply_adds for row in rows):,}"))


def main():
    torch.manual_seed(0)
    net = LeNet5()
    images = torch.rand(1, 3, 32, 32) * 2 - 1  # noise will do: the shapes are those of any picture
    with torch.no_grad():
        print_trace(trace(net, images))


if __name__ == "__main__":
    main()
