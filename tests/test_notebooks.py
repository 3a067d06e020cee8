"""The notebooks run from top to bottom, and what is committed is what such a run left.

``python tests/test_notebooks.py [NAME ...]`` runs those whose names begin so, all without one, and writes them anew.
"""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NAMES = [
    "01_quickstart",
    "02_prune_at_the_clients",
    "03_write_an_algorithm",
    "04_sweeps",
    "05_reproduce_the_paper",
    "06_answers_to_the_reviewers",
    "07_scale",
]
VOLATILE = r"(/home/|/root/|/Users/|/tmp/|\b[A-Z]:\\)|\d%\|| object at 0x"
"""A path of somebody's machine, a progress bar, an address."""


def executed(path: Path, folder: Path):
    """The notebook, run in ``folder`` by this interpreter whatever kernels are installed; nothing volatile is kept.

    Raises:
      nbclient.exceptions.CellExecutionError: for a cell that fails.
    """
    import nbformat
    from ipykernel.kernelspec import write_kernel_spec
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as kernels:
        write_kernel_spec(Path(kernels) / "python3")
        manager = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[kernels]))
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=600,
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        quick = "--xla_backend_optimization_level=0"  # of the other tests: here programs run longer than they compile
        client.execute(env={k: v for k, v in os.environ.items() if quick not in v} | {"IPYTHONDIR": kernels})
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def rerun(path: Path, folder: Path, out: Path) -> None:
    """The notebook, run in ``folder``, written to ``out``."""
    import nbformat

    nbformat.write(executed(path, folder), out)


def outputs(notebook: dict) -> list[dict]:
    return [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_a_whole_run(name):
    """Cells ran in order, from the first to the last, without an error or a warning; there are pictures."""
    text = (REPOSITORY / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text) < 300_000
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    seen = outputs(notebook)
    assert {output["output_type"] for output in seen} <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name", "stdout") == "stdout" for output in seen)
    pictures = [output["data"].pop("image/png", None) for output in seen if "data" in output]
    assert any(pictures)
    assert not re.search(VOLATILE, json.dumps(seen))
    assert not any(cell["metadata"] for cell in notebook["cells"])
    assert "".join(code[0]["source"]) == first_cell()


def first_cell() -> str:
    """The code that all notebooks begin with."""
    notebook = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    return "".join(next(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"))


class Shell(dict):
    """The names that a cell has, and what it asks IPython for, with these names' values as IPython puts them in."""

    def run_line_magic(self, name, line):
        self["asked"] = f"{name} {line.format(**self)}"


def begin(monkeypatch, colab: str | None) -> Shell:
    """Run the first cell where sps_jax is not installed, on Colab with what its API says, or elsewhere."""
    from IPython.core.inputtransformer2 import TransformerManager

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("COLAB_JUPYTER_IP", raising=False)
    if colab is not None:
        monkeypatch.setenv("COLAB_JUPYTER_IP", "172.28.0.12")
        answers = {"http://172.28.0.12:9000/api/sessions": colab}
        monkeypatch.setattr("urllib.request.urlopen", lambda address: io.BytesIO(answers[address].encode()))
    shell = Shell()
    shell["get_ipython"] = lambda: shell
    exec(TransformerManager().transform_cell(first_cell()), shell)
    return shell


@pytest.mark.parametrize("branch", ["main", "own/branch"])
def test_on_colab_the_first_cell_installs_from_where_the_notebook_was_opened(monkeypatch, branch):
    """Its sessions name the file as fileId, percent-encoded where it is an address."""
    path = f"fileId=https%3A//github.com/somebody/sps_jax/blob/{branch}/notebooks/01_quickstart.ipynb"
    shell = begin(monkeypatch, json.dumps([{"kernel": {"id": "1"}, "name": "01_quickstart.ipynb", "path": path}]))
    assert shell["asked"] == f'pip install -q "sps_jax @ git+https://github.com/somebody/sps_jax@{branch}"'


@pytest.mark.parametrize("colab", [None, json.dumps([{"name": "01.ipynb", "path": "fileId=1x2Y"}])])
def test_where_there_is_no_repository_the_first_cell_says_how_to_install(monkeypatch, colab):
    with pytest.raises(RuntimeError, match=r"GitHub; elsewhere run pip install -e \. in the repository"):
        begin(monkeypatch, colab)


def test_there_are_no_others():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("clone", [True, False], ids=["clone", "elsewhere"])
@pytest.mark.parametrize("name", NAMES)
def test_runs(name, clone, tmp_path):
    """Beside the committed results, which only the last reads, and where there is nothing."""
    if not clone and name != "05_reproduce_the_paper":
        pytest.skip("reads nothing")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    if clone:
        (tmp_path / "benchmarks").symlink_to(REPOSITORY / "benchmarks")
    # in a process of its own: the client leaves sockets behind, which another test would be told of
    program = "import sys, test_notebooks as t; t.rerun(*map(t.Path, sys.argv[1:]))"
    places = REPOSITORY / "notebooks" / f"{name}.ipynb", folder, tmp_path / "run.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", program, *places], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    notebook = json.loads((tmp_path / "run.ipynb").read_text(encoding="utf-8"))
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs(notebook))


if __name__ == "__main__":
    for path in NOTEBOOKS:
        if path.stem.startswith(tuple(sys.argv[1:] or [""])):
            rerun(path, path.parent, path)
            print(path.name)
