"""The README is held to: its example runs, and its tables name what there is."""

import json
import re
from pathlib import Path

import pytest

from sps_jax.algorithms import ALGORITHMS
from sps_jax.problems import PROBLEMS
from sps_jax.sparsify import CRITERIA, STRUCTURES

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_python_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    accuracy, bits, control = map(float, capsys.readouterr().out.splitlines()[0].split())
    assert 0.5 < accuracy <= 1
    assert bits > 0
    assert control < 1e-3


TABLES = {"Methods": ALGORITHMS, "Sparsifiers": [*CRITERIA, *STRUCTURES], "Problems": PROBLEMS}


@pytest.mark.parametrize("heading", TABLES)
def test_tables_name_what_there_is(heading):
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([\w:]+)` \|", section, re.MULTILINE) == list(TABLES[heading])


def test_speed_table_is_of_the_committed_figures(monkeypatch):
    """``benchmarks/speed.py``'s table of its result file, letter by letter."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(benchmarks)
    speed = pytest.importorskip("speed")
    lines = (benchmarks / "results" / "speed" / "speed.jsonl").read_text().splitlines()
    assert speed.table([json.loads(line) for line in lines]) in README
