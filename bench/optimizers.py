#!/usr/bin/env python3
"""The update of configs/mlp.toml by several optimisers, in peristyle and in PyTorch, in turn on the CPU; a table.

    python bench/optimizers.py --peristyle target/release/peristyle --threads 2 --rounds 5

Needs torch. A time is that of the update alone: peristyle's rows "optimizer.check" and "optimizer.update" of `bench layers
--json`, which also check that all gradients are finite, and PyTorch's optimizer.step(), the faster of fused and foreach, each within
whole training steps, so that caches hold what a step leaves. Ratios are PyTorch's time over peristyle's of the same round.
"""
import argparse
import json
import statistics
import subprocess
import time

CASES = {
    "momentum": ("{ weight_decay = 5e-4 }, { momentum = 0.9 }", "SGD", dict(momentum=0.9, weight_decay=5e-4)),
    "rmsprop": ("{ rmsprop = {} }", "RMSprop", {}),
    "adam": ("{ adam = {} }", "Adam", {}),
    "adamw": ("{ adam = {} }, { weight_decay = 0.05 }", "AdamW", dict(weight_decay=0.05)),
}


def ours(binary, chain, threads):
    command = [binary, "bench", "layers", "configs/mlp.toml", "--json", "--set", 'devices.use="cpu"',
               "--set", f"devices.threads={threads}", "--set", f"optimizer.chain=[{chain}]"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["layers"]
    return sum(row["ms"] for row in rows if row["kind"] == "optimizer")


def theirs(kind, settings, threads):
    import torch

    torch.set_num_threads(threads)
    best = []
    images, labels = torch.randn(128, 784), torch.randint(10, (128,))
    for way in ("fused", "foreach"):
        layers = [torch.nn.Linear(784, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 1024), torch.nn.ReLU(),
                  torch.nn.Linear(1024, 10)]
        network = torch.nn.Sequential(*layers)
        try:
            optimizer = getattr(torch.optim, kind)(network.parameters(), lr=1e-6, **{way: True}, **settings)
        except (TypeError, RuntimeError):
            continue
        times = []
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            start = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - start)
        best.append(1e3 * statistics.median(times[10:]))
    return min(best)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--peristyle", default="target/release/peristyle")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments = arguments.parse_args()
    print("| optimiser | peristyle, ms | PyTorch, ms | ratio: median (least to most) |\n| --- | --: | --: | --: |")
    for name, (chain, kind, settings) in CASES.items():
        pairs = [(ours(arguments.peristyle, chain, arguments.threads), theirs(kind, settings, arguments.threads))
                 for _ in range(arguments.rounds)]
        ratios = [b / a for a, b in pairs]
        a, b = (statistics.median(times) for times in zip(*pairs))
        print(f"| {name} | {a:.2f} | {b:.2f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")


if __name__ == "__main__":
    main()
