"""The rooms of the house and who may import whom, read off the source without running it.

A folder, or a module beside them, imports what lies on lower floors, and its own folder.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sps_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"errors", "tree"},
    {"results", "layout"},
    {"compression", "models", "datasets"},
    {"problem", "algorithms"},
    {"simulation"},
    {"problems"},
    {"runs"},
    {"sps_jax"},  # the package itself: its face
    {"cli"},
    {"__main__"},
]
BELOW = {room: set().union(*FLOORS[:i]) for i, floor in enumerate(FLOORS) for room in floor}
BELOW |= {"problem": BELOW["problem"] | {"algorithms"}, "results": {"errors"}}
EVERYWHERE = {"sps_jax.runs.environment"}  # read before JAX is imported, so by the face of the package
RESERVED = {
    "tensorflow_datasets": {"datasets"},
    "flax": {"models"},
    "matplotlib": {"results"},
    "tyro": {"cli"},
    "msgspec": {"cli"},
}
JITTED = {"simulation.simulate", "simulation.step", "simulation.stream"}

LINES = 250
PARAMETERS = 7
FACE = "what a user says of a simulation, each by its name"
MANY = {
    "simulate": FACE,
    "stream": FACE,
    "sweep": FACE,
    "from_arrays": "what a user says of data, each by its name",
}


def name_of(path: Path) -> str:
    """``algorithms.base`` of ``sps_jax/algorithms/base.py``; a folder's ``__init__`` has the folder's name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts[1:] or parts)


def imports(source: str) -> set[str]:
    """Full names of all that ``source`` imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = f"{'.' * node.level}{node.module or ''}"
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def breaches(source: str, module: str) -> list[str]:
    """What ``module`` does that it may not."""
    room, found = module.split(".")[0], []
    for name in sorted(imports(source)):
        head, *parts = name.split(".")
        if head == "":
            found.append(f"{module} imports {name}: give the full name")
        elif head != "sps_jax":
            if room not in RESERVED.get(head, {room}):
                found.append(f"{module} imports {name}, which only {', '.join(RESERVED[head])} may")
        else:
            theirs = parts[0] if parts and parts[0] in BELOW else "sps_jax"
            allowed = theirs == room or theirs in BELOW[room] or ".".join([head, *parts]) in EVERYWHERE
            if not allowed:
                found.append(f"{module} imports {name}, which lies on no lower floor")
    if module not in JITTED:
        for node in ast.walk(ast.parse(source)):
            attribute = isinstance(node, ast.Attribute) and node.attr == "jit"
            imported = isinstance(node, ast.ImportFrom) and any(alias.name == "jit" for alias in node.names)
            if attribute or imported:
                found.append(f"{module}:{node.lineno} uses jit, which only {', '.join(sorted(JITTED))} may")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_to_its_floor(path):
    assert not breaches(path.read_text(encoding="utf-8"), name_of(path))


def test_the_rooms():
    """Six modules at the top, nine folders, and nothing else."""
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {path.name for path in PACKAGE.glob("*.py")} == {
        f"{name}.py" for name in ("__init__", "__main__", "errors", "layout", "problem", "tree")
    }
    assert rooms == set(BELOW) - {"errors", "layout", "problem", "tree", "sps_jax", "__main__"} and len(rooms) == 9


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_short(path):
    """At most 250 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


def long_signatures(source: str) -> set[str]:
    """Functions with more than seven parameters."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            own = node.args
            named = [a.arg for a in (*own.posonlyargs, *own.args, *own.kwonlyargs) if a.arg not in ("self", "cls")]
            if len([*named, *filter(None, (own.vararg, own.kwarg))]) > PARAMETERS:
                found.add(node.name)
    return found


def test_a_function_has_few_parameters():
    """At most seven, or a reason in ``MANY``; a reason that is no longer needed goes."""
    assert set().union(*(long_signatures(path.read_text(encoding="utf-8")) for path in FILES)) == set(MANY)


@pytest.mark.parametrize(
    "module, source",
    [
        ("tree", "from sps_jax import problem"),
        ("compression.threshold", "from sps_jax.algorithms.base import Algorithm"),
        ("algorithms.gd", "from ..simulation import round"),
        ("algorithms.gd", "import sps_jax.problems"),
        ("datasets.libsvm", "from sps_jax.algorithms import base, gd"),
        ("problem", "def f():\n    from sps_jax.simulation.simulate import simulate"),
        ("simulation.round", "from sps_jax.runs import blocks"),
        ("simulation.round", "from sps_jax import __version__"),
        ("results.plots", "from sps_jax.problem import Problem"),
        ("runs.blocks", "from sps_jax.cli import main"),
        ("problem", "import tensorflow_datasets as tfds"),
        ("datasets.femnist", "from flax import nnx"),
        ("problems.femnist", "import flax.nnx"),
        ("simulation.history", "from matplotlib import pyplot as plt"),
        ("simulation.round", "import jax\n@jax.jit\ndef f(): ..."),
        (
            "simulation.round",
            "from functools import partial\nimport jax\n@partial(jax.jit, static_argnums=0)\ndef f(a): ...",
        ),
        ("simulation.round", "from jax import jit as compiled"),
    ],
)
def test_the_check_sees_a_breach(module, source):
    assert breaches(source, module)


@pytest.mark.parametrize(
    "module, source",
    [
        (
            "compression.threshold",
            "from sps_jax.errors import unknown\nfrom sps_jax.compression.bits import MessageFormat",
        ),
        ("algorithms.gd", "from sps_jax.algorithms import base\nimport jax"),
        ("simulation.simulate", "import jax\nfrom sps_jax.simulation.round import step\njax.jit(step)"),
        ("problems.digits", "from sps_jax.problems.dealing import deal\nfrom sps_jax import datasets"),
        ("results.plots", "import matplotlib.pyplot as plt\nfrom sps_jax.errors import unknown"),
        ("models.conv", "from flax import nnx"),
        ("__main__", "from sps_jax.cli.main import command"),
        ("cli.run", "from sps_jax import __version__\nfrom sps_jax.runs import blocks"),
        ("sps_jax", "from sps_jax.simulation.simulate import simulate"),
    ],
)
def test_the_check_lets_pass_what_is_allowed(module, source):
    assert not breaches(source, module)
