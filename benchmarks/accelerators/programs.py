"""The package's programs, as jitted function and arguments without data, placed on any devices.

They are what :func:`sps_jax.simulate` and :func:`sps_jax.sweep` run: :func:`run_rounds` and :func:`run_points`, with
10 local steps a round (or, with a coin, 10 on average), 100 rounds, and TopK in every local step.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

import sps_jax as sps
from accelerators import problems
from sps_jax import Problem, models
from sps_jax.layout import Layout, clients_mesh, random_key
from sps_jax.simulation.footprint import footprint, shapes
from sps_jax.simulation.method import Method
from sps_jax.simulation.simulate import run_points, run_rounds, start_rounds
from sps_jax.simulation.state import State

ROUNDS, LOCAL_STEPS = 100, 10
SPARSE, SPARSER = {"stepsize": 0.1, "sparsity": 0.9}, {"stepsize": 0.1, "sparsity": 0.99}
Shape = jax.ShapeDtypeStruct


class Program(NamedTuple):
    """What is simulated, and how.

    Attributes:
      problem: returns the problem, as shapes.
      hyper: the hyperparameters; with ``prob`` a coin decides when to communicate.
      make: the algorithm's factory.
      chunk: how many clients a device computes at once; None for all.
      points: the number of points of a sweep; None for one simulation.
      devices: how many devices share the clients, or the points.
      narrow: the problem with a smaller network of the same operations, which is faster to trace; None for ``problem``.
    """

    problem: Callable[[], Problem]
    hyper: Mapping[str, Any] = SPARSE
    make: Callable[..., sps.Algorithm] = sps.sparse_proxskip
    chunk: int | None = None
    points: int | None = None
    devices: int = 1
    narrow: Callable[[], Problem] | None = None

    def narrowed(self) -> "Program":
        """The same program with the smaller network."""
        return self._replace(problem=self.narrow or self.problem)


def _by(name: str, program: Program, *chunks: int) -> dict[str, Program]:
    """The same program with fewer clients at once."""
    return {f"{name}_by_{chunk}": program._replace(chunk=chunk) for chunk in chunks}


FEMNIST = Program(problems.femnist, SPARSER)
TRANSFORMER = Program(
    partial(problems.shakespeare, models.transformer),
    narrow=partial(problems.shakespeare, models.transformer, width=16, heads=2),
)
RESNET = Program(problems.cifar10, narrow=lambda: problems.cifar10(models.resnet((1, 1), 10, width=8)))
TWO_BLOCKS = RESNET._replace(problem=lambda: problems.cifar10(models.resnet((1, 1), 10)))
PROGRAMS = {
    "digits": Program(problems.digits),
    "digits_coin": Program(problems.digits, SPARSE | {"prob": 1 / LOCAL_STEPS}),
    "femnist": FEMNIST,
    "femnist_dense": Program(problems.femnist_all, {"stepsize": 0.1}, sps.proxskip),
    "femnist_chunks": FEMNIST._replace(chunk=10),
    "femnist_4_devices": FEMNIST._replace(devices=4),
    "sweep": Program(problems.digits, points=64),
    "sweep_4_devices": Program(problems.digits, points=64, devices=4),
    **_by("femnist", FEMNIST, 1, 5, 20, 25, 50),
    **_by("two_blocks", TWO_BLOCKS, 1, 2, 5),
    "two_blocks": TWO_BLOCKS,
    "two_blocks_dense": TWO_BLOCKS._replace(make=sps.proxskip, hyper={"stepsize": 0.1}),
    **_by("transformer", TRANSFORMER, 1, 10),
    "transformer": TRANSFORMER,
    "transformer_4_devices": TRANSFORMER._replace(devices=4),
    "lstm": Program(
        partial(problems.shakespeare, models.lstm), narrow=partial(problems.shakespeare, models.lstm, width=16)
    ),
    **_by("resnet18", RESNET, 1),
    "resnet18": RESNET,
}
"""The programs by name: nine, three of them also on 4 devices, and four with some clients at once; ``two_blocks`` is a
ResNet of ResNet18's first two stages, of a block each, and ``two_blocks_dense`` trains it without pruning. What takes
long is at the end."""


def layouts(name: str) -> dict[int | None, str]:
    """The names of the programs that differ from this one in nothing but how many clients are computed at once."""
    alike = {other: p.chunk for other, p in PROGRAMS.items() if p._replace(chunk=None) == PROGRAMS[name]}
    return {chunk: other for other, chunk in sorted(alike.items(), key=lambda one: one[1] or 10**9)}


class Placed(NamedTuple):
    """A jitted function, its arguments as shapes with shardings, and the bytes predicted a device, if they are."""

    function: Callable
    arguments: tuple
    predicted: int | None

    def lowered(self) -> jax.stages.Lowered:
        """The program in StableHLO, for the devices of its arguments."""
        return self.function.trace(*self.arguments).lower()


def placed(program: Program, devices: list[jax.Device]) -> Placed:
    """Place a program on the first of these devices."""
    own, problem = devices[: program.devices], program.problem()
    steps = None if "prob" in program.hyper else LOCAL_STEPS
    method = sps.prepare(program.make, program.hyper, jnp.float32, local_steps=steps)
    return (_rounds if program.points is None else _points)(program, problem, method, own)


def _rounds(program: Program, problem: Problem, method: Method, devices: list[jax.Device]) -> Placed:
    mesh = clients_mesh(devices) if len(devices) > 1 else None
    whole = SingleDeviceSharding(devices[0]) if mesh is None else NamedSharding(mesh, PartitionSpec())
    split = whole if mesh is None else NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    key = jax.eval_shape(random_key, 0)
    layout = Layout(program.chunk, mesh)
    first: State = jax.eval_shape(start_rounds, method, problem, key)
    state = _on(first, whole)._replace(memory=_on(first.memory, split))
    own = replace(_on(problem, whole), data=_on(problem.data, split), counts=_on(problem.counts, split))
    arguments = (_on(method, whole), layout, own, state, _on(key, whole), _evaluated(whole))
    need = footprint(shapes(method, problem), problem, layout, devices[0].platform).total
    return Placed(run_rounds, arguments, need)


def _points(program: Program, problem: Problem, method: Method, devices: list[jax.Device]) -> Placed:
    mesh = jax.make_mesh((len(devices),), ("points",), axis_types=(AxisType.Auto,), devices=devices)
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    lanes, layout = (len(devices), (program.points or 1) // len(devices)), Layout(program.chunk)
    each = _leading(lanes, split, method)
    common = _leading(lanes[:1], split, method)
    prob = {name: value for name, value in common.hyper.items() if name == "prob"}
    stacked = replace(each, hyper=each.hyper | prob, schedule=common.schedule)
    coin = method.schedule.local_steps is None
    key = _leading(lanes[:1] if coin else lanes, split, jax.eval_shape(random_key, 0))
    need = footprint(shapes(method, problem), problem, layout, devices[0].platform, lanes[1]).total
    arguments = (stacked, layout, mesh, coin, _on(problem, whole), key, _evaluated(whole))
    return Placed(run_points, arguments, need)


def _on(values: Any, sharding: Sharding) -> Any:
    return _leading((), sharding, values)


def _leading(axes: tuple[int, ...], sharding: Sharding, values: Any) -> Any:
    """``values`` as shapes with leading axes and a sharding."""
    return jax.tree.map(lambda a: Shape((*axes, *jnp.shape(a)), a.dtype, sharding=sharding), values)


def _evaluated(sharding: Sharding) -> Shape:
    return Shape((ROUNDS,), jnp.bool_, sharding=sharding)
