#!/bin/sh
# Kills a run on 8x8 digits at random times (1000 by default), resumes each, and compares it with a run that was never killed.
# Usage: scripts/random-kills.sh [KILLS] [SEED]; takes about half a second for each. Prints what bench/results/ keeps.
set -eu
cd "$(dirname "$0")/.."
kills=${1:-1000}
seed=${2:-1}
cargo build --release --quiet
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/digits8.toml" <<TOML
[data]
train = { idx = { images = "$PWD/data/digits8/train-images-idx3-ubyte.gz", labels = "$PWD/data/digits8/train-labels-idx1-ubyte.gz" } }
test = { idx = { images = "$PWD/data/digits8/t10k-images-idx3-ubyte.gz", labels = "$PWD/data/digits8/t10k-labels-idx1-ubyte.gz" } }
batch = 100
augment = [{ shift = 1 }]
[model]
input = [8, 8, 1]
layers = [
  { conv = { filters = 8, kernel = 3, pad = 1 } }, { batch_norm = {} }, "relu", { max_pool = { kernel = 2, stride = 2 } },
  "flatten", { dropout = { rate = 0.3 } }, { dense = { units = 32 } }, "relu", { dense = { units = 10 } },
]
[optimizer]
chain = [{ clip_by_global_norm = 5.0 }, { weight_decay = 5e-4 }, { momentum = 0.9 }]
lr = 0.02
[train]
steps = 60
evaluate = "20 steps"
checkpoint = { every = "10 steps", keep = 3 }
TOML
echo "random kills: $kills, seed $seed, $(date -u +%F), $(git rev-parse --short HEAD), $(uname -sr), $(nproc) cores"
target/release/peristyle chaos "$work/digits8.toml" --dir "$work/chaos" --steps 60 \
    --timed "$kills" --kills 0 --signals 0 --errors 0 --seed "$seed"
