"""Mutation testing of the mathematics: would a test notice a small change of the code?

    pip install cosmic-ray
    python benchmarks/mutation.py --sample 60 --seed 0 --out benchmarks/results/mutation/mutants.jsonl

A mutant is a copy of the package with one change by an operator of cosmic-ray: another arithmetic or comparison, a
number one more or less, a condition negated, a decorator gone. It is judged by the tests that should see it
(``mutation_tests.py``, the cheapest first, one process each), and survives where all pass. Sites are drawn evenly, and
one change of each. Left out is what no test need notice: annotations, docstrings, what is no Python, bit operations for
arithmetic and ``is`` for ``==``, which fail by their type. Started again with the same ``--out`` it goes on where it
was.

    python benchmarks/mutation.py --named --out benchmarks/results/mutation/named.jsonl

judges the mutants of ``named_mutants.py`` instead, by ``tests/algorithms/test_identities.py`` alone.
"""

import argparse
import difflib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from mutation_tests import IDENTITIES, TESTS
from named_mutants import NAMED

REPOSITORY = Path(__file__).parents[1]
ARITHMETIC, BITS = {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}, {"RShift", "LShift", "Bit"}
SIGNS = {"parameters", "typedargslist", "dictorsetmaker"}
"""Where a star is no operator."""


class Mutant(NamedTuple):
    """One change: in ``module``, by the ``occurrence``-th of an operator, and the line (from 1) it is in."""

    module: str
    operator: str
    occurrence: int
    line: int


def mutants(module: str) -> dict[tuple, list[Mutant]]:
    """All of a module, by the place that is changed."""
    code = source(module)
    nodes, found = list(ast_nodes(get_ast(code))), {}
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or foolish(name):
            continue
        places = ((node, place) for node in nodes for place in operator().mutation_positions(node))
        for occurrence, (node, place) in enumerate(places):
            sign = node.parent.type in SIGNS
            if not annotates(node) and not (sign and not compiles(mutate_code(code, operator(), occurrence))):
                found.setdefault(place, []).append(Mutant(module, name, occurrence, place[0][0]))
    return found


@cache
def source(module: str) -> str:
    """Its text, as it was when this began."""
    return (REPOSITORY / "sps_jax" / f"{module}.py").read_text(encoding="utf-8")


def foolish(operator: str) -> bool:
    """Whether it makes of arithmetic or equality what can only fail by its type."""
    was, _, now = operator.partition("Operator_")[2].partition("_")
    return bool(now) and ((was in ARITHMETIC and now.startswith(tuple(BITS))) or ("Is" in now and "Is" not in was))


def annotates(node: Any) -> bool:
    """Whether it is part of an annotation."""
    while node.parent is not None:
        above = node.parent
        if above.type == "annassign" and above.children[1] is node:
            return True
        if (above.type == "param" and above.annotation is node) or (
            above.type == "tfpdef" and above.children[2] is node
        ):
            return True
        if above.type == "funcdef" and above.annotation is node:
            return True
        node = above
    return False


def compiles(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def drawn(sample: int, seed: int) -> list[Mutant]:
    """``sample`` mutants, each at a place of its own."""
    generator = random.Random(seed)
    places = [(place, some) for module in sorted(TESTS) for place, some in sorted(mutants(module).items())]
    return [generator.choice(some) for _, some in generator.sample(places, min(sample, len(places)))]


class Trial(NamedTuple):
    """A mutant to be judged: what names it in the records, the module, its text with the change, and the tests."""

    named: dict[str, Any]
    module: str
    changed: str
    tests: list[str]


def trials(options: argparse.Namespace) -> list[Trial]:
    """What is asked for: the named mutants, or a sample."""
    if options.named:
        return [Trial(one._asdict(), one.module, one.applied(source(one.module)), [IDENTITIES]) for one in NAMED]
    return [
        Trial(one._asdict(), one.module, mutated(one), TESTS[one.module]) for one in drawn(options.sample, options.seed)
    ]


def mutated(mutant: Mutant) -> str:
    """The text of its module with the change."""
    return mutate_code(source(mutant.module), get_operator(mutant.operator)(), mutant.occurrence)


def judged(trial: Trial, folder: Path, limit: int) -> dict[str, Any]:
    """What became of a mutant in ``folder``, a copy of the repository: which tests failed on it."""
    path, code = folder / "sps_jax" / f"{trial.module}.py", source(trial.module)
    lines = difflib.unified_diff(code.splitlines(), trial.changed.splitlines(), n=0, lineterm="")
    change = [line for line in lines if re.match(r"[-+](?![-+]{2} )", line)]
    path.write_text(trial.changed, encoding="utf-8")
    began, by, first = time.monotonic(), None, ""
    try:
        for tests in trial.tests:
            if first := failure(tests, folder, limit):
                by = tests
                break
    finally:
        path.write_text(code, encoding="utf-8")
    outcome = {"killed": by is not None, "by": by, "failure": first, "seconds": round(time.monotonic() - began, 1)}
    return trial.named | {"change": change} | outcome


def failure(tests: str, folder: Path, limit: int) -> str:
    """The first of the tests that fails, or how it ended; nothing where all pass."""
    file, _, some = tests.partition(" -k ")
    chosen = ["-k", some.replace("_or_", " or ")] if some else []
    command = [sys.executable, "-P", "-m", "pytest", file, *chosen, "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command += ["--no-header", "--tb=no", "--hypothesis-seed=0"]
    most = partial(resource.setrlimit, resource.RLIMIT_CPU, (limit, limit))  # of the processor: the machine may be busy
    pipes = {"capture_output": True, "text": True, "preexec_fn": most}
    done = subprocess.run(command, cwd=folder, env=environment(folder), **pipes)
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "took too long"
    if done.returncode == 0:
        return ""
    if done.returncode == 5:
        raise ValueError(f"no tests: {tests}")
    named = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return named[0][:160] if named else f"status {done.returncode}"


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def untouched(tests: set[str], folder: Path, limit: int) -> None:
    """Raise where one of the tests fails on the package as it is."""
    for some in sorted(tests):
        if first := failure(some, folder, limit):
            raise SystemExit(f"{some} fails without a mutant: {first}")


def copies() -> Iterator[Path]:
    """A copy of what the tests need, with the data beside it."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "repository"
        for name in ("sps_jax", "tests"):
            shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(REPOSITORY / name, folder / name)
        (Path(work) / "shared").symlink_to(REPOSITORY.parent / "shared")
        yield folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--named", action="store_true", help="the mutants of named_mutants.py instead of a sample")
    parser.add_argument("--limit", type=int, default=240, help="seconds of a core that a process of tests may take")
    parser.add_argument("--check", action="store_true", help="run all tests once without a mutant before")
    parser.add_argument("--again", action="store_true", help="judge survivors that are there already once more")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    kept, chosen = [one for one in known if one["killed"] or not options.again], trials(options)
    for folder in copies():
        if options.check:
            untouched({some for trial in chosen for some in trial.tests}, folder, options.limit)
        options.out.write_text("".join(json.dumps(one) + "\n" for one in kept))
        for trial in chosen:
            if not any(trial.named.items() <= one.items() for one in kept):
                kept.append(judged(trial, folder, options.limit))
                with options.out.open("a") as file:
                    file.write(json.dumps(kept[-1]) + "\n")
                name = trial.named.get("name", f"{trial.module}:{trial.named.get('line')}")
                print(f"{'killed' if kept[-1]['killed'] else 'SURVIVED'} {name}", flush=True)
    killed = sum(one["killed"] for one in kept)
    print(f"{killed} of {len(kept)} mutants killed, {killed / len(kept):.1%}")


if __name__ == "__main__":
    main()
