"""The research day in Python: three seeds of two methods, tracked and stopped early; one goes on; its weights."""

import jax
from mine import calm, make

import sps_jax as sps

problem = make()
hyper = {"stepsize": 0.5, "prob": 0.2, "sparsity": 0.5}
found = []
for seed in range(3):
    for method in (sps.fedavg_client_pruning, calm):
        with sps.track("tensorboard:python-logs", name=f"{method.__name__}-{seed}", config=hyper) as tell:
            state, history = sps.simulate(
                method,
                problem,
                hyper,
                jax.random.key(seed),
                rounds=20,
                evaluate_every=5,
                on_evaluation=tell,
                stop_at="test_accuracy>=0.9",
            )
        found.append((method.__name__, seed, int(history["round"][-1]), float(history["test_top2"][-1])))
state, more = sps.simulate(calm, problem, hyper, jax.random.key(2), rounds=20, evaluate_every=5, state=state)
weights = sps.model_of(calm(**hyper), state)
