"""Draw README.md's ladder: accuracy over cost, from the numbers in its table.

    python tests/ladder.py

writes .images/ladder.png. Cost is on a logarithmic scale: each step to the right is twice the time.
"""
import math
import os
import re
import sys

from PIL import Image, ImageDraw, ImageOps

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from data import save_png  # noqa: E402

ROW = r"^(\d+ \| .+?) \| (\d+) \| ([\d.]+) % \(([\d.]+) to ([\d.]+)\).*\| ([\d.]+)$"


def read(path):
    """The rows of the table: [(number and name, mean, lowest, highest, time), ...].

    Time is in epochs of the tutorial's own loop. The last row is the first again, as slow as there.
    """
    with open(path, encoding="utf-8") as file:
        rows = re.findall(ROW, file.read().replace("&nbsp;", " "), re.M)
    (_, epochs, *same, _), *_ = rows
    rows.append(("pytorch.org's own code", None, *same, epochs))
    return [(re.sub(r" \||\*\*", "", name), *map(float, numbers)) for name, _, *numbers in rows]


def draw(rows):
    """A PIL image: each rung at its time and mean, and a bar from its lowest to its highest run."""
    left, right, top, bottom = 120, 1720, 90, 900
    first, last = (f(math.log2(time)) for f, time in ((math.floor, min(row[-1] for row in rows)),
                                                     (math.ceil, max(row[-1] for row in rows))))
    low = 5 * math.floor(min(row[2] for row in rows) / 5)
    high = 5 * math.ceil(max(row[3] for row in rows) / 5)
    column = lambda time: left + (right - left) * (math.log2(time) - first) / (last - first)
    row_of = lambda percent: bottom - (bottom - top) * (percent - low) / (high - low)

    sheet = Image.new("RGB", (1800, 1000), "white")  # halved at the end: smooth lines
    pen = ImageDraw.Draw(sheet)
    pen.text((left, 24), "test accuracy, %", "black", font_size=32)
    time = "time of the training, in epochs of the tutorial's loop (logarithmic scale)"
    pen.text((right, 960), time, "black", font_size=30, anchor="rm")
    for percent in range(low, high + 1, 5):
        pen.line((left, row_of(percent), right, row_of(percent)), "lightgray", width=2)
        pen.text((left - 16, row_of(percent)), str(percent), "black", font_size=28, anchor="rm")
    for time in (2.0 ** power for power in range(first, last + 1)):
        pen.line((column(time), top, column(time), bottom), "lightgray", width=2)
        pen.text((column(time), bottom + 20), f"{time:g}", "black", font_size=28, anchor="mt")
    taken = []  # the corners of the names so far: a name goes where none is yet
    for name, mean, lowest, highest, time in rows:
        color = "blue" if name[0].isdigit() else "gray"
        x, y = column(time), row_of(mean)
        pen.line((x, row_of(lowest), x, row_of(highest)), color, width=4)
        for end in (lowest, highest):
            pen.line((x - 10, row_of(end), x + 10, row_of(end)), color, width=4)
        pen.ellipse((x - 9, y - 9, x + 9, y + 9), color)
        for anchor, dx, dy in (("lm", 20, 0), ("rm", -20, 0), ("rm", -20, -36), ("rm", -20, 34)):
            box = pen.textbbox((x + dx, y + dy), name, font_size=30, anchor=anchor)
            free = all(box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1]
                       for b in taken)
            if free and box[2] < right + 60:
                break
        ink = "black" if color == "blue" else color
        pen.text((x + dx, y + dy), name, ink, font_size=30, anchor=anchor)
        taken.append(box)
    return ImageOps.scale(sheet, 0.5, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    rows = read(os.path.join(ROOT, "README.md"))
    save_png(draw(rows), os.path.join(ROOT, ".images", "ladder.png"))
