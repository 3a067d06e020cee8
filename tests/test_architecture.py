"""Who may import whom: floors, read off the source without running it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sps_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {  # a module, or a folder with all its modules but those named by themselves
    "tree": 0,
    "errors": 0,
    "scalars": 0,
    "containers": 0,
    "files": 0,
    "checkpoint_leaves": 0,
    "stopping": 0,
    "processes": 0,
    "speech": 0,
    "start": 0,
    "streams": 0,
    "cohort": 1,
    "schedule": 1,
    "communication": 1,
    "quantize": 2,
    "sparsify": 2,
    "plan": 1,
    "stacking": 1,
    "algorithms.base": 2,
    "problem": 2,
    "algorithms": 3,
    "datasets": 3,
    "models": 3,
    "participation": 3,
    "engine": 4,
    "evaluation": 4,
    "hyperparameters": 4,
    "planning": 4,
    "history": 4,
    "simulation": 4,
    "streaming": 4,
    "sweeping": 4,
    "problems": 4,
    "arrays": 4,
    "results": 5,
    "checkpoint": 5,
    "plotting": 5,
    "report": 6,
    "testing": 6,
    "options": 6,
    "option_checks": 6,
    "from_options": 6,
    "experiment": 6,
    "journal": 6,
    "shared_journal": 6,
    "job": 6,
    "run_command": 6,
    "resume_command": 6,
    "sweep_command": 6,
    "sweep_options": 6,
    "comparison": 6,
    "show_command": 6,
    "list_command": 6,
    "data_command": 6,
    "doctor_command": 6,
    "cli": 6,
    "__main__": 6,
    "": 6,  # the package itself, whose __init__ may import anything
}
FOLDERS = {"sparsify", "algorithms", "datasets", "models", "problems"}
CEILING = {"results": 1, "checkpoint": 1, "plotting": 1}  # they know arrays and dicts, not algorithms
NEIGHBOURS = {("containers", "scalars")}
NEIGHBOURS |= {("simulation", name) for name in ("engine", "history", "hyperparameters", "planning")}
NEIGHBOURS |= {("planning", "engine"), ("planning", "hyperparameters")}
NEIGHBOURS |= {("evaluation", "engine"), ("simulation", "evaluation"), ("streaming", "evaluation")}
NEIGHBOURS |= {("history", "planning")}
NEIGHBOURS |= {("sweeping", name) for name in ("engine", "history", "hyperparameters", "planning", "simulation")}
NEIGHBOURS |= {("streaming", name) for name in ("engine", "history", "hyperparameters", "planning")}
NEIGHBOURS |= {("arrays", "problems"), ("arrays", "problems.losses"), ("arrays", "problems.supervised")}
NEIGHBOURS |= {("option_checks", "options"), ("option_checks", "from_options"), ("from_options", "options")}
NEIGHBOURS |= {(name, f"{end}options") for name in ("job", "run_command", "sweep_command") for end in ("", "from_")}
NEIGHBOURS |= {(name, "option_checks") for name in ("job", "sweep_command", "sweep_options")}
NEIGHBOURS |= {("run_command", name) for name in ("experiment", "journal", "report", "shared_journal")}
NEIGHBOURS |= {(name, "job") for name in ("run_command", "resume_command", "sweep_command", "doctor_command")}
NEIGHBOURS |= {("resume_command", name) for name in ("journal", "options", "run_command")}
NEIGHBOURS |= {("journal", "experiment"), ("shared_journal", "journal"), ("shared_journal", "experiment")}
NEIGHBOURS |= {("sweep_command", name) for name in ("run_command", "sweep_options")}
NEIGHBOURS |= {("sweep_options", "options"), ("cli", "sweep_options")}
NEIGHBOURS |= {("show_command", "comparison")}
NEIGHBOURS |= {("cli", name) for name in ("options", "resume_command", "run_command", "show_command", "sweep_command")}
NEIGHBOURS |= {("cli", name) for name in ("list_command", "data_command", "doctor_command")}
NEIGHBOURS |= {("doctor_command", "data_command"), ("processes", "start")}
NEIGHBOURS |= {("__main__", "cli")}
NEIGHBOURS |= {(name, "") for name in ("experiment", "run_command", "cli", "__main__")}  # for the version
RESERVED = {"tensorflow_datasets": "datasets", "flax": "models", "matplotlib": "plotting"}


def name_of(path: Path) -> str:
    """``algorithms.base`` of ``sps_jax/algorithms/base.py``; a folder's ``__init__`` has the folder's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in FILES}


def floor(module: str) -> int | None:
    return FLOORS.get(module, FLOORS.get(module.split(".")[0]))


def imports(source: str, module: str, is_folder: bool) -> set[str]:
    """Full names of all that ``source`` imports, at its top or inside functions, relative ones resolved."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["sps_jax", *filter(None, module.split("."))]
                up = node.level - 1 if is_folder else node.level
                base = ".".join(filter(None, [*here[: len(here) - up], base]))
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def internal(name: str) -> str | None:
    """The module of the package that an imported full name lies in, or None for another package's."""
    head, *parts = name.split(".")
    if head != "sps_jax":
        return None
    while parts and ".".join(parts) not in MODULES | set(FLOORS):
        parts.pop()
    return ".".join(parts)


def breaches(source: str, module: str, is_folder: bool = False) -> list[str]:
    """What ``module`` does that it may not."""
    if module == "":
        return []
    found = []
    own, folder = floor(module), module.split(".")[0]
    if own is None:
        return [f"{module} has no floor: give it one in FLOORS"]
    for name in sorted(imports(source, module, is_folder)):
        target = internal(name)
        if target is None:
            home = RESERVED.get(name.split(".")[0], folder)
            if home != folder:
                found.append(f"{module} imports {name}, which only {home} may")
            continue
        theirs = floor(target)
        if theirs is None:
            found.append(f"{module} imports {name}, which has no floor")
            continue
        same_folder = folder in FOLDERS and target.split(".")[0] == folder
        beside = theirs == own and (same_folder or (module, target) in NEIGHBOURS)
        if not (theirs < own or beside) or theirs > CEILING.get(folder, own):
            found.append(f"{module} (floor {own}) imports {name} (floor {theirs})")
    if module not in ("simulation", "streaming"):
        for node in ast.walk(ast.parse(source)):
            attribute = isinstance(node, ast.Attribute) and node.attr == "jit"
            imported = isinstance(node, ast.ImportFrom) and any(alias.name == "jit" for alias in node.names)
            if attribute or imported:
                found.append(f"{module}:{node.lineno} uses jit, which only simulation and streaming may")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_to_its_floor(path):
    assert not breaches(path.read_text(encoding="utf-8"), name_of(path), path.name == "__init__.py")


def test_the_package_was_found():
    assert {"tree", "errors", "problem", "engine", "simulation", "algorithms.base", "sparsify.threshold"} <= MODULES


@pytest.mark.parametrize(
    "module, source",
    [
        ("tree", "from sps_jax import errors"),
        ("sparsify.threshold", "from sps_jax.algorithms.base import Algorithm"),
        ("algorithms.base", "from sps_jax.algorithms.gd import gd"),
        ("algorithms.base", "from .gd import gd"),
        ("algorithms.gd", "from ..engine import step"),
        ("algorithms.gd", "import sps_jax.datasets"),
        ("datasets.libsvm", "from sps_jax.algorithms import base, gd"),
        ("problem", "def f():\n    from sps_jax.simulation import Simulation"),
        ("engine", "from sps_jax.simulation import Simulation"),
        ("engine", "from sps_jax import simulation"),
        ("engine", "from sps_jax import __version__"),
        ("problems.logistic", "from sps_jax import engine"),
        ("plotting", "from sps_jax.problem import Problem"),
        ("results", "from sps_jax import plotting"),
        ("experiment", "from sps_jax import cli"),
        ("problem", "import tensorflow_datasets as tfds"),
        ("datasets.femnist", "from flax import nnx"),
        ("problems.femnist", "import flax.nnx"),
        ("results", "from matplotlib import pyplot as plt"),
        ("engine", "import jax\n@jax.jit\ndef f(): ..."),
        ("engine", "from functools import partial\nimport jax\n@partial(jax.jit, static_argnums=0)\ndef f(a): ..."),
        ("engine", "from jax import jit as compiled"),
        ("surprise", "x = 1"),
    ],
)
def test_the_check_sees_a_breach(module, source):
    assert breaches(source, module)


@pytest.mark.parametrize(
    "module, source",
    [
        ("sparsify.threshold", "from sps_jax.errors import unknown\nfrom sps_jax.communication import Code"),
        ("algorithms.gd", "from sps_jax.algorithms import base\nfrom .fedavg import fedavg\nimport jax"),
        ("simulation", "import jax\nfrom sps_jax.engine import step\njax.jit(step)"),
        ("problems.logistic", "from sps_jax.problems.common import x\nfrom sps_jax import datasets"),
        ("plotting", "import matplotlib.pyplot as plt\nfrom sps_jax.communication import total_bits"),
        ("models.cnn", "from flax import nnx"),
        ("__main__", "from sps_jax.cli import command"),
        ("run_command", "from sps_jax import __version__, experiment, results"),
        ("", "from sps_jax.simulation import Simulation"),
    ],
)
def test_the_check_lets_pass_what_is_allowed(module, source):
    assert not breaches(source, module)
