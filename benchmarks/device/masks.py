"""TopK: the mask of sps_jax under ``vmap`` against ``jax.lax.top_k`` and ``approx_max_k``, and NumPy's stable sort."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from topk import numpy_mask, select_mask

from device.common import Record, Settings, attempted, timed
from sps_jax.compression import topk_mask

COLUMNS = ("rows", "d", "k", "system", "median_seconds", "gigabytes_per_second", "differing_entries", "holds")
SIZES = ((100, 7_840, 0.01), (100, 48_608, 0.01), (10, 11_164_352, 0.1))  # rows, entries, share that is kept
SMALL = ((4, 640, 0.1), (3, 1_000, 0.01), (2, 4_096, 0.1))
EXACT = ("sps_jax", "lax.top_k")


def records(settings: Settings) -> Iterator[Record]:
    """A record a size and system; x is normal."""
    for rows, d, density in SMALL if settings.small else SIZES:
        x, k = np.random.default_rng(0).standard_normal((rows, d), np.float32), max(1, round(density * d))
        expected, on_device = numpy_mask(x, k), jnp.asarray(x)
        traced, count = jax.jit(jax.vmap(topk_mask, (0, None))), jnp.int32(k)
        systems = {"sps_jax": partial(traced, on_device, count)}
        for select in (jax.lax.top_k, jax.lax.approx_max_k):
            mask = select_mask(select)
            compiled = jax.jit(jax.vmap(lambda row, mask=mask, k=k: mask(row, k)))
            systems[f"lax.{select.__name__}"] = partial(compiled, on_device)
        for system, run in systems.items():
            what = {"rows": rows, "d": d, "k": k, "system": system}
            yield attempted(what, lambda run=run, system=system, x=x, expected=expected: one(system, run, x, expected))


def one(system: str, run: partial, x: np.ndarray, expected: np.ndarray) -> Record:
    """Seconds, what they would be in gigabytes a second if x were read once, and how the mask differs."""
    found = timed(run)
    differing = int((np.asarray(run()) != expected).sum())
    found |= {"gigabytes_per_second": x.nbytes / found["median_seconds"] / 1e9, "differing_entries": differing}
    return found | ({"holds": differing == 0} if system in EXACT else {})
