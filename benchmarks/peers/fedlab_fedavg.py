"""FedLab: its standalone pipeline with the serial FedAvg trainer; unshuffled loaders over the rows of a round."""

# ruff: noqa: E402

import sys
import types
from pathlib import Path

import torch

for name in ("torchvision", "torchvision.transforms", "torchvision.datasets"):  # needed by data sets not used here
    sys.modules[name] = types.ModuleType(name)
sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]

from fedlab.contrib.algorithm.fedavg import FedAvgSerialClientTrainer, FedAvgServerHandler
from fedlab.contrib.dataset.basic_dataset import BaseDataset, FedDataset
from fedlab.core.standalone import StandalonePipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs


class Clients(FedDataset):
    """The clients' rows of a pass, in order."""

    def __init__(self, features: torch.Tensor, labels: torch.Tensor):
        self.num = len(labels)
        self.datasets = [BaseDataset(a, y) for a, y in zip(features, labels, strict=True)]

    def get_dataloader(self, id, batch_size, type="train"):
        """The loader of a client."""
        return torch.utils.data.DataLoader(self.datasets[id], batch_size=batch_size, shuffle=False)


class Pipeline(StandalonePipeline):
    """The pipeline without evaluation."""

    def evaluate(self):
        """Nothing."""


def fedavg(job: jobs.Job) -> jobs.Run:
    """FedAvg; a round is whole passes over the rows that it takes."""
    n, _, d, c = job.shape
    distinct = len(set(job.starts))
    rows = distinct * job.batch
    data = Clients(torch.from_numpy(job.features[:, :rows]), torch.from_numpy(job.labels[:, :rows]))

    def run():
        model = torch.nn.Linear(d, c)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        handler = FedAvgServerHandler(model, job.rounds, sample_ratio=1.0)
        trainer = FedAvgSerialClientTrainer(model, n)
        trainer.setup_dataset(data)
        trainer.setup_optim(job.local_steps // distinct, job.batch, job.stepsize)
        Pipeline(handler, trainer).main()
        return handler.model.weight.detach().T.numpy(), handler.model.bias.detach().numpy()

    return run


if __name__ == "__main__":
    jobs.main(
        "fedlab_fedavg",
        ["fedlab", "torch", "numpy"],
        {"fedavg": fedavg},
        cannot="FedLab has no Scaffnew, and no pruned averaging",
    )
