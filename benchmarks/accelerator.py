"""One command for whoever has a GPU or TPU: all that this project cannot measure without one.

``python benchmarks/accelerator.py`` measures eight parts (``device/``), one after another, each in a process of its
own, and leaves a ``.jsonl`` a part and ``table.md`` in ``benchmarks/results/accelerator/CARD``. A part whose file is
there is not measured again, so a call that was cut off goes on with the next. It stops after ``--minutes``, and says
what is left for another call. ``--torch PYTHON`` names an interpreter that has torch and NumPy, if this one has not. On
a CPU ``--small --out DIR`` tries the whole command on shrunken jobs, whose figures mean nothing. It ends with status 1
where a part failed, is left, or found what is promised not to hold, and 2 where there is no accelerator.
"""

import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from device import PARTS

from sps_jax.results import files

HERE = Path(__file__).resolve().parent
Part = Literal[PARTS]


@dataclass(frozen=True)
class Options:
    """The command line.

    Attributes:
      only: the parts to measure; all by default.
      again: measure parts again whose files are there.
      small: shrunken jobs, as a test of this command.
      out: the folder of the results instead of the card's; needed with --small.
      torch: the interpreter that has torch.
      cifar: the folder with cifar-10-binary.tar.gz; without it the images of that part are random.
      minutes: after how many minutes to stop.
      within: measure this part, or describe the card, in this process, and print the records.
    """

    only: tuple[Part, ...] = PARTS
    again: bool = False
    small: bool = False
    out: Path | None = None
    torch: str = sys.executable
    cifar: str | None = None
    minutes: float = 10
    within: Literal[(*PARTS, "card")] | None = None


def card() -> dict[str, Any]:
    """The device of this process, and versions; or ``no_device``, JAX's words where it has none."""
    import jax

    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        return {"no_device": str(error).splitlines()[0]}
    names = ("sps_jax", "jax", "jaxlib", "flax", "numpy")
    return {
        "card": device.device_kind if device.platform != "cpu" else platform.processor() or platform.machine(),
        "platform": device.platform,
        "devices": jax.device_count(),
        "platform_version": " ".join(device.client.platform_version.split()),
        "versions": {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names},
    }


def within(options: Options) -> None:
    """Print what a part finds, a record a line; all else that is printed goes to standard error."""
    lines = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        if options.within == "card":
            found: Iterator[dict] = iter([card()])
        else:
            from device.common import Settings

            part = importlib.import_module(f"device.{options.within}")
            found = part.records(Settings(options.small, options.torch, options.cifar))
        for record in found:
            print(json.dumps(finite(record)), file=lines, flush=True)


def finite(record: dict) -> dict:
    """The record without figures that are infinite or NaN, which it then names as what failed."""
    bad = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
    if not bad:
        return record
    return {k: v for k, v in record.items() if k not in bad} | {"failed": f"{', '.join(bad)} not finite"}


def child(options: Options, what: str, cache: str, seconds: float) -> list[dict]:
    """The records of a part from a process of its own, in whose memory no other part has left anything.

    Raises:
      ValueError: in one sentence, if it failed or took longer than ``seconds``.
    """
    command = [sys.executable, str(HERE / "accelerator.py"), "--within", what, "--torch", options.torch]
    command += ["--small"] if options.small else []
    command += ["--cifar", options.cifar] if options.cifar else []
    # One card, where there are several. Whether these four are all that a host with several TPU chips needs can only be
    # seen on one; `devices` in every record says how many there were.
    one = {"CUDA_VISIBLE_DEVICES": "0", "TPU_VISIBLE_CHIPS": "0", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1"}
    one |= {"TPU_PROCESS_BOUNDS": "1,1,1", "JAX_COMPILATION_CACHE_DIR": cache}  # two parts have a program in common
    own = {"stdout": subprocess.PIPE, "text": True, "env": one | os.environ, "start_new_session": True}
    with subprocess.Popen(command, **own) as process:
        try:
            lines, _ = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            raise ValueError(f"{what} was not done when the {options.minutes:g} minutes were over") from None
        finally:
            if process.poll() is None:  # out of time, or interrupted; a peer that it has started ends with it
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise ValueError(f"{what} failed with status {process.returncode}")
    return [json.loads(line) for line in lines.splitlines()]


def commit() -> str:
    """The commit of this repository, with ``-dirty`` if files differ from it."""
    asked = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match", ""]
    try:
        return subprocess.run(asked, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cell(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "/")


def table(part: str, records: list[dict]) -> str:
    """A part's heading and its table; what has no figures says why in the last column."""
    module = importlib.import_module(f"device.{part}")
    seen = [name for name in module.COLUMNS if any(name in one for one in records)]
    notes = [str(one.get("failed", one.get("absent", ""))) for one in records]
    rows = [[cell(one[name]) if name in one else "-" for name in seen] for one in records]
    if any(notes):
        seen, rows = [*seen, "no figures because"], [[*row, note] for row, note in zip(rows, notes, strict=True)]
    lines = [seen, ["---"] * len(seen), *rows]
    title = (module.__doc__ or part).splitlines()[0]
    return f"## {part}\n\n{title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_table(out: Path) -> None:
    """The tables of all parts that are there, under a line of what they are of."""
    done = {part: files.read_jsonl(out / f"{part}.jsonl") for part in PARTS}
    done = {part: records for part, records in done.items() if records}
    heads = {(r["card"], r["platform"], r["commit"], r["small"]) for records in done.values() for r in records[:1]}
    text = ""
    for name, kind, at, small in sorted(heads):
        text += f"{name} ({kind}), commit {at}{', shrunken: the figures mean nothing' if small else ''}\n\n"
    text += "\n".join(table(part, records) for part, records in done.items())
    files.write_text(out / "table.md", f"# {' '.join(sorted({head[0] for head in heads}))}\n\n{text}")


def broken(records: list[dict]) -> int:
    """How many records have no figures because the device failed, or do not hold."""
    return sum("failed" in one or not one.get("holds", True) for one in records)


def measured(options: Options, out: Path, head: dict, cache: str, until: float) -> int:
    """Measure the parts that are asked for and not there, and return the exit status."""
    status = 0
    for part in options.only:
        path = out / f"{part}.jsonl"
        if path.exists() and not options.again:
            print(f"{part}: {path} is there, nothing to do", flush=True)
        elif time.monotonic() >= until:
            print(f"{part}: left for another call", flush=True)
            status = 1
            continue
        else:
            begun = time.monotonic()
            try:
                records = child(options, part, cache, until - begun)
            except ValueError as error:
                print(f"accelerator.py: error: {error}", file=sys.stderr, flush=True)
                status = 1
                continue
            files.write_jsonl(path, [one | head for one in records])
            write_table(out)
            print(f"{part}: {len(records)} records in {time.monotonic() - begun:.0f} s", flush=True)
        if bad := broken(files.read_jsonl(path)):
            print(f"{part}: {bad} records failed or do not hold, see {out / 'table.md'}", flush=True)
            status = 1
    return status


def main() -> int:
    """Find the card, measure, write."""
    options = tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))
    if options.within:
        within(options)
        return 0
    if options.small and options.out is None:
        raise ValueError("--small needs --out DIR: shrunken figures are no results of this repository")
    if not math.isfinite(options.minutes) or options.minutes <= 0:
        raise ValueError(f"--minutes must be positive, not {options.minutes:g}")
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as cache:
        head = child(options, "card", cache, 60 * options.minutes)[0]
        if "no_device" in head:
            raise ValueError(f"no accelerator found: {head['no_device']}")
        if head["platform"] == "cpu" and not options.small:
            raise ValueError(
                "no accelerator found: JAX has only a CPU here; install sps_jax with [cuda] or [tpu], "
                "or try the command with --small --out DIR"
            )
        folder = re.sub(r"[^A-Za-z0-9.-]+", "_", head["card"]).strip("_")
        out = options.out or HERE / "results" / "accelerator" / folder
        others = {one["small"] for part in PARTS for one in files.read_jsonl(out / f"{part}.jsonl")} - {options.small}
        if others:
            raise ValueError(
                f"{out} holds results {'without' if options.small else 'with'} --small; give another --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        command = shlex.join(["python", "benchmarks/accelerator.py", *sys.argv[1:]])
        head |= {"commit": commit(), "command": command, "small": options.small}
        return measured(options, out, head, cache, until)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        print(f"accelerator.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("accelerator.py: interrupted; the same command goes on with the next part", file=sys.stderr)
        sys.exit(130)
