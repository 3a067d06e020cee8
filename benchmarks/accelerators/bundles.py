"""How many cycles TopK's kernel takes on a TPU, from libtpu's own schedule of it.

XLA gives no estimate for a Pallas kernel. libtpu writes its schedule, the VLIW bundles, to ``--xla_jf_dump_to``; one
bundle issues a cycle, were there no wait for memory. A line is an address, a mark, a ``>`` for each loop around it, and
the bundle; ``LB:`` marks the first bundle of a loop.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

LINE = re.compile(r"^ *(?:0x)?[0-9a-f]+ +(\w\w)?: *(>*) *\{")
TRIPS = re.compile(r"scmp\.ge\.s32\.totalorder %\w+, (\d+) /\* loop exit test")
FLAGS = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true"


@dataclass
class Loop:
    """A loop: its own bundles, without those of the loops in it, these loops, and its iterations where they are fixed.

    The program itself is a loop of one iteration.
    """

    bundles: int = 0
    inside: list["Loop"] = field(default_factory=list)
    trips: int | None = None


def parse(text: str) -> Loop:
    """Parse a file of final bundles.

    Bundles without a mark, such as those in a branch's delay slots, belong to the loop that goes on behind them.
    """
    open_loops, unmarked = [Loop(trips=1)], 0
    for line in text.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        mark, depth = found.group(1), len(found.group(2))
        if not depth:
            unmarked += 1
            continue
        begins = mark == "LB"
        del open_loops[depth + (not begins) :]
        open_loops[-1].bundles += unmarked
        if begins:
            open_loops[-1].inside.append(Loop())
            open_loops.append(open_loops[-1].inside[-1])
        open_loops[-1].bundles += 1
        trips = TRIPS.search(line)
        open_loops[-1].trips, unmarked = int(trips.group(1)) if trips else open_loops[-1].trips, 0
    open_loops[0].bundles += unmarked
    return open_loops[0]


def cycles(text: str, blocks: int) -> int:
    """Return the cycles of TopK's kernel for so many blocks of rows.

    The loops of a block are the bisection over the bits, of fixed length; that over ties, which is taken not to run;
    and copies of blocks that are not whole, which run once. With several blocks a loop over them is around these; it
    has two iterations more, which only fill and empty the buffers.
    """
    program = parse(text)
    one = program.inside[0] if blocks > 1 else program
    bisection, _, *copies = one.inside
    return blocks * (one.bundles + (bisection.trips or 1) * bisection.bundles + sum(copy.bundles for copy in copies))


@cache
def kernel(rows: int, entries: int) -> int:
    """Compile TopK of float32 (rows, entries) in a process of its own, and return the kernel's cycles.

    Raises:
      RuntimeError: if libtpu refuses the kernel.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "LIBTPU_INIT_ARGS": FLAGS.format(folder)}
        command = [sys.executable, "-m", "accelerators.bundles", str(rows), str(entries)]
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"no TopK of {rows} x {entries}: {done.stderr.splitlines()[-1]}")
        files = [f for f in Path(folder).glob("*branch_0_fun*-final_bundles.txt") if "analysis" not in f.name]
        return cycles(files[0].read_text(encoding="utf-8"), int(done.stdout))


def _compile(rows: int, entries: int) -> int:
    """Compile it, and return the number of blocks."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from accelerators import targets
    from sps_jax.compression import topk_mask
    from sps_jax.compression.kernel import block_rows

    on = SingleDeviceSharding(targets.devices("tpu", 1)[0])
    x, k = (jax.ShapeDtypeStruct(*s, sharding=on) for s in (((rows, entries), jnp.float32), ((), jnp.int32)))
    jax.jit(jax.vmap(topk_mask, (0, None))).lower(x, k).compile()
    return -(-rows // block_rows(rows, entries))


if __name__ == "__main__":
    print(_compile(*map(int, sys.argv[1:])))
