"""The README is held to: its examples run, and its tables are those of the code (``python tests/test_readme.py``)."""

import json
import re
from pathlib import Path

import pytest

from sps_jax.cli.list import summaries

PATH = Path(__file__).parents[1] / "README.md"
README = PATH.read_text(encoding="utf-8")
HEADS = {"algorithms": "algorithm", "problems": "problem", "criteria": "criterion", "structures": "structure"}
TABLE = r"\| {} \| what it is \|\n\|---\|---\|\n(?:\|.*\n)*"


def table(kind: str) -> str:
    """The table of a kind, from the first sentences of docstrings."""
    escaped = {name: words.replace("|", r"\|") for name, words in summaries()[kind].items()}
    rows = [f"| `{name}` | {words} |\n" for name, words in escaped.items()]
    return f"| {HEADS[kind]} | what it is |\n|---|---|\n" + "".join(rows)


def section(heading: str) -> str:
    return README.split(f"## {heading}\n")[1].split("\n## ")[0]


def examples(*headings: str) -> str:
    """The Python blocks of these sections, one after the other."""
    return "\n".join(
        block for each in headings for block in re.findall(r"```python\n(.*?)```", section(each), re.DOTALL)
    )


def test_python_example_runs(capsys):
    exec(compile(examples("In Python"), "README.md", "exec"), {})
    accuracy, bits, control = map(float, capsys.readouterr().out.splitlines()[0].split())
    assert 0.5 < accuracy <= 1
    assert bits > 0
    assert control < 1e-3


OWN = [f"Your own {what}" for what in ("data", "model", "algorithm", "sparsifier")]


@pytest.mark.slow
def test_examples_of_ones_own_run_and_learn(capsys):
    exec(compile("import jax\nimport sps_jax as sps\n" + examples(*OWN), "README.md", "exec"), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 1 + 1 + 3 + 1
    assert all(float(line[-1]) > 0.8 for line in lines)


def test_no_example_is_left_out():
    assert README.count("```python") == sum(section(each).count("```python") for each in ("In Python", *OWN))


@pytest.mark.parametrize("kind", HEADS)
def test_tables_are_those_of_the_code(kind):
    assert re.findall(TABLE.format(HEADS[kind]), README) == [table(kind)], "run: python tests/test_readme.py"


def test_speed_table_is_of_the_committed_figures(monkeypatch):
    """``benchmarks/speed.py``'s table of its result file, letter by letter."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(benchmarks)
    speed = pytest.importorskip("speed")
    lines = (benchmarks / "results" / "speed" / "speed.jsonl").read_text().splitlines()
    assert speed.table([json.loads(line) for line in lines]) in README


if __name__ == "__main__":
    for kind, head in HEADS.items():
        README = re.sub(TABLE.format(head), lambda _, kind=kind: table(kind), README)
    PATH.write_text(README, encoding="utf-8")
