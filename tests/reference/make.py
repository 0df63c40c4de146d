#!/usr/bin/env python3
"""Writes the reference curves of this folder with PyTorch; README.md says what the files hold.

    python make.py [--data DIR] [--out DIR] [NAME...]

Needs torch, numpy and safetensors. DIR holds digits/ and signs32/ (default: the repository's data/).

A network is written down once, below, as the list of layers of a peristyle configuration. `forward` runs that list
with torch.nn.functional and autograd; `toml` prints it as the configuration. Everything else follows formulas:

Images     byte / 255, rounded to f32. Batch k is the samples k * batch .. (k + 1) * batch of the training file.
Weights    u = 2 * (mix(crc32("<seed>.<layer>.<param>") * 2^32 + i) >> 11) / 2^53 - 1 for element i in PyTorch's
           row-major order, with mix the finaliser of SplitMix64 in 64-bit arithmetic; then rounded to f32:
           weight of conv and dense     u * sqrt(6 / fan_in), fan_in = inputs of one output
           bias of conv and dense       0.1 * u
           weight of batch_norm         1 + 0.2 * u; its bias 0.1 * u; running_mean 0, running_var 1
Loss       mean over the batch of -ln softmax(logits)[label], before that step's update; for networks with "loss", the
           weighted sum of these losses, with the label as a one-hot vector in a mean squared error.
Values     the targets of networks with "values": the mean row and the mean column of a digit, the means of its pixels and of their squares.
Units      with adaptive_clip, the gradient of each unit is scaled by min(1, clipping max(|w|, epsilon) / |g|).
Clip       g *= min(1, max_norm / norm), norm over all gradients, before weight decay. This is exact: PyTorch's
           clip_grad_norm_ divides by norm + 1e-6.
Update     g += weight_decay * w for every parameter; v = momentum * v + g, from v = 0; w -= lr * v: torch.optim.SGD.
           Networks with "torch" use that class of torch.optim instead.
Step       lr(t) = lr * factor^floor(t / every) for step t = 0, 1, ...

The f64 run starts from the same f32 weights and images. One thread, deterministic algorithms: a rerun gives the same
bytes on the same kind of processor and version of PyTorch.

A relu or a pool that sits on its kink takes either side by the last bit, and the curves part. The seeds are chosen so
that none does: f64 runs in which every output of a layer with arithmetic is multiplied by 1 + NOISE * u, which is
several times what f32 rounds, stay as near as "noise_drift" says.
"""
import argparse
import gzip
import json
import math
import pathlib
import textwrap
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save

HERE = pathlib.Path(__file__).resolve().parent
STEPS = 20  # unless a network has "steps"
NOISE, NOISE_RUNS = 1e-6, 6
ARITHMETIC = ("conv", "dense", "lrn", "batch_norm")
SMALL = 4096  # elements; the final values of larger tensors are kept as norms only
DIGITS = dict(input=[28, 28, 1], train={"digits": "train"})
SIGNS = dict(input=[32, 32, 3], train={"cifar": "../../data/signs32/data_batch_1.bin"})
SGD = [{"weight_decay": 5e-4}, {"momentum": 0.9}]

NETWORKS = {
    "mlp": dict(
        about="A perceptron with two hidden layers; SGD with momentum and weight decay.",
        data=DIGITS, seed=5, batch=16, chain=SGD, lr=0.05,
        layers=[
            dict(name="fc1", dense=dict(units=64)),
            "relu",
            dict(name="fc2", dense=dict(units=32)),
            "relu",
            dict(name="fc3", dense=dict(units=10)),
        ]),
    "lenet": dict(
        about="LeNet, scaled down; the learning rate halves every 8 steps.",
        data=DIGITS, seed=2, batch=16, chain=SGD, lr=0.02, step=dict(every=8, factor=0.5),
        layers=[
            dict(name="conv1", conv=dict(filters=8, kernel=5)),
            dict(max_pool=dict(kernel=2, stride=2)),
            dict(name="conv2", conv=dict(filters=16, kernel=5)),
            dict(max_pool=dict(kernel=2, stride=2)),
            "flatten",
            dict(name="fc1", dense=dict(units=64)),
            "relu",
            dict(name="fc2", dense=dict(units=10)),
        ]),
    "lrn": dict(
        about="AlexNet's parts, small: normalisation over channels strong enough to be seen, overlapping pools, two "
              "groups; gradients clipped by their global norm, in some of the steps.",
        data=SIGNS, seed=20, batch=16, chain=[{"clip_by_global_norm": 1.0}] + SGD, lr=0.1,
        layers=[
            dict(name="conv1", conv=dict(filters=8, kernel=5, stride=2, pad=1)),
            "relu",
            dict(name="lrn1", lrn=dict(size=3, alpha=0.5, beta=0.75, k=1.0)),
            dict(max_pool=dict(kernel=3, stride=2)),
            dict(name="conv2", conv=dict(filters=12, kernel=3, pad=1, groups=2)),
            "relu",
            dict(name="lrn2", lrn=dict(size=5, alpha=0.3, beta=0.5, k=2.0)),
            dict(max_pool=dict(kernel=3, stride=2)),
            dict(name="fc", dense=dict(units=10)),
        ]),
    "batch_norm": dict(
        about="A residual network of one block: batch norm, a skip connection, global average pool.",
        data=SIGNS, seed=4, batch=32, chain=SGD, lr=0.1,
        layers=[
            dict(name="conv1", conv=dict(filters=6, kernel=5, stride=4, pad=1, bias=False)),
            dict(name="bn1", batch_norm={}),
            dict(name="relu1", relu={}),
            dict(name="conv2", conv=dict(filters=6, kernel=3, pad=1, bias=False)),
            dict(name="bn2", batch_norm={}),
            dict(name="sum", add={}, inputs=["bn2", "relu1"]),
            "relu",
            dict(name="conv3", conv=dict(filters=12, kernel=3, stride=2, pad=1, bias=False)),
            dict(name="bn3", batch_norm={}),
            "relu",
            "global_avg_pool",
            dict(name="fc", dense=dict(units=10)),
        ]),
}

# Smooth and small, so that fifty steps show an optimiser and nothing else.
SMOOTH = ["flatten", dict(name="fc1", dense=dict(units=12)), "tanh", dict(name="fc2", dense=dict(units=10))]


def optimizer(about, chain, lr, kind, **settings):
    """Fifty steps of an optimiser: its chain in peristyle, and its name and settings in torch.optim."""
    return dict(about=about, data=DIGITS, seed=7, batch=16, steps=50, chain=chain, lr=lr, torch=(kind, settings),
                layers=[dict(max_pool=dict(kernel=4, stride=4))] + SMOOTH)


NETWORKS |= {
    "rmsprop": optimizer("RMSProp.", [{"rmsprop": {}}], 0.005, "RMSprop"),
    "rmsprop_centered": optimizer(
        "RMSProp, centered, with momentum and coupled weight decay.",
        [{"weight_decay": 1e-3}, {"rmsprop": dict(decay=0.9, epsilon=1e-4, momentum=0.5, centered=True)}], 0.002,
        "RMSprop", alpha=0.9, eps=1e-4, momentum=0.5, centered=True, weight_decay=1e-3),
    "adam": optimizer(
        "Adam with L2 regularisation.", [{"weight_decay": 1e-3}, {"adam": dict(beta1=0.8, beta2=0.99, epsilon=1e-6)}],
        0.01, "Adam", betas=(0.8, 0.99), eps=1e-6, weight_decay=1e-3),
    "adamw": optimizer("Adam with decoupled weight decay.", [{"adam": {}}, {"weight_decay": 0.05}], 0.01, "AdamW",
                       weight_decay=0.05),
    "nesterov": optimizer(
        "Momentum that looks ahead, with L2 regularisation.",
        [{"weight_decay": 1e-3}, {"momentum": dict(mu=0.8, nesterov=True)}], 0.05, "SGD", momentum=0.8, nesterov=True,
        weight_decay=1e-3),
    "adagrad": optimizer("AdaGrad.", [{"adagrad": dict(initial=0.01)}], 0.02, "Adagrad", initial_accumulator_value=0.01),
    "adadelta": optimizer(
        "AdaDelta with L2 regularisation.", [{"weight_decay": 1e-3}, {"adadelta": dict(epsilon=1e-5)}], 0.5, "Adadelta",
        eps=1e-5, weight_decay=1e-3),
    "nadam": optimizer(
        "Nadam, with a look-ahead that grows fast.", [{"nadam": dict(beta2=0.99, momentum_decay=0.5)}], 0.005, "NAdam",
        betas=(0.9, 0.99), momentum_decay=0.5),
    "adaptive_clip": optimizer(
        "Momentum with adaptive clipping of every unit.",
        [{"adaptive_clip": dict(clipping=0.05, epsilon=0.02)}, {"momentum": 0.9}], 0.1, "SGD", momentum=0.9),
    "rprop": optimizer(
        "Rprop; limits are factors of the rate.", [{"rprop": dict(min_factor=1e-3, max_factor=4.0)}], 0.002, "Rprop",
        step_sizes=(2e-6, 8e-3)),
}


# Biases with an optimiser and a rate of their own: its name and settings in torch.optim, and the factor of the rate.
NETWORKS["groups"] = optimizer(
    "Adam with L2 regularisation for the weights, momentum at twice the rate without decay for the biases.",
    [{"weight_decay": 1e-3}, {"adam": dict(beta1=0.8, beta2=0.99, epsilon=1e-6)}], 0.01, "Adam", betas=(0.8, 0.99),
    eps=1e-6, weight_decay=1e-3) | dict(
        groups={"bias": dict(lr_mult=2.0, decay_mult=0.0, chain=[{"momentum": 0.5}])},
        torch_of={"bias": ("SGD", dict(momentum=0.5), 2.0)})

NETWORKS |= {
    "values": dict(
        about="A network that predicts four values: mean squared error.",
        data=dict(input=[7, 7, 1], train={"tensors": "values.data.safetensors"}), values=True, seed=7, batch=16,
        chain=SGD, lr=0.1, loss=["mean_squared_error"],
        layers=["flatten", dict(name="fc1", dense=dict(units=12)), "tanh", dict(name="fc2", dense=dict(units=4))]),
    "heads": dict(
        about="Three losses: of the last layer, and of two auxiliary heads.",
        data=DIGITS, seed=7, batch=16, chain=SGD, lr=0.1,
        loss=[
            dict(softmax_cross_entropy={}, name="main"),
            dict(softmax_cross_entropy=dict(label_smoothing=0.1), inputs=["side"], weight=0.3, name="smooth"),
            dict(mean_squared_error={}, inputs=["low"], weight=2.5),
        ],
        layers=[
            dict(max_pool=dict(kernel=4, stride=4)), "flatten", dict(name="fc1", dense=dict(units=12)),
            dict(name="act1", tanh={}), dict(name="low", dense=dict(units=10)),
            dict(name="fc2", dense=dict(units=8), inputs=["act1"]), dict(name="act2", tanh={}),
            dict(name="side", dense=dict(units=10)), dict(name="fc3", dense=dict(units=10), inputs=["act2"]),
        ]),
}

# Second-order methods, on all of 320 samples at every step.
WHOLE = NETWORKS["values"] | dict(batch=320, whole=True, chain=[], lr=1.0)
CLASSES = WHOLE | dict(data=dict(input=[7, 7, 1], train={"tensors": "lbfgs.data.safetensors"}), values=False, layers=SMOOTH,
                       loss=["softmax_cross_entropy"])
NETWORKS |= {
    "lbfgs": CLASSES | dict(
        about="L-BFGS with a line search and a penalty, on all samples at every step.", steps=50,
        method={"lbfgs": dict(history=5, weight_decay=0.01)},
        torch=("LBFGS", dict(history_size=5, max_iter=1, max_eval=26, line_search_fn="strong_wolfe", tolerance_grad=0.0))),
    "lbfgs_fixed": CLASSES | dict(
        about="L-BFGS with steps of the learning rate, and a penalty.", steps=50, lr=0.5,
        method={"lbfgs": dict(line_search="none", weight_decay=0.01)},
        torch=("LBFGS", dict(history_size=10, max_iter=1, tolerance_grad=0.0))),
    "newton": WHOLE | dict(
        about="Newton's method, with the Hessian of torch.func and a penalty.", steps=5, lr=0.5, seed=8,
        method={"newton": dict(damping=0.05, curvature="absolute", weight_decay=0.01)}, torch=("newton", {})),
}


def parts(layer):
    """Splits an entry of the list into name, kind, settings, inputs."""
    if isinstance(layer, str):
        return None, layer, {}, None
    rest = {k: v for k, v in layer.items() if k not in ("name", "inputs", "weight")}
    (kind, settings), = rest.items()
    return layer.get("name"), kind, settings, layer.get("inputs")


def batches(net, data):
    """Returns the images (steps * batch, C, H, W) in f32 and their labels or values."""
    count = net["batch"] if "whole" in net else net.get("steps", STEPS) * net["batch"]
    h, w, c = net["data"]["input"]
    if net.get("values"):
        pixels, values = pixels_with_values(data, count)
        return torch.from_numpy(pixels.astype(np.float32) / np.float32(255)), torch.from_numpy(values)
    if "cifar" not in net["data"]["train"]:
        images = gzip.decompress((data / "digits/train-images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((data / "digits/train-labels-idx1-ubyte.gz").read_bytes())[8:]
        images = np.frombuffer(images, np.uint8).reshape(-1, 1, 28, 28)
        labels = np.frombuffer(labels, np.uint8)
        if net["data"]["input"] == [7, 7, 1]:
            images = pixels_with_values(data, count)[0]
    else:
        records = np.fromfile(data / "signs32/data_batch_1.bin", np.uint8).reshape(-1, 1 + c * h * w)
        labels, images = records[:, 0], records[:, 1:].reshape(-1, c, h, w)
    images = images[:count].astype(np.float32) / np.float32(255)
    return torch.from_numpy(images), torch.from_numpy(labels[:count].astype(np.int64))


def pixels_with_values(data, count):
    """Returns the digits in 7x7 bytes, the largest of 4x4 pixels each, and four values of each."""
    images = gzip.decompress((data / "digits/train-images-idx3-ubyte.gz").read_bytes())[16:]
    images = np.frombuffer(images, np.uint8).reshape(-1, 1, 7, 4, 7, 4)[:count].max((3, 5))
    ink = images[:, 0] / 255.0
    place = np.arange(7) / 6.0
    rows, columns = ((ink.sum(axis) * place).sum(1) / ink.sum((1, 2)) for axis in (2, 1))
    return images, np.stack([rows, columns, ink.mean((1, 2)), (ink * ink).mean((1, 2))], 1).astype(np.float32)


def uniform(name, shape):
    """Numbers in [-1, 1) that depend on the name and the index alone."""
    z = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (2.0 * ((z >> np.uint64(11)) / 2.0**53) - 1.0).reshape(shape)


def initial(net):
    """Returns the parameters and the running statistics before the first step, as f32 arrays in PyTorch's layouts."""
    h, w, c = net["data"]["input"]
    params, state = {}, {}
    draw = lambda name, shape: uniform(f"{net['seed']}.{name}", shape)

    def create(name, kind, settings, x):
        """Makes what this layer needs, when the list is run for the first time, on one image of zeros."""
        if kind == "batch_norm":
            channels = x.shape[1]
            params[name + ".weight"] = 1.0 + 0.2 * draw(name + ".weight", (channels,))
            params[name + ".bias"] = 0.1 * draw(name + ".bias", (channels,))
            state[name + ".running_mean"] = np.zeros(channels)
            state[name + ".running_var"] = np.ones(channels)
            return
        if kind == "conv":
            k = settings["kernel"]
            shape = (settings["filters"], x.shape[1] // settings.get("groups", 1), k, k)
        elif kind == "dense":
            shape = (settings["units"], x[0].numel())
        else:
            return
        weight = draw(name + ".weight", shape) * math.sqrt(6.0 / math.prod(shape[1:]))
        params[name + ".weight"] = weight
        if settings.get("bias", True):
            params[name + ".bias"] = 0.1 * draw(name + ".bias", shape[:1])

    def before(name, kind, settings, x):
        create(name, kind, settings, x)
        return {k: torch.from_numpy(v) for k, v in (params | state).items()}

    forward(net, before, torch.zeros(1, c, h, w, dtype=torch.float64), False)
    as_f32 = lambda tensors: {k: v.astype(np.float32) for k, v in tensors.items()}
    return as_f32(params), as_f32(state)


def forward(net, weights, x, training, noise=None):
    """Returns the outputs by name; that of the last layer also as None. `weights` is called before each layer and returns all tensors by name; `noise` draws the
    rounding to imitate."""
    outputs = {}
    for layer in net["layers"]:
        name, kind, s, inputs = parts(layer)
        xs = [outputs[i] for i in inputs] if inputs else [x]
        x = xs[0]
        p = weights(name, kind, s, x)
        weight, bias = p.get(f"{name}.weight"), p.get(f"{name}.bias")
        if kind == "dense":
            x = F.linear(x.flatten(1), weight, bias)
        elif kind == "conv":
            x = F.conv2d(x, weight, bias, s.get("stride", 1), s.get("pad", 0), 1, s.get("groups", 1))
        elif kind == "relu":
            x = F.relu(x)
        elif kind == "tanh":
            x = torch.tanh(x)
        elif kind == "max_pool":
            x = F.max_pool2d(x, s["kernel"], s["stride"])
        elif kind == "lrn":
            x = F.local_response_norm(x, s["size"], s["alpha"], s["beta"], s["k"])
        elif kind == "batch_norm":
            mean, var = p[name + ".running_mean"], p[name + ".running_var"]
            x = F.batch_norm(x, mean, var, weight, bias, training, momentum=0.1, eps=1e-5)
        elif kind == "add":
            x = xs[0] + xs[1]
        elif kind == "global_avg_pool":
            x = x.mean((2, 3), keepdim=True)
        elif kind == "flatten":
            x = x.flatten(1)
        else:
            raise ValueError(f"no layer {kind}")
        if noise and kind in ARITHMETIC:
            x = x * (1 + NOISE * (2 * torch.rand(x.shape, generator=noise, dtype=x.dtype) - 1))
        outputs[name] = outputs[None] = x
    return outputs


def total(net, outputs, targets):
    """Returns the weighted sum of the losses."""
    def one(entry):
        _, kind, settings, inputs = parts(entry)
        x = outputs[inputs[0] if inputs else None]
        if kind == "softmax_cross_entropy":
            return F.cross_entropy(x, targets, label_smoothing=settings.get("label_smoothing", 0.0))
        wanted = targets if net.get("values") else F.one_hot(targets, x.shape[1])
        return F.mse_loss(x, wanted.to(x.dtype))

    losses = net.get("loss", ["softmax_cross_entropy"])
    return sum((entry.get("weight", 1.0) if isinstance(entry, dict) else 1.0) * one(entry) for entry in losses)


def evaluated(net):
    """Returns the network with the losses of an evaluation: without label smoothing."""
    plain = lambda entry: {k: {} if k == "softmax_cross_entropy" else v for k, v in entry.items()}
    return net | {"loss": [plain(e) if isinstance(e, dict) else e for e in net["loss"]]} if "loss" in net else net


def norm(tensors):
    return math.sqrt(sum(float(t.detach().double().pow(2).sum()) for t in tensors))


def rate(net, t):
    step = net.get("step")
    return net["lr"] * (step["factor"] ** (t // step["every"]) if step else 1.0)


def setting(net, key):
    return next((link[key] for link in net["chain"] if key in link), None)


def clip_units(params, clipping, epsilon):
    """Scales the gradient of each unit: the weights of one output, or a whole vector."""
    for p in params:
        units = p.grad.flatten(1) if p.dim() > 1 else p.grad[None]
        weights = p.detach().flatten(1) if p.dim() > 1 else p.detach()[None]
        most = clipping * weights.norm(dim=1).clamp(min=epsilon)
        units *= (most / units.norm(dim=1)).clamp(max=1.0)[:, None]


def whole(net, params, images, labels):
    """Runs the steps of a second-order method; returns the first gradients, the losses and the norms of the gradients."""
    kind, settings = net["torch"]
    (method,), tensors, losses, norms = net["method"].values(), {}, [], []
    decay = method.get("weight_decay", 0.0)
    loss_of = lambda params: total(net, forward(net, lambda *_: params, images, True), labels)
    lbfgs = torch.optim.LBFGS(params.values(), lr=net["lr"], **settings) if kind == "LBFGS" else None
    for t in range(net["steps"]):
        seen = []

        def closure():
            for p in params.values():
                p.grad = None
            loss = loss_of(params)
            seen.append(float(loss.detach()))
            loss.backward()
            if len(seen) == 1:
                norms.append(norm(p.grad for p in params.values()))
                if t == 0:
                    tensors.update({"grad0." + k: p.grad.clone() for k, p in params.items()})
            for p in params.values():
                loss = loss + decay / 2 * p.detach().pow(2).sum()
                p.grad += decay * p.detach()
            return loss

        if lbfgs:
            lbfgs.step(closure)
        else:
            closure()
            newton(params, loss_of, net["lr"], **method)
        losses.append(seen[0])
    return tensors, losses, norms


def newton(params, loss_of, lr, damping, curvature, weight_decay):
    """w -= lr sum (q'g / f) q over eigenvectors q and eigenvalues l of the Hessian, f = |l| + damping."""
    assert curvature == "absolute"
    sizes, shapes = [p.numel() for p in params.values()], [p.shape for p in params.values()]
    cut = lambda w: dict(zip(params, (part.view(shape) for part, shape in zip(w.split(sizes), shapes))))
    objective = lambda w: loss_of(cut(w)) + weight_decay / 2 * w.pow(2).sum()
    w = torch.cat([p.detach().flatten() for p in params.values()])
    values, vectors = torch.linalg.eigh(torch.func.hessian(objective)(w))
    step = vectors @ ((vectors.T @ torch.func.grad(objective)(w)) / (values.abs() + damping))
    with torch.no_grad():
        for p, change in zip(params.values(), cut(step).values()):
            p -= lr * change


def train(net, images, labels, dtype, noise=None):
    """Runs the steps; returns the tensors and the numbers worth keeping."""
    params, state = ({k: torch.from_numpy(v).to(dtype) for k, v in t.items()} for t in initial(net))
    for p in params.values():
        p.requires_grad_()
    images, batch = images.to(dtype), net["batch"]
    everything = lambda *_: params | state
    sgd = dict(momentum=setting(net, "momentum"), weight_decay=setting(net, "weight_decay"))
    own = net.get("torch_of", {})
    rest = lambda name: not any(name.endswith("." + last) for last in own)
    chains = [(rest, *net.get("torch", ("SGD", sgd)), 1.0)]
    chains += [(lambda name, last=last: name.endswith("." + last), *of) for last, of in own.items()]
    if "whole" in net:
        tensors, losses, norms = whole(net, params, images, labels)
        chains = []
    else:
        tensors, losses, norms = {}, [], []
    optimizers = [
        (getattr(torch.optim, kind)([p for k, p in params.items() if fits(k)], lr=net["lr"], foreach=False, **settings),
         factor) for fits, kind, settings, factor in chains]
    max_norm = setting(net, "clip_by_global_norm")
    for t in range(net.get("steps", STEPS) if chains else 0):
        for optimizer, factor in optimizers:
            optimizer.param_groups[0]["lr"] = factor * rate(net, t)
            optimizer.zero_grad()
        rows = slice(t * batch, (t + 1) * batch)
        outputs = forward(net, everything, images[rows], True, noise)
        loss, logits = total(net, outputs, labels[rows]), outputs[None]
        loss.backward()
        losses.append(float(loss.detach()))
        norms.append(norm(p.grad for p in params.values()))
        if t == 0:
            tensors["logits0"] = logits.detach().clone()
            tensors |= {"grad0." + k: p.grad.clone() for k, p in params.items()}
        if max_norm is not None:
            for p in params.values():
                p.grad *= min(1.0, max_norm / norms[-1])
        if clip := setting(net, "adaptive_clip"):
            clip_units(params.values(), **clip)
        for optimizer, _ in optimizers:
            optimizer.step()
    with torch.no_grad():
        outputs = forward(net, everything, images[:batch], False)
    tensors["eval_logits"] = outputs[None]
    tensors |= {"final." + k: v.detach() for k, v in (params | state).items()}
    numbers = dict(losses=losses, grad_norms=norms, eval_loss=float(total(evaluated(net), outputs, labels[:batch])),
                   final_norms={k: norm([v]) for k, v in (params | state).items()})
    return {k: v.numpy() for k, v in tensors.items()}, numbers


def drift(run, exact):
    """Returns how far a run is from the exact one: relative for losses; for tensors the largest difference over the
    largest value."""
    def apart(prefix):
        return max(float(np.abs(run[0][k].astype(np.float64) - v).max() / np.abs(v).max())
                   for k, v in exact[0].items() if k.startswith(prefix))

    loss = max(abs(a - b) / b for a, b in zip(run[1]["losses"], exact[1]["losses"]))
    return dict(loss=loss, grad0=apart("grad0."), final=apart("final."), eval_logits=apart("eval_logits"))


def inline(value):
    """Prints a value of the configuration."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {inline(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(inline(v) for v in value) + "]"
    return json.dumps(value)


def toml(name, net):
    loss = net.get("loss", ["softmax_cross_entropy"])
    schedule = [f"schedule = {inline({'step': net['step']})}"] if "step" in net else []
    return "\n".join([
        *textwrap.wrap(f"Written by make.py. {net['about']}", 118, initial_indent="# ", subsequent_indent="# "),
        f'name = "reference-{name.replace("_", "-")}"', "",
        "[devices]", 'use = ["cpu"]', "",
        "[data]", f"train = {inline(net['data']['train'])}", f"batch = {net['batch']}", 'normalize = "unit"',
        'order = "sequential"', "",
        "[model]", f"input = {inline(net['data']['input'])}", "layers = [",
        *(f"  {inline(layer)}," for layer in net["layers"]), "]", f"loss = {inline(loss[0] if len(loss) == 1 else loss)}", "",
        "[optimizer]", f"method = {inline(net['method'])}" if "method" in net else f"chain = {inline(net['chain'])}", f"lr = {net['lr']}", *schedule,
        *([f"groups = {inline(net['groups'])}"] if "groups" in net else []), "",
        "[train]", f"steps = {net.get('steps', STEPS)}", ""])


def write(name, net, data, out):
    images, labels = batches(net, data)
    if net["data"]["train"] == {"tensors": f"{name}.data.safetensors"}:
        pixels, values = pixels_with_values(data, len(images))
        targets = dict(targets=values) if net.get("values") else dict(labels=labels.numpy().astype(np.uint8))
        (out / f"{name}.data.safetensors").write_bytes(save(dict(images=np.ascontiguousarray(pixels)) | targets))
    exact = train(net, images, labels, torch.float64)
    single = train(net, images, labels, torch.float32)
    noisy = [drift(train(net, images, labels, torch.float64, torch.Generator().manual_seed(run)), exact)
             for run in range(0 if "whole" in net else NOISE_RUNS)]
    params, state = initial(net)
    kept = {"init." + k: v for k, v in (params | state).items()}
    kept |= {"f64." + k: v for k, v in exact[0].items() if not k.startswith("final.") or v.size <= SMALL}
    (out / f"{name}.safetensors").write_bytes(save({k: np.ascontiguousarray(kept[k]) for k in sorted(kept)}))
    result = dict(
        name=name, torch=torch.__version__.split("+")[0], numpy=np.__version__, steps=net.get("steps", STEPS),
        settings={k: net[k] for k in ("seed", "batch", "chain", "lr", "step", "method") if k in net},
        parameters={k: list(v.shape) for k, v in params.items()},
        lrs=[rate(net, t) for t in range(net.get("steps", STEPS))],
        **{f"{run}_{key}": value for run, (_, numbers) in (("f64", exact), ("f32", single))
           for key, value in numbers.items()},
        f32_drift=drift(single, exact), **({"noise_drift": {k: max(d[k] for d in noisy) for k in noisy[0]}} if noisy else {}))
    lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in result.items()]
    (out / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    (out / f"{name}.toml").write_text(toml(name, net))
    clip, losses = setting(net, "clip_by_global_norm") or math.inf, exact[1]["losses"]
    print(f"{name}: f64 loss {losses[0]:.6f} -> {losses[-1]:.6f}, eval {exact[1]['eval_loss']:.6f}, "
          f"{sum(n > clip for n in exact[1]['grad_norms'])} steps clipped")
    for key in ("f32_drift", "noise_drift")[:2 if noisy else 1]:
        print(f"  {key:12}", ", ".join(f"{k} {v:.1e}" for k, v in result[key].items()))


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(NETWORKS)}")
    args.add_argument("--data", type=pathlib.Path, default=HERE.parents[1] / "data")
    args.add_argument("--out", type=pathlib.Path, default=HERE)
    args = args.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = False
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or NETWORKS:
        write(name, NETWORKS[name], args.data, args.out)


if __name__ == "__main__":
    main()
