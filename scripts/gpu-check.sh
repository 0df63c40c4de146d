#!/usr/bin/env bash
# Checks a peristyle binary on a machine with a GPU: runs its own checks and the CUDA sanitizer, and compares its speed
# with PyTorch's. Does not need Rust. Parts whose tools are not installed are skipped and listed.
#
#     scripts/gpu-check.sh [BINARY [FOLDER]]      BINARY: target/release/peristyle; FOLDER: gpu-check-DATE
#
#     DEVICE=cuda:0     the device; with cpu, this is a dry run without a GPU
#     PYTHON=python3    a Python with torch
#     PRECISION=bf16    the precision of products on the GPU
#     SECONDS_EACH=1    seconds of measured steps for each network
#     PARTS="..."       which of the parts below to run, in this order
#     LIMIT=560         seconds for everything; parts that would start later are skipped
#     OUT=              a folder: all results are also written to its gpu-check.tgz
#
#     selftest          its own kernels, a few cases of each check
#     digits            trains configs/digits.toml twice, and compares the two runs bit for bit
#     steps             the step of AlexNet and ResNet-18, with NVIDIA's libraries ("auto" and "fast") and without
#     ncu               the time of each kernel of these steps
#     layers            the same steps by layer
#     torch             the same steps in PyTorch: eager in channels_last, and captured as a CUDA graph
#     latency           the step of small networks, in peristyle and in PyTorch
#     whole             its own kernels, all cases
#     libraries         the checks of convolutions and products that use NVIDIA's libraries
#     memcheck          the CUDA sanitizer on a few cases of each check
#     racecheck         the CUDA sanitizer on races in shared memory, in the kernels that use it most
#     graph             the step of ResNet-18 without CUDA graphs
#     allreduce         all-reduces between two logical devices
#     nccl              NCCL with the device as its only member; two processes on it are refused; with several GPUs,
#                       training and all-reduces of as many processes
#     compile           PyTorch with its compiler
#
# A part that fails does not stop the others. summary.json lists which parts ran, failed or were skipped, and describes
# the machine; the exit status is 1 if a part failed. Clocks are left as they are.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "${1:-$root/target/release/peristyle}")
folder=${2:-gpu-check-$(date -u +%Y%m%d-%H%M%S)}
device=${DEVICE:-cuda:0}
python=${PYTHON:-python3}
seconds=${SECONDS_EACH:-1}
limit=${LIMIT:-560}
precision=${PRECISION:-bf16}
parts=${PARTS:-selftest digits steps ncu layers torch latency whole libraries memcheck racecheck graph allreduce nccl compile}
sets=(--set "devices.precision=$precision")
graph_ways=channels_last,graph
if [[ $device == cpu* ]]; then
    precision=f32
    sets=()
    graph_ways=channels_last
fi
torch_args=(--device "$device" --precision "$precision" --seconds "$seconds" --repeats 3)
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
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
        return 1
    fi
    timeout "$((most < left ? most : left))" "$@" >"$folder/$name.out" 2>"$folder/$name.err"
    status=$?
    case $status in
    0) note "$name" ok $((SECONDS - start)) "" ;;
    124) note "$name" failed $((SECONDS - start)) "exceeded its time limit" ;;
    *) note "$name" failed $((SECONDS - start)) "exit status $status: $(tail -n 1 "$folder/$name.err" | tr '\t' ' ' | cut -c 1-160)" ;;
    esac
    return $status
}

# needs PART TEST...: notes that a part is skipped if the test fails.
needs() {
    local name=$1
    shift
    "$@" >/dev/null 2>&1 || { note "$name" skipped 0 "not here: $*"; return 1; }
}

# step NAME CONFIG ARGUMENTS...
step() {
    local name=$1 config=$2
    shift 2
    part "$name" 40 "$binary" bench step "configs/$config.toml" --devices "$device" "${sets[@]}" --seconds "$seconds" --repeats 3 --json "$@"
}

has_torch() { "$python" -c 'import torch'; }
is_cuda() { [[ $device == cuda* ]]; }

cd "$root" || exit 2
# Commands that must not use NVIDIA's libraries look for them in a folder that does not exist.
own=(env PERISTYLE_LIBRARIES=/nonexistent)

run_selftest() { part selftest 60 "${own[@]}" "$binary" selftest --device "$device" --quick; }
run_digits() {
    local run
    for run in 1 2; do
        part "digits-$run" 40 "$binary" train configs/digits.toml --devices "$device" --set train.epochs=2 --run-dir "$folder/run-$run" || return
    done
    part digits-same 10 bash -c "cat $folder/run-1/checkpoints/*/*.safetensors | cmp - <(cat $folder/run-2/checkpoints/*/*.safetensors)"
    rm -rf "$folder"/run-?/checkpoints
}
run_steps() {
    local config
    for config in alexnet resnet18; do
        step "step-$config" "$config"
        is_cuda && step "fast-$config" "$config" --set devices.libraries=fast
        is_cuda && step "own-$config" "$config" --set devices.libraries=off
    done
}
run_ncu() {
    local config
    needs ncu is_cuda && needs ncu command -v ncu || return
    for config in resnet18 alexnet mlp; do
        # The first step runs launch by launch, so that every kernel is seen by its name.
        part "ncu-$config" 60 env PERISTYLE_NO_GRAPH=1 ncu --clock-control none --csv --launch-skip 60 --launch-count 330 \
            --metrics gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed \
            "$binary" bench step "configs/$config.toml" --devices "$device" "${sets[@]}" --seconds 0.001 --repeats 1
    done
}
run_layers() {
    local config
    for config in resnet18 alexnet; do
        part "layers-$config" 40 "$binary" bench layers "configs/$config.toml" --devices "$device" "${sets[@]}" --seconds "$seconds" --repeats 3
    done
}
run_torch() {
    needs torch has_torch && part torch 120 "$python" bench/torch_step.py alexnet resnet18 "${torch_args[@]}" --ways "$graph_ways"
}
run_latency() {
    local config
    for config in mlp lenet cifar_quick cifar_vgg_bn; do
        step "step-$config" "$config"
    done
    needs torch-latency has_torch || return
    part torch-latency 90 "$python" bench/torch_step.py mlp lenet cifar_quick cifar_vgg_bn "${torch_args[@]}" --ways "${graph_ways##*,}"
}
run_whole() {
    part whole 120 "${own[@]}" "$binary" selftest --device "$device"
    # After a fault, nothing runs in the same process.
    sed -n 's/^not checked: \(.*\): the device was lost in .*/\1/p' "$folder/whole.out" | sed 's/, /\n/g' |
        while IFS= read -r row; do
            part "whole-${row// /-}" 30 "${own[@]}" "$binary" selftest --device "$device" --only "$row"
        done
}
run_libraries() { is_cuda && part libraries 90 "$binary" selftest --device "$device" --only libraries; }
run_memcheck() {
    needs memcheck is_cuda && needs memcheck command -v compute-sanitizer || return
    part memcheck 90 "${own[@]}" compute-sanitizer --tool memcheck --error-exitcode 9 "$binary" selftest --device "$device" --quick
}
run_racecheck() {
    needs racecheck is_cuda && needs racecheck command -v compute-sanitizer || return
    local row
    for row in "conv bf16" "conv f32" "dense tf32" batch_norm softmax optimizer; do
        part "racecheck-${row// /-}" 60 "${own[@]}" compute-sanitizer --tool racecheck --error-exitcode 9 "$binary" \
            selftest --device "$device" --quick --only "$row"
    done
}
run_graph() { part graph-resnet18 40 env PERISTYLE_NO_GRAPH=1 "$binary" bench step configs/resnet18.toml --devices "$device" "${sets[@]}" --seconds "$seconds" --repeats 3 --json; }
run_allreduce() { part allreduce 40 "$binary" bench allreduce --devices "$device*2" --seconds 0.1 --json; }
run_nccl() {
    local gpus small=(--set train.steps=50 --set train.evaluate=never --set 'train.checkpoint={ every = "never" }')
    needs nccl is_cuda && needs nccl bash -c "grep -q '^NCCL: [0-9]' $folder/devices.out" || return
    part nccl-selftest 60 "$binary" selftest --device "$device" --only NCCL
    # Exit status 2: a mistake.
    part nccl-refused 60 bash -c '"$@"; test $? = 2' - "$binary" launch -n 2 train configs/digits.toml --devices "$device" "${small[@]}" --run-dir "$folder/run-refused"
    gpus=$(grep -c '^cuda:[0-9]' "$folder/devices.out")
    ((gpus > 1)) || { note nccl-several skipped 0 "one GPU"; return; }
    part nccl-train 90 "$binary" launch -n "$gpus" train configs/digits.toml "${small[@]}" --run-dir "$folder/run-nccl"
    part nccl-inside 90 "$binary" train configs/digits.toml --devices "cuda:0-$((gpus - 1))" --set devices.collectives=nccl "${small[@]}" --run-dir "$folder/run-inside"
    part nccl-allreduce 120 "$binary" launch -n "$gpus" bench allreduce --processes --seconds 0.5 --json
}
run_compile() {
    needs compile is_cuda && needs compile has_torch && part compile 120 "$python" bench/torch_step.py resnet18 alexnet "${torch_args[@]}" --ways compile+graph
}

part version 10 "$binary" --version
if part devices 30 "$binary" devices; then
    cat "$folder/devices.out"
    if command -v nvidia-smi >/dev/null; then
        part nvidia-smi 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.sm --format=csv
    fi
    for name in $parts; do
        "run_$name"
    done
fi

"$python" - "$folder" "$device" "$precision" "$binary" <<'PY'
import collections, csv, hashlib, json, os, platform, re, subprocess, sys, time

folder, device, precision, binary = sys.argv[1:]


def text(name):
    try:
        with open(os.path.join(folder, name), errors="replace") as f:
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
    return [o for o in found if isinstance(o, dict)]


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def kernels(name):
    """Returns [(microseconds, launches, kernel, % of the peak of DRAM)] of a table of ncu, the longest first."""
    lines = [line for line in text(name).splitlines() if line.startswith('"')]
    total, count, share = collections.Counter(), collections.Counter(), collections.Counter()
    for row in csv.DictReader(lines):
        kernel, value = row["Kernel Name"].split("(")[0][:70], float(row["Metric Value"].replace(",", ""))
        if row["Metric Name"] == "gpu__time_duration.sum":
            unit = {"ns": 1e-3, "us": 1, "ms": 1e3, "nsecond": 1e-3, "usecond": 1, "msecond": 1e3}
            total[kernel] += value * unit.get(row["Metric Unit"], 1)
            count[kernel] += 1
        else:
            share[kernel] += value
    return [(us, count[k], k, share[k] / count[k]) for k, us in total.most_common()]


parts = [dict(zip(("part", "status", "seconds", "reason"), line.split("\t"))) for line in text("parts.tsv").splitlines()]
torch = collections.defaultdict(dict)
for name in ("torch.out", "torch-latency.out", "compile.out"):
    for o in objects(name):
        torch[o["network"].replace("-", "_")].update({w: r for w, r in o.get("ways", {}).items()})
rows = []
for name in [p["part"] for p in parts if re.match("(step|fast|own|graph)-", p["part"])]:
    for o in objects(name + ".out"):
        network = name.split("-", 1)[1]
        theirs = [r for r in torch[network].values() if isinstance(r, float)]
        row = {"part": name, "step_ms": o["step_ms"], "images_per_second": o["images_per_second"], "torch": torch[network]}
        row["ratio"] = o["images_per_second"] / max(theirs) if theirs else None
        row.update({key: o[key] for key in ("limit_tflops", "limit_gb_per_second", "product_ratio", "copy_ratio")})
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
    "torch": next((o["version"] for n in ("torch.out", "torch-latency.out") for o in objects(n) if "version" in o), None),
    "python": platform.python_version(),
    "system": platform.platform(),
    "load_average": os.getloadavg()[0],
    "failed": [p["part"] for p in parts if p["status"] == "failed"],
    "skipped": [p["part"] for p in parts if p["status"] == "skipped"],
    "parts": parts,
    "steps": rows,
    "kernels": {name: kernels(f"ncu-{name}.out") for name in ("resnet18", "alexnet", "mlp")},
}
with open(os.path.join(folder, "summary.json"), "w") as f:
    json.dump(summary, f, indent=1)
for network, table in summary["kernels"].items():
    if table:
        print(f"\n{network}: {sum(row[1] for row in table)} launches, {sum(row[0] for row in table):.0f} us")
    for us, count, kernel, share in table[:18]:
        print(f"{us:9.1f} us {count:4} x {us / count:7.1f} us {share:5.1f} % DRAM  {kernel}")
for name in ("selftest", "whole", "libraries"):
    bad = [line for line in text(name + ".out").splitlines() if "FAILED" in line or "failed" in line or line.startswith("  ")]
    print(f"\n{name}:", "\n".join(bad[:30])) if bad else None
print()
for row in rows:
    ways = " ".join(f"{w} {r}" for w, r in row["torch"].items())
    ratio = f"{row['ratio']:.2f} x" if row["ratio"] else ""
    print(f"{row['part']:<20} {row['step_ms']:8.3f} ms {row['images_per_second']:10.1f} images/s {ratio:8} torch: {ways}")
PY
told=$?

if [ -n "${OUT:-}" ]; then
    tar czf "$OUT/gpu-check.tgz" -C "$(dirname "$folder")" "$(basename "$folder")"
fi
failed=$(awk -F '\t' '$2 == "failed" { print $1 }' "$folder/parts.tsv" | tr '\n' ' ')
echo "results: $folder ($((SECONDS - begin)) s)"
if [ -n "$failed" ] || [ $told -ne 0 ]; then
    echo "failed: ${failed:-the summary}"
    exit 1
fi
