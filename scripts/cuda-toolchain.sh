#!/bin/sh
# Installs the pinned nvcc in .cuda/, where build.rs finds it. Needs python3 with pip, but neither root nor a GPU.
# The version is 13.0 because the PTX of a later nvcc does not load on driver 580.
set -eu
cd "$(dirname "$0")/.."
if [ ! -x .cuda/bin/python ]; then
    python3 -m venv --without-pip .cuda
fi
python3 -m pip --python .cuda/bin/python install --quiet --no-compile "cuda-toolkit[nvcc,cccl]==13.0.3.0"
touch build.rs
ls .cuda/lib/python3.*/site-packages/nvidia/cu13/bin/nvcc
