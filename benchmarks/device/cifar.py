"""The CIFAR-10 benchmark of pfl-research: 1,500 rounds of 50 of 1,000 clients, 5 batches of 10 each, 375,000 steps.

Its ``benchmarks/image_classification/configs/baseline.yaml``: FedAvg with step size 0.1, 50 images a client, dealt iid,
and a network of two 3 x 3 convolutions without padding (32 and 64 features), a maximum over 2 x 2 pixels and a hidden
layer of 128. Its two dropouts are left out, as a network here has no randomness, and so are its evaluations every 10
rounds. Without ``--cifar`` the images are random, of the same shapes, so only the time means something.
"""

import itertools
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import sps_jax as sps
from device.common import REPEATS, Record, Settings, attempted, run
from device.resnet import Conv
from sps_jax import datasets
from sps_jax.models import Model
from sps_jax.models.conv import patches_conv
from sps_jax.problems.cifar10 import standardised
from sps_jax.problems.supervised import network_problem

COLUMNS = ("what", "data", "convolution", "clients_at_once", "client_steps", "client_steps_per_second", "total_seconds")
CLIENTS, COHORT, EXAMPLES, BATCH, ROUNDS = 1_000, 50, 50, 10, 1_500
STEPS = EXAMPLES // BATCH
TRIAL, BLOCK = 10, 300
"""Rounds of a compiled program: of a trial of one way, and of the whole job in the fastest, which is five of them."""


def valid(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """XLA's convolution without padding."""
    return lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def cropped(x: jax.Array, kernel: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """The same of a 3 x 3 kernel by patches, whose zeros at the border are cut off."""
    return patches_conv(x, kernel, strides)[:, 1:-1, 1:-1]


CONVOLUTIONS = {"native": valid, "patches": cropped}


class Network(nn.Module):
    """(b, 32, 32, 3) uint8 -> (b, 10).

    Attributes:
      convolution: how both convolutions are computed.
      width: the features of the first.
    """

    convolution: Callable
    width: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits."""
        x = standardised(images, "float32")
        for features in (self.width, 2 * self.width):
            x = Conv(features, (3, 3), convolution=self.convolution)(x)
            x = nn.relu(x + self.param(f"bias_{features}", nn.initializers.zeros, (features,))[None, None, None])
        b, height, width, c = x.shape
        x = jnp.max(x.reshape(b, height // 2, 2, width // 2, 2, c), axis=(2, 4))
        x = nn.relu(nn.Dense(4 * self.width)(x.reshape(b, -1)))
        return nn.Dense(10)(x)


def images_of(settings: Settings, many: int) -> tuple[np.ndarray, np.ndarray, str]:
    """``many`` images (N, 32, 32, 3) uint8, labels (N,), and what they are."""
    if settings.cifar is not None:
        found = datasets.cifar10(manual_dir=settings.cifar)
        rows = np.random.default_rng(0).permutation(len(found.train_y))[:many]
        return found.train_x[rows], found.train_y[rows], "CIFAR-10"
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (many, 32, 32, 3), np.uint8)
    return images, generator.integers(0, 10, many).astype(np.int32), "random images"


def records(settings: Settings) -> Iterator[Record]:
    """A trial of every way, then the whole job in the fastest."""
    clients, cohort, rounds = (6, 3, 4) if settings.small else (CLIENTS, COHORT, ROUNDS)
    x, y, data = images_of(settings, clients * EXAMPLES)
    trial, block = (2, 2) if settings.small else (TRIAL, BLOCK)
    parts, width = np.split(np.arange(len(y)), clients), 4 if settings.small else 32

    def measured(convolution: str, chunk: int, length: int, repeats: int) -> Record:
        network = Network(CONVOLUTIONS[convolution], width)
        model = Model(lambda key: network.init(key, jnp.zeros((1, 32, 32, 3), jnp.uint8)), network.apply)
        asked = {"batch_size": BATCH, "in_order": True, "evaluate_examples": BATCH}
        problem = network_problem("softmax", model, (x, y), None, parts, **asked)
        method = sps.prepare(sps.fedavg, {"stepsize": 0.1}, jnp.float32, local_steps=STEPS, cohort=cohort)
        found, _ = run(problem, method, sps.Layout(chunk), length, repeats)
        steps = length * repeats * cohort * STEPS
        total = sum(found["seconds"])
        return found | {"client_steps": steps, "total_seconds": total, "client_steps_per_second": steps / total}

    done = []
    for way in itertools.product(CONVOLUTIONS, (cohort, 1)):
        what = {"what": "trial", "data": data} | dict(zip(("convolution", "clients_at_once"), way, strict=True))
        one = attempted(what, lambda way=way: measured(*way, trial, REPEATS))
        yield one
        done += [one] if "client_steps_per_second" in one else []
    if done:
        best = max(done, key=lambda one: one["client_steps_per_second"])
        what = {name: best[name] for name in ("data", "convolution", "clients_at_once")}
        way = what["convolution"], what["clients_at_once"]
        yield attempted({"what": "whole job"} | what, lambda: measured(*way, block, rounds // block))
