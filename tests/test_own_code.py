"""One's own method, problem and criterion on the command line: what they leave, their options, what a slip gets."""

import json
from importlib.metadata import EntryPoint

import pytest

from sps_jax.cli import catalogue
from sps_jax.results.files import read_jsonl

HELPER = "SCALE = 1.0\n"
MINE = '''
"""A method, a problem and a criterion."""

from __future__ import annotations

from typing import Annotated

import jax
import numpy as np
import sps_jax as sps
from helper import SCALE


def method(*, stepsize, prob, pull: Annotated[float, sps.Range(-1, 1)] = 0.25, seasoning: str = "salt"):
    """FedAvg whose server stays behind.

    Args:
      stepsize: gamma.
      prob: p.
      pull: how far the server stays behind, from -1 to 1.
      seasoning: nobody tastes it.
    """

    def serve(server, mean, info):
        return jax.tree.map(lambda s, m: m + SCALE * pull * (s - m), server, mean)

    return sps.Algorithm(move=sps.descend(stepsize), serve=serve)


def sparse(*, stepsize, prob, sparsity, prune=sps.topk):
    return sps.pruned(method(stepsize=stepsize, prob=prob, pull=0.0), prune, sparsity, uplink=True)


def make(*, clients: int = 4, shift: float = 0.0, data_seed: int = 0):
    """Two classes.

    Args:
      clients: n.
      shift: where they part.
    """
    draw = np.random.default_rng(data_seed)
    x = draw.normal(size=(80, 5))
    return sps.from_arrays(x, (x[:, 0] > shift).astype(int), np.arange(80) % clients, test=0.2)


def score(params, gradient, *, power=1.0):
    """Args:
      power: of a weight.
    """
    return jax.tree.map(lambda w: abs(w) ** power, params)


def forgetful(*, stepsize, prob):
    sps.fedavg(stepsize=stepsize, prob=prob)


def mistaken(*, stepsize, prob):
    def send(x, h, b, gradient, info):
        return x["nope"]

    return sps.fedavg(stepsize=stepsize, prob=prob)._replace(send=send)


def greedy(*everything):
    return sps.gd(stepsize=0.1)


def unscored(params):
    return params


def no_problem(*, clients: int = 4):
    return {"clients": clients}


ready = sps.fedavg(stepsize=0.1, prob=0.5)
'''
SLIPPED = MINE.splitlines().index('        return x["nope"]') + 1
FILES = {"helper.py": HELPER, "mine.py": MINE, "torn.py": "def f(:\n", "fails.py": "\nx = 1 / 0\n"}
FILES |= {"uses.py": "\nimport torn\n", "leaves.py": "import sys\n\nsys.exit(3)\n"}
OWN = ("--algorithm", "gd", "mine.py:method", "--problem", "mine.py:make", "--rounds", "4", "--quiet")


@pytest.fixture
def here(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.slow
def test_a_method_a_problem_and_a_criterion_of_ones_own(here, command):
    """In one run; records and table name them by the functions; what was run is hashed with what it imports."""
    said = command("run", "--algorithm", "mine.py:method", "--help").stdout
    assert "how far the server stays behind, from -1 to 1" in " ".join(said.replace("│", " ").split())
    assert "--seasoning" in said
    done = command("run", *OWN, "--pull", "-0.5", "--shift=0.3", "--clients", "5", "--out", "out")
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(here / "out" / "metrics.jsonl")
    assert {(row["algorithm"], row["problem"], row.get("pull")) for row in rows} == {
        ("gd", "make", None),
        ("method", "make", -0.5),
    }
    config = json.loads((here / "out" / "config.json").read_text())
    assert sorted(config["sources"]) == [str(here / "helper.py"), str(here / "mine.py")]
    assert config["settings"]["algorithm"] == ["gd", str(here / "mine.py:method")]
    assert "method" in command("table", "out").stdout
    again = command("run", "--config", "out/config.json", "--quiet", "--out", "again")
    assert again.returncode == 0, again.stderr
    assert (here / "again" / "metrics.jsonl").read_bytes() == (here / "out" / "metrics.jsonl").read_bytes()
    pruned = ("--problem", "quadratic", "--algorithm", "mine.py:sparse", "--criterion", "mine.py:score")
    done = command("run", *pruned, "--power", "2", "--rounds", "2", "--quiet", "--out", "b")
    assert done.returncode == 0, done.stderr


def test_another_power_is_another_sparsifier_and_the_same_power_the_same():
    def score(params, gradient, *, power=1.0):
        return [w**power for w in params]

    score.shared = True
    make = catalogue.scored(score)
    assert make(power=2.0) is make(power=2.0) and make(power=2.0) is not make(power=3.0)
    assert make(power=2.0).shared and make() is score


@pytest.mark.slow
def test_a_run_goes_on_with_the_file_it_was_begun_with_and_with_no_other(here, shell):
    """Resumed from another folder; refused when the file, or what it imports, has changed or gone."""
    done = shell("run", *OWN, "--checkpoint-every", "2", "--out", "out")
    assert done.returncode == 0, done.stderr
    summary = (here / "out" / "summary.json").read_bytes()
    (here / "out" / "checkpoints" / "finished.jsonl").write_text("")
    again = shell("resume", "out", "--quiet")
    assert again.returncode == 0, again.stderr
    assert [row["final"] for row in json.loads(summary)] == [
        row["final"] for row in json.loads((here / "out" / "summary.json").read_bytes())
    ]
    for name, change, says in (
        ("helper.py", "SCALE = 2.0\n", "has changed since this was begun: change it back, or start anew"),
        ("mine.py", None, "with which this was begun, is missing: put it back, or start anew"),
    ):
        if change is None:
            (here / name).unlink()
        else:
            (here / name).write_text(change)
        done = shell("resume", "out")
        assert done.returncode == 2 and done.stderr == f"sps-jax: error: {here / name}{' ' if change else ', '}{says}\n"
        (here / name).write_text(FILES[name])


@pytest.mark.slow
def test_a_sweep_takes_lists_of_ones_own_numbers_and_refuses_a_changed_file(here, command):
    few = ("sweep", *OWN, "--pull", "0", "0.5", "--stepsize", "0.1", "--out", "out")
    done = command(*few)
    assert done.returncode == 0, done.stderr
    points = read_jsonl(here / "out" / "summary.jsonl")
    assert [(p["algorithm"], p.get("pull")) for p in points] == [("gd", None), ("method", 0.0), ("method", 0.5)]
    (here / "mine.py").write_text(MINE + "\n# changed\n")
    done = command(*few)
    assert done.returncode == 2 and "mine.py has changed since this was begun" in done.stderr


SLIPS = {
    "no file": ("--algorithm", "none.py:f", "there is no file {here}/none.py"),
    "no name": ("--algorithm", "mine.py:mehtod", "unknown name in {here}/mine.py 'mehtod': did you mean 'method'?"),
    "a file alone": ("--problem", "mine.py", "{here}/mine.py is a file: name a function in it, {here}/mine.py:NAME."),
    "no Python": ("--algorithm", "torn.py:f", "{here}/torn.py cannot be imported: line 1: SyntaxError: invalid syntax"),
    "torn beside it": (
        "--algorithm",
        "uses.py:f",
        "uses.py cannot be imported: line 2: SyntaxError: invalid syntax (torn",
    ),
    "leaves": ("--algorithm", "leaves.py:f", "leaves.py cannot be imported: line 3: SystemExit: 3"),
    "an error in it": ("--problem", "fails.py:f", "fails.py cannot be imported: line 2: ZeroDivisionError"),
    "made already": ("--algorithm", "mine.py:ready", "mine.py:ready is an Algorithm, not a function that returns an"),
    "no names": (
        "--algorithm",
        "mine.py:greedy",
        "takes *everything, but a function that returns an sps_jax.Algorithm",
    ),
    "no return": ("--algorithm", "mine.py:forgetful", "forgetful must return an sps_jax.Algorithm, not None: is its"),
    "no criterion": ("--criterion", "mine.py:unscored", "is not a criterion: it must take (params, gradient), then"),
    "no problem": ("--problem", "mine.py:no_problem", "no_problem must return an sps_jax.Problem, not a dict"),
    "inside": ("--algorithm", "mine.py:mistaken", "mine.py, line {line}, in send: KeyError: 'nope'"),
    "out of range": ("--algorithm", "mine.py:method", "--pull", "-2", "pull must be in [-1, 1], not -2"),
    "two of a name": ("--algorithm", "mine.py:method", "./mine.py:method", "each only once, not:"),
}


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_gets_one_sentence_status_2_and_leaves_nothing(case, here, command):
    *arguments, says = SLIPS[case]
    done = command("run", *arguments, "--rounds", "2", "--quiet", "--out", "out")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (here / "out").exists()
    assert last.startswith("sps-jax: error: ") and says.format(here=here, line=SLIPPED) in last
    assert (len(done.stderr.splitlines()) == 1) != (case == "inside")  # where his own lines precede it


def test_installed_packages_add_methods(monkeypatch, command):
    """Through their entry points; one that cannot be loaded is named when it is asked for, and spoils nothing else."""
    found = [EntryPoint("theirs", "sps_jax.algorithms.gd:gd", catalogue.GROUP)]
    found += [EntryPoint("lost", "sps_jax.nowhere:gd", catalogue.GROUP)]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: found)
    table = catalogue.Table("algorithm", {"gd": print}, catalogue.GROUP)
    assert list(table) == ["gd", "theirs"] and table["theirs"].__name__ == "gd" and "lost" in table
    with pytest.raises(ValueError, match=r"algorithm lost of the package sps_jax.nowhere:gd is of no use: No module"):
        table["lost"]
    with pytest.raises(ValueError, match="unknown algorithm 'their': did you mean 'theirs'"):
        table["their"]
