"""All clients at once in PyTorch: parameters with a clients axis, ``torch.func`` vmap and grad."""

import sys
from pathlib import Path

import torch
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy, linear

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs

Model = dict[str, torch.Tensor]


def loss(model: Model, a: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross entropy of one client's batch."""
    return cross_entropy(linear(a, model["weight"], model["bias"]), y)


def batches(job: jobs.Job) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A round's batches (n, batch, ...)."""
    features, labels = (torch.from_numpy(a).to(job.device) for a in (job.features, job.labels))
    parts = [slice(start, start + job.batch) for start in job.starts]
    return [(features[:, part], labels[:, part]) for part in parts]


def new_model(job: jobs.Job) -> Model:
    """The server's model at zero."""
    _, _, d, c = job.shape
    return {"weight": torch.zeros(c, d, device=job.device), "bias": torch.zeros(c, device=job.device)}


def stack(model: Model, n: int) -> Model:
    """Equal copies for n clients."""
    return {name: a.expand(n, *a.shape).clone() for name, a in model.items()}


def mean(models: Model) -> Model:
    """The clients' average."""
    return {name: a.mean(dim=0) for name, a in models.items()}


def prune(models: Model, kept: int) -> Model:
    """C of every client: its largest magnitudes of the weight, and its bias."""
    flat = models["weight"].flatten(start_dim=1)
    rows = torch.topk(flat.abs(), kept, dim=1, sorted=False).indices
    pruned = torch.zeros_like(flat).scatter_(1, rows, flat.gather(1, rows))
    return {"weight": pruned.view(models["weight"].shape), "bias": models["bias"]}


def result(model: Model) -> jobs.Params:
    """The kernel and the bias."""
    return model["weight"].T.cpu().numpy(), model["bias"].cpu().numpy()


@torch.no_grad()
def fedavg_run(job: jobs.Job, data: list[tuple[torch.Tensor, torch.Tensor]]) -> jobs.Params:
    """FedAvg from the start state."""
    b, gradient = new_model(job), vmap(grad(loss))
    for _ in range(job.rounds):
        x = stack(b, job.shape[0])
        for a, y in data:
            g = gradient(x, a, y)
            for name in x:
                x[name].sub_(g[name], alpha=job.stepsize)
        b = mean(x)
    return result(b)


@torch.no_grad()
def scaffnew_run(job: jobs.Job, data: list[tuple[torch.Tensor, torch.Tensor]]) -> jobs.Params:
    """Scaffnew from the start state, pruned if the job is sparse."""
    b, gradient, sparse = new_model(job), vmap(grad(loss)), job.method == "sparse"
    h = {name: torch.zeros_like(a) for name, a in stack(b, job.shape[0]).items()}
    for _ in range(job.rounds):
        x = stack(b, job.shape[0])
        for a, y in data:
            g = gradient(prune(x, job.kept) if sparse else x, a, y)
            for name in x:
                x[name].sub_(g[name].sub_(h[name]), alpha=job.stepsize)
        sent = prune(x, job.kept) if sparse else x
        b = mean(sent)
        for name in h:
            h[name].add_(b[name] - sent[name], alpha=job.prob / job.stepsize)
    return result(b)


def fedavg(job: jobs.Job) -> jobs.Run:
    """FedAvg."""
    data = batches(job)
    return lambda: fedavg_run(job, data)


def scaffnew(job: jobs.Job) -> jobs.Run:
    """Scaffnew, pruned if the job is sparse."""
    data = batches(job)
    return lambda: scaffnew_run(job, data)


if __name__ == "__main__":
    solvers = {"fedavg": fedavg, "scaffnew": scaffnew, "sparse": scaffnew}
    jobs.main("torch_vmap", ["torch", "numpy"], solvers, devices=("cpu", "cuda"))
