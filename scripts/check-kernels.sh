#!/bin/sh
# Every check on the kernels that needs no GPU: compiled by the real nvcc with warnings as errors, its entries equal
# to build.rs's list, run on the emulated device in several orders of threads and under sanitizers.
set -eu
cd "$(dirname "$0")/.."
./scripts/cuda-toolchain.sh
PERISTYLE_REQUIRE_KERNELS=1 cargo test --release --test kernels --test emulated_device --test signatures -- --include-ignored
