"""What the package's programs become on an H100 and on a TPU v5e, from their compilers alone.

    python benchmarks/compiled.py [--platforms cuda tpu] [--programs NAMES] [--label after] [--minutes 60]

appends a record a program and platform to ``benchmarks/results/compiled/LABEL.jsonl`` as soon as it is compiled, in
place of an older one of the same, and writes ``table.md`` of the labels ``before`` and ``after``. A second call goes on
where the first stopped: what is there of the same code (``source``) and options is not compiled again. No accelerator
is needed, and none is used: the compilers come as packages, which ``pip install -e '.[accelerators]'`` installs: libtpu
for the v5e, and jax-cuda13-plugin, jax-cuda13-pjrt, nvidia-nvvm and nvidia-cuda-nvcc for the H100, 1.4 GB in all. Where
they are installed set ``JAX_PLATFORMS=cpu`` for anything else that uses JAX, or it looks for a driver. Nothing here is
a measurement:

* H100: kernels, submissions and waits of the host are counted in XLA's launch plan, and bytes are those of the kernels'
  operands and results. There are no times.
* v5e: cycles are the compiler's static estimates (``estimated_cycles``), which know nothing of contention or of waiting
  for memory; microseconds are these at 1.5 GHz.
* Memory is the compilers' ``peak_memory_in_bytes``, a device: arguments, results and temporaries that are in use at
  once, on the v5e those in vector memory too; on a CPU, whose platform is ``cpu``, all that it reserves. Beside it what
  the package predicts.

A local step is one iteration of the loop over local steps, of all clients that a device computes at once, with TopK in
it; a round has 10 of them and no evaluation. ``before``, TopK is taken to make 9 passes a step, see
``accelerators/hlo.py``; since, the cycles of its kernel on the v5e are bundles of libtpu's schedule, see
``accelerators/bundles.py``. The ``reading`` programs are no rounds but a copy, a sum and TopK of one large array.
ResNet18 takes minutes and gigabytes. ``--compiler-options NAME=VALUE`` gives XLA options, such as
``xla_gpu_enable_command_buffer=...,WHILE``.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

OUT = Path(__file__).parent / "results" / "compiled"
LABELS = ("before", "after")
HEADS = {
    "cuda": "H100, counted in XLA's launch plan",
    "tpu": "TPU v5e, XLA's static estimates at 1.5 GHz",
    "cpu": "CPU, what XLA reserves",
}
Cells = Mapping[str, Callable[[dict], str]]


def main() -> int:
    """Compile what is asked for, a process each, and write what came out."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from accelerators import compiling, targets
    from accelerators.readings import READINGS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platforms", nargs="+", choices=targets.PACKAGES, default=list(targets.PACKAGES))
    parser.add_argument("--programs", nargs="+", choices=names(), default=names(), metavar="NAME")
    parser.add_argument("--label", default="after")
    parser.add_argument("--minutes", type=float, help="what a program may take at most")
    parser.add_argument("--compiler-options", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "PLATFORM"), help="compile it here and print its record")
    asked = parser.parse_args()
    if wrong := [option for option in asked.compiler_options if "=" not in option]:
        parser.error(f"compiler options are NAME=VALUE, not {wrong[0]}")
    options = dict(option.split("=", 1) for option in asked.compiler_options)
    if asked.one:
        print(json.dumps(compiling.record(*asked.one, options)))
        return 0
    absent = [sentence for sentence in map(targets.missing, asked.platforms) if sentence]
    if absent:
        print(*absent, sep="\n", file=sys.stderr)
        return 1
    failed, source = 0, compiling.source()
    for name, platform in itertools.product(asked.programs, asked.platforms):
        if platform == "cpu" and name in READINGS:
            continue
        if (name, platform) in finished(records(asked.label), source, options):
            continue
        record = compiling.in_own_process(name, platform, options, asked.minutes)
        failed += "error" in record
        print(
            json.dumps({key: record.get(key) for key in ("program", "platform", "step", "seconds", "error")}),
            flush=True,
        )
        keep(asked.label, record)
    return int(failed > 0)


def names() -> list[str]:
    """The names of all programs."""
    from accelerators.programs import PROGRAMS
    from accelerators.readings import READINGS

    return [*READINGS, *PROGRAMS]


def finished(found: list[dict], source: str, options: dict) -> set[tuple[str, str]]:
    """Program and platform of the records of this code and these options that are no errors."""
    same = (r for r in found if (r.get("source"), r.get("options")) == (source, options) and "error" not in r)
    return {(r["program"], r["platform"]) for r in same}


def keep(label: str, record: dict) -> None:
    """Write the record among those of its label, in the order of the programs, and the table anew."""
    from sps_jax.results import files

    OUT.mkdir(parents=True, exist_ok=True)
    kept = {(r["program"], r["platform"]): r for r in [*records(label), record]}
    order = names()
    files.write_jsonl(
        OUT / f"{label}.jsonl", sorted(kept.values(), key=lambda r: (r["platform"], order.index(r["program"])))
    )
    files.write_text(OUT / "table.md", report({label: records(label) for label in LABELS}))


def records(label: str) -> list[dict]:
    """The records of a label; none if there is no such file."""
    path = OUT / f"{label}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def report(labelled: dict[str, list[dict]]) -> str:
    """All tables: the programs of each label, and of the last one the layouts and the readings of a large array."""
    from accelerators.programs import PROGRAMS, layouts
    from accelerators.readings import READINGS

    last = labelled[LABELS[-1]]
    main = {name for name in PROGRAMS if "_by_" not in name}
    programs = {label: [r for r in found if r["program"] in main] for label, found in labelled.items()}
    families = {name: found for name in PROGRAMS if len(found := layouts(name)) > 1 and found[None] == name}
    return table(programs) + by_layout(last, families) + by_reading([r for r in last if r["program"] in READINGS])


def in_topk(record: dict) -> str:
    """Microseconds of a step in TopK, and their share: its kernel and what is around it; ``before``, 9 passes."""
    if record.get("topk_pass"):
        cycles = 9 * record["topk_pass"]["cycles"]
    elif record.get("topk") and any(record["topk"].values()):
        cycles = sum(record["topk"].values())
    else:
        return "-"
    return f"{cycles / 1.5e3:,.4g} ({cycles / record['step']['cycles']:.0%})"


def reserved(record: dict) -> int:
    """The bytes that XLA reserves on a CPU, whose peak leaves out the arguments: these, results and temporaries."""
    return sum(record[f"{part}_bytes"] for part in ("argument", "output", "temp")) - record["alias_bytes"]


MEMORY: Cells = {
    "peak MB": lambda r: f"{r['peak_memory_bytes'] / 1e6:,.4g}",
    "predicted MB": lambda r: f"{r['predicted_bytes'] / 1e6:,.4g}",
}
PROGRAM_CELLS: dict[str, Cells] = {
    "cuda": {
        "kernels a step": lambda r: f"{r['step']['kernels']:,}",
        "submissions": lambda r: f"{r['step']['submissions']:,}",
        "waits": lambda r: f"{r['step']['waits']:,}",
        "MB": lambda r: f"{r['step']['bytes'] / 1e6:,.4g}",
        "kernels a round": lambda r: f"{r['round']['kernels']:,}",
        "all-reduces": lambda r: str(r["all_reduces_a_round"]),
        **MEMORY,
    },
    "tpu": {
        "us a step": lambda r: f"{r['step']['cycles'] / 1.5e3:,.4g}",
        "us in TopK": in_topk,
        "us a round": lambda r: f"{r['round']['cycles'] / 1.5e3:,.5g}",
        "all-reduces": lambda r: str(r["all_reduces_a_round"]),
        **MEMORY,
    },
    "cpu": {
        "reserved MB": lambda r: f"{reserved(r) / 1e6:,.4g}",
        "predicted MB": MEMORY["predicted MB"],
    },
}
LAYOUT_CELLS: dict[str, Cells] = {
    "cuda": {
        "kernels a round": lambda r: f"{r['round']['kernels']:,}",
        "submissions": lambda r: f"{r['round']['submissions']:,}",
        "waits": lambda r: f"{r['round']['waits']:,}",
        "GB a round": lambda r: f"{r['round']['bytes'] / 1e9:,.4g}",
        **MEMORY,
    },
    "tpu": {"us a round": lambda r: f"{r['round']['cycles'] / 1.5e3:,.5g}", **MEMORY},
}


def table(labelled: dict[str, list[dict]]) -> str:
    """Markdown tables of both platforms; a cell has the numbers of each label that has the program."""
    parts = ["Written by `benchmarks/compiled.py`, which says what the numbers are; none is a measurement.\n"]
    for platform, cells in PROGRAM_CELLS.items():
        parts += [f"\n{HEADS[platform]}:\n\n{_line(['program', *cells])}{_line(['---'] * (len(cells) + 1))}"]
        of = {label: {r["program"]: r for r in found if r["platform"] == platform} for label, found in labelled.items()}
        for name in dict.fromkeys(name for found in of.values() for name in found):
            own = [found[name] for found in of.values() if name in found]
            parts += [
                _line([name, *(" → ".join(dict.fromkeys(_cell(cell, r) for r in own)) for cell in cells.values())])
            ]
        wrong = [r for found in of.values() for r in found.values() if "error" in r]
        parts += [f"\n`{r['program']}` failed: {r['error']}\n" for r in wrong]
    return "".join(parts)


def by_layout(found: list[dict], families: dict[str, dict[int | None, str]]) -> str:
    """Markdown tables of what a round costs by how many clients a device computes at once."""
    parts = []
    for platform, cells in LAYOUT_CELLS.items():
        of = {r["program"]: r for r in found if r["platform"] == platform}
        rows = [
            [family, str(chunk or "all"), *(_cell(cell, of[name]) for cell in cells.values())]
            for family, named in families.items()
            for chunk, name in named.items()
            if name in of
        ]
        head = ["program", "clients at once", *cells]
        parts += [f"\nA round by layout, {HEADS[platform]}:\n\n", *map(_line, [head, ["---"] * len(head), *rows])]
    return "".join(parts)


def by_reading(found: list[dict]) -> str:
    """A markdown table of what reads the large array: the function, how often, bytes and estimated time of each."""
    head, groups = ["program", "platform", "function", "times", "MB each", "us each"], {}
    for r in (r for r in found if "error" not in r):
        for one in r["readings"]:
            groups.setdefault((r["program"], r["platform"], one["function"] or "-"), []).append(one)
    rows = [
        [
            *key,
            str(len(some)),
            _range(one["bytes"] / 1e6 for one in some),
            _range(one["cycles"] / 1.5e3 for one in some),
        ]
        for key, some in groups.items()
    ]
    rows = [row if row[1] == "tpu" else [*row[:-1], "-"] for row in rows]
    return "".join(["\nReadings of 10 x 11,164,352 floats, 446.6 MB:\n\n", *map(_line, [head, ["---"] * 6, *rows])])


def _range(values: Iterable[float]) -> str:
    """The least and the largest of some values, once if they print alike."""
    ordered = sorted(values)
    return " to ".join(dict.fromkeys(f"{v:,.4g}" for v in (ordered[0], ordered[-1])))


def _cell(cell: Callable[[dict], str], record: dict) -> str:
    return "failed" if "error" in record else cell(record)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(main())
