#!/usr/bin/env python3
"""The training step of the benchmark networks in PyTorch at its best; the fields of `peristyle bench step --json`.

    python bench/torch_step.py lenet --device cpu --threads 2
    python bench/torch_step.py alexnet resnet18 --device cuda:0 --precision bf16

Prints one JSON object a line. Needs torch alone. Every network has the name of its file in configs/ with - for _, the
same layers, batch, loss and optimiser (SGD with momentum 0.9 and weight decay 5e-4). A step is zero_grad, forward,
loss, backward and update on a batch that is on the device already.

"Best" is the fastest of the ways listed by --ways (all of them by default), each measured alike; `way` says which:

    CPU: eager, channels_last, compile, compile+channels_last; the update is the fused one.
    GPU: eager, channels_last, compile, compile+graph (CUDA graphs by torch.compile), graph (the whole step captured
         once as one CUDA graph); channels_last in all but eager; the update is the fused one.

On AMD processors MKL's products run at half speed unless a preloaded library answers 1 to mkl_serv_intel_cpu_true();
large tensors cost less with MALLOC_TOP_PAD_, MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_MAX_=0 set: both are the caller's.

--precision bf16 is autocast to bfloat16, tf32 allows it in products, f32 allows neither. The fields step_bytes,
gb_per_second and copy_ratio are peristyle's own and are absent; `ways` holds the images/s of every way, or what kept
it from running.
"""
import argparse
import contextlib
import json
import os
import statistics
import sys
import time


def networks(nn, torch):
    """Returns name: (network, (C, H, W), classes, batch)."""

    class Net(nn.Module):
        def __init__(self, features, classifier):
            super().__init__()
            self.features = nn.Sequential(*features)
            self.classifier = nn.Sequential(*classifier)

        def forward(self, x):
            return self.classifier(torch.flatten(self.features(x), 1))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride != 1 or inputs != outputs:
                self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                                nn.BatchNorm2d(outputs))

        def forward(self, x):
            shortcut = x if self.downsample is None else self.downsample(x)
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + shortcut)

    def lrn():
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)

    def mlp():
        return Net([], [nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)])

    def lenet():
        return Net([nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)],
                   [nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)])

    def cifar_quick():
        return Net([nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(),
                    nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True),
                    nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)],
                   [nn.Linear(1024, 64), nn.Linear(64, 10)])

    def cifar_alex():
        return Net([nn.Conv2d(3, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2), lrn(),
                    nn.Conv2d(64, 64, 5, padding=2), nn.ReLU(), lrn(), nn.MaxPool2d(3, 2)],
                   [nn.Linear(3136, 384), nn.ReLU(), nn.Linear(384, 192), nn.ReLU(), nn.Linear(192, 10)])

    def cifar_vgg_bn():
        layers, inputs = [], 3
        for outputs in (64, 64, 0, 128, 128, 0, 256, 256, 0):
            if outputs == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
                       nn.ReLU(inplace=True)]
            inputs = outputs
        return Net(layers, [nn.Linear(4096, 10)])

    def resnet18():
        layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        inputs = 64
        for outputs in (64, 128, 256, 512):
            for block in range(2):
                layers.append(Block(inputs, outputs, 2 if block == 0 and outputs > 64 else 1))
                inputs = outputs
        return Net(layers + [nn.AdaptiveAvgPool2d(1)], [nn.Linear(512, 10)])

    def alexnet():
        relu = lambda: nn.ReLU(inplace=True)
        return Net([nn.Conv2d(3, 96, 11, stride=4), relu(), lrn(), nn.MaxPool2d(3, 2),
                    nn.Conv2d(96, 256, 5, padding=2, groups=2), relu(), lrn(), nn.MaxPool2d(3, 2),
                    nn.Conv2d(256, 384, 3, padding=1), relu(),
                    nn.Conv2d(384, 384, 3, padding=1, groups=2), relu(),
                    nn.Conv2d(384, 256, 3, padding=1, groups=2), relu(), nn.MaxPool2d(3, 2)],
                   [nn.Dropout(0.5), nn.Linear(9216, 4096), relu(), nn.Dropout(0.5), nn.Linear(4096, 4096), relu(),
                    nn.Linear(4096, 1000)])

    grey, color = (1, 28, 28), (3, 32, 32)
    return {
        "mlp": (mlp, grey, 10, 128),
        "lenet": (lenet, grey, 10, 64),
        "cifar-quick": (cifar_quick, color, 10, 128),
        "cifar-alex": (cifar_alex, color, 10, 128),
        "cifar-vgg-bn": (cifar_vgg_bn, color, 10, 128),
        "resnet18": (resnet18, color, 10, 128),
        "alexnet": (alexnet, (3, 227, 227), 1000, 128),
    }


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("networks", nargs="*", help="all when none is named")
    p.add_argument("--device", default="cpu", help="cpu or cuda:N")
    p.add_argument("--precision", default="f32", choices=["f32", "tf32", "bf16"])
    p.add_argument("--batch", type=int, default=0, help="0: the network's own")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU")
    p.add_argument("--seconds", type=float, default=5.0, help="of measured steps, all repeats of a way together")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--ways", default="", help="comma-separated; all of the device's when empty")
    p.add_argument("--parameters", action="store_true", help="print the numbers of parameters and stop")
    return p.parse_args()


def forward_flops(torch, model, x):
    """Twice the multiplications of one image's forward pass in convolutions and dense layers."""
    from torch import nn
    total = 0

    def conv(m, _, y):
        nonlocal total
        total += 2 * y[0].numel() * m.in_channels // m.groups * m.kernel_size[0] * m.kernel_size[1]

    def dense(m, _, __):
        nonlocal total
        total += 2 * m.in_features * m.out_features

    kinds = {nn.Conv2d: conv, nn.Linear: dense}
    hooks = [m.register_forward_hook(kinds[type(m)]) for m in model.modules() if type(m) in kinds]
    with torch.no_grad():
        model.eval()(x)
    model.train()
    for hook in hooks:
        hook.remove()
    return total


class Steps:
    """A training step in one way; call it for one step, `sync` to wait until it is done."""

    def __init__(self, torch, a, name, way):
        self.torch, self.cuda = torch, a.device.startswith("cuda")
        build, shape, classes, batch = networks(torch.nn, torch)[name]
        self.batch = a.batch or batch
        torch.manual_seed(1)
        model = build().train().to(a.device)
        # On the CPU: after a capture, the generator of a GPU may be used in captures only.
        x = torch.randn(self.batch, *shape).to(a.device)
        y = torch.arange(self.batch, device=a.device) % classes
        if way != "eager" and (self.cuda or "channels_last" in way):
            model = model.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        self.flops = forward_flops(torch, model, x[:1])
        captured = self.cuda and way == "graph"
        # A captured update reads its learning rate from the device.
        lr = torch.tensor(0.01, device=a.device) if captured else 0.01
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, fused=True)
        net = model
        if "compile" in way:
            mode = "reduce-overhead" if "graph" in way else None
            net = torch.compile(model, mode=mode)
        loss_of = torch.nn.CrossEntropyLoss()
        kind = "cuda" if self.cuda else "cpu"

        def step():
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=a.precision == "bf16"):
                out = net(x)
            loss = loss_of(out.float(), y)
            loss.backward()
            optimizer.step()
            # Without its graph, whose nodes would remember the stream on which they were made.
            return loss.detach()

        start = time.perf_counter()
        side = torch.cuda.Stream() if captured else None
        with torch.cuda.stream(side) if captured else contextlib.nullcontext():
            self.loss = step()
        self.sync()
        self.first = time.perf_counter() - start
        self.run = step
        if captured:
            self.capture(step, side)

    def capture(self, step, side):
        torch = self.torch
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            loss = step()

        def replay():
            graph.replay()
            return loss

        self.run = replay

    def sync(self):
        if self.cuda:
            self.torch.cuda.synchronize()

    def measure(self, seconds, repeats):
        """Returns each repeat's seconds a step, and the number of steps."""
        end = time.perf_counter() + 0.5
        count = 0
        while time.perf_counter() < end or count < 3:
            self.loss = self.run()
            count += 1
        self.sync()
        medians, steps = [], 0
        for _ in range(repeats):
            times, begin = [], time.perf_counter()
            while len(times) < 2 or time.perf_counter() - begin < seconds / repeats:
                # On a GPU the host runs ahead of the device: only runs of steps can be timed.
                chain = 10 if self.cuda else 1
                start = time.perf_counter()
                for _ in range(chain):
                    self.loss = self.run()
                self.sync()
                times.append((time.perf_counter() - start) / chain)
                steps += chain
            medians.append(statistics.median(times))
        return medians, steps


def best_of(torch, run, sync):
    best, begin = float("inf"), time.perf_counter()
    for i in range(1000):
        start = time.perf_counter()
        run()
        sync()
        best = min(best, time.perf_counter() - start)
        if i >= 5 and time.perf_counter() - begin > 0.25:
            break
    return best


def limits(torch, a):
    """Returns TFLOP/s of a large product and GB/s that a large copy reads and writes."""
    cuda = a.device.startswith("cuda")
    n = 4096 if cuda else 1024
    kind = torch.bfloat16 if a.precision == "bf16" else torch.float32
    x, w = torch.randn(n, n).to(a.device, kind), torch.randn(n, n).to(a.device, kind)
    y = torch.empty(n, n, device=a.device, dtype=kind)
    sync = torch.cuda.synchronize if cuda else lambda: None
    product = best_of(torch, lambda: torch.mm(x, w, out=y), sync)
    source = torch.ones(1 << (27 if cuda else 25), device=a.device)
    target = torch.empty_like(source)
    copy = best_of(torch, lambda: target.copy_(source), sync)
    return 2 * n**3 / product / 1e12, 2 * 4 * source.numel() / copy / 1e9


def main():
    a = arguments()
    if not a.device.startswith("cuda"):
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(a.threads)
    import torch
    known = networks(torch.nn, torch)
    names = [n.replace("_", "-") for n in a.networks] or list(known)
    unknown = [n for n in names if n not in known]
    if unknown:
        sys.exit(f"unknown network {', '.join(unknown)}; known: {', '.join(known)}")
    if a.parameters:
        for name in names:
            print(name, sum(p.numel() for p in known[name][0]().parameters()))
        return 0
    torch.set_num_threads(a.threads)
    cuda = a.device.startswith("cuda")
    tf32 = a.precision != "f32"
    if cuda:
        torch.cuda.set_device(a.device)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
    ways = ["eager", "channels_last", "compile", "compile+graph", "graph"] if cuda else \
        ["eager", "channels_last", "compile", "compile+channels_last"]
    ways = a.ways.split(",") if a.ways else ways
    failed = False
    # Before any capture: a captured graph keeps the state of the random numbers.
    limit_tflops, limit_gb = limits(torch, a)
    for name in names:
        tried, best = {}, None
        load = os.getloadavg()[0]
        for way in ways:
            try:
                steps = Steps(torch, a, name, way)
                medians, count = steps.measure(a.seconds, a.repeats)
            except Exception as error:  # One way that fails leaves the others.
                tried[way] = f"{type(error).__name__}: {error}".split("\n")[0]
                continue
            rate = steps.batch / statistics.median(medians)
            tried[way] = round(rate, 2)
            if best is None or rate > best[0]:
                best = (rate, way, medians, count, steps.first, float(steps.loss), steps.flops, steps.batch)
            del steps
            if hasattr(torch, "_dynamo"):
                torch._dynamo.reset()
        if best is None:
            print(json.dumps(dict(framework="torch", network=name, device=a.device, ways=tried)), flush=True)
            failed = True
            continue
        _, way, medians, count, first, loss, flops, batch = best
        seconds = statistics.median(medians)
        tflops = 3 * flops * batch / seconds / 1e12
        print(json.dumps(dict(
            framework="torch", version=torch.__version__, network=name, batch=batch, device=a.device.split(":")[0],
            devices=1, threads=a.threads, precision=a.precision, load_average=round(load, 2), repeats=a.repeats,
            steps=count, first_step_ms=first * 1e3, step_ms=seconds * 1e3, step_ms_min=min(medians) * 1e3,
            step_ms_max=max(medians) * 1e3, images_per_second=batch / seconds,
            images_per_second_min=batch / max(medians), images_per_second_max=batch / min(medians),
            flops_per_image=flops, tflops=tflops, limit_tflops=limit_tflops, limit_gb_per_second=limit_gb,
            product_ratio=tflops / limit_tflops, loss=loss, way=way, ways=tried)), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
