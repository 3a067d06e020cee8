"""``import sps_jax`` is quick, and the rest is found from it."""

import ast
import importlib
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import sps_jax as sps

PROGRAM = """
import json, sys
import sps_jax as sps
heavy = {"tensorflow_datasets", "matplotlib", "pandas", "pyarrow", "sklearn", "orbax", "tyro", "flax", "PIL"}
heavy = sorted(heavy & set(sys.modules))
later = [sps.problems.__name__, sps.results.__name__, sps.tables.__name__, sps.plots.__name__]
print(json.dumps([heavy, later]))
"""


@pytest.mark.slow
def test_what_is_heavy_is_imported_when_it_is_asked_for():
    """A process of its own; ``sps-jax doctor`` tells how long the import takes."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    heavy, later = json.loads(done.stdout)
    assert heavy == []
    assert later == ["sps_jax.problems", "sps_jax.results", "sps_jax.results.tables", "sps_jax.results.plots"]


def test_names():
    assert set(sps.__all__) | {"problems", "results", "tables", "plots"} <= set(dir(sps))
    with pytest.raises(AttributeError, match="no attribute 'problem_s'"):
        getattr(sps, "problem_s")  # noqa: B009


def test_pictures_are_figures_or_files(tmp_path):
    """The same picture, returned always and written where a path is given."""
    history = {"round": np.arange(1, 4), "test_accuracy": np.array([0.1, 0.5, 0.7])}
    runs = {"fedavg": [sps.results.records(history)] * 2}
    figure = sps.plots.curves(runs, "test_accuracy", "round", "A title", tmp_path / "curves.png")
    assert isinstance(figure, Figure) and (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    cells = np.array([[0.1, np.nan]])
    figure = sps.plots.heat_map(cells, ("p", [0.1]), ("stepsize", [1.0, 2.0]), "A title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.1", "diverged"]
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


REPOSITORY = Path(sps.__file__).parents[1]
SCRIPTS = sorted((REPOSITORY / "benchmarks").rglob("*.py"))
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def code(path):
    """The Python of a script, or of the cells of a notebook that are no commands of the shell."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return text
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return "\n".join(re.sub(r"^( *)[%!].*", r"\1pass", cell, flags=re.MULTILINE) for cell in cells)


@pytest.mark.parametrize("path", [*SCRIPTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_scripts_and_notebooks_use_names_that_the_package_has(path):
    """What they import from the package, and what they ask of its modules; nothing of them is run."""
    tree, modules, lost = ast.parse(code(path)), {"sps": sps}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sps_jax":
            for alias in node.names:
                module, full = importlib.import_module(node.module), f"{node.module}.{alias.name}"
                if hasattr(module, "__path__") and find_spec(full):
                    modules[alias.asname or alias.name] = importlib.import_module(full)
                elif not hasattr(module, alias.name):
                    lost.append(full)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            lost += [] if hasattr(modules[node.value.id], node.attr) else [f"{node.value.id}.{node.attr}"]
    assert lost == []
