"""Prepare a run: check the options, load the problem, prepare and lay out the algorithms. Nothing is written.

``sps-jax run`` makes every CPU core a device and chooses a layout from the sizes of model, batch and memory. It prints
the layout and the predicted memory on standard error, and refuses a run that cannot fit, naming the chunk that would.
``--devices`` uses fewer devices, and ``--chunk`` computes fewer clients at once to save memory; neither changes the
results (:mod:`sps_jax.layout`). Products of float32 numbers are computed in float32, although GPUs and TPUs default to
TF32 and bfloat16; ``--matmul-precision tensorfloat32`` or ``bfloat16`` allows those. Compiled programs are cached in
``~/.cache/sps_jax``, or in JAX's own ``JAX_COMPILATION_CACHE_DIR``.
"""

import dataclasses
import gc
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from sps_jax.cli import own_code
from sps_jax.cli.catalogue import ALGORITHMS
from sps_jax.cli.from_options import clip, cohort_of, hyperparameters, pruned_leaves, use_devices
from sps_jax.cli.option_checks import check, local_steps, refuse_strangers
from sps_jax.cli.options import Run, number
from sps_jax.cli.padding import built, of_seeds, redrawn
from sps_jax.errors import refuse_unknown
from sps_jax.layout import Layout
from sps_jax.problem import Problem
from sps_jax.runs import console, processes
from sps_jax.runs.job import Job
from sps_jax.runs.watched import Watching
from sps_jax.simulation.footprint import footprint, shapes
from sps_jax.simulation.method import Method, prepare
from sps_jax.simulation.placement import choose, cohort_plan, describe
from sps_jax.simulation.simulate import shard_problem
from sps_jax.simulation.watching import measured

TALK = ("json", "quiet", "config")
"""Options of the output, and where options come from: no part of the run's configuration."""
MANY = 10_000_000
"""Local steps per client from which a run warns that it may take long."""


def get_ready(options: Run) -> tuple[Job, dict[str, Any]]:
    """Check the options, join the other processes, load and lay out.

    Returns:
      The job, and what of the model is pruned, from :func:`sps_jax.cli.from_options.pruned_leaves`.
    """
    devices = join(options)
    job, pruned = processes.all_or_none(lambda: load(options, devices))
    own = ("process_id", "coordinator", "out", "manual_dir", "data_dir", *TALK)
    settings = {name: value for name, value in dataclasses.asdict(options).items() if name not in own}
    processes.refuse_others(settings | {"sources": own_code.sources(settings), "layout": job.layouts_in_words()})
    return job, pruned


def join(options: Run) -> int | None:
    """Check the options and join the other processes; return the requested number of devices, None for auto."""
    check(options)
    refuse_strangers(options)
    jax.config.update("jax_enable_x64", options.precision == "float64")
    keep_compiled()
    return use_devices(options)


def load(options: Run, devices: int | None) -> tuple[Job, dict[str, Any]]:
    """Load the problem, prepare the algorithms and lay them out, see :func:`get_ready`."""
    console.doing(f"loading {options.problem}")
    sizes = of_seeds(options)
    problem = built(options, sizes)
    pruned = pruned_leaves(options, problem)
    methods = {own_code.label(name): prepare_algorithm(options, name, problem) for name in options.algorithm}
    layouts = {name: lay_out_run(methods[name], problem, devices, options) for name in methods}

    def placed(problem: Problem) -> Problem:
        if not options.stream:  # all layouts have the same devices, so one copy of the data serves all
            problem = jax.block_until_ready(shard_problem(next(iter(layouts.values())), problem))
        gc.collect()  # JAX holds the NumPy copy of its inputs until a collection
        return problem

    def draw(seed: int) -> tuple[Problem, dict[str, Method]]:
        problem = processes.all_or_none(lambda: placed(built(dataclasses.replace(options, seed=seed), sizes)))
        return problem, {own_code.label(name): prepare_algorithm(options, name, problem) for name in options.algorithm}

    seeds = range(options.seed, options.seed + options.seeds)
    how = (options.rounds, options.evaluate_every, options.checkpoint_every, options.encoding, options.stream)
    watching = Watching(options.keep, options.stop_at, options.patience, options.track, options.best_by)
    for method in methods.values():
        watching.watch(None).check(problem, None, method)
        if options.metric is not None:
            refuse_unknown("metric", options.metric, measured(problem, None, method))
    name, own = own_code.label(options.problem), draw if redrawn(options) else None
    return Job(name, placed(problem), methods, layouts, seeds, *how, watching, own), pruned


def prepare_algorithm(options: Run, name: str, problem: Problem) -> Method:
    """Prepare algorithm ``name`` with the hyperparameters of the options, see :func:`sps_jax.prepare`."""
    return prepare(
        ALGORITHMS[name],
        hyperparameters(options, name, problem),
        problem.ridge.dtype,
        local_steps=options.local_steps,
        transform=clip(options, problem),
        cohort=cohort_of(options, problem.clients),
        matmul_precision=options.matmul_precision,
        per_client=options.per_client,
    )


def lay_out_run(method: Method, problem: Problem, devices: int | None, options: Run) -> Layout:
    """Choose the layout of a run, print it on standard error and return it."""
    of = shapes(method, problem)
    choices = {"devices": devices, "chunk": number("chunk", options.chunk, int, "all", "auto")}
    layout = cohort_plan(method, problem, **choices) if options.stream else choose(of, problem, **choices)
    need = footprint(of, problem, layout)
    if processes.first():
        if "prob" in method.hyper and local_steps(options) >= MANY:
            console.say(f"sps-jax: about {local_steps(options):.2g} local steps of each client (rounds / prob)")
        console.say(f"{method.make.__name__}: {describe(layout, need, of.cohort or problem.clients)}")
    return layout


def compiled_folder() -> Path:
    """Return the folder of cached compiled programs."""
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # JAX adds its options at import
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen or home / "sps_jax" / "compiled")


def keep_compiled() -> None:
    """Cache compiled programs on disk for the next run, unless the user's JAX settings name another cache."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]  # as above
        jax.config.update("jax_compilation_cache_dir", str(compiled_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def settings_of(options: Run) -> dict[str, Any]:
    """Return every setting, as JSON can hold it."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items() if k not in TALK}


def configuration(options: Run) -> dict[str, Any]:
    """Return the content of ``config.json``: every setting, the versions and the device."""
    settings = settings_of(options)
    packages = {name: version(name) for name in ("sps_jax", "jax", "jaxlib", "flax", "optax", "numpy")}
    device = jax.devices()[0]
    return {
        "settings": settings,
        "versions": {"python": platform.python_version(), **packages},
        "sources": own_code.sources(settings),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }
