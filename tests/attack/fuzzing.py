"""Random command lines, made from the options that ``run`` and ``sweep`` have, and what must hold of each.

A string's values are the words of its own help, so that a new option is fuzzed with what it says of itself.
"""

import contextlib
import dataclasses
import inspect
import io
import json
import os
import random
import re
import shutil
import traceback
import typing
from pathlib import Path
from typing import Any

import docstring_parser

SMALL = ("digits", "quadratic", "synthetic_logistic")
FEW = ("gd", "gd", "proxskip", "sparse_proxskip", "fednova")
FINE = {int: ["1", "2", "3"], float: ["0.5", "1", "0.25"]}
ABSURD = ["1000000000000000", "99999999999999999999999", "-99999999999999999999999"]
BAD = {
    int: ["0", "-1", "1.5", "two", "", "1e3", "nan", *ABSURD],
    float: ["nan", "inf", "-inf", "-1", "0", "1e400", "1e-320", "1e-40", "half", "", *ABSURD],
    str: ["", "x", "0", "-1", "nan", "1e400", "näme", "../up", "a b", "auto:auto", *ABSURD],
    Path: ["nowhere", "file"],
}
SPACES = ["logspace:0.1:0.5:2", "linspace:0.1:0.5:2", "logspace:0:1:3", "linspace:1:2", "logspace:-1:1:3", "linspace:"]
SPACES += ["linspace:nan:1:2", "linspace:0:1:-2", "linspace:0:1:0"]
ALONE = {"coordinator", "num_processes", "process_id"}
"""A whole set of these waits for other processes: never all three at once."""


@dataclasses.dataclass(frozen=True)
class Option:
    """An option: its field, the type of a value, whether it takes several, and the words of its help."""

    name: str
    kind: type
    several: bool
    words: tuple[str, ...]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def options_of(made: type) -> list[Option]:
    """All options that a command's type has."""
    helps = {p.arg_name: p.description for p in docstring_parser.parse(made.__doc__).params}
    found = []
    for field in dataclasses.fields(made):
        if "Annotated" in str(field.type) or field.name == "out":  # suppressed; given by the test
            continue
        kinds = [kind for kind in typing.get_args(field.type) or (field.type,) if kind not in (type(None), Ellipsis)]
        several = typing.get_origin(field.type) is tuple
        words = re.findall(r"[A-Za-z0-9][\w:]*\w", helps.get(field.name) or "")
        found.append(Option(field.name, kinds[0], several, tuple(dict.fromkeys(words))))
    return found


def value(option: Option, draw: random.Random, wrong: bool) -> list[str]:
    """What follows the flag."""
    if option.kind is bool:
        return [draw.choice(["True", "False", "maybe"])]
    fine = list(option.words) if option.kind is str else FINE.get(option.kind, ["nowhere"])
    if option.several:
        fine = [*FINE[float], *SPACES[:2]]
    bad = BAD[option.kind] + (SPACES if option.several else [])
    some = [draw.choice(bad if wrong else fine or bad)]
    return some + [draw.choice(fine or bad)] * (option.several and draw.random() < 0.3)


def case(seed: int, table: dict[str, list[Option]], wrong: float) -> list[str]:
    """A command line but for ``--out``: a tiny job with a few options of its own; ``wrong`` is how often one is bad."""
    draw = random.Random(seed)
    command = draw.choice(["run", "run", "sweep"])
    job: dict[str, list[str]] = {
        "problem": [draw.choice([*SMALL, "quadratic", "quadratic", "synthetic_logistic"])],
        "algorithm": [draw.choice(FEW)],
        "rounds": [draw.choice("12")],
        "clients": ["4"],
        "sparsity": ["0.5"],
    }
    fitting = [option for option in table[command] if option.name in takes(job)]
    some = draw.sample(fitting, draw.choice([0, 1, 2, 2, 3, 3])) + draw.sample(
        table[command], draw.choice([0, 0, 0, 1])
    )
    for option in some:
        if option.name == "algorithm":
            job["algorithm"] = draw.sample([*FEW, *option.words, "gd", "", "fedvag"], draw.choice([1, 2]))
        elif option.name == "problem":
            job["problem"] = [draw.choice([*SMALL, "femnist", "libsvm", "digts", "", "Digits"])]
        elif not (option.name in ALONE and len(ALONE & job.keys()) == 2):
            job[option.name] = value(option, draw, draw.random() < wrong)
    flags = {option.name: option.flag for option in table[command]}
    switches = {option.name for option in table[command] if option.kind is bool}
    line = [command]
    for name, own in job.items():
        if name in switches and own[0] != "maybe" and draw.random() < 0.7:  # --x, --no-x
            line.append(flags[name] if own[0] == "True" else flags[name].replace("--", "--no-", 1))
        elif name in flags:
            line += [flags[name], *own]
    if draw.random() < 0.03:
        line.insert(draw.randrange(len(line) + 1), draw.choice(["--", "--nonsense", "extra", "-h" * 40, "\x00"]))
    return line


def takes(job: dict[str, list[str]]) -> set[str]:
    """The names of the options that a job has a use for."""
    from sps_jax.algorithms import ALGORITHMS
    from sps_jax.cli.options import Run
    from sps_jax.problems import PROBLEMS

    of = [inspect.signature(make).parameters for make in (PROBLEMS[job["problem"][0]], ALGORITHMS[job["algorithm"][0]])]
    return {field.name for field in dataclasses.fields(Run)} | {name for some in of for name in some}


def tables() -> dict[str, list[Option]]:
    from sps_jax.cli.options import command_type
    from sps_jax.cli.sweep_options import sweep_type

    return {"run": options_of(command_type()), "sweep": options_of(sweep_type())}


def alone() -> None:
    """A process for command lines: two devices, whatever they say, no network and no pictures."""
    import jax
    import requests
    from matplotlib.figure import Figure

    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    update = jax.config.update

    def but_for_devices(name: str, value: Any) -> None:  # once something was computed their number is fixed
        if name != "jax_num_cpu_devices":
            update(name, value)

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise requests.exceptions.ConnectionError("no network")

    jax.config.update, requests.get = but_for_devices, unreachable
    Figure.savefig = lambda self, path, **kwargs: Path(path).write_bytes(b"a picture, which takes half of the time")


def obey(line: list[str], folder: Path, status: int | None = None) -> str:
    """Run a command line in ``folder``, which is made; what is wrong with what it did, "" where nothing is.

    Args:
      status: that it should end with, None for any.
    """
    from sps_jax.cli.main import command

    folder.mkdir()
    (folder / "file").write_text("mine")
    before, said = Path.cwd(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                ended = command([*line, "--out", "out"])
            except SystemExit as end:  # tyro's
                ended = end.code
                said.write("sps-jax: error: (of tyro)" * (ended == 2))
    except BaseException:
        return f"{line}\n{traceback.format_exc()}"
    finally:
        os.chdir(before)
    wrong = complaint(line, ended, said.getvalue(), folder) if status in (None, ended) else f"not {status}"
    shutil.rmtree(folder)
    return wrong and f"{line}: status {ended}, {wrong}\n{said.getvalue()[-1500:]}"


def complaint(line: list[str], status: Any, said: str, folder: Path) -> str:
    """What is wrong with the end of a command."""
    left = sorted(path.name for path in folder.iterdir())
    if (folder / "file").read_text() != "mine" or set(left) - {"out", "file"}:
        return f"it wrote beside its folder: {left}"
    if "Traceback" in said or "Error:" in said or re.search(r"\w+Exception", said):
        return "a traceback"
    if status == 2:
        messages = said.count("sps-jax: error:")
        return "a folder" if "out" in left else "" if messages == 1 else f"{messages} messages"
    if status == 0 and "out" not in left and ("--help" in said or "usage:" in said):
        return ""  # asked for help
    if status not in (0, 3):
        return "which no command line should end with"
    return unwhole(line[0], folder / "out")


def unwhole(command: str, out: Path) -> str:
    """What is wrong with result files."""
    needed = {"config.json", "metrics.jsonl", "summary.json" if command == "run" else "summary.jsonl"}
    found = {path.name for path in out.iterdir()}
    if not needed <= found or any(name.startswith(".") for name in found):
        return f"{sorted(found)} are its files"
    settings = json.loads((out / "config.json").read_text())["settings"]
    records = [json.loads(one) for one in (out / "metrics.jsonl").read_text().splitlines()]
    if command == "run":
        summaries = json.loads((out / "summary.json").read_text())
        runs = len(settings["algorithm"]) * settings["seeds"]
        if len(summaries) != runs or bool(records) != ("curves.png" in found):
            return f"{len(summaries)} summaries of {runs} runs, {len(records)} records"
    else:
        summaries = [json.loads(one) for one in (out / "summary.jsonl").read_text().splitlines()]
        if sorted(s["point"] for s in summaries) != list(range(len(summaries))):
            return "points are missing"
    finished = sum(s["diverged_at_round"] is None for s in summaries)
    ends = sum(r["round"] == settings["rounds"] or "stopped" in r for r in records)
    return "" if finished == ends else f"{ends} ends of {finished} finished runs"
