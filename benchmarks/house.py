"""Measures of the house: how the package is divided, and how far its longest things go.

    python benchmarks/house.py [REVISION ...]

Prints a line per measure and a column per revision of git, ``.`` standing for the working tree.
"""

import ast
import io
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """Name, number of parameters without ``self`` and number of lines of each function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            own = node.args
            named = [a.arg for a in (*own.posonlyargs, *own.args, *own.kwonlyargs) if a.arg not in ("self", "cls")]
            yield node.name, len([*named, *filter(None, (own.vararg, own.kwarg))]), node.end_lineno - node.lineno + 1


def options_enter(tree: ast.AST) -> bool:
    """Whether a function takes the command line's ``options``, a positional parameter of that name."""
    arguments = (node.args for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return any(a.arg == "options" for own in arguments for a in (*own.posonlyargs, *own.args))


PROSE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def lines_of_code(text: str) -> int:
    """How many lines have something else than a docstring or a comment."""
    texts = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
    docstrings = (node for node in texts if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str))
    prose = {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)}
    tokens = (t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in PROSE)
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - prose)


def measures(package: Path) -> dict[str, int]:
    """What is counted, by name."""
    texts = {path.relative_to(package): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    lines = {path: len(text.splitlines()) for path, text in texts.items()}
    found = [function for tree in trees.values() for function in functions(tree)]
    return {
        "files": len(texts),
        "files at the top": sum(len(path.parts) == 1 for path in texts),
        "folders": len({path.parent for path in texts}) - 1,
        "files past 250 lines": sum(count > 250 for count in lines.values()),
        "functions": len(found),
        "functions past 7 parameters": sum(parameters > 7 for _, parameters, _ in found),
        "files that options enter": sum(map(options_enter, trees.values())),
        "lines": sum(lines.values()),
        "lines of code": sum(map(lines_of_code, texts.values())),
    }


def at(revision: str) -> dict[str, int]:
    """The measures of a revision."""
    if revision == ".":
        return measures(REPOSITORY / "sps_jax")
    archive = subprocess.run(
        ["git", "archive", revision, "sps_jax"], cwd=REPOSITORY, check=True, capture_output=True
    ).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
        return measures(Path(folder) / "sps_jax")


def main() -> None:
    """Print the table."""
    revisions = sys.argv[1:] or ["."]
    columns = [at(revision) for revision in revisions]
    width = max(map(len, revisions)) + 2
    print(f"{'':30}" + "".join(f"{revision:>{width}}" for revision in revisions))
    for name in columns[0]:
        print(f"{name:30}" + "".join(f"{column[name]:>{width},}" for column in columns))


if __name__ == "__main__":
    main()
