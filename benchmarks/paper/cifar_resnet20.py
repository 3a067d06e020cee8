"""ResNet20 on all of CIFAR-10 for 30 epochs: which method wins when training is long, and with how many bits?

``python benchmarks/paper/cifar_resnet20.py --out DIR --manual-dir DIR``: 10 clients, Dirichlet 0.5, 10 local steps with
batches of 20, 750 rounds, the direction clipped at norm 1; all methods at 90 % first, then at 99 %. A method's step
size is the one of the grid, the same for all, with the best accuracy on validation data, a tenth of each client's
training examples, after a pilot of 2 epochs. The whole run has these examples too; nothing is chosen on test data.

It takes more than a day of two free cores, and may be killed at any time: started again with the same command it goes
on from the last checkpoint, at most 5 rounds ago, and what it leaves is what it would have left otherwise. ``--status``
tells how far it is. Each run is a folder that ``sps-jax run`` made in ``DIR/pilot`` or ``DIR/whole``; tables and
pictures of what has ended are in ``DIR``. A method that is new in the package is run where it stands in ``METHODS``.
"""

import argparse
import contextlib
import inspect
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sps_jax import results
from sps_jax.algorithms import ALGORITHMS
from sps_jax.cli.main import command
from sps_jax.results import files, tables
from sps_jax.runs import journal

METHODS = ("sparse_proxskip", "fedavg_client_pruning", "server_pruning", "proxskip", "sparse_proxskip_local")
METHODS += ("fedavg_server_pruning", "fedavg", "mask_proxskip", "scafcom")
REQUIRED = {"scafcom": ("--server-stepsize", "1", "--beta", "0.2")}
"""Numbers that a method requires beside the step size and the sparsity; they are not tuned."""


@dataclass(frozen=True)
class Layout:
    """What is run.

    Attributes:
      problem: options of ``sps-jax run`` that all runs have.
      pilot, whole: rounds.
    """

    problem: str
    stepsizes: tuple[float, ...]
    sparsities: tuple[float, ...]
    methods: tuple[str, ...]
    pilot: int
    whole: int
    evaluate_every: int
    checkpoint_every: int


CIFAR = "--problem cifar10 --model resnet20 --clients 10 --partition dirichlet --dirichlet-alpha 0.5 --clip-norm 1"
FULL = Layout(f"{CIFAR} --batch-size 20 --local-steps 10", (0.1, 0.3, 1.0, 3.0), (0.9, 0.99), METHODS, 50, 750, 25, 5)
DIGITS = "--problem digits --clients 4 --batch-size 8 --local-steps 5 --clip-norm 1"
TINY = Layout(DIGITS, (0.1, 1.0), (0.9,), ("sparse_proxskip", "proxskip"), 200, 2000, 100, 100)


class Run(NamedTuple):
    """One call of ``sps-jax run``: its folder, and the options that are its own."""

    folder: Path
    options: tuple[str, ...]


def sparse(name: str) -> bool:
    """Whether a method has a sparsity."""
    return "sparsity" in inspect.signature(ALGORITHMS[name]).parameters


def cases(plan: Layout) -> list[tuple[str, float]]:
    """Methods and sparsities in the order of importance; a dense method is there once."""
    there = [name for name in plan.methods if name in ALGORITHMS]
    return [(name, level) for level in plan.sparsities for name in there if sparse(name) or level == plan.sparsities[0]]


def runs(plan: Layout, out: Path, name: str, level: float) -> Iterator[Run]:
    """The pilots of a case and, when they have ended, its whole run, if one of them did not diverge."""
    for stepsize in plan.stepsizes:
        length = ("--rounds", str(plan.pilot), "--evaluate-every", str(plan.pilot), "--validation", "0.1")
        yield one_run(plan, out / "pilot", name, level, stepsize, length)
    scores = {stepsize: score for stepsize, score in pilots(plan, out, name, level).items() if math.isfinite(score)}
    if scores:
        length = ("--rounds", str(plan.whole), "--evaluate-every", str(plan.evaluate_every))
        yield one_run(plan, out / "whole", name, level, max(scores, key=scores.__getitem__), length)


def one_run(plan: Layout, under: Path, name: str, level: float, stepsize: float, length: tuple[str, ...]) -> Run:
    """The run of a case with a step size."""
    folder = under / (f"{level:g}" if sparse(name) else "dense") / name / f"{stepsize:g}"
    own = ("--algorithm", name, "--stepsize", f"{stepsize:g}", "--sparsity", f"{level:g}", *REQUIRED.get(name, ()))
    own = (*own, *length)
    return Run(folder, (*plan.problem.split(), *own, "--checkpoint-every", str(plan.checkpoint_every)))


def pilots(plan: Layout, out: Path, name: str, level: float) -> dict[float, float]:
    """Validation accuracy at the end of each pilot of a case that has ended, by step size; NaN where it diverged."""
    found = {}
    for stepsize in plan.stepsizes:
        folder = one_run(plan, out / "pilot", name, level, stepsize, ()).folder
        if end := ended(folder):
            last = {} if end["diverged_at_round"] else results.read_records(folder)[-1]
            found[stepsize] = last.get("validation_accuracy", math.nan)
    return found


def ended(folder: Path) -> tables.Record | None:
    """The summary of a run, None while it has not ended."""
    return next(iter(journal.finished(folder)[0]), None)


def arguments(run: Run, data: list[str]) -> list[str]:
    """Of ``sps-jax``, to begin a run or to go on with it."""
    if (run.folder / "config.json").is_file():
        return ["resume", str(run.folder)]
    shutil.rmtree(run.folder, ignore_errors=True)  # killed before anything was computed
    return ["run", *run.options, *data, "--out", str(run.folder)]


def gather(plan: Layout, out: Path) -> None:
    """Tables and pictures of what has ended."""
    rows = []
    for name, level in cases(plan):
        scores = pilots(plan, out, name, level)
        cells = {f"{s:g}": f"{scores[s]:.4f}" if s in scores else "-" for s in plan.stepsizes}
        rows.append({"method": name, "sparsity": f"{level:g}" if sparse(name) else "dense"} | cells)
    files.write_text(out / "pilots.txt", results.aligned(rows) + "\n")
    for level in plan.sparsities:
        compare(plan, out, level)


def compare(plan: Layout, out: Path, level: float) -> None:
    """The whole runs at a sparsity, and the dense ones, that have ended."""
    records, summaries = {}, []
    for name, at in cases(plan):
        if at == level or not sparse(name):
            *_, last = runs(plan, out, name, at)
            if last.folder.is_relative_to(out / "whole") and (summary := ended(last.folder)):
                summaries.append(summary)
                records[name, summary["seed"]] = results.read_records(last.folder)
    if summaries:
        where = out / f"compared_{level:g}"
        where.mkdir(exist_ok=True)
        compared = tables.compare(records, summaries, None)
        tables.write(records, compared, f"ResNet20, sparsity {level:g}, step sizes tuned", where)
        files.write_text(where / "table.txt", tables.run_table(compared) + "\n")


def status(out: Path) -> str:
    """A line a run that has begun: rounds evaluated, and what was seen last."""
    lines = []
    for path in sorted(out.glob("*/*/*/*/metrics.jsonl"), key=lambda path: path.stat().st_mtime):
        last = (results.read_records(path.parent) or [{"round": 0}])[-1]
        seen = ", ".join(f"{name} {last[name]:.4f}" for name in ("train_loss", "test_accuracy") if name in last)
        done = "ended" if ended(path.parent) else "evaluated"
        lines.append(f"{path.parent.relative_to(out)}: {done}, round {last['round']} {seen}".rstrip())
    return "\n".join(lines or ["nothing has begun"])


@contextlib.contextmanager
def alone(plan: Layout, out: Path) -> Iterator[None]:
    """Nothing else is at work in ``out`` meanwhile, and it was begun by such a plan; methods and grids may grow.

    Raises:
      ValueError: where it is not so.
    """
    now = {"problem": plan.problem, "rounds": [plan.pilot, plan.whole], "evaluate_every": plan.evaluate_every}
    out.mkdir(parents=True, exist_ok=True)
    path = out / "plan.json"
    if not path.exists():
        files.write_json(path, now)
    if (before := files.read_json(path)) != now:
        raise ValueError(f"{out} was begun with {before}, now it is {now}; give another --out")
    with files.locked(out, path):
        yield


def main() -> int:
    """Do the next run that has not ended, and begin again as a new process, which has all memory back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--manual-dir", help="folder with cifar-10-binary.tar.gz, needed once")
    parser.add_argument("--data-dir", help="where prepared data are kept")
    parser.add_argument("--tiny", action="store_true", help="two methods on scikit-learn's digits, a minute")
    parser.add_argument("--status", action="store_true", help="tell how far it is, and do nothing")
    options = parser.parse_args()
    plan = TINY if options.tiny else FULL
    if options.status:
        print(status(options.out))
        return 0
    data = [word for name in ("manual_dir", "data_dir") if (v := getattr(options, name)) for word in (flag(name), v)]
    with alone(plan, options.out):
        gather(plan, options.out)
        every = (run for case in cases(plan) for run in runs(plan, options.out, *case))
        run = next((run for run in every if not ended(run.folder)), None)
        if run is None:
            return 0
        print(f"cifar_resnet20: {run.folder.relative_to(options.out)}", file=sys.stderr, flush=True)
        code = command(arguments(run, data))
    if code not in (0, 3) or not ended(run.folder):  # 3: it diverged, which is a result
        return code or 1
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, sys.orig_argv)


def flag(name: str) -> str:
    """``--manual-dir`` of ``manual_dir``."""
    return f"--{name.replace('_', '-')}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        print(f"cifar_resnet20.py: error: {error}", file=sys.stderr)
        sys.exit(2)
