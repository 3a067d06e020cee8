"""The README is held to: its examples run, and its tables are those of the code (``python tests/test_readme.py``)."""

import importlib
import inspect
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sps_jax import results
from sps_jax.algorithms import ALGORITHMS
from sps_jax.cli.list import summaries

REPOSITORY = Path(__file__).parents[1]
PATH = REPOSITORY / "README.md"
README = PATH.read_text(encoding="utf-8")
LINES = 195
"""Of the README, at most."""
ARXIV = r"arXiv (\d{4}\.\d{5})"
PMLR = r"PMLR (v\d+/\w+)"
METHODS = r"\| method \| what it is \|.*\n\|(?:---\|)+\n(?:\|.*\n)*"
SPEED = r"\| system \|.*\n\|(?:---\|)+\n(?:\|.*\n)*"


def paper(make) -> str:
    """A link to the first arXiv number of a method's docstring, or of its module's, else to its page of PMLR."""
    texts = "\n".join(inspect.getdoc(each) or "" for each in (make, inspect.getmodule(make)))
    for number in re.findall(ARXIV, texts):
        return link(number, f"https://arxiv.org/abs/{number}")
    for page in re.findall(PMLR, texts):
        return link(f"PMLR {page}", f"https://proceedings.mlr.press/{page}.html")
    return ""


def without_paper(words: str) -> str:
    """A summary without its paper, which has a column of its own."""
    words = re.sub(rf",? ?(?:{ARXIV}|{PMLR})", "", words)
    return words.replace(" ()", "").replace("|", r"\|")


def notebook_of(name: str) -> Path | None:
    """The first notebook whose code names a method."""
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        if re.search(rf"\b{name}\b", code):
            return path
    return None


def here(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def link(text: str, address: str) -> str:
    return f"[{text}]({address})"


def methods_table() -> str:
    """A row per file, all of it read off the code."""
    rows = ["| method | what it is | paper | source | notebook |", "|---|---|---|---|---|"]
    for source, methods in itertools.groupby(summaries()["algorithms"].items(), lambda item: source_of(item[0])):
        names, words = zip(*methods, strict=True)
        notebooks = [path for path in map(notebook_of, names) if path]
        cells = (
            lines(f"`{name}`" for name in names),
            lines(map(without_paper, words)),
            lines(paper(ALGORITHMS[name]) for name in names) or "-",
            link(source.name, here(source)),
            lines(link(path.stem[:2], here(path)) for path in notebooks) or "-",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def source_of(name: str) -> Path:
    return Path(inspect.getsourcefile(ALGORITHMS[name])).resolve()


def lines(texts) -> str:
    """The texts in a cell of a table, one under the other, each once."""
    return "<br>".join(dict.fromkeys(texts))


def all_systems() -> str:
    """``benchmarks/speed.py``'s table of its result file."""
    benchmarks = REPOSITORY / "benchmarks"
    sys.path.insert(0, str(benchmarks))
    try:
        speed = importlib.import_module("speed")
    finally:
        sys.path.remove(str(benchmarks))
    lines = (benchmarks / "results" / "speed" / "speed.jsonl").read_text().splitlines()
    return speed.table([json.loads(line) for line in lines])


def speed_table() -> str:
    """Three rows of :func:`all_systems`: sps_jax, the fastest of the others at each job, Flower."""
    head, rule, *rows = all_systems().splitlines()
    systems = {name: cells for name, *cells in ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)}
    ours = systems.pop("sps_jax")
    jobs = range(len(ours))
    fastest = [max((rate(cells[i]), f"{cells[i]} {name}") for name, cells in systems.items())[1] for i in jobs]
    shown = {"sps_jax": ours, f"fastest of {len(systems)} others": fastest, "Flower": systems["flower_fedavg"]}
    return "\n".join([head, rule, *(f"| {name} | {' | '.join(cells)} |" for name, cells in shown.items())]) + "\n"


def rate(cell: str) -> float:
    """The number that a cell of the speed table begins with, 0 for a dash."""
    return float(cell.split()[0].replace(",", "")) if cell != "-" else 0.0


def section(heading: str) -> str:
    return README.split(f"## {heading}\n")[1].split("\n## ")[0]


def examples(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def ran(heading: str, capsys) -> list[list[str]]:
    """The words of each line that the one Python block of a section prints; it may use the imports of the first."""
    (block,) = examples(section(heading))
    exec(compile("import jax\nimport sps_jax as sps\n" + block, "README.md", "exec"), {})
    return [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_python_example_runs(capsys):
    first, *points = ran("In Python", capsys)
    accuracy, bits, control = map(float, first)
    assert 0.5 < accuracy <= 1
    assert bits > 0
    assert control < 1e-3
    assert len(points) == 2 * 2 * 2


def test_python_example_has_at_most_twelve_lines():
    (block,) = examples(section("In Python"))
    assert len(block.splitlines()) <= 12


@pytest.mark.slow
def test_example_of_ones_own_runs_and_learns(capsys):
    ((accuracy,),) = ran("Your own data, model, method and sparsifier", capsys)
    assert float(accuracy) > 0.8


def test_no_example_is_left_out():
    assert README.count("```python") == len(examples(README)) == 2


def test_methods_are_those_of_the_code():
    assert re.findall(METHODS, README) == [methods_table()], "run: python tests/test_readme.py"


def test_every_method_but_gradient_descent_has_a_paper():
    assert [name for name, make in ALGORITHMS.items() if not paper(make)] == ["gd"]


def test_speed_is_of_the_committed_figures():
    assert re.findall(SPEED, README) == [speed_table()], "run: python tests/test_readme.py"
    assert all_systems() in (REPOSITORY / "benchmarks/results/speed/speed.txt").read_text()


def test_results_of_the_first_command_are_the_committed_ones():
    assert (REPOSITORY / "benchmarks/results/digits/table.txt").read_text() in README


def test_headline_is_of_the_committed_figures():
    """The bits and levels of the promise, from the tables that ``benchmarks/paper/headline.py`` left."""
    folder = REPOSITORY / "benchmarks/results/paper/headline"
    bits, levels = ((folder / f"femnist_digits{kind}.txt").read_text() for kind in ("_bits", ""))
    times = re.findall(r"^(?:fedavg_)?server_pruning .* ([\d.]+), ([\d.]+)$", bits, re.MULTILINE)
    times = [float(one) for pair in times for one in pair]
    level = {name: 100 * float(end) for name, end in re.findall(r"^(\w+)  .*? (0\.\d{4}) \+-", levels, re.MULTILINE)}
    dense, _ = level.pop("proxskip"), level.pop("fedavg")
    own, _ = level.pop("sparse_proxskip"), level.pop("sparse_proxskip_local")  # the second is no baseline
    promise = " ".join(README.split("## ")[0].split())
    assert f"with {min(times):.0f} to {max(times):.0f} times fewer uplink bits" in promise
    best = max(level.values())
    assert (
        f"{own:.1f} % where the best baseline that prunes has {best:.1f} % and dense ProxSkip {dense:.1f} %" in promise
    )


def test_the_number_of_methods():
    assert f"compare {len(ALGORITHMS)} of them" in " ".join(section("Is it for you?").split())


@pytest.mark.slow
def test_why_dense_messages_can_need_fewer_bits(tmp_path):
    """What is told of the first command's table: rounds and bits of dense and sparse ProxSkip to two levels."""
    algorithms = ["sparse_proxskip", "proxskip", "fedavg_client_pruning"]
    arguments = ["run", "--quiet", "--out", str(tmp_path / "out"), "--algorithm", *algorithms]
    subprocess.run([sys.executable, "-m", "sps_jax", *arguments], check=True, capture_output=True, timeout=300)
    records = results.read_records(tmp_path / "out")
    runs = {name: [r for r in records if r["algorithm"] == name] for name in algorithms}
    weakest = runs["fedavg_client_pruning"][-1]["test_accuracy"]

    def first(name, level):
        return next(r for r in runs[name] if r["test_accuracy"] >= level)

    told = " ".join(section("Two commands").split())
    assert f"Dense `proxskip` needs fewer bits to {weakest:.4f}" in told
    assert f"which ends at {runs['proxskip'][-1]['test_accuracy']:.4f}" in told
    dense, sparse = first("proxskip", weakest), first("sparse_proxskip", weakest)
    assert f"the {dense['round']}th dense round" in told and f"the sparse method needs {sparse['round']}" in told
    assert dense["uplink_bits"] < sparse["uplink_bits"]
    megabits = [first(name, 0.8)["uplink_bits"] / 1e6 for name in ("sparse_proxskip", "proxskip")]
    assert f"To 0.80 it is the other way round, {megabits[0]:.2f} Mbit against {megabits[1]:.2f}" in told


def test_readme_is_short():
    assert len(README.splitlines()) <= LINES


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!http)([^)]+)\)", README))))
def test_links_lead_somewhere(path):
    assert (REPOSITORY / path).exists()


if __name__ == "__main__":
    for pattern, made in ((METHODS, methods_table()), (SPEED, speed_table())):
        README = re.sub(pattern, lambda _, made=made: made, README)
    PATH.write_text(README, encoding="utf-8")
