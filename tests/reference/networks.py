#!/usr/bin/env python3
"""Writes networks.json and networks/<name>.safetensors: logits of torchvision's and timm's networks with weights by formula, in f64.

    python networks.py [--out DIR]

The image is (1, 3, 64, 64), bytes 0 .. 255 by `uniform` of make.py, divided by 255. A parameter is uniform(name) times sqrt(3 / fan
in) for weights of more than one dim; otherwise 1 + 0.2 u for weights of normalisations, 0.1 u for biases and means, 1 + 0.5 |u| for
variances, and 0.5 u for other vectors. Names are those of the configuration in configs/zoo.
"""
import argparse
import json
import pathlib

import numpy as np
import timm
import torch
import torchvision
from safetensors.numpy import save

from make import HERE, uniform

# The networks, and how names here differ from torchvision's.
NETWORKS = {
    "squeezenet1_1": {}, "resnet18": {}, "densenet121": {}, "mobilenet_v2": {}, "shufflenet_v2": {}, "regnet_y_400mf": {},
    "convnext_tiny": {".layer_scale": ".scale.weight"}, "vit_s16": {},
}
TORCH = {"shufflenet_v2": "shufflenet_v2_x1_0"}


def values(name, shape):
    u = uniform(f"zoo.{name}", shape)
    last = name.rsplit(".", 1)[1]
    if len(shape) > 1 and np.prod(shape[1:]) > 1:
        return u * np.sqrt(3.0 / np.prod(shape[1:]))
    if name.endswith(".scale.weight"):
        return 0.5 * u
    return {"weight": 1 + 0.2 * u, "running_var": 1 + 0.5 * abs(u)}.get(last, 0.1 * u)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--out", type=pathlib.Path, default=HERE)
    args = args.parse_args()
    (args.out / "networks").mkdir(exist_ok=True)
    image = np.floor((uniform("zoo.image", (1, 3, 64, 64)) + 1) * 128).astype(np.uint8)
    x = torch.from_numpy(image.astype(np.float32) / np.float32(255)).double()
    result = {"torchvision": torchvision.__version__.split("+")[0], "timm": timm.__version__, "networks": {}}
    for name, renamed in NETWORKS.items():
        if name == "vit_s16":
            net = timm.create_model("vit_small_patch16_224", img_size=64)
        else:
            net = torchvision.models.get_model(TORCH.get(name, name), weights=None)
        net = net.double().eval()
        count = 0
        for key, tensor in net.state_dict().items():
            if key.endswith("num_batches_tracked"):
                continue
            own = key
            for old, new in renamed.items():
                own = own.replace(old, new)
            if ".attn.qkv." in own:
                # Queries, keys and values are layers of their own here.
                shape = (tensor.shape[0] // 3, *tensor.shape[1:])
                parts = [values(own.replace("qkv", part), shape) for part in "qkv"]
                new = np.concatenate(parts)
            elif own in ("cls_token", "pos_embed"):
                new = values(own + ".weight", tuple(tensor.shape[1:] if own == "pos_embed" else tensor.shape[2:]))
            else:
                new = values(own, tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(np.asarray(new).reshape(tensor.shape)))
            count += tensor.numel()
        with torch.no_grad():
            logits = net(x).numpy()
        data = dict(images=image, targets=logits.astype(np.float32))
        (args.out / "networks" / f"{name}.safetensors").write_bytes(save(data))
        result["networks"][name] = dict(values=count, largest=float(abs(logits).max()), deviation=float(logits.std()))
        print(name, result["networks"][name])
    (args.out / "networks.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
