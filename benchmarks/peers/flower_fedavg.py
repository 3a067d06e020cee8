"""Flower: its message-based FedAvg strategy on the simulation runtime (Ray), one-core NumPy clients.

The simulation is started once, in the first run, which so pays for Ray's start; every later run is a fresh
``FedAvg.start``. The peak memory is that of the server's process: Ray's workers are processes of their own.
"""

import logging
import os
import queue
import sys
import threading
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import job as jobs

REQUESTS: queue.Queue = queue.Queue()  # True for a run, False to end
ANSWERS: queue.Queue = queue.Queue()  # its result, None at the end


def train(x: np.ndarray, a: np.ndarray, y: np.ndarray, scale: float) -> None:
    """One local step in place; the bias is the last row of x."""
    logits = a @ x[:-1] + x[-1]
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    logits[np.arange(len(y)), y] -= 1
    logits *= np.float32(scale)
    x[:-1] -= a.T @ logits
    x[-1] -= logits.sum(axis=0)


def make_client(name: str) -> ClientApp:
    """The app of a client, which finds its data by its partition; a worker makes the data once."""
    app = ClientApp()

    @app.train()
    def handle(message, context):
        job, i = jobs.make_job(name), context.node_config["partition-id"]
        x = message.content["arrays"].to_numpy_ndarrays()[0].copy()
        for start in job.starts:
            part = slice(start, start + job.batch)
            train(x, job.features[i, part], job.labels[i, part], job.stepsize / job.batch)
        content = {"arrays": ArrayRecord([x]), "metrics": MetricRecord({"num-examples": len(job.labels[i])})}
        return Message(content=RecordDict(content), reply_to=message)

    return app


def make_server(job: jobs.Job) -> ServerApp:
    """A server that runs FedAvg from the start state at every request."""
    app, (n, _, d, c) = ServerApp(), job.shape

    @app.main()
    def main(grid, context):
        while REQUESTS.get():
            strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=n, min_available_nodes=n)
            initial = ArrayRecord([np.zeros((d + 1, c), np.float32)])
            ANSWERS.put(strategy.start(grid, initial, num_rounds=job.rounds).arrays.to_numpy_ndarrays()[0])

    return app


def simulate(job: jobs.Job) -> None:
    """The simulation; its end is an answer too, so that nobody waits for a simulation that failed."""
    try:
        run_simulation(
            server_app=make_server(job),
            client_app=make_client(job.name),
            num_supernodes=job.shape[0],
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    finally:
        ANSWERS.put(None)


def fedavg(job: jobs.Job) -> jobs.Run:
    """FedAvg."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    simulation = threading.Thread(target=simulate, args=(job,))

    def run():
        if not simulation.is_alive():
            simulation.start()
        REQUESTS.put(True)
        x = ANSWERS.get()
        if x is None:
            raise RuntimeError("the simulation ended early")
        return x[:-1], x[-1]

    return run


if __name__ == "__main__":
    try:
        jobs.main(
            "flower_fedavg",
            ["flwr", "ray", "numpy"],
            {"fedavg": fedavg},
            cannot="Flower has no Scaffnew strategy, and no straight-through pruning",
        )
    finally:
        REQUESTS.put(False)
