"""A loop over clients in PyTorch for ``deep.py``: ResNet18 with group normalisation, FedAvg or Sparse-ProxSkip.

``python torch_resnet18.py JOB.npz`` with the arrays that ``deep.py`` writes; prints one JSON line.
"""

import itertools
import json
import platform
import statistics
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, group_norm, relu


class Normed(nn.Module):
    """A convolution without bias and a group normalisation."""

    def __init__(self, inputs, outputs, size, stride):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.scale, self.bias = nn.Parameter(torch.ones(outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return group_norm(self.conv(x), min(32, len(self.scale)), self.scale, self.bias, eps=1e-6)


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.one, self.two = Normed(inputs, outputs, 3, stride), Normed(outputs, outputs, 3, 1)
        self.short = Normed(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x):
        return relu(self.short(x) + self.two(relu(self.one(x))))


class ResNet18(nn.Module):
    """For 32 x 32 images; a stride of 2 pads as JAX's SAME does: nothing before, one behind."""

    def __init__(self, classes, width):
        super().__init__()
        self.first = Normed(3, width, 3, 1)
        features = [width, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in itertools.pairwise(features)))
        self.last = nn.Linear(8 * width, classes)

    def forward(self, x):
        return self.last(self.blocks(relu(self.first(x))).mean((2, 3)))


class SamePadding(nn.Module):
    """Rows and columns of zeros behind, for a 3 x 3 convolution of stride 2 that itself pads nothing."""

    def __init__(self, conv):
        super().__init__()
        self.weight, self.stride = conv.weight, conv.stride

    def forward(self, x):
        return nn.functional.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), self.weight, stride=self.stride)


def kernels_first(model):
    """Its parameters in the order of ``deep.py``'s: convolutions and norms from the image on, then the head."""
    order = [model.first]
    for block in model.blocks:
        order += [block.one, block.two] + ([block.short] if isinstance(block.short, Normed) else [])
    return [p for part in order for p in (part.conv.weight, part.scale, part.bias)] + [
        model.last.weight,
        model.last.bias,
    ]


def prune(flat, kept):
    """C: the largest magnitudes."""
    out = torch.zeros_like(flat)
    rows = torch.topk(flat.abs(), kept, sorted=False).indices
    out[rows] = flat[rows]
    return out


def rounds(model, parameters, start, images, labels, job):
    """The server's average after the rounds: lists of tensors."""
    steps, gamma, kept = int(job["local_steps"]), float(job["stepsize"]), int(job["kept"])
    batch = int(job["batch"])
    matrices = [i for i, p in enumerate(parameters) if p.ndim > 1]
    sizes = [parameters[i].numel() for i in matrices]

    def pruned(x):
        if kept == sum(sizes):
            return x
        parts = torch.split(prune(torch.cat([x[i].reshape(-1) for i in matrices]), kept), sizes)
        out = list(x)
        for i, part in zip(matrices, parts, strict=True):
            out[i] = part.view_as(x[i])
        return out

    b = [p.clone() for p in start]
    h = [[torch.zeros_like(p) for p in b] for _ in images]
    for info in range(int(job["rounds"])):
        sent = []
        for own, target, control in zip(images, labels, h, strict=True):
            x = [p.clone() for p in b]
            for j in range(steps):
                with torch.no_grad():
                    for p, value in zip(parameters, pruned(x), strict=True):
                        p.copy_(value)
                first = (info * steps + j) * batch % len(target)
                model.zero_grad()
                cross_entropy(model(own[first : first + batch]), target[first : first + batch]).backward()
                with torch.no_grad():
                    for value, p, c in zip(x, parameters, control, strict=True):
                        value.sub_(p.grad - c if int(job["control"]) else p.grad, alpha=gamma)
            sent.append(pruned(x))
        b = [torch.stack(each).mean(0) for each in zip(*sent, strict=True)]
        if int(job["control"]):
            for control, message in zip(h, sent, strict=True):
                for c, mean, own in zip(control, b, message, strict=True):
                    c.add_(mean - own, alpha=1 / (steps * gamma))
    return b


def main():
    """Both memory formats are tried on the first round; the faster is measured."""
    with np.load(sys.argv[1]) as data:
        job = dict(data)
    count = sum(name.startswith("p") and name[1:].isdigit() for name in job)
    start = [torch.from_numpy(job[f"p{i}"]) for i in range(count)]
    images, labels = torch.from_numpy(job["images"]), torch.from_numpy(job["labels"])
    model = ResNet18(start[-1].numel(), start[0].shape[0])
    parameters = kernels_first(model)
    for block in model.blocks:
        if block.one.conv.stride[0] == 2:
            block.one.conv = SamePadding(block.one.conv)
    assert [p.shape for p in parameters] == [p.shape for p in start]

    def run(form):
        model.to(memory_format=form)
        batches = [own.contiguous(memory_format=form) for own in images]
        begun = time.perf_counter()
        result = rounds(model, parameters, start, batches, labels, job)
        return time.perf_counter() - begun, result

    forms = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    tried = {name: run(form)[0] for name, form in forms.items()}
    tried = {name: run(forms[name])[0] for name in tried}
    best = min(tried, key=tried.get)
    seconds = []
    for _ in range(int(job["repeats"])):
        spent, b = run(forms[best])
        seconds.append(spent)
    with torch.no_grad():
        for p, value in zip(parameters, b, strict=True):
            p.copy_(value)
        loss = float(np.mean([cross_entropy(model(own), y).item() for own, y in zip(images, labels, strict=True)]))
    done = int(job["rounds"]) * int(job["local_steps"]) * len(images) * int(job["batch"])
    line = {
        "system": "torch_loop",
        "images_per_second": done / statistics.median(seconds),
        "final_loss": loss,
        "seconds": seconds,
        "form": best,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
