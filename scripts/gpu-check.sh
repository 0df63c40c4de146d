#!/usr/bin/env bash
# Checks a peristyle binary on a machine with a GPU in under eight minutes: runs its own checks and the CUDA sanitizer,
# and compares its speed with PyTorch's. Does not need Rust. Parts whose tools are not installed are skipped and listed.
#
#     scripts/gpu-check.sh [BINARY [FOLDER]]      BINARY: target/release/peristyle; FOLDER: gpu-check-DATE
#
#     DEVICE=cuda:0     the device; with cpu, this is a dry run without a GPU
#     PYTHON=python3    a Python with torch
#     PRECISION=bf16    the precision of products on the GPU
#     SECONDS_EACH=2    seconds of measured steps for each network
#     CONFIGS=...       the networks, as files of configs/ without .toml
#     LIMIT=460         seconds for everything; parts that would start later are skipped
#
# A part that fails does not stop the others. summary.json lists which parts ran, failed or were skipped, and describes
# the machine; the exit status is 1 if a part failed.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "${1:-$root/target/release/peristyle}")
folder=${2:-gpu-check-$(date -u +%Y%m%d-%H%M%S)}
device=${DEVICE:-cuda:0}
python=${PYTHON:-python3}
seconds=${SECONDS_EACH:-2}
limit=${LIMIT:-460}
read -r -a configs <<<"${CONFIGS:-lenet mlp cifar_quick cifar_vgg_bn resnet18 alexnet}"
precision=${PRECISION:-bf16}
sets=(--set "devices.precision=$precision")
torch_args=(--device "$device" --precision "$precision")
if [[ $device == cpu* ]]; then
    precision=f32
    sets=()
    # A dry run need not wait for compilers.
    torch_args=(--device cpu --precision f32 --ways "eager,channels_last")
fi
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$folder" || exit 2
folder=$(cd "$folder" && pwd)
: >"$folder/parts.tsv"
begin=$SECONDS

# note PART STATUS SECONDS REASON
note() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$folder/parts.tsv"
    printf '%-28s %-8s %4s s  %s\n' "$1" "$2" "$3" "$4"
}

# part NAME MAX_SECONDS COMMAND...: writes output to NAME.out and messages to NAME.err.
part() {
    local name=$1 most=$2 start=$SECONDS status left=$((limit - SECONDS + begin))
    shift 2
    if ((left < 5)); then
        note "$name" skipped 0 "under 5 s left of $limit s"
        return
    fi
    timeout "$((most < left ? most : left))" "$@" >"$folder/$name.out" 2>"$folder/$name.err"
    status=$?
    case $status in
    0) note "$name" ok $((SECONDS - start)) "" ;;
    124) note "$name" failed $((SECONDS - start)) "exceeded its time limit" ;;
    *) note "$name" failed $((SECONDS - start)) "exit status $status: $(tail -n 1 "$folder/$name.err" | tr '\t' ' ' | cut -c 1-160)" ;;
    esac
}

have() {
    command -v "$1" >/dev/null 2>&1
}

cd "$root" || exit 2
part version 10 "$binary" --version
part devices 30 "$binary" devices
part selftest 120 "$binary" selftest --device "$device" --json

if have nvidia-smi; then
    part nvidia-smi 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.sm --format=csv
fi

torch=no
if "$python" -c 'import torch' >/dev/null 2>&1; then
    torch=yes
fi
# Side by side: each network in peristyle, in PyTorch, and in peristyle again.
for config in "${configs[@]}"; do
    file=configs/$config.toml
    part "step-$config" 60 "$binary" bench step "$file" --devices "$device" "${sets[@]}" --seconds "$seconds" --json
    if [ $torch = yes ]; then
        part "torch-$config" 90 "$python" bench/torch_step.py "$config" "${torch_args[@]}" --seconds "$seconds"
    else
        note "torch-$config" skipped 0 "$python has no torch"
    fi
    part "step-$config-again" 60 "$binary" bench step "$file" --devices "$device" "${sets[@]}" --seconds "$seconds" --json
    if [[ $device == cuda* ]]; then
        part "own-$config" 60 "$binary" bench layers "$file" --devices "$device" "${sets[@]}" --set devices.libraries=off --seconds "$seconds" --json
    fi
    part "layers-$config" 60 "$binary" bench layers "$file" --devices "$device" "${sets[@]}" --seconds "$seconds" --json
done
part allreduce 60 "$binary" bench allreduce --devices "$device*2" --seconds 0.2 --json

# The sanitizer makes kernels many times slower, so it checks five steps of a small network and a few selftest cases.
short=("$binary" bench step configs/lenet.toml --devices "$device" --set data.batch=8 --seconds 0.001 --repeats 1)
if [[ $device == cuda* ]] && have compute-sanitizer; then
    for tool in memcheck racecheck; do
        part "$tool" 90 compute-sanitizer --tool "$tool" --error-exitcode 9 "${short[@]}"
        part "$tool-selftest" 90 compute-sanitizer --tool "$tool" --error-exitcode 9 "$binary" selftest --device "$device" --quick
    done
else
    note sanitizer skipped 0 "no compute-sanitizer, or no GPU"
fi

if [[ $device == cuda* ]] && have ncu; then
    memory_bound='regex:relu|pool|lrn|batch_norm|optim|softmax|dropout|add|augment|sum|cast'
    PERISTYLE_NO_GRAPH=1 part ncu 90 ncu --csv --kernel-name "$memory_bound" --launch-count 60 \
        --metrics gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed \
        "$binary" bench step configs/resnet18.toml --devices "$device" "${sets[@]}" --seconds 0.001 --repeats 1
else
    note ncu skipped 0 "no ncu, or no GPU"
fi

"$python" - "$folder" "$device" "$precision" "$binary" <<'PY'
import hashlib, json, os, platform, subprocess, sys, time

folder, device, precision, binary = sys.argv[1:]


def text(name):
    try:
        with open(os.path.join(folder, name)) as f:
            return f.read()
    except OSError:
        return ""


def objects(name):
    found = []
    for line in text(name).splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return found


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


parts = [dict(zip(("part", "status", "seconds", "reason"), line.split("\t"))) for line in text("parts.tsv").splitlines()]
rows = []
for name in [p["part"] for p in parts if p["part"].startswith("step-") and not p["part"].endswith("-again")]:
    ours = objects(name + ".out") + objects(name + "-again.out")
    theirs = [o for o in objects(name.replace("step-", "torch-") + ".out") if "images_per_second" in o]
    row = {"network": name[5:], "images_per_second": [o["images_per_second"] for o in ours]}
    if theirs:
        row.update(torch_images_per_second=theirs[0]["images_per_second"], torch_way=theirs[0]["way"])
    if ours and theirs:
        mean = sum(row["images_per_second"]) / len(ours)
        row["ratio"] = mean / row["torch_images_per_second"]
    rows.append(row)
with open(binary, "rb") as f:
    digest = hashlib.sha256(f.read()).hexdigest()
summary = {
    "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "device": device,
    "precision": precision,
    "gpu": said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
    "peristyle": text("version.out").strip(),
    "sha256": digest,
    "torch": next((o["version"] for p in parts for o in objects(p["part"] + ".out") if o.get("framework") == "torch" and "version" in o), None),
    "python": platform.python_version(),
    "system": platform.platform(),
    "load_average": os.getloadavg()[0],
    "failed": [p["part"] for p in parts if p["status"] == "failed"],
    "skipped": [p["part"] for p in parts if p["status"] == "skipped"],
    "parts": parts,
    "steps": rows,
    "selftest": next(iter(objects("selftest.out")), None),
}
with open(os.path.join(folder, "summary.json"), "w") as f:
    json.dump(summary, f, indent=1)
print()
for row in rows:
    rates = " ".join(f"{r:.1f}" for r in row["images_per_second"])
    other = f"torch {row['torch_images_per_second']:.1f} ({row['torch_way']})" if "torch_way" in row else ""
    print(f"{row['network']:<14} images/s {rates:<24} {other:<40} " + (f"{row['ratio']:.2f} x" if "ratio" in row else ""))
PY
told=$?

failed=$(awk -F '\t' '$2 == "failed" { print $1 }' "$folder/parts.tsv" | tr '\n' ' ')
echo "results: $folder ($((SECONDS - begin)) s)"
if [ -n "$failed" ] || [ $told -ne 0 ]; then
    echo "failed: ${failed:-the summary}"
    exit 1
fi
