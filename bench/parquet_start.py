"""Measures how long a start on 100,000 pictures in Parquet files takes, and how much memory: the first, which unpacks them, and two more.

Needs pyarrow: python bench/parquet_start.py target/release/peristyle
"""

import pathlib
import random
import subprocess
import sys
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

FILES, ROWS = 4, 25_000
CONFIG = """
[data]
train = { parquet = "train-{0..3}.parquet", size = 48 }
batch = 32
[model]
input = [48, 48, 3]
layers = ["flatten", { dense = { units = 10 } }]
[optimizer]
lr = 0.01
[train]
steps = 1
"""

MEASURE = """
import resource, subprocess, sys, time
what, program, folder = sys.argv[1:]
begin = time.perf_counter()
subprocess.run([program, "check", "start.toml"], cwd=folder, check=True, capture_output=True)
seconds = time.perf_counter() - begin
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(f"{what}: {seconds:.2f} s, {most:.0f} MB")
"""

program = pathlib.Path(sys.argv[1]).absolute()
signs = sorted((pathlib.Path(__file__).parent.parent / "data/signs-folder/train").rglob("*.jpg"))
pictures = [(sign.read_bytes(), int(sign.parent.name[5:])) for sign in signs]
random.seed(1)
with tempfile.TemporaryDirectory() as folder:
    for file in range(FILES):
        rows = [random.choice(pictures) for _ in range(ROWS)]
        # No two pictures are the same bytes, so that none is stored once for several rows.
        images = [{"bytes": bytes + row.to_bytes(4, "little"), "path": None} for row, (bytes, _) in enumerate(rows)]
        table = pa.table({"image": images, "label": [label for _, label in rows]})
        pq.write_table(table, f"{folder}/train-{file}.parquet", row_group_size=100, compression="snappy")
    pathlib.Path(folder, "start.toml").write_text(CONFIG)
    packed = sum(file.stat().st_size for file in pathlib.Path(folder).glob("*.parquet"))
    print(f"{FILES * ROWS} pictures, {packed / 1e6:.0f} MB of Parquet files")
    for start in range(3):
        # By a process of its own, because a child begins with the memory of its parent.
        subprocess.run([sys.executable, "-c", MEASURE, f"start {start + 1}", program, folder], check=True)
