#!/bin/sh
# Runs every check of the kernels that needs no GPU: they compile with the real nvcc and warnings as errors, their
# entries equal build.rs's list, and they run on the emulated device in several orders of threads and under sanitizers.
set -eu
cd "$(dirname "$0")/.."
./scripts/cuda-toolchain.sh
PERISTYLE_REQUIRE_KERNELS=1 cargo test --release --test kernels --test emulated_device --test signatures -- --include-ignored
