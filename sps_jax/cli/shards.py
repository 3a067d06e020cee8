"""A sweep in parts that run apart: ``--shard i/N`` of any array job, and ``--submit``, which starts the job.

    sps-jax sweep --stepsize logspace:0.01:1:20 --out results --shard 3/8
    sps-jax sweep --stepsize logspace:0.01:1:20 --out results --submit slurm --jobs 8 --submit-with partition=gpu
    sps-jax table results

A shard computes its part of the points in a folder of its own, ``results/shard-3-of-8``; a killed one goes on when the
same command is given again. ``table`` and ``plot`` of ``results`` merge them. ``--submit`` hands the shards to submitit
(``pip install 'sps_jax[submit]'``), whose logs are in ``results/jobs``; with ``local`` they are processes of this
machine.
"""

import dataclasses
import importlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from sps_jax.cli.job import settings_of
from sps_jax.cli.sweep_options import sweep_type
from sps_jax.errors import refuse_unknown
from sps_jax.results.shards import shard_folder
from sps_jax.runs import console

CLUSTERS = ("slurm", "local")
A_DAY = 24 * 60
"""In minutes: the time limit of a job, which submitit would end after five minutes."""


def part(shard: str | None, points: int) -> Sequence[int]:
    """Return the numbers of the points of a shard: neighbours, which share programs, of about equal number.

    >>> [list(part(f"{i}/3", 7)) for i in (1, 2, 3)], list(part(None, 2))
    ([[0, 1, 2], [3, 4], [5, 6]], [0, 1])
    """
    number, shards = (1, 1) if shard is None else _parsed(shard)
    return np.array_split(np.arange(points), shards)[number - 1].tolist()


def _parsed(shard: str) -> tuple[int, int]:
    first, _, second = shard.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise ValueError(f"--shard must be i/N with i from 1 to N, such as 1/4, not {shard!r}")
    return int(first), int(second)


def placed(options: Any) -> Any:
    """Return the options with the folder of the shard as ``out``.

    Raises:
      ValueError: for a shard that is none, or without ``--out``.
    """
    if options.shard is None:
        return options
    number, shards = _parsed(options.shard)
    if options.out is None:
        raise ValueError("--shard needs --out, the folder that all shards share")
    return dataclasses.replace(options, out=shard_folder(options.out, number, shards))


def extra(package: str, option: str, name: str) -> ModuleType:
    """Return a package that an extra installs, or raise a ``ValueError`` that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ValueError(f"{option} needs the package {package}: pip install 'sps_jax[{name}]'") from None


def submit(options: Any) -> int:
    """Hand the shards of a sweep to a cluster, or to this machine and wait for them; return the exit status.

    Raises:
      ValueError: if the options say too little, contradict each other, or submitit does not take them.
    """
    refuse_unknown("--submit", options.submit, CLUSTERS)
    if options.out is None or options.jobs is None or options.jobs < 1:
        raise ValueError("--submit needs --jobs, the number of shards, and --out, the folder that they share")
    if options.shard is not None or options.search is not None:
        raise ValueError("--submit makes the shards: leave out --shard, and --search, whose trials wait for each other")
    submitit, out = extra("submitit", "--submit", "submit"), options.out.resolve()
    alone = dataclasses.replace(options, out=out, submit=None, jobs=None, submit_with=())
    shards = [f"{number + 1}/{options.jobs}" for number in range(options.jobs)]
    try:
        executor = submitit.AutoExecutor(folder=out / "jobs", cluster=options.submit)
        executor.update_parameters(**{"timeout_min": A_DAY} | _parameters(options.submit_with))
        jobs = executor.map_array(partial(work, json.loads(json.dumps(settings_of(alone)))), shards)
    except (NameError, TypeError, RuntimeError) as error:  # an unknown parameter; no Slurm here
        raise ValueError(f"--submit {options.submit}: {error}") from None
    console.say(f"{len(jobs)} jobs: {' '.join(job.job_id for job in jobs)}; logs in {out / 'jobs'}. Results: {out}")
    if options.submit == "slurm":
        return 0
    failed = {shard: why for shard, job in zip(shards, jobs, strict=True) if (why := _failure(job))}
    if failed:
        words = "; ".join(f"shard {shard}: {why}" for shard, why in failed.items())
        raise ValueError(f"{words}. Logs are in {out / 'jobs'}; the same command goes on")
    return 0


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    """Return NAME=VALUE as parameters of submitit, numbers as numbers.

    >>> _parameters(["slurm_partition=gpu", "timeout_min=60"])
    {'slurm_partition': 'gpu', 'timeout_min': 60}
    """
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise ValueError(f"--submit-with must be NAME=VALUE, such as slurm_partition=gpu, not {each!r}")
        found[name] = int(value) if value.isdecimal() else value
    return found


def _failure(job: Any) -> str | None:
    """Return why a job failed, after it has ended; None if it did not."""
    error = job.exception()
    if error is None:
        return None if job.result() == 0 else f"status {job.result()}"
    return str(error).strip().splitlines()[-1]


def work(settings: dict[str, Any], shard: str) -> int:
    """Run a shard in a job, from the settings of its sweep; return the exit status."""
    from sps_jax.cli.main import status_of  # it imports this module
    from sps_jax.cli.sweep import sweep

    def begin() -> int:
        options: Any = msgspec.convert(settings | {"out": None, "shard": shard}, sweep_type(settings))
        return sweep(dataclasses.replace(options, out=Path(settings["out"])))

    return status_of(begin)
