#!/usr/bin/env bash
# Makes a Python environment with torchrun on a machine without a GPU, for tests: scripts/torchrun.sh FOLDER. PyTorch's wheel is linked
# with NVIDIA's libraries, which have wheels of several GB; here each of them is one whose functions return an error.
set -euo pipefail
folder=$1
python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet filelock typing_extensions sympy networkx jinja2 fsspec numpy
"$folder/bin/python" -m pip install --quiet --no-deps torch==2.15.0
cd "$folder"
bin/python - <<'PY'
import collections, glob, os, re, subprocess, sysconfig

folder = sysconfig.get_paths()["purelib"] + "/torch/lib"
# How the functions begin of libraries that do not name versions.
BEGIN = {"libcuda.so": "cu[A-Z]", "libnccl.so": "p?nccl", "libcufile.so": "cuFile", "libcusparseLt.so": "cusparseLt"}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


libraries = glob.glob(folder + "/*.so*")
present = {os.path.basename(library) for library in libraries}
names, symbols = set(), set()
for library in libraries:
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-dW", library))
    names |= {name for name in needed if re.match("lib(cu|nv|nccl)", name) and name not in present}
    symbols |= set(re.findall(r" U (\S+)", run("nm", "-D", "--with-symbol-versions", library)))
for name in names:
    begin = next((begin for library, begin in BEGIN.items() if name.startswith(library)), None)
    functions = collections.defaultdict(set)  # by version
    for symbol in symbols:
        function, _, version = symbol.partition("@")
        if version == name or (version == "NVSHMEM" and "nvshmem" in name):
            functions[version].add(function)
        elif not version and begin and re.match(begin, function):
            functions[""].add(function)
    code = "".join(f"int {function}(void) {{ return 100; }}\n" for all in functions.values() for function in all)
    script = "".join(f"{v} {{ {' '.join(f + ';' for f in all)} }};\n" for v, all in functions.items() if v)
    with open("stub.map", "w") as file:
        file.write(script)
    versions = ["-Wl,--version-script,stub.map"] if script else []
    command = ["cc", "-shared", "-fPIC", "-w", "-fno-builtin", "-x", "c", "-", "-o", f"{folder}/{name}", f"-Wl,-soname,{name}"]
    subprocess.run(command + versions, input=code or "int none;\n", text=True, check=True)
PY
bin/torchrun --help >/dev/null
echo "$folder/bin/torchrun"
