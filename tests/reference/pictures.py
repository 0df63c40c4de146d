#!/usr/bin/env python3
"""Writes pictures.json: pictures resized by Pillow, and sizes, crops and random parts by torchvision.

    python pictures.py --photo FILE [--out FILE]

Pictures are made by formulas (see FORMULAS), but for `photo`: 36x48 pixels of scikit-image's coffee (CC0), stored as hex. A
resized picture has its parameters and every `step`-th of its bytes, in row-major order (H, W, C), as hex. Sizes are [H, W]; parts
are [top, left, height, width].
"""
import argparse
import json
import math
import pathlib

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageOps
from torchvision.transforms import functional as F
from torchvision.transforms import transforms

HERE = pathlib.Path(__file__).resolve().parent
# Of pixel (i, j) and channel c.
FORMULAS = {
    "noise": lambda i, j, c: (7 * i * i + 13 * j + 31 * c * j * i) % 256,
    "waves": lambda i, j, c: abs((2 * i + 3 * j + 40 * c) % 511 - 255),
    "blocks": lambda i, j, c: 255 * ((i // 3 + j // 5 + c) % 2),
}
FILTERS = {
    "bilinear": Image.BILINEAR,
    "bicubic": Image.BICUBIC,
    "lanczos": Image.LANCZOS,
    "nearest": Image.NEAREST,
}
# Formula, size, part (None: all), channels, size of the result.
RESIZED = [
    ("photo", (36, 48), None, 3, (12, 16)),
    ("photo", (36, 48), (3, 5, 20, 30), 3, (31, 47)),
    ("noise", (37, 53), None, 3, (12, 16)),
    ("noise", (37, 53), None, 1, (12, 16)),
    ("noise", (9, 7), None, 3, (12, 16)),
    ("blocks", (30, 41), None, 1, (45, 64)),
    # Pillow 13 takes the columns first if the height loses more than twice as many pixels as the width.
    ("blocks", (40, 40), None, 1, (20, 30)),
    ("blocks", (41, 40), None, 1, (20, 30)),
    ("blocks", (64, 64), (10, 11, 13, 41), 3, (24, 9)),
    ("waves", (60, 80), (0, 0, 60, 80), 3, (60, 32)),
    ("waves", (60, 80), (7, 8, 40, 32), 1, (12, 32)),
    ("noise", (1500, 3), None, 3, (64, 64)),
    ("noise", (3, 1500), None, 3, (64, 64)),
    ("noise", (1, 1), None, 3, (8, 8)),
    ("noise", (6, 10), None, 1, (4, 3)),
    ("waves", (100, 100), None, 3, (1, 1)),
    ("noise", (1500, 2000), None, 3, (224, 224)),
    ("waves", (375, 500), (20, 31, 301, 287), 3, (224, 224)),
]
MOST_VALUES = 300
# Size, range of areas, range of aspects of random parts.
RANDOM = [
    ((375, 500), (0.08, 1.0), (3 / 4, 4 / 3)),
    ((100, 400), (0.3, 0.5), (3 / 4, 4 / 3)),
    ((400, 100), (0.3, 0.4), (3 / 4, 4 / 3)),
    ((224, 224), (0.9, 1.0), (0.5, 2.0)),
    ((5, 4), (0.001, 1.0), (0.5, 2.0)),
    ((1, 60), (0.01, 0.5), (1.0, 1.0)),
]
DRAWS = 20000


def resized(photo):
    for name, size, part, channels, to in RESIZED:
        x = photo if name == "photo" else make(name, size, channels)
        top, left, height, width = part or (0, 0, *size)
        image = Image.fromarray(x if channels == 3 else x[:, :, 0])
        image = image.crop((left, top, left + width, top + height))
        for key, filter in FILTERS.items():
            y = np.asarray(image.resize(to[::-1], filter)).reshape(-1)
            # Coprime to the 3 channels and to the widths, so that every channel and column is met.
            step = next(n for n in (1, 11, 31, 101, 307, 401, 601) if y.size / n <= MOST_VALUES)
            yield dict(picture=name, size=size, part=(top, left, height, width), channels=channels, filter=key, to=to,
                       step=step, values=y[::step].tobytes().hex())


def make(name, size, channels):
    i, j, c = np.indices((*size, channels), dtype=np.int64)
    return FORMULAS[name](i, j, c).astype(np.uint8)


def short_sides():
    sizes = [(375, 500), (500, 375), (1, 1), (3, 1500), (1500, 3), (333, 333), (480, 641), (7, 1000), (1201, 800)]
    for size in sizes:
        for short in (1, 32, 224, 256, 257):
            yield dict(size=size, short=short, result=F._compute_resized_output_size(size, [short]))


def fits():
    """Pillow's ImageOps.contain and ImageOps.cover, which compute in floats."""
    for size in [(375, 500), (500, 375), (100, 1), (1, 100), (64, 64), (30, 41), (640, 427)]:
        for to in [(224, 224), (100, 300), (301, 99), (1, 1), (64, 48)]:
            image = Image.new("L", size[::-1])
            inside, cover = ImageOps.contain(image, to[::-1]).size, ImageOps.cover(image, to[::-1]).size
            yield dict(size=size, to=to, inside=[max(x, 1) for x in inside[::-1]], cover=[max(x, 1) for x in cover[::-1]])


def middles():
    for h, w in [(10, 17), (11, 8), (24, 24), (5, 6)]:
        for crop in [(4, 4), (5, 7), (10, 8), (12, 13), (13, 14), (24, 3), (25, 31)]:
            x = 1.0 + torch.arange(h * w, dtype=torch.float64).reshape(1, h, w)
            y = F.center_crop(x, list(crop))[0]
            # A pixel of the picture that is in the crop, and where it is there.
            i, j = (int(n) for n in y.nonzero()[0])
            place = int(y[i, j]) - 1
            yield dict(size=(h, w), crop=crop, result=(place // w - i, place % w - j))


class Numbers:
    """Stands for `torch` in get_params, with number 4 t + k in attempt t: area, aspect, top, left."""

    def __init__(self, seed):
        self.seed, self.calls, self.value = seed, 0, None

    def number(self, index):
        return (self.seed * 0.7548776662466927 + (index + 1) * 0.6180339887498949) % 1.0

    def tensor(self, values):
        return values

    def log(self, values):
        return [math.log(x) for x in values]

    def exp(self, x):
        self.value = math.exp(x.value)
        return self

    def empty(self, _):
        return self

    def uniform_(self, least, most):
        self.value = least + (most - least) * self.number(self.calls // 2 * 4 + self.calls % 2)
        self.calls += 1
        return self

    def randint(self, _, end, size):
        index = (self.calls - 2) // 2 * 4 + (3 if self.placed else 2)
        self.value, self.placed = int(self.number(index) * end), True
        return self

    placed = False

    def item(self):
        return self.value


class Size:
    """Stands for an image in get_params, which asks for its size only."""

    def __init__(self, size):
        self.size = size


def parts():
    dimensions = transforms.F.get_dimensions
    transforms.F.get_dimensions = lambda image: [3, *image.size]
    draw = transforms.RandomResizedCrop.get_params
    for size, area, aspect in RANDOM:
        exact = []
        for seed in range(12):
            transforms.torch = Numbers(seed)
            exact.append(draw(Size(size), area, aspect))
        transforms.torch = torch
        torch.manual_seed(7)
        drawn = np.array([draw(Size(size), area, aspect) for _ in range(DRAWS)], dtype=np.float64)
        # No attempt can fit an area above that of the picture, so this is the part in the middle.
        middle = draw(Size(size), (9.0, 9.0), aspect)
        values = np.concatenate([drawn, drawn[:, 2:3] * drawn[:, 3:4] / (size[0] * size[1])], 1)
        yield dict(size=size, area=area, aspect=aspect, exact=exact, draws=DRAWS, middle=middle,
                   middles=int((drawn == middle).all(1).sum()), mean=values.mean(0).tolist(), std=values.std(0).tolist())
    transforms.F.get_dimensions = dimensions


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--photo", type=pathlib.Path, required=True, help="coffee, of at least 100x160 pixels")
    args.add_argument("--out", type=pathlib.Path, default=HERE / "pictures.json")
    args = args.parse_args()
    photo = np.asarray(Image.open(args.photo).convert("RGB"))[60:96, 100:148]
    versions = dict(pillow=PIL.__version__, torchvision=torchvision.__version__.split("+")[0])
    lists = dict(resized=resized(photo), short_side=short_sides(), fits=fits(), middle=middles(), parts=parts())
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in versions.items()]
    lines.append(f'"photo": "{photo.tobytes().hex()}"')
    for key, rows in lists.items():
        lines.append(f'"{key}": [\n ' + ",\n ".join(json.dumps(row) for row in rows) + "\n]")
    args.out.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
