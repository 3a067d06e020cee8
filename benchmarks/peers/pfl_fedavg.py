"""pfl: its FederatedAveraging on the simulated backend with a PyTorch model; its batches are in order as they are."""

import logging
import sys
from pathlib import Path

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.model.pytorch import PyTorchModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs


class Model(torch.nn.Linear):
    """Softmax regression from zero in pfl's contract."""

    def reset_parameters(self):
        """Start at zero."""
        for parameter in self.parameters():
            torch.nn.init.zeros_(parameter)

    def loss(self, a, y):
        """Cross entropy of a batch."""
        return torch.nn.functional.cross_entropy(self(a), y)

    def metrics(self, a, y):
        """Nothing is evaluated."""
        return {}


def fedavg(job: jobs.Job) -> jobs.Run:
    """FedAvg; a round is whole passes over the rows that it takes."""
    n, _, d, c = job.shape
    distinct = len(set(job.starts))
    rows = distinct * job.batch
    pairs = zip(torch.from_numpy(job.features[:, :rows]), torch.from_numpy(job.labels[:, :rows]), strict=True)
    datasets = [Dataset(pair, user_id=str(i)) for i, pair in enumerate(pairs)]
    training = NNTrainHyperParams(
        local_num_epochs=job.local_steps // distinct, local_learning_rate=job.stepsize, local_batch_size=job.batch
    )
    rounds = NNAlgorithmParams(
        central_num_iterations=job.rounds, evaluation_frequency=job.rounds, train_cohort_size=n, val_cohort_size=None
    )
    logging.disable(logging.INFO)

    def run():
        users = FederatedDataset(datasets.__getitem__, get_user_sampler("minimize_reuse", list(range(n))))
        module = Model(d, c)
        model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
        backend = SimulatedBackend(users, users)
        FederatedAveraging().run(rounds, backend, model, training, send_metrics_to_platform=False)
        return module.weight.detach().T.numpy(), module.bias.detach().numpy()

    return run


if __name__ == "__main__":
    jobs.main(
        "pfl_fedavg",
        ["pfl", "torch", "numpy"],
        {"fedavg": fedavg},
        cannot="pfl has no Scaffnew (its SCAFFOLD is another algorithm), and no straight-through pruning",
    )
