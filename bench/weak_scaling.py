#!/usr/bin/env python3
"""Weak scaling: the same batch for each process, on 1, 2, 4 processes of this machine, beside PyTorch's.

    python bench/weak_scaling.py --python VENV/bin/python --mpirun "mpirun --oversubscribe" lenet mlp

Every round measures, for each number of processes, one after another: peristyle over MPI; PyTorch's
DistributedDataParallel over gloo; and PyTorch with one MPI_Allreduce of all gradients through mpi4py. Each process has
one thread. Prints images/s of all processes together, as median (least to most) over the rounds, with the efficiency
against one process in the same round, and the ratio of peristyle to the faster of the others; one JSON line at the end.

peristyle reads and normalises its images; PyTorch's batch stays in place. The Python needs torch, numpy and mpi4py.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WAYS = ("peristyle", "gloo", "mpi4py")
# Updates that are not measured.
WARM = 5


def worker(a):
    """Trains as one of several processes; the first prints images/s."""
    import torch

    sys.path.insert(0, os.path.join(ROOT, "bench"))
    import torch_step

    torch.set_num_threads(1)
    torch.manual_seed(0)
    build, shape, classes, batch = torch_step.networks(torch.nn, torch)[a.networks[0]]
    net = build()
    rank, processes, flat = 0, 1, None
    if a.worker == "gloo":
        torch.distributed.init_process_group("gloo")
        rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
        model = torch.nn.parallel.DistributedDataParallel(net) if processes > 1 else net
    else:
        from mpi4py import MPI

        rank, processes, model = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, net
        parameters = list(net.parameters())
        flat = torch.zeros(sum(p.numel() for p in parameters))
        at = 0
        for p in parameters:
            p.grad = flat[at:at + p.numel()].view_as(p)
            at += p.numel()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4, fused=True)
    loss = torch.nn.CrossEntropyLoss()
    images, labels = torch.randn(batch, *shape), torch.randint(classes, (batch,))
    for step in range(WARM + a.steps):
        if step == WARM:
            begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=a.worker == "gloo")
        loss(model(images), labels).backward()
        if a.worker == "mpi4py" and processes > 1:
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, flat.numpy())
            flat /= processes
        optimizer.step()
    if rank == 0:
        print(json.dumps({"images_per_second": a.steps * batch * processes / (time.perf_counter() - begin)}))
    if a.worker == "gloo":
        torch.distributed.destroy_process_group()


def run(command, env=None):
    done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def noise(folder, shape, classes, count):
    """Writes images of noise as the files of MNIST are; returns the setting that reads them."""
    import random

    height, width = shape
    with open(os.path.join(folder, "images"), "wb") as f:
        f.write(b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (count, height, width)))
        f.write(random.Random(0).randbytes(count * height * width))
    with open(os.path.join(folder, "labels"), "wb") as f:
        f.write(b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(i % classes for i in range(count)))
    return f'{{ idx = {{ images = "{folder}/images", labels = "{folder}/labels" }} }}'


def peristyle(a, network, processes, batch, data, folder):
    directory = os.path.join(folder, f"run-{processes}")
    run(["rm", "-rf", directory])
    words = [*shlex.split(a.mpirun), "-n", str(processes)] if processes > 1 else []
    words += [a.peristyle, "train", os.path.join(ROOT, "configs", network + ".toml"), "--devices", "cpu", "--run-dir", directory]
    sets = {"data.train": data, "data.test": data, "data.batch": batch * processes, "devices.threads": 1,
            "train.steps": WARM + a.steps, "train.evaluate": '"never"', "optimizer.lr": 1e-6,
            "train.checkpoint": '{ every = "never" }', "data.validation": 0.0, "data.augment": "[]"}
    for key, value in sets.items():
        words += ["--set", f"{key}={value}"]
    run(words)
    with open(os.path.join(directory, "metrics.jsonl")) as lines:
        seconds = [e["seconds"] for e in map(json.loads, lines) if e["event"] == "step"]
    return a.steps * batch * processes / (seconds[-1] - seconds[WARM - 1])


def torch(a, way, network, processes):
    own = [os.path.abspath(__file__), network, "--worker", way, "--steps", str(a.steps)]
    if way == "gloo":
        words = [a.python, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), *own]
    else:
        words = [*shlex.split(a.mpirun), "-n", str(processes), a.python, *own]
    out = run(words, {"OMP_NUM_THREADS": "1", **dict(pair.split("=", 1) for pair in a.torch_env)})
    return json.loads(out.strip().splitlines()[-1])["images_per_second"]


def show(values, digits=".0f"):
    return f"{statistics.median(values):{digits}} ({min(values):{digits}} to {max(values):{digits}})"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("networks", nargs="+", help="lenet or mlp: files of configs/ without .toml, with images of 28 x 28")
    p.add_argument("--peristyle", default=os.path.join(ROOT, "target/release/peristyle"))
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--torch-env", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--mpirun", default="mpirun")
    p.add_argument("--processes", default="1,2,4")
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--worker", choices=WAYS[1:], help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.worker:
        return worker(a)
    counts = [int(n) for n in a.processes.split(",")]
    everything = {}
    for network in a.networks:
        batch = {"lenet": 64, "mlp": 128}[network]
        rates = {(n, way): [] for n in counts for way in WAYS}
        with tempfile.TemporaryDirectory() as folder:
            data = noise(folder, (28, 28), 10, 8192)
            for _ in range(a.rounds):
                for n in counts:
                    for way in WAYS:
                        measured = peristyle(a, network, n, batch, data, folder) if way == "peristyle" else torch(a, way, network, n)
                        rates[n, way].append(measured)
        print(f"{network}, {batch} images for each process, images/s of all:")
        for n in counts:
            for way in WAYS:
                efficiency = [many / (n * one) for many, one in zip(rates[n, way], rates[counts[0], way])]
                print(f"  {n} x {way:9}  {show(rates[n, way]):28}  efficiency {show(efficiency, '.2f')}")
            best = [max(pair) for pair in zip(rates[n, "gloo"], rates[n, "mpi4py"])]
            ratio = [own / other for own, other in zip(rates[n, "peristyle"], best)]
            print(f"  {n}: peristyle / the faster of the others {show(ratio, '.2f')}")
        everything[network] = {f"{n} {way}": values for (n, way), values in rates.items()}
    print(json.dumps({"load_average": os.getloadavg()[0], **everything}))


if __name__ == "__main__":
    main()
