"""Writes the Parquet files of tests/data/parquet.rs: the first two pictures of each class of data/signs-folder/train.

Needs pyarrow and datasets (this was run with 26.0.1 and 5.2.0): python tests/parquet/make.py
"""

import pathlib

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
TRAIN = HERE.parent.parent / "data/signs-folder/train"

names = sorted(folder.name for folder in TRAIN.iterdir())
files = [(file, label) for label, name in enumerate(names) for file in sorted((TRAIN / name).iterdir())[:2]]
pictures = [file.read_bytes() for file, _ in files]
labels = [label for _, label in files]
texts = [names[label] for label in labels]

# As the Hugging Face Hub has them.
features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
rows = {"image": [{"bytes": p, "path": f.name} for p, (f, _) in zip(pictures, files)], "label": labels}
datasets.Dataset.from_dict(rows, features=features).to_parquet(HERE / "hub.parquet")

# Text classes, a column of bytes among others, pages of version 2, several row groups, lengths apart from bytes.
table = pa.table({"id": range(len(labels)), "size": [1.5] * len(labels), "picture": pictures, "class": texts})
encodings = {"picture": "DELTA_LENGTH_BYTE_ARRAY", "class": "DELTA_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED", "size": "PLAIN"}
how = {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 5}
pq.write_table(table, HERE / "zstd.parquet", use_dictionary=False, column_encoding=encodings, **how)

# Small numbers, small pages, two files.
for part, compression in enumerate(["gzip", "lz4"]):
    chosen = slice(part * 5, None if part else 5)
    small = pa.table({"img": pictures[chosen], "label": pa.array(labels[chosen], pa.uint8())})
    pq.write_table(small, HERE / f"part-{part}.parquet", compression=compression, data_page_size=1000, write_batch_size=2)

# Mistakes.
tiny = b"not a picture"


def mistake(name, columns, **how):
    pq.write_table(pa.table(columns), HERE / f"{name}.parquet", **how)


mistake("brotli", {"image": [tiny], "label": [0]}, compression="brotli")
mistake("no_bytes", {"image": [tiny, None], "label": [0, 1]})
mistake("no_class", {"image": [tiny, tiny], "label": [0, None]})
mistake("unpublished", {"image": [tiny, tiny], "label": [-1, -1]})
mistake("two_classes", {"image": [tiny, tiny], "fine": [0, 1], "coarse": [1, 0]})
mistake("two_images", {"image": [tiny, tiny], "mask": [tiny, tiny], "label": [0, 1]})
mistake("numbers", {"x": [0.5, 1.5], "label": [0, 1]})
mistake("one_class", {"image": [tiny, tiny], "label": [0, 0]})
mistake("empty", {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
