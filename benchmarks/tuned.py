"""Methods compared at their own best step sizes, from one grid for all of them.

``python benchmarks/tuned.py --stepsizes 0.03 0.1 0.3 --pilot-rounds 5 OPTIONS``, OPTIONS those of ``sps-jax run``,
``--out DIR`` among them. Every method runs the pilot with every step size; the one of the lowest training loss is used
for its whole run, if it did not diverge; the pilot does not touch the test data. DIR is filled method by method, and a
method that is in it is not run again, so that a run that was cut off can be taken up. It leaves what ``sps-jax run``
leaves, ``pilot.jsonl`` with the losses of the grid, and ``table.txt``. Findings: ``benchmarks/results/README.md``.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import jax
import tyro

from sps_jax import report, results
from sps_jax.cli import configuration, keep_compiled, lay_out_run, prepare_algorithm
from sps_jax.experiment import compile_blocks, run_blocks
from sps_jax.options import Run, build_problem, check, command_type, pruned_leaves, refuse_strangers, use_devices


def lines_of(path: Path) -> list[dict]:
    """The records of a file, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_method(options: Run, name: str, problem, devices: int | None, stepsizes: list[float], pilot_rounds: int):
    """The pilot's records, and records and summary of the run with its best step size."""
    key, pilot = jax.random.key(options.seed), []

    def choice(stepsize):
        return prepare_algorithm(dataclasses.replace(options, stepsize=str(stepsize)), name, problem)

    def compiled(problem):  # blocks of one round serve runs of any length
        prepared = choice(stepsizes[0])
        return compile_blocks(prepared, lay_out_run(prepared, problem, devices, options), problem, key, 1, 1)

    def run(block, stepsize, rounds, every):
        print(f"{name}, step size {stepsize:g}: {rounds} rounds", file=sys.stderr, flush=True)
        settings = {"rounds": rounds, "evaluate_every": every, "encoding": options.encoding}
        return run_blocks(choice(stepsize), block, key, progress=lambda _: None, **settings)

    block = compiled(dataclasses.replace(problem, test=None))
    for stepsize in stepsizes:
        records, summary = run(block, stepsize, pilot_rounds, pilot_rounds)
        loss = records[-1]["train_loss"] if records and summary["diverged_at_round"] is None else None
        pilot.append({"algorithm": name, "stepsize": stepsize, "train_loss": loss})
    finite = [one for one in pilot if one["train_loss"] is not None]
    if not finite:
        raise SystemExit(f"tuned.py: error: {name} diverged with every step size")
    best = min(finite, key=lambda one: one["train_loss"])["stepsize"]
    records, summary = run(compiled(problem), best, options.rounds, options.evaluate_every)
    names = {"algorithm": name, "problem": options.problem, "seed": options.seed}
    hyper = {key: float(value) for key, value in choice(best)[1].items()}
    return pilot, [names | record | hyper for record in records], names | hyper | summary


def main() -> None:
    """Tune, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stepsizes", type=float, nargs="+", required=True)
    parser.add_argument("--pilot-rounds", type=int, required=True)
    own, rest = parser.parse_known_args()
    options = tyro.cli(command_type(), args=rest)
    check(options)
    refuse_strangers(options)
    if options.out is None:
        parser.error("--out is needed")
    jax.config.update("jax_enable_x64", options.precision == "float64")
    devices, out = use_devices(options), options.out
    keep_compiled()
    out.mkdir(parents=True, exist_ok=True)
    files = {name: out / f"{name}.jsonl" for name in ("pilot", "metrics", "summary")}
    pilots, records, summaries = (lines_of(path) for path in files.values())
    missing = [name for name in options.algorithm if name not in {s["algorithm"] for s in summaries}]
    if missing:
        problem = build_problem(options)
        pruned = pruned_leaves(options, problem)
        tuning = {"stepsizes": own.stepsizes, "pilot_rounds": own.pilot_rounds}
        results.write_json(out / "config.json", configuration(options) | {"pruned": pruned, "tuning": tuning})
    for name in missing:
        pilot, more, summary = run_method(options, name, problem, devices, own.stepsizes, own.pilot_rounds)
        pilots, records, summaries = pilots + pilot, records + more, [*summaries, summary]
        for path, content in zip(files.values(), (pilots, records, summaries), strict=True):
            results.write_jsonl(path, content)
    runs = {(s["algorithm"], s["seed"]): [r for r in records if r["algorithm"] == s["algorithm"]] for s in summaries}
    compared = report.compare(runs, summaries, options.target)
    report.write(runs, compared, f"{options.problem}, sparsity {options.sparsity:g}, step sizes tuned", out)
    results.write_text(out / "table.txt", report.table(compared) + "\n")
    print(report.table(compared))


if __name__ == "__main__":
    main()
