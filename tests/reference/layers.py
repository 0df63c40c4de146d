#!/usr/bin/env python3
"""Writes layers.json and layers.safetensors: outputs and gradients of single layers by PyTorch, in f64.

    python layers.py [--out DIR]

Inputs, parameters and output gradients are those of `uniform` in make.py, named "<case>.<tensor>", times 3 (inputs) or 1.
Images are (N, C, H, W). A case has the kind and the settings of the layer in peristyle, the shapes of its inputs, and a function
of the inputs and parameters; `params` has the parameters' shapes, in the order of the layer.
"""
import argparse
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save

from make import HERE, uniform

N = 3


def case(kind, f, *shapes, params=(), **settings):
    return dict(kind=kind, f=f, shapes=shapes or [(4, 3, 2)], params=params, settings=settings)


def heads(x, to):
    """Images (N, C, H, W) as (N, heads, H W, D), for a number of heads; and back, for a height and a width."""
    if isinstance(to, int):
        return x.reshape(N, to, -1, x.shape[2] * x.shape[3]).transpose(2, 3)
    return x.transpose(2, 3).reshape(N, -1, *to)


def locally_connected(x, w, b, stride, *pad):
    """A convolution with w[:, i, j] (O, C, KH, KW) and b[:, i, j] (O) at position (i, j); pad: left, right, top, bottom."""
    o, oh, ow = w.shape[:3]
    windows = F.unfold(F.pad(x, pad), w.shape[4:], stride=stride)
    y = torch.einsum("nkp,opk->nop", windows, w.reshape(o, oh * ow, -1)).reshape(-1, o, oh, ow)
    return y if b is None else y + b


CASES = {
    "relu6": case("relu6", F.relu6),
    # The backward passes of F.hardsigmoid and F.hardswish use 1 / 6 in f32.
    "hard_sigmoid": case("hard_sigmoid", lambda x: F.relu6(x + 3) / 6),
    "hard_swish": case("hard_swish", lambda x: x * F.relu6(x + 3) / 6),
    "silu": case("silu", F.silu),
    "softplus": case("softplus", F.softplus),
    "softplus_steep": case("softplus", lambda x: F.softplus(x, beta=2.5), beta=2.5),
    "elu": case("elu", lambda x: F.elu(x, alpha=0.5), alpha=0.5),
    "selu": case("selu", F.selu),
    "gelu": case("gelu", F.gelu),
    "gelu_tanh": case("gelu", lambda x: F.gelu(x, approximate="tanh"), form="tanh"),
    "leaky_relu": case("leaky_relu", lambda x: F.leaky_relu(x, 0.2), slope=0.2),
    "prelu": case("prelu", F.prelu, params=[(1,)]),
    "prelu_channels": case("prelu", F.prelu, params=[(4,)], shared=False),
    "channel_shuffle": case("channel_shuffle", lambda x: F.channel_shuffle(x, 3), (6, 2, 2), groups=3),
    "pad": case("pad", lambda x: F.pad(x, (0, 3, 1, 2)), top=1, bottom=2, left=0, right=3),
    "space_to_depth": case("space_to_depth", lambda x: F.pixel_unshuffle(x, 2), (3, 4, 2), block=2),
    "upsample": case("upsample", lambda x: F.interpolate(x, scale_factor=3), scale=3),
    "shortcut": case("shortcut", lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)), (3, 5, 4), channels=6, first=1),
    "concat": case("concat", lambda *x: torch.cat(x, 1), (2, 3, 2), (4, 3, 2), (1, 3, 2)),
    "multiply": case("multiply", lambda x, g: x * g, (4, 3, 2), (4, 1, 1)),
    "slice": case("slice", lambda x: x[:, 1:3], first=1, channels=2),
    "adaptive_avg_pool": case("adaptive_avg_pool", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (3, 5, 4), size=[2, 3]),
    "max_pool_below_and_right": case(
        "max_pool", lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-1e9), 3, 2), (4, 5, 6),
        kernel=3, stride=2, pad=[0, 1, 0, 1]),
    "max_pool_same": case(
        "max_pool", lambda x: F.max_pool2d(F.pad(x, (1, 1, 0, 1), value=-1e9), 3, 2), (4, 6, 5), kernel=3, stride=2, pad="same"),
    "avg_pool_above": case(
        "avg_pool", lambda x: F.avg_pool2d(F.pad(x, (0, 1, 1, 0)), 3, 2), (4, 5, 6), kernel=3, stride=2, pad=[1, 0, 0, 1]),
    # As TensorFlow's: padding does not count.
    "avg_pool_same": case(
        "avg_pool",
        lambda x: F.avg_pool2d(F.pad(x, (1, 1, 0, 1)), 3, 2) / F.avg_pool2d(F.pad(torch.ones_like(x), (1, 1, 0, 1)), 3, 2),
        (4, 6, 5), kernel=3, stride=2, pad="same", count_include_pad=False),
    "lrn_within_channel": case(
        "lrn_within_channel", lambda x: x / (1.5 + 0.8 * F.avg_pool2d(x * x, 3, 1, 1)) ** 0.75, (3, 4, 5), size=3, alpha=0.8, k=1.5),
    "lrn_within_channel_wide": case(
        "lrn_within_channel", lambda x: x / (1 + 2 * F.avg_pool2d(x * x, 5, 1, 2)) ** 0.6, (3, 4, 3), alpha=2.0, beta=0.6),
    "crop": case("crop", lambda x: x[:, :, 1:3, :2], (3, 4, 3), top=1, height=2, width=2),
    "attention": case(
        "attention", lambda *qkv: heads(F.scaled_dot_product_attention(*(heads(x, 2) for x in qkv)), (3, 2)), (8, 3, 2),
        (8, 3, 2), (8, 3, 2), heads=2),
    "positional_embedding": case(
        "positional_embedding", lambda x, w: x + w.T.reshape(4, 3, 2), params=[(6, 4)]),
    "class_token": case(
        "class_token", lambda x, w: torch.cat([w.expand(N, 4)[:, :, None], x.flatten(2)], 2)[:, :, None], params=[(4,)]),
    "layer_scale": case("layer_scale", lambda x, w: x * w[:, None, None], params=[(4,)]),
    # TensorFlow's "SAME": an odd row or column comes after the image.
    "conv_same": case(
        "conv", lambda x, w, b: F.conv2d(F.pad(x, (1, 1, 0, 1)), w, b, 2), (3, 6, 5), params=[(2, 3, 3, 3), (2,)], filters=2,
        kernel=3, stride=2, pad="same"),
    "conv_sides": case(
        "conv", lambda x, w, b: F.conv2d(F.pad(x, (2, 0, 0, 1)), w, b), (3, 4, 5), params=[(2, 3, 2, 3), (2,)], filters=2,
        kernel=[2, 3], pad=[0, 1, 2, 0]),
    "conv_dilated": case(
        "conv", lambda x, w, b: F.conv2d(x, w, b, 2, 2, (2, 3), 2), (4, 6, 9), params=[(4, 2, 3, 3), (4,)], filters=4, kernel=3,
        stride=2, pad=2, dilation=[2, 3], groups=2),
    "conv_weight_norm": case(
        "conv", lambda x, v, b, g: F.conv2d(x, torch._weight_norm(v, g, 0), b, 2, 1, 1, 2), (4, 5, 3),
        params=[(6, 2, 3, 3), (6,), (6, 1, 1, 1)], filters=6, kernel=3, stride=2, pad=1, groups=2, reparam={"weight_norm": {}}),
    "dense_weight_norm": case(
        "dense", lambda x, v, g: F.linear(x.flatten(1), torch._weight_norm(v, g, 0))[:, :, None, None], (2, 3, 2),
        params=[(5, 12), (5, 1)], units=5, bias=False, reparam={"weight_norm": {"gain": 2.0}}),
    "normalized_relu": case(
        "normalized_relu", lambda x: (F.relu(x) - (0.5 / math.pi) ** 0.5) / (0.5 - 0.5 / math.pi) ** 0.5),
    "locally_connected_same": case(
        "locally_connected", lambda x, w, b: locally_connected(x, w, b, 2, 1, 1, 0, 1), (3, 6, 5),
        params=[(2, 3, 3, 3, 3, 3), (2, 3, 3)], filters=2, kernel=3, stride=2, pad="same"),
    "locally_connected_sides": case(
        "locally_connected", lambda x, w: locally_connected(x, w, None, 1, 2, 0, 0, 1), (3, 4, 5),
        params=[(2, 4, 5, 3, 2, 3)], filters=2, kernel=[2, 3], pad=[0, 1, 2, 0], bias=False),
    # The running statistics are 0 and 1 at first.
    "batch_norm_fixed": case(
        "batch_norm", lambda x, w, b: F.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double(), w, b, eps=0.5),
        params=[(4,), (4,)], statistics="running", epsilon=0.5),
    "batch_norm_batch": case(
        "batch_norm", lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), params=[(4,), (4,)]),
    "layer_norm": case(
        "layer_norm", lambda x, w, b: F.layer_norm(x.permute(0, 2, 3, 1), (4,), w, b).permute(0, 3, 1, 2),
        params=[(4,), (4,)]),
    "group_norm": case("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), params=[(4,), (4,)], groups=2),
    "instance_norm": case(
        "instance_norm", lambda x, w, b: F.instance_norm(x, weight=w, bias=b), params=[(4,), (4,)], affine=True),
}


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--out", type=pathlib.Path, default=HERE)
    args = args.parse_args()
    tensors, cases = {}, []
    for name, one in CASES.items():
        draw = lambda part, shape, scale: torch.from_numpy(uniform(f"{name}.{part}", shape) * scale)
        x = [draw(f"x{i}", (N, *shape), 3.0).requires_grad_() for i, shape in enumerate(one["shapes"])]
        p = [draw(f"param{i}", shape, 1.0).requires_grad_() for i, shape in enumerate(one["params"])]
        y = one["f"](*x, *p)
        dy = draw("dy", tuple(y.shape), 1.0)
        y.backward(dy)
        all = {"y": y, "dy": dy} | {f"x{i}": t for i, t in enumerate(x)} | {f"param{i}": t for i, t in enumerate(p)}
        all |= {f"dx{i}": t.grad for i, t in enumerate(x)} | {f"dparam{i}": t.grad for i, t in enumerate(p)}
        tensors |= {f"{name}.{k}": np.ascontiguousarray(t.detach().numpy()) for k, t in all.items()}
        cases.append(dict(name=name, kind=one["kind"], settings=one["settings"], inputs=one["shapes"], params=len(p)))
    (args.out / "layers.safetensors").write_bytes(save({k: tensors[k] for k in sorted(tensors)}))
    lines = ",\n".join(" " + json.dumps(case) for case in cases)
    (args.out / "layers.json").write_text(f'{{"torch": "{torch.__version__.split("+")[0]}", "cases": [\n{lines}\n]}}\n')
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
