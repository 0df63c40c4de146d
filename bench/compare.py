#!/usr/bin/env python3
"""Training steps of peristyle and PyTorch in turns, on a machine that may be noisy: ratios of neighbours in time.

    python bench/compare.py --python VENV/bin/python lenet mlp
    python bench/compare.py --python VENV/bin/python --torch-env LD_PRELOAD=VENV/lib/mkl512.so --rounds 5 lenet

Every round measures peristyle, then PyTorch, each in a fresh process, and takes the ratio of the two. Prints for each
network the median over the rounds, the least and the most, and one JSON line with everything.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("networks", nargs="+", help="files of configs/ without .toml")
    p.add_argument("--peristyle", default=os.path.join(ROOT, "target/release/peristyle"))
    p.add_argument("--other", default="", help="another peristyle binary in place of PyTorch")
    p.add_argument("--python", default=sys.executable, help="a Python with torch")
    p.add_argument("--torch-env", action="append", default=[], metavar="KEY=VALUE", help="for the Python alone")
    p.add_argument("--device", default="cpu")
    p.add_argument("--precision", default="f32")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--ways", default="", help="as torch_step.py's")
    p.add_argument("--batch", type=int, default=0, help="0: the network's own")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=2.0)
    return p.parse_args()


def output(command, env=None):
    run = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{run.stderr.strip()}")
    return json.loads(run.stdout.strip().splitlines()[-1])


def show(values):
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def main():
    a = arguments()
    env = dict(pair.split("=", 1) for pair in a.torch_env)
    for network in a.networks:
        config = os.path.join(ROOT, "configs", network + ".toml")
        step = ["bench", "step", config, "--devices", a.device, "--seconds", str(a.seconds), "--json"]
        sets = {"devices.threads": a.threads} if a.device.startswith("cpu") else {"devices.precision": a.precision}
        if a.batch:
            sets["data.batch"] = a.batch
        for key, value in sets.items():
            step += ["--set", f"{key}={value}"]
        torch = [a.python, os.path.join(ROOT, "bench/torch_step.py"), network, "--device", a.device, "--precision",
                 a.precision, "--threads", str(a.threads), "--seconds", str(a.seconds), "--batch", str(a.batch),
                 "--ways", a.ways]
        ours, theirs = [], []
        for _ in range(a.rounds):
            ours.append(output([a.peristyle] + step))
            theirs.append(output([a.other] + step) if a.other else output(torch, env))
        rate = lambda reports: [r["images_per_second"] for r in reports]
        ratios = [x / y for x, y in zip(rate(ours), rate(theirs))]
        loads = [r["load_average"] for r in ours + theirs if r["load_average"] is not None]
        ways = sorted({r.get("way", "") for r in theirs} - {""})
        print(f"{network}: images/s {show(rate(ours))}; {theirs[0]['framework']} {' '.join(ways)} "
              f"{show(rate(theirs))}; ratio {show(ratios)}; load average {min(loads):.1f} to {max(loads):.1f}")
        print(json.dumps(dict(network=network, threads=a.threads, rounds=a.rounds, ratio=statistics.median(ratios),
                              peristyle=ours, other=theirs)), flush=True)


if __name__ == "__main__":
    main()
