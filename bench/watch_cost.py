"""Prints what `train.watch` costs, from the metrics of a watched run.

    peristyle train configs/digits.toml --set train.watch={} --set train.epochs=5 --run-dir runs/watched
    python3 bench/watch_cost.py runs/watched/metrics.jsonl

For each watched update: the time that it and the updates beside it took beyond the median, in updates. Updates after an evaluation or a
checkpoint are left out.
"""

import json
import statistics
import sys

seconds, watched, apart = {}, [], set()
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event["event"] == "step":
        seconds[event["step"]] = event["seconds"]
    elif event["event"] == "watch":
        watched.append(event["step"])
    elif event["event"] in ("eval", "checkpoint"):
        apart.add(event["step"] + 1)
taken = {step: seconds[step] - seconds[step - 1] for step in seconds if step - 1 in seconds and step not in apart}
median = statistics.median(taken.values())
extra = [sum(taken.get(step, median) - median for step in (w - 1, w, w + 1)) / median for w in watched if w > 2]
print(f"median update {1e3 * median:.1f} ms; each watched update costs, in updates: "
      f"median {statistics.median(extra):.2f}, from {min(extra):.2f} to {max(extra):.2f} ({len(extra)})")
