"""TopK by magnitude: exact, without a sort, with a traced number k of kept entries, and fast on every platform.

| compiled for | rows of d entries | how |
|---|---|---|
| CPU | any | a search whose passes depend on the data, :mod:`sps_jax.compression.threshold` |
| GPU, TPU | d <= 65,536 | one kernel that takes all rows, :mod:`sps_jax.compression.kernel` |
| GPU, TPU | longer | a fixed number of passes, :mod:`sps_jax.compression.passes` |

All give the same mask. On a GPU a loop whose end depends on data makes the host wait in every pass, and under ``vmap``
the slowest row decides how many passes there are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import AxisType, Mesh, PartitionSpec

from sps_jax.compression.kernel import LONGEST, masks_by_kernel
from sps_jax.compression.magnitude import magnitude_bits
from sps_jax.compression.passes import masks_by_passes
from sps_jax.compression.threshold import mask_by_search


def topk_mask(x: jax.Array, k: jax.Array | int) -> jax.Array:
    """Returns a mask (d,) of exactly the ``k`` entries of ``x`` (d,) of largest magnitude; ties go to the lowest index.

    The choice is that of the first ``k`` of a stable descending argsort of ``|x|``. NaN ranks above infinity, so that
    pruning does not hide a NaN. ``k`` may be traced, 1 <= k <= d < 2**30. The mask has no derivative.

    Raises:
      ValueError: if ``x`` is float64 and the default platform is a TPU, where XLA cannot read the bits of a float64.

    Example:
      >>> topk_mask(jnp.array([1.0, -3.0, 3.0, 2.0]), 2).tolist()
      [False, True, True, False]
    """
    if x.dtype == jnp.float64 and jax.default_backend() == "tpu":
        raise ValueError("TopK of float64 numbers is not possible on a TPU; use float32 there, or a CPU or GPU")
    inside = AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types  # of a shard_map
    masks = _masks(None if inside else _MESH.get())
    return masks(lax.stop_gradient(x)[None], jnp.asarray(k, jnp.int32)[None])[0]


_MESH: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextmanager
def on_mesh(mesh: Mesh | None) -> Iterator[None]:
    """Let each device of ``mesh`` compute all masks that are traced outside ``shard_map``; None for one device.

    A TPU's kernel cannot be partitioned by XLA. (``jax.sharding.use_mesh`` would say more than that: what is traced
    under it cannot be used inside ``shard_map``.)

    Example:
      >>> with on_mesh(None):
      ...     topk_mask(jnp.array([1.0, -3.0]), 1).tolist()
      [False, True]
    """
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


@cache
def _masks(mesh: Mesh | None) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns a function of x (n, d) and k (n,) that returns masks of the k entries of largest magnitude of each row.

    It is made per mesh because JAX remembers what a function was traced to, whatever mesh there is the next time.
    """

    @custom_vmap
    def masks(x: jax.Array, k: jax.Array) -> jax.Array:
        on_gpu = partial(_by_bits, digit=4, tpu=False)
        ways: dict[str, Callable] = {"cpu": _by_search, "cuda": on_gpu, "rocm": on_gpu}
        if x.dtype != jnp.float64:
            ways["tpu"] = partial(_on_tpu, mesh)
        return lax.platform_dependent(x, k, **ways)

    @masks.def_vmap
    def more_rows(size: int, batched: list[bool], x: jax.Array, k: jax.Array) -> tuple[jax.Array, bool]:
        """A ``vmap`` adds rows, so that one kernel takes all of them."""
        x, k = (a if b else jnp.broadcast_to(a, (size, *a.shape)) for a, b in zip((x, k), batched, strict=True))
        _, n, d = x.shape
        return masks(x.reshape(size * n, d), k.reshape(size * n)).reshape(size, n, d), True

    return masks


def _by_search(x: jax.Array, k: jax.Array) -> jax.Array:
    if len(x) == 1:  # a batch of one search is slower than the search
        return mask_by_search(x[0], k[0])[None]
    return jax.vmap(mask_by_search)(x, k)


def _by_bits(x: jax.Array, k: jax.Array, *, digit: int, tpu: bool) -> jax.Array:
    if x.shape[1] <= LONGEST:
        return masks_by_kernel(x, k, tpu=tpu)
    keys, bits = magnitude_bits(x), jnp.finfo(x.dtype).bits - 1
    return masks_by_passes(keys if bits > 31 else keys.astype(jnp.int32), k, bits, digit)


def _on_tpu(mesh: Mesh | None, x: jax.Array, k: jax.Array) -> jax.Array:
    masks, all_of_it = partial(_by_bits, digit=3, tpu=True), PartitionSpec()
    if mesh is None:
        return masks(x, k)
    return jax.shard_map(masks, mesh=mesh, in_specs=all_of_it, out_specs=all_of_it, check_vma=False)(x, k)
