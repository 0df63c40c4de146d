#!/usr/bin/env python3
"""Checks the files in deploy/ as far as that needs neither Docker, Apptainer nor a cluster.

    pip install PyYAML jsonschema
    python3 scripts/check-deploy.py [--crd FILE]...

jobset.yaml and pytorchjob.yaml must have the keys and types of tests/deploy/kinds.json, and agree with themselves: names of volumes,
claims and secrets, numbers of pods and GPUs, the address of pod 0. With --crd, they are also validated against custom resource
definitions, as `kubectl get crd jobsets.jobset.x-k8s.io -o yaml` prints them. In the Dockerfile and the definition for Apptainer,
instructions, sections, stages and sources of copies must exist. Then each of MISTAKES is made in a copy, and must be found.
Prints the first mistake as a sentence and exits with 1.
"""

import argparse
import glob
import json
import re
import shlex
import sys
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE, DEFINITION, MANIFESTS = "deploy/Dockerfile", "deploy/peristyle.def", ("deploy/jobset.yaml", "deploy/pytorchjob.yaml")
# Where the image has the configurations of this repository.
CONFIGS = "/opt/peristyle/configs/"
# What stands for the token: a real one must not be committed.
TOKEN = "TOKEN_OF_64_HEX_DIGITS"
INSTRUCTIONS = set("ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL ONBUILD RUN SHELL STOPSIGNAL USER VOLUME WORKDIR".split())
SECTIONS = set("arguments environment files help labels post runscript setup startscript test".split())
HEADERS = {"bootstrap", "from", "stage"}

# Deliberate mistakes: the file, what is replaced by what, and what must be reported.
MISTAKES = [
    ("deploy/jobset.yaml", "parallelism: 8", "paralelism: 8", "'paralelism' was unexpected"),
    ("deploy/jobset.yaml", "maxRestarts: 20", 'maxRestarts: "20"', "'20' is not of type 'integer'"),
    ("deploy/jobset.yaml", "restartStrategy: BlockingRecreate", "restartStrategy: Blocking", "is not one of"),
    ("deploy/jobset.yaml", "                  image: registry.example.com/peristyle:0.1.0\n", "", "'image' is a required property"),
    ("deploy/jobset.yaml", "cluster.processes=8", "cluster.processes=4", "cluster.processes=4, but 8 pods"),
    ("deploy/jobset.yaml", "trainer-0-0.resnet50:29500", "worker-0-0.resnet50:29500", "expected resnet50-trainer-0-0.resnet50"),
    ("deploy/jobset.yaml", "nvidia.com/gpu: 8", "nvidia.com/gpu: 4", "8 devices, but 4 GPUs"),
    ("deploy/jobset.yaml", "claimName: peristyle", "claimName: peristile", 'no PersistentVolumeClaim "peristile"'),
    ("deploy/jobset.yaml", "    - name: shm\n                      mountPath", "    - name: shn\n                      mountPath", 'no volume "shn"'),
    ("deploy/jobset.yaml", f"PERISTYLE_TOKEN: {TOKEN}", "PERISTYLE_TOKEN: " + "0f" * 32, "a token must not be committed"),
    ("deploy/jobset.yaml", "backoffLimit: 0", "backoffLimit: 0\n          backoffLimit: 1", "twice"),
    ("deploy/pytorchjob.yaml", "containers:", "container:", "'container"),
    ("deploy/pytorchjob.yaml", "- name: pytorch\n", "- name: peristyle\n", 'no container "pytorch"'),
    ("deploy/pytorchjob.yaml", "cluster/resnet50.toml", "cluster/resnet.toml", "configs/cluster/resnet.toml does not exist"),
    ("deploy/pytorchjob.yaml", "restartPolicy: OnFailure", "restartPolicy: ExitCode", "exit code 75"),
    ("deploy/Dockerfile", "WORKDIR /build", "WORKDIRECTORY /build", 'unknown instruction "WORKDIRECTORY"'),
    ("deploy/Dockerfile", "COPY kernels kernels", "COPY kernel kernels", '"kernel" does not exist'),
    ("deploy/Dockerfile", "COPY --from=build /peristyle", "COPY --from=builder /peristyle", 'no stage "builder"'),
    ("deploy/Dockerfile", "COPY --from=build /peristyle /usr/local/bin/peristyle\n", "", "ENTRYPOINT names no file"),
    ("deploy/Dockerfile", "USER 10001:10001\n", "", "runs as root"),
    ("deploy/peristyle.def", "%runscript", "%runscripts", 'unknown section "%runscripts"'),
    ("deploy/peristyle.def", "    build.rs /build/build.rs", "    built.rs /build/build.rs", '"built.rs" does not exist'),
    ("deploy/peristyle.def", "cuda:13.0.1-base", "cuda:12.9.1-base", "other images"),
]


class Mistake(Exception):
    """A mistake, as a sentence that begins with the file."""


class StrictLoader(yaml.SafeLoader):
    """Loads YAML, but no key twice, of which the last would count."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise Mistake(f'line {key.start_mark.line + 1}: key "{key.value}" is there twice; remove one')
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def strict(schema):
    """Returns the schema of a custom resource definition so that unknown keys are refused, as kubectl does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # The keys of "properties" are names, not keywords.
    new = {key: {name: strict(part) for name, part in value.items()} if key == "properties" else strict(value) for key, value in schema.items()}
    if "properties" in new and "additionalProperties" not in new and not new.get("x-kubernetes-preserve-unknown-fields"):
        new["additionalProperties"] = False
    return new


def definitions(paths):
    """Returns the schemas in custom resource definitions, by "apiVersion kind"."""
    found = {}
    for path in paths:
        spec = yaml.load(Path(path).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            found[f'{spec["group"]}/{version["name"]} {spec["names"]["kind"]}'] = schema
    return found


def validate(where, document, schema):
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    error = min(errors, key=lambda error: [str(part) for part in error.absolute_path], default=None)
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path)
        raise Mistake(f"{where}: {place or 'the document'}: {error.message}")


def settings(where, container):
    """Returns the configuration and the --set of the arguments of a container."""
    arguments = container.get("args", [])
    if len(arguments) < 2 or arguments[0] != "train":
        raise Mistake(f"{where}: args = {arguments}, expected train and a configuration")
    pairs = [value.partition("=") for flag, value in zip(arguments, arguments[1:]) if flag == "--set"]
    return arguments[1], {key: value.strip('"') for key, _, value in pairs}


def pod(where, template, names):
    """Checks a pod against the other documents, and returns the --set of its container."""
    spec = template["spec"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and ("PersistentVolumeClaim", claim) not in names:
            raise Mistake(f'{where}: volume "{volume["name"]}": the file has no PersistentVolumeClaim "{claim}"')
    container = spec["containers"][0]
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            raise Mistake(f'{where}: volumeMounts: there is no volume "{mount["name"]}"; known are {", ".join(volumes)}')
    secrets = [source["secretRef"]["name"] for source in container.get("envFrom", [])]
    for secret in secrets:
        if ("Secret", secret) not in names:
            raise Mistake(f'{where}: envFrom: the file has no Secret "{secret}"')
    if not secrets:
        raise Mistake(f"{where}: envFrom: no Secret, expected the one with PERISTYLE_TOKEN")
    config, sets = settings(where, container)
    if not config.startswith(CONFIGS) or not (ROOT / "configs" / config.removeprefix(CONFIGS)).is_file():
        raise Mistake(f"{where}: {config}: configs/{config.removeprefix(CONFIGS)} does not exist here")
    first, _, last = sets.get("devices.use", "").removeprefix("cuda:").partition("-")
    devices = int(last or first) - int(first) + 1 if first.isdecimal() and (last or first).isdecimal() else 0
    gpus = container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0)
    if devices != gpus:
        raise Mistake(f"{where}: devices.use lists {devices} devices, but {gpus} GPUs are requested")
    return sets


def job_set(where, document, names):
    job, *others = document["spec"]["replicatedJobs"]
    if others:
        raise Mistake(f"{where}: expected one replicated job, but there are {1 + len(others)}")
    spec = job["template"]["spec"]
    sets = pod(where, spec["template"], names)
    pods = spec.get("completions")
    if spec.get("parallelism") != pods or spec.get("completionMode") != "Indexed" or job.get("replicas", 1) != 1:
        raise Mistake(f"{where}: expected one indexed Job whose completions and parallelism are equal")
    if sets.get("cluster.processes") != str(pods):
        raise Mistake(f"{where}: cluster.processes={sets.get('cluster.processes')}, but {pods} pods")
    name = document["metadata"]["name"]
    host = f'{name}-{job["name"]}-0-0.{document["spec"].get("network", {}).get("subdomain", name)}'
    if not re.fullmatch(re.escape(host) + r":\d+", sets.get("cluster.address", "")):
        raise Mistake(f"{where}: cluster.address={sets.get('cluster.address')}, expected {host} and a port")
    if spec["template"]["spec"].get("restartPolicy") != "Never" or spec.get("backoffLimit") != 0:
        raise Mistake(f"{where}: expected restartPolicy Never and backoffLimit 0, so that all pods start again together")


def pytorch_job(where, document, names):
    replicas = document["spec"]["pytorchReplicaSpecs"]
    for role, replica in replicas.items():
        place = f"{where}: {role}"
        pod(place, replica["template"], names)
        if replica["template"]["spec"]["containers"][0]["name"] != "pytorch":
            raise Mistake(f'{place}: the first container is no container "pytorch", which the operator requires')
        if replica.get("restartPolicy") != "OnFailure":
            raise Mistake(f"{place}: restartPolicy = {replica.get('restartPolicy')}, expected OnFailure, which starts again after exit code 75")
    if replicas["Master"].get("replicas") != 1:
        raise Mistake(f"{where}: Master: expected replicas: 1")
    if document["spec"].get("nprocPerNode") != "1":
        raise Mistake(f'{where}: nprocPerNode: expected "1", the processes of a pod')


def manifest(path, text, crds):
    """Checks a file of Kubernetes; returns what it found."""
    kinds = json.loads((ROOT / "tests/deploy/kinds.json").read_text())
    try:
        documents = list(yaml.load_all(text, StrictLoader))
    except (yaml.YAMLError, Mistake) as error:
        raise Mistake(f"{path}: {error}") from error
    names = set()
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict):
            raise Mistake(f"{path}: document {number} is no table")
        version = f'{document.get("apiVersion")} {document.get("kind")}'
        where = f"{path}: document {number} ({version})"
        if version not in kinds["kinds"]:
            raise Mistake(f"{where}: unknown kind; tests/deploy/kinds.json has {', '.join(kinds['kinds'])}")
        validate(where, document, {"$defs": kinds["$defs"], **kinds["kinds"][version]})
        if version in crds:
            validate(f"{where}, by its definition", document, crds[version])
        names.add((document["kind"], document["metadata"]["name"]))
        if document["kind"] == "Secret" and document.get("stringData") != {"PERISTYLE_TOKEN": TOKEN}:
            raise Mistake(f"{where}: stringData: expected PERISTYLE_TOKEN: {TOKEN}; a token must not be committed")
    jobs = {"JobSet": job_set, "PyTorchJob": pytorch_job}
    found = [document for document in documents if document["kind"] in jobs]
    if not found:
        raise Mistake(f"{path}: has no JobSet and no PyTorchJob")
    for document in found:
        jobs[document["kind"]](f'{path}: {document["kind"]} {document["metadata"]["name"]}', document, names)
    return ", ".join(document["kind"] for document in documents)


def exists(where, source):
    if not glob.glob(str(ROOT / source)):
        raise Mistake(f'{where}: "{source}" does not exist in the root folder of the project')


def instructions(path, text):
    """Yields the line, instruction and arguments of a Dockerfile."""
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line.startswith("#") or not line:
            continue
        first = first if pending else number
        pending += line.removesuffix("\\") + " "
        if line.endswith("\\"):
            continue
        word, _, rest = pending.strip().partition(" ")
        pending = ""
        if word.upper() not in INSTRUCTIONS:
            raise Mistake(f'{path}:{first}: unknown instruction "{word}"')
        if "<<" in rest:
            raise Mistake(f"{path}:{first}: a here-document, which this check does not read; write it as a command")
        yield first, word.upper(), rest.strip()
    if pending:
        raise Mistake(f"{path}:{first}: the last instruction ends with a backslash")


def base(where, image, stages):
    if image not in stages and not re.fullmatch(r"[a-z0-9./_-]+:[A-Za-z0-9._-]+", image):
        raise Mistake(f'{where}: "{image}" is no earlier stage and no image with a tag')


def dockerfile(path, text):
    """Checks a Dockerfile; returns its images, without those that are stages."""
    defaults, stages, images = {}, [], []
    for line, word, rest in instructions(path, text):
        where = f"{path}:{line}"
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            defaults[name] = value
        elif word == "FROM":
            parts = re.sub(r"\$\{(\w+)\}", lambda match: defaults.get(match[1], match[0]), rest).split()
            base(where, parts[0], stages)
            images += [parts[0]] if parts[0] not in stages else []
            stages.append(parts[2] if len(parts) == 3 and parts[1].upper() == "AS" else str(len(stages)))
            copied, entry, user = set(), None, "root"
        elif not stages:
            raise Mistake(f"{where}: {word} stands before the first FROM")
        elif word in ("COPY", "ADD"):
            words = shlex.split(rest)
            options = dict(option[2:].partition("=")[::2] for option in words if option.startswith("--"))
            *sources, target = [option for option in words if not option.startswith("--")]
            if not sources:
                raise Mistake(f"{where}: {word} has no target")
            if "from" in options and options["from"] not in stages[:-1]:
                raise Mistake(f'{where}: there is no stage "{options["from"]}" before; known are {", ".join(stages[:-1])}')
            for source in sources:
                if "from" not in options:
                    exists(where, source)
                elif target.endswith("/"):
                    copied.add(target + Path(source).name)
                else:
                    copied.add(target)
        elif word == "USER":
            user = rest.partition(":")[0]
        elif word == "ENTRYPOINT":
            try:
                entry = json.loads(rest)
            except ValueError as error:
                raise Mistake(f"{where}: ENTRYPOINT is no list in JSON, and would run in a shell, which passes on no signals") from error
    if not stages:
        raise Mistake(f"{path}: has no FROM")
    if not entry or not copied.intersection(entry):
        raise Mistake(f"{path}: ENTRYPOINT names no file that COPY --from puts into the last stage")
    if user in ("root", "0"):
        raise Mistake(f"{path}: the image runs as root; add USER")
    return images


def definition(path, text):
    """Checks a definition for Apptainer; returns its images."""
    stages, images, section = [], [], None
    for number, line in enumerate(text.splitlines(), 1):
        where, words = f"{path}:{number}", line.split()
        if not words or words[0].startswith("#"):
            continue
        if line.startswith("Bootstrap:"):
            if words[1:] != ["docker"]:
                raise Mistake(f"{where}: expected Bootstrap: docker")
            stages.append(str(len(stages)))
            section, copied, programs = None, set(), set()
            images.append(None)
        elif line.startswith("%"):
            section = words[0][1:]
            if not stages or section not in SECTIONS:
                raise Mistake(f'{where}: unknown section "{words[0]}", or no header before it; known are {", ".join(sorted(SECTIONS))}')
            origin = words[2] if words[1:2] == ["from"] else None
            if origin and origin not in stages[:-1]:
                raise Mistake(f'{where}: there is no stage "{origin}" before; known are {", ".join(stages[:-1])}')
        elif section is None:
            key, _, value = line.partition(":")
            if not stages or key.lower() not in HEADERS:
                raise Mistake(f'{where}: unknown header "{key}"; known are {", ".join(sorted(HEADERS))}')
            if key.lower() == "from":
                base(where, value.strip(), [])
                images[-1] = value.strip()
            else:
                stages[-1] = value.strip()
        elif section == "files":
            if len(words) > 2:
                raise Mistake(f"{where}: %files: expected a source and a target")
            if origin:
                copied.add(words[-1])
            else:
                exists(where, words[0])
        elif section == "runscript":
            programs.update(words)
    if None in images or not stages:
        raise Mistake(f"{path}: a stage has no From")
    if not copied & programs:
        raise Mistake(f"{path}: %runscript names no file that %files from puts into the last stage")
    return images


def check(read, crds):
    """Checks all files, whose text `read` returns; returns what it found, one line for each."""
    found = [f"{path}: {manifest(path, read(path), crds)}" for path in MANIFESTS]
    images, others = dockerfile(DOCKERFILE, read(DOCKERFILE)), definition(DEFINITION, read(DEFINITION))
    if images != others:
        raise Mistake(f"{DEFINITION}: builds on other images than {DOCKERFILE}: {', '.join(others)}; expected {', '.join(images)}")
    return found + [f"{DOCKERFILE}, {DEFINITION}: {', '.join(images)}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--crd", action="append", default=[], metavar="FILE", help="a custom resource definition, in YAML or JSON")
    crds = definitions(parser.parse_args().crd)
    read = lambda path: (ROOT / path).read_text()
    try:
        found = check(read, crds)
    except Mistake as mistake:
        sys.exit(f"check-deploy: {mistake}")
    for path, old, new, expected in MISTAKES:
        text = read(path)
        if old not in text:
            sys.exit(f"check-deploy: MISTAKES: {path} has no {old!r} to replace; correct the list")
        try:
            check(lambda other: text.replace(old, new) if other == path else read(other), {})
            sys.exit(f"check-deploy: MISTAKES: {path}: {new!r} in place of {old!r} was not found")
        except Mistake as mistake:
            if expected not in str(mistake):
                sys.exit(f"check-deploy: MISTAKES: {path}: {new!r} in place of {old!r}: expected {expected!r}, but: {mistake}")
    print("\n".join(found))
    print(f"{len(MISTAKES)} deliberate mistakes were found")


if __name__ == "__main__":
    main()
