#!/usr/bin/env python3
"""Writes pixels.tsv: what Pillow decodes of the files whose outcome in expected.tsv is `decode`.

    python pixels.py

For PNG files, the CRC-32 of all pixels, (H, W, C) with 3 channels and with 1; 16-bit samples keep their high byte. For JPEG
files, turned upright, the colours at the four corners and in the middle, (row, column) = (H / 2, W / 2), as RRGGBB.
"""
import csv
import pathlib
import zlib

import numpy as np
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent


def picture(path):
    image = Image.open(path)
    kind = image.format
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("LA", "RGBA"):
        # The alpha channel is dropped.
        return kind, Image.fromarray(np.asarray(image)[..., :-1].squeeze())
    if image.mode == "P":
        image.info.pop("transparency", None)
    return kind, ImageOps.exif_transpose(image)


def main():
    rows = [row for row in csv.DictReader(open(HERE / "expected.tsv"), delimiter="\t") if row["outcome"] == "decode"]
    with open(HERE / "pixels.tsv", "w") as out:
        for row in rows:
            kind, image = picture(HERE / row["file"])
            rgb = image.convert("RGB")
            if kind == "PNG":
                values = [f"{zlib.crc32(x.tobytes()):08x}" for x in (rgb, rgb.convert("L"))]
            else:
                h, w = rgb.height, rgb.width
                places = [(0, 0), (0, w - 1), (h - 1, 0), (h - 1, w - 1), (h // 2, w // 2)]
                values = ["%02x%02x%02x" % rgb.getpixel((column, line)) for line, column in places]
            print(row["file"], kind, *values, sep="\t", file=out)


if __name__ == "__main__":
    main()
