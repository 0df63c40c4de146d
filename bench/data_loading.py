"""Reading a folder of JPEG files: peristyle beside torchvision's DataLoader, with Pillow and with libjpeg-turbo, in one run.

    pip install torch torchvision pillow 'PyTurboJPEG<2'     # and libturbojpeg, as in apt-get install libturbojpeg0
    cargo build --release
    python bench/data_loading.py target/release/peristyle [--images 600] [--workers 1,2] [--repeats 5]

Makes a folder of about 500x375 pixels each from the photographs in tests/photos/plain (crops, mirrored, with noise; quality 90, 4:2:0), and prepares it for
training at 224: a random part of 0.08 to 1 of the area, mirrored, normalised. All use the same files, which are in memory, and as many processes (the DataLoader's
workers) or threads (peristyle's) as each other. The rivals take turns; printed are medians of images per second with minimum and maximum.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make(folder, images):
    """Writes so many JPEG files in four classes."""
    import numpy
    from PIL import Image

    rng, draw = numpy.random.default_rng(1), random.Random(1)
    sources = [Image.open(path).convert("RGB") for path in sorted((ROOT / "tests/photos/plain").glob("*.jpg"))]
    for i in range(images):
        source = sources[i % len(sources)].resize((640, 480), Image.BICUBIC)
        left, top = draw.randrange(140), draw.randrange(105)
        picture = numpy.asarray(source.crop((left, top, left + 500, top + 375)), numpy.float32)
        picture = picture[:, ::-1] if draw.random() < 0.5 else picture
        picture = (picture + rng.normal(0, 3, picture.shape)).clip(0, 255).astype(numpy.uint8)
        path = folder / f"class{i % 4}" / f"{i:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path, quality=90, subsampling=2)


def turbo_loader():
    """Returns a function that decodes a file with libjpeg-turbo to a tensor (C, H, W) of bytes."""
    import torch
    import turbojpeg

    jpeg = turbojpeg.TurboJPEG()

    def load(path):
        with open(path, "rb") as file:
            pixels = jpeg.decode(file.read(), pixel_format=turbojpeg.TJPF_RGB)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    return load


def torch_rate(folder, workers, loader, seconds):
    """Returns the images per second of a DataLoader, after its workers have begun."""
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    cut = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    first = [] if loader else [v2.PILToTensor()]
    # Pillow cuts and resizes its own pictures, as in torchvision's reference.
    steps = cut + first + last if not loader else first + cut + last
    arguments = {"loader": loader} if loader else {}
    data = ImageFolder(folder, transform=v2.Compose(steps), **arguments)
    torch.set_num_threads(1)
    batches = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True)
    for _ in batches:
        pass
    begin, images = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for batch, _ in batches:
            images += len(batch)
    return images / (time.perf_counter() - begin)


CONFIG = """
[data]
train = {{ folder = "{folder}" }}
batch = 64
normalize = "imagenet"
augment = [{{ random_resized_crop = 224 }}, {{ flip = "horizontal" }}]
[model]
input = [224, 224, 3]
layers = ["global_avg_pool", "flatten", {{ dense = {{ units = 4 }} }}]
[optimizer]
lr = 0.1
[train]
steps = 1
"""


def own_rate(program, config, workers, seconds):
    command = [program, "bench", "data", config, "--threads", str(workers), "--seconds", str(4 * seconds), "--repeats", "1", "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {(stage["stage"], stage["threads"]): stage["images_per_second"] for stage in report["stages"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    try:
        turbo = turbo_loader()
    except Exception as error:  # the library may be missing
        print(f"without libjpeg-turbo: {error}", file=sys.stderr)
        turbo = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "train"
        folder.mkdir()
        make(folder, options.images)
        config = Path(name) / "bench.toml"
        config.write_text(CONFIG.format(folder=folder))
        rates = {}
        for _ in range(options.repeats):
            for workers in map(int, options.workers.split(",")):
                own = own_rate(options.program, str(config), workers, options.seconds)
                for stage, rate in own.items():
                    if stage[0] != "loader" or stage[1] == workers:
                        rates.setdefault(("peristyle " + stage[0], stage[1]), []).append(rate)
                rates.setdefault(("torchvision, Pillow", workers), []).append(torch_rate(folder, workers, None, options.seconds))
                if turbo:
                    rates.setdefault(("torchvision, libjpeg-turbo", workers), []).append(torch_rate(folder, workers, turbo, options.seconds))
    print(f"load average {os.getloadavg()[0]:.2f}, {options.images} pictures\n\n{'':28} workers   images/s      min      max  ratio")
    for (name, workers), all_rates in sorted(rates.items(), key=lambda item: (item[0][1], item[0][0])):
        median = statistics.median(all_rates)
        own = statistics.median(rates["peristyle loader", workers])
        ratio = f"{own / median:6.2f}" if name.startswith("torchvision") else ""
        print(f"{name:28} {workers:7} {median:10.1f} {min(all_rates):8.1f} {max(all_rates):8.1f} {ratio}")


if __name__ == "__main__":
    main()
