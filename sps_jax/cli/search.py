"""``sps-jax sweep --search optuna``: points that a sampler proposes, in generations of one compiled program.

    sps-jax sweep --search optuna --trials 32 --stepsize logspace:1e-3:1 --sparsity linspace:0.5:0.95 --out results

A trial is a combination of hyperparameters, computed with all seeds. ``logspace:first:last`` is a range searched on a
logarithmic scale, ``linspace:first:last`` on a linear one, several values are alternatives, and one value is fixed.
Each algorithm has a study of its own. :data:`GENERATION` trials are proposed at a time (ask), computed as a sweep
computes points, and reported (tell): the mean over seeds of the metric that also chooses a sweep's points, never a test
metric.
The records are those of a sweep, for ``table`` and ``plot``. A killed search goes on when the same command is given
again: the sampler's seed is ``--seed``, so that it proposes the same trials, whose results are read.

Source: Akiba et al. 2019, Optuna, arXiv 1907.10902; the sampler is its tree-structured Parzen estimator.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sps_jax import results
from sps_jax.cli.catalogue import PROBLEMS
from sps_jax.cli.options import Run, flag
from sps_jax.cli.run import folder_named
from sps_jax.cli.shards import extra
from sps_jax.cli.sweep_options import DATA, SPACES, lists, points, taken_by, values
from sps_jax.errors import refuse_unknown
from sps_jax.results import files
from sps_jax.runs import console

GENERATION = 8
"""Trials of each algorithm between two proposals; a multiple of it as ``--trials`` compiles no second program."""
Runs = list[tuple[str, Run]]


def search(options: Any, compute: Callable[..., Path]) -> Path:
    """Search the ranges of a sweep; return the folder with the records.

    Args:
      options: the options of the sweep.
      compute: :func:`sps_jax.cli.sweep.compute`.

    Raises:
      ValueError: for another ``--search`` than optuna, no ``--trials``, no range, several data settings, or with
        ``--shard``.
    """
    refuse_unknown("--search", options.search, ("optuna",))
    optuna = extra("optuna", "--search", "search")
    if options.trials is None or options.trials < 1:
        raise ValueError("--search needs --trials, the number of points to try with each algorithm")
    if options.shard is not None:
        raise ValueError("--search proposes each point from the results of others: leave out --shard")
    if several := [name for name in DATA if len(values(name, getattr(options, name), DATA[name])) > 1]:
        raise ValueError(f"--search compares points on the same data: give one value of {flag(several[0])}")
    points(dataclasses.replace(options, **_first_values(options)))  # a wrong option is an error here and now
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = dataclasses.replace(options, out=folder_named(options))
    spaces = {name: ranges(options, name, optuna.distributions) for name in options.algorithm}
    if not any(spaces.values()):
        raise ValueError("--search needs a range or a list to choose from, such as --stepsize logspace:1e-3:1")
    studies = {name: optuna.create_study(sampler=sampler(optuna, options.seed)) for name in options.algorithm}
    runs: Runs = []
    for done in range(0, options.trials, GENERATION):
        asked = []
        for name in options.algorithm:
            for _ in range(min(GENERATION, options.trials - done)):
                trial = studies[name].ask(spaces[name])
                own = proposed(options, name, trial.params)
                asked.append((studies[name], trial, range(len(runs), len(runs) + len(own))))
                runs += own
        left = options.trials * options.seeds * len(options.algorithm) - len(runs)
        out = compute(options, runs, left)
        ends = _ends(out, options.rounds, options.best_by)
        for study, trial, numbers in asked:
            found = [ends[number] for number in numbers if number in ends]
            if len(found) < len(numbers):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)  # it diverged
            else:
                study.tell(trial, float(np.mean(found)))
    for name, study in studies.items():
        alive = any(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
        words = ", ".join(f"{k} {v}" for k, v in study.best_params.items()) if alive else "every point diverged"
        console.say(f"{name}: {words}")
    return out


def _first_values(options: Any) -> dict[str, tuple[str, ...]]:
    """Return option -> one value, the first end of a range, for each option that takes several."""
    given = {option: getattr(options, option)[:1] for option in lists(vars(options))}
    ends = {option: [text.split(":") for text in texts] for option, texts in given.items()}
    return {
        option: tuple(parts[1] if parts[0] in SPACES and len(parts) > 1 else ":".join(parts) for parts in each)
        for option, each in ends.items()
    }


def searched_by(options: Any) -> dict[str, str]:
    """Return the version of the package that proposes the points, for the configuration; nothing without a search."""
    return {"search": f"optuna {extra('optuna', '--search', 'search').__version__}"} if options.search else {}


def sampler(optuna: Any, seed: int) -> Any:
    """Return the sampler of a study: trials of one generation keep apart from each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def ranges(options: Any, name: str, distributions: Any) -> dict[str, Any]:
    """Return option -> its distribution, for each option of an algorithm that is not fixed."""
    kinds = lists(vars(options))
    given = {option: getattr(options, option) for option in kinds if option in taken_by(name)}
    return {
        option: _distribution(option, texts, kinds[option], distributions)
        for option, texts in given.items()
        if len(texts) > 1 or any(text.partition(":")[0] in SPACES for text in texts)
    }


def _distribution(option: str, texts: tuple[str, ...], kind: type, distributions: Any) -> Any:
    way, *ends = texts[0].split(":")
    if way not in SPACES:
        return distributions.CategoricalDistribution(texts)
    try:
        if len(texts) > 1:
            raise ValueError
        first, last = sorted(map(float, ends[:2]))
        if kind is int:
            return distributions.IntDistribution(int(first), int(last), log=way == "logspace")
        return distributions.FloatDistribution(first, last, log=way == "logspace")
    except ValueError:
        raise ValueError(
            f"{flag(option)} must be one range, {way}:first:last, or values, not {' '.join(texts)}"
        ) from None


def proposed(options: Any, name: str, chosen: dict[str, Any]) -> Runs:
    """Return the single runs, one for each seed, of an algorithm with the chosen values."""
    given = {option: (value if isinstance(value, str) else repr(value),) for option, value in chosen.items()}
    takes = taken_by(name) | set(inspect.signature(PROBLEMS[options.problem]).parameters)
    others = {option: () for option in lists(vars(options)) if option not in takes}
    return points(dataclasses.replace(options, algorithm=(name,), **others | given))


def _ends(out: Path, rounds: int, best_by: str | None) -> dict[int, float]:
    """Return point -> what is to be minimised, of the points that reached the last round."""
    rows = [row for row in files.read_jsonl(out / "metrics.jsonl", ("point", "round")) if row["round"] == rounds]
    if not rows:
        return {}
    metric = results.criterion(rows[0], best_by)
    sign = -1 if results.larger_is_better(metric) else 1
    return {row["point"]: sign * row[metric] for row in rows if row[metric] is not None}
