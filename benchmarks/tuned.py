"""Methods compared at their own best step sizes, from one grid for all of them.

``python benchmarks/tuned.py --stepsizes 0.03 0.1 0.3 --pilot-rounds 5 OPTIONS``, OPTIONS those of ``sps-jax run``,
``--out DIR`` among them. Every method runs the pilot with every step size; the one of the lowest training loss is used
for its whole run, if it did not diverge; the pilot does not touch the test data. What DIR holds is not run again: a run
that was cut off goes on, and one with more step sizes runs those, and what another best step size asks for. It leaves
what ``sps-jax run`` leaves, ``pilot.jsonl`` with the losses of the grid, and ``table.txt``. Findings:
``benchmarks/results/README.md``.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import tyro

from sps_jax.cli import own_code
from sps_jax.cli.from_options import build_problem, pruned_leaves, use_devices
from sps_jax.cli.job import configuration, keep_compiled, lay_out_run, prepare_algorithm
from sps_jax.cli.option_checks import check, refuse_strangers
from sps_jax.cli.options import Run, command_type
from sps_jax.layout import random_key
from sps_jax.results import files, tables
from sps_jax.runs.blocks import run_blocks
from sps_jax.runs.drivers import on_devices


def compile_rounds(options: Run, name: str, problem, devices: int | None, test: bool) -> Callable:
    """(step size, rounds, evaluate_every) -> hyperparameters, records and summary of a run of one method."""
    key, driver = random_key(options.seed), None
    problem = problem if test else dataclasses.replace(problem, test=None)

    def run(stepsize, rounds, evaluate_every):
        nonlocal driver
        method = prepare_algorithm(dataclasses.replace(options, stepsize=str(stepsize)), name, problem)
        if driver is None:  # of one round, it serves runs of any length
            driver = on_devices(method, lay_out_run(method, problem, devices, options), problem, key, 1)
        print(f"{own_code.label(name)}, step size {stepsize:g}: {rounds} rounds", file=sys.stderr, flush=True)
        settings = {"rounds": rounds, "evaluate_every": evaluate_every, "encoding": options.encoding}
        return method.recorded(), *run_blocks(method, driver, key, **settings)

    return run


def main() -> None:
    """Tune, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stepsizes", type=float, nargs="+", required=True)
    parser.add_argument("--pilot-rounds", type=int, required=True)
    own, rest = parser.parse_known_args()
    rest, named = own_code.absolute(rest)
    options = tyro.cli(command_type(named), args=rest)
    check(options)
    refuse_strangers(options)
    if options.out is None:
        parser.error("--out is needed")
    jax.config.update("jax_enable_x64", options.precision == "float64")
    devices, out = use_devices(options), options.out
    keep_compiled()
    out.mkdir(parents=True, exist_ok=True)
    problem = build_problem(options)
    more = {"pruned": pruned_leaves(options, problem), "tuning": vars(own)}
    files.write_json(out / "config.json", configuration(options) | more)
    for name in options.algorithm:
        compiled = partial(compile_rounds, options, name, problem, devices)
        called = own_code.label(name)
        run_best(options, called, tune(own, called, compiled(test=False), out), compiled(test=True), out)
    records, summaries = files.read_jsonl(out / "metrics.jsonl"), files.read_jsonl(out / "summary.jsonl")
    runs = {(s["algorithm"], s["seed"]): [r for r in records if r["algorithm"] == s["algorithm"]] for s in summaries}
    compared = tables.compare(runs, summaries, options.target, options.metric)
    title = f"{own_code.label(options.problem)}, sparsity {options.sparsity:g}, step sizes tuned"
    tables.write(runs, compared, title, out)
    files.write_text(out / "table.txt", tables.run_table(compared) + "\n")
    print(tables.run_table(compared))


def tune(own: argparse.Namespace, name: str, run: Callable, out: Path) -> float:
    """The step size of the grid with the lowest training loss after the pilot, which runs where it has not yet."""
    for stepsize in own.stepsizes:
        pilots = files.read_jsonl(out / "pilot.jsonl")
        if not any((name, stepsize) == (one["algorithm"], one["stepsize"]) for one in pilots):
            _, records, summary = run(stepsize, own.pilot_rounds, own.pilot_rounds)
            loss = records[-1]["train_loss"] if summary["diverged_at_round"] is None else None
            pilots.append({"algorithm": name, "stepsize": stepsize, "train_loss": loss})
            files.write_jsonl(out / "pilot.jsonl", pilots)
    losses = {
        one["stepsize"]: one["train_loss"] for one in files.read_jsonl(out / "pilot.jsonl") if one["algorithm"] == name
    }
    finite = [stepsize for stepsize in own.stepsizes if losses[stepsize] is not None]
    if not finite:
        raise SystemExit(f"tuned.py: error: {name} diverged with every step size")
    return min(finite, key=losses.get)


def run_best(options: Run, name: str, stepsize: float, run: Callable, out: Path) -> None:
    """The whole run with that step size, in place of one with another, unless it is there."""
    paths = out / "metrics.jsonl", out / "summary.jsonl"
    before = files.read_jsonl(paths[1])
    if any(s["algorithm"] == name and math.isclose(s["stepsize"], stepsize, rel_tol=1e-6) for s in before):
        return
    hyper, records, summary = run(stepsize, options.rounds, options.evaluate_every)
    names = {"algorithm": name, "problem": own_code.label(options.problem), "seed": options.seed}
    new = [names | record | hyper for record in records], [names | hyper | summary]
    for path, rows in zip(paths, new, strict=True):
        files.write_jsonl(path, [row for row in files.read_jsonl(path) if row["algorithm"] != name] + rows)


if __name__ == "__main__":
    main()
