#!/usr/bin/env bash
# Verifies that a refactor changed no results: trains with two binaries and requires identical losses, to the last bit.
# Usage: scripts/same-losses.sh OLD NEW      (two peristyle binaries; run from the repository root)
set -euo pipefail
cd "$(dirname "$0")/.."
old=$1 new=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

losses() {
    grep -o '"loss":[^,}]*' "$1/metrics.jsonl" || true
}

same() {
    local config=$1
    shift
    for which in old new; do
        "${!which}" train "$config" --run-dir "$work/$which" "$@" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    done
    local count
    count=$(losses "$work/new" | wc -l)
    if [ "$count" -eq 0 ]; then
        echo "no losses: $config $*"
        exit 1
    fi
    if ! cmp <(losses "$work/old") <(losses "$work/new"); then
        echo "different losses: $config $*"
        exit 1
    fi
    echo "identical: $count losses of $config $*"
    rm -rf "$work/old" "$work/new"
}

same configs/digits.toml --set train.steps=40 --set 'devices.use="cpu"'
same configs/digits.toml --set train.steps=40 --set 'devices.use="cpu*4"' --set 'devices.mesh={ data = 2, columns = 2 }'
for config in columns_small one_weird_trick_small residual_small; do
    same "configs/$config.toml" --set train.steps=20 --set 'devices.use="cpu*2"' --set 'devices.mesh={ columns = 2 }'
    for precision in f32 tf32 bf16; do
        same "configs/$config.toml" --set train.steps=3 --set data.batch=8 --set 'devices.use="emu*2"' \
            --set 'devices.mesh={ columns = 2 }' --set "devices.precision=$precision"
    done
done
same configs/digits.toml --set train.steps=3 --set data.batch=8 --set 'devices.use="emu*2"' --set 'devices.collectives="ring"'
