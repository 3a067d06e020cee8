"""What the package's programs become on an H100 and on a TPU v5e, from their compilers alone.

    python benchmarks/compiled.py [--platforms cuda tpu] [--programs NAMES] [--label before]

writes a record a program and platform to ``benchmarks/results/compiled/LABEL.jsonl``, in place of an older one of the
same, and ``table.md`` of the labels ``before`` and ``after``. No accelerator is needed, and none is used: the compilers
come as packages, which ``pip install -e '.[accelerators]'`` installs: libtpu for the v5e, and jax-cuda13-plugin,
jax-cuda13-pjrt, nvidia-nvvm and nvidia-cuda-nvcc for the H100, 1.4 GB in all. Where they are installed set
``JAX_PLATFORMS=cpu`` for anything else that uses JAX, or it looks for a driver. Nothing here is a measurement:

* H100: kernels, submissions and waits of the host are counted in XLA's launch plan, and bytes are those of the kernels'
  operands and results. There are no times.
* v5e: cycles are the compiler's static estimates (``estimated_cycles``), which know nothing of contention or of waiting
  for memory; microseconds are these at 1.5 GHz.
* Memory is the compilers' ``peak_memory_in_bytes``, a device: arguments, results and temporaries that are in use at
  once, on the v5e those in vector memory too; beside it what the package predicts.

A local step is one iteration of the loop over local steps, of all clients that a device computes at once, with TopK in
it; a round has 10 of them and no evaluation. ``before``, TopK is taken to make 9 passes a step, see
``accelerators/hlo.py``; since, the cycles of its kernel on the v5e are bundles of libtpu's schedule, see
``accelerators/bundles.py``.
ResNet18 takes minutes and gigabytes. ``--compiler-options NAME=VALUE`` gives XLA options, such as
``xla_gpu_enable_command_buffer=...,WHILE``.
"""

import argparse
import json
import os
import sys
from pathlib import Path

OUT = Path(__file__).parent / "results" / "compiled"
LABELS = ("before", "after")


def main() -> int:
    """Compile what is asked for, a process each, and write what came out."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from accelerators import compiling, targets
    from accelerators.programs import PROGRAMS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platforms", nargs="+", choices=targets.PACKAGES, default=list(targets.PACKAGES))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="NAME")
    parser.add_argument("--label", default="before")
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
    failed = 0
    for name in asked.programs:
        for platform in asked.platforms:
            record = compiling.in_own_process(name, platform, options)
            failed += "error" in record
            print(
                json.dumps({key: record.get(key) for key in ("program", "platform", "step", "seconds", "error")}),
                flush=True,
            )
            keep(asked.label, record)
    return int(failed > 0)


def keep(label: str, record: dict) -> None:
    """Write the record among those of its label, in the order of the programs, and the table anew."""
    from accelerators.programs import PROGRAMS

    from sps_jax.results import files

    OUT.mkdir(parents=True, exist_ok=True)
    kept = {(r["program"], r["platform"]): r for r in [*records(label), record]}
    order = list(PROGRAMS)
    files.write_jsonl(
        OUT / f"{label}.jsonl", sorted(kept.values(), key=lambda r: (r["platform"], order.index(r["program"])))
    )
    files.write_text(OUT / "table.md", table({label: records(label) for label in LABELS}))


def in_topk(record: dict) -> str:
    """Microseconds of a step in TopK, and their share: its kernel and what is around it; ``before``, 9 passes."""
    if record.get("topk_pass"):
        cycles = 9 * record["topk_pass"]["cycles"]
    elif record.get("topk") and any(record["topk"].values()):
        cycles = sum(record["topk"].values())
    else:
        return "-"
    return f"{cycles / 1.5e3:,.4g} ({cycles / record['step']['cycles']:.0%})"


def records(label: str) -> list[dict]:
    """The records of a label; none if there is no such file."""
    path = OUT / f"{label}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(labelled: dict[str, list[dict]]) -> str:
    """Markdown tables of both platforms; a cell has the numbers of each label that has the program."""
    columns = {
        "cuda": {
            "kernels a step": lambda r: f"{r['step']['kernels']:,}",
            "submissions": lambda r: f"{r['step']['submissions']:,}",
            "waits": lambda r: f"{r['step']['waits']:,}",
            "MB": lambda r: f"{r['step']['bytes'] / 1e6:,.4g}",
            "kernels a round": lambda r: f"{r['round']['kernels']:,}",
            "all-reduces": lambda r: str(r["all_reduces_a_round"]),
            "peak MB": lambda r: f"{r['peak_memory_bytes'] / 1e6:,.4g}",
            "predicted MB": lambda r: f"{r['predicted_bytes'] / 1e6:,.4g}",
        },
        "tpu": {
            "us a step": lambda r: f"{r['step']['cycles'] / 1.5e3:,.4g}",
            "us in TopK": in_topk,
            "us a round": lambda r: f"{r['round']['cycles'] / 1.5e3:,.5g}",
            "all-reduces": lambda r: str(r["all_reduces_a_round"]),
            "peak MB": lambda r: f"{r['peak_memory_bytes'] / 1e6:,.4g}",
            "predicted MB": lambda r: f"{r['predicted_bytes'] / 1e6:,.4g}",
        },
    }
    heads = {"cuda": "H100, counted in XLA's launch plan", "tpu": "TPU v5e, XLA's static estimates at 1.5 GHz"}
    parts = ["Written by `benchmarks/compiled.py`, which says what the numbers are; none is a measurement.\n"]
    for platform, cells in columns.items():
        parts += [f"\n{heads[platform]}:\n\n| program | {' | '.join(cells)} |\n|{'---|' * (len(cells) + 1)}\n"]
        of = {label: {r["program"]: r for r in found if r["platform"] == platform} for label, found in labelled.items()}
        for name in dict.fromkeys(name for found in of.values() for name in found):
            own = [found[name] for found in of.values() if name in found]
            texts = [
                " → ".join(dict.fromkeys("failed" if "error" in r else cell(r) for r in own)) for cell in cells.values()
            ]
            parts += [f"| {name} | {' | '.join(texts)} |\n"]
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())
