#!/usr/bin/env bash
# Packs peristyle for machines that have nothing but an NVIDIA driver, or not even that: the binary with all kernels and
# the emulated device, the configurations, the data of the shipped examples, and the scripts that check a GPU.
#
#     scripts/package.sh [FOLDER]      writes FOLDER/peristyle-VERSION-x86_64-linux.tar.gz (default: target/package)
#
# It is linked by zig against the symbols of glibc 2.28 (RHEL 8, Debian 10). Needs Rust, python3 with pip and venv, and
# binutils; installs zig and cargo-zigbuild under target/, nvcc under .cuda/.
set -euo pipefail
cd "$(dirname "$0")/.."
glibc=2.28
# What GCC 8 has, the compiler of those distributions. Nothing refers to it at all as long as zig links libc++.
glibcxx=3.4.25
most_bytes=30000000
folder=$(realpath -m "${1:-target/package}")
tools=$PWD/target/package-tools
target=x86_64-unknown-linux-gnu

if [ ! -x "$tools/bin/cargo-zigbuild" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --no-compile "ziglang==0.17.1" "cargo-zigbuild==0.24.1"
fi
[ -d .cuda ] || sh scripts/cuda-toolchain.sh
printf '#!/bin/sh\nexec "%s" -m ziglang c++ -target x86_64-linux-gnu.%s "$@"\n' "$tools/bin/python" "$glibc" >"$tools/bin/zig-c++"
chmod +x "$tools/bin/zig-c++"

# PERISTYLE_CXX chooses the compiler of the emulated device alone, so that no dependency sees it.
PATH="$tools/bin:$PATH" PERISTYLE_CXX="$tools/bin/zig-c++" PERISTYLE_REQUIRE_KERNELS=1 \
    cargo zigbuild --release --locked --bin peristyle --target "$target.$glibc"
built=target/$target/release

version=$("$built/peristyle" --version | awk '{ print $2 }')
name=peristyle-$version-x86_64-linux
rm -rf "${folder:?}/$name"
mkdir -p "$folder/$name/data" "$folder/$name/scripts"
cp -r configs bench README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT docs "$folder/$name/"
rm -rf "$folder/$name/bench/results"
cp -r data/digits data/signs32 "$folder/$name/data/"
cp scripts/gpu-check.sh "$folder/$name/scripts/"
strip --strip-debug -o "$folder/$name/peristyle" "$built/peristyle"

# newest FILE PREFIX: the newest version of a library's symbols that a file refers to
newest() { objdump -T "$1" | { grep -o "$2_[0-9.]*" || true; } | sed "s/$2_//" | sort -V | tail -n 1; }
# at_most FILE PREFIX VERSION
at_most() {
    local found
    found=$(newest "$1" "$2")
    if [ "$(printf '%s\n' "${found:-0}" "$3" | sort -V | tail -n 1)" != "$3" ]; then
        echo "$1 refers to $2_$found, expected $3 at most" >&2
        exit 1
    fi
    echo "$(basename "$1"): ${found:+$2_}${found:-no $2}"
}
emulator=$(ls -t "$built"/build/peristyle-*/out/emulator.*.so | head -n 1)
for file in "$folder/$name/peristyle" "$emulator"; do
    at_most "$file" GLIBC "$glibc"
    at_most "$file" GLIBCXX "$glibcxx"
done

archive=$folder/$name.tar.gz
tar -czf "$archive" -C "$folder" --owner=0 --group=0 "$name"
bytes=$(stat -c %s "$archive")
echo "$archive: $bytes bytes"
if [ "$bytes" -gt "$most_bytes" ]; then
    echo "$archive has more than $most_bytes bytes" >&2
    exit 1
fi
