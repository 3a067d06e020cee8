"""A plain loop over clients in PyTorch: ``nn.Linear``, cross entropy, autograd and the SGD optimizer."""

import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs


def batches(job: jobs.Job) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Each client's batches of a round."""
    features, labels = (torch.from_numpy(a).to(job.device) for a in (job.features, job.labels))
    parts = [slice(start, start + job.batch) for start in job.starts]
    return [[(a[part], y[part]) for part in parts] for a, y in zip(features, labels, strict=True)]


def new_model(job: jobs.Job) -> torch.nn.Linear:
    """The model at zero."""
    _, _, d, c = job.shape
    model = torch.nn.utils.skip_init(torch.nn.Linear, d, c, device=job.device)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model


def result(model: list[torch.Tensor]) -> jobs.Params:
    """The kernel and the bias of a server's weight and bias."""
    weight, bias = model
    return weight.T.cpu().numpy(), bias.cpu().numpy()


def copy_(target: list[torch.Tensor], source: list[torch.Tensor]) -> None:
    """Copy a model into another."""
    with torch.no_grad():
        for a, b in zip(target, source, strict=True):
            a.copy_(b)


def prune_(target: list[torch.Tensor], source: list[torch.Tensor], kept: int) -> None:
    """C: the largest magnitudes of the source's weight, and its bias, into the target."""
    with torch.no_grad():
        flat = source[0].view(-1)
        rows = torch.topk(flat.abs(), kept, sorted=False).indices
        target[0].zero_().view(-1)[rows] = flat[rows]
        target[1].copy_(source[1])


def fedavg(job: jobs.Job) -> jobs.Run:
    """FedAvg."""
    data = batches(job)

    def run():
        model = new_model(job)
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameters, lr=job.stepsize)
        b = [torch.zeros_like(a, requires_grad=False) for a in parameters]
        for _ in range(job.rounds):
            total = [torch.zeros_like(a) for a in b]
            for own in data:
                copy_(parameters, b)
                for a, y in own:
                    optimizer.zero_grad()
                    cross_entropy(model(a), y).backward()
                    optimizer.step()
                for t, x in zip(total, parameters, strict=True):
                    t += x.detach()
            b = [t / len(data) for t in total]
        return result(b)

    return run


def scaffnew(job: jobs.Job) -> jobs.Run:
    """Scaffnew; if the job is sparse, the model holds C(x), where the gradient of a step on x is taken."""
    data, sparse = batches(job), job.method == "sparse"

    def run():
        model = new_model(job)
        parameters = list(model.parameters())
        x = [torch.zeros_like(a, requires_grad=True) for a in parameters] if sparse else parameters
        optimizer = torch.optim.SGD(x, lr=job.stepsize)
        b = [torch.zeros_like(a, requires_grad=False) for a in parameters]
        h = [[torch.zeros_like(a) for a in b] for _ in data]
        for _ in range(job.rounds):
            sent = []
            for own, control in zip(data, h, strict=True):
                copy_(x, b)
                for a, y in own:
                    if sparse:
                        prune_(parameters, x, job.kept)
                    model.zero_grad()
                    cross_entropy(model(a), y).backward()
                    for target, source, hi in zip(x, parameters, control, strict=True):
                        target.grad = source.grad.sub_(hi)
                    optimizer.step()
                if sparse:
                    prune_(parameters, x, job.kept)
                sent.append([a.detach().clone() for a in parameters])
            b = [torch.stack(each).mean(dim=0) for each in zip(*sent, strict=True)]
            for control, message in zip(h, sent, strict=True):
                for hi, mean, own in zip(control, b, message, strict=True):
                    hi.add_(mean - own, alpha=job.prob / job.stepsize)
        return result(b)

    return run


if __name__ == "__main__":
    solvers = {"fedavg": fedavg, "scaffnew": scaffnew, "sparse": scaffnew}
    jobs.main("torch_loop", ["torch", "numpy"], solvers, devices=("cpu", "cuda"))
