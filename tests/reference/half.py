#!/usr/bin/env python3
"""Writes bf16.json: how far PyTorch's mixed precision strays from f64 on the networks of make.py.

    python half.py [--data DIR] [--out FILE]

Each network runs its 20 steps under torch.autocast("cpu", torch.bfloat16): products, and the activations between them,
in bf16, parameters and optimizer in f32. Kept are the losses, and for every parameter the first step's gradient's distance
to the f64 gradient over the length of the f64 gradient (Euclidean).
"""
import argparse
import json
import pathlib

import numpy as np
import torch

import make


def apart(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--data", type=pathlib.Path, default=make.HERE.parents[1] / "data")
    args.add_argument("--out", type=pathlib.Path, default=make.HERE / "bf16.json")
    args = args.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    forward, result = make.forward, {"torch": torch.__version__.split("+")[0]}

    def narrow(net, weights, x, *rest):
        if x.dtype == torch.float64:
            return forward(net, weights, x, *rest)
        with torch.autocast("cpu", torch.bfloat16):
            return forward(net, weights, x, *rest).float()

    make.forward = narrow
    for name, net in make.NETWORKS.items():
        images, labels = make.batches(net, args.data)
        exact = make.train(net, images, labels, torch.float64)
        half = make.train(net, images, labels, torch.float32)
        gradients = {k[6:]: apart(v, exact[0][k]) for k, v in half[0].items() if k.startswith("grad0.")}
        result[name] = dict(losses=half[1]["losses"], eval_loss=half[1]["eval_loss"], gradients=gradients)
        drift = max(abs(a - b) / b for a, b in zip(half[1]["losses"], exact[1]["losses"]))
        print(f"{name}: losses {drift:.1e}, first gradients {max(gradients.values()):.1e}")
    lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in result.items()]
    args.out.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
