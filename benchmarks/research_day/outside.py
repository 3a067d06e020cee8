"""The model of seed 1 of ``calm`` that the run in ``day`` left, evaluated by NumPy on the test data of ``mine.py``."""

import numpy as np
from mine import make

import sps_jax as sps

weights = sps.load_model("day", "calm", seed=1)
kernel, bias = (np.asarray(weights["params"][name]) for name in ("kernel", "bias"))
x, y = map(np.asarray, make().test)
outputs = x @ kernel.T + bias
accuracy = np.mean(outputs.argmax(axis=1) == y)
print(f"evaluated outside, test accuracy {accuracy:.6f}")
