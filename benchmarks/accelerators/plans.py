"""Read XLA's launch plan for a GPU: what the host hands to the device, and what it waits for.

XLA writes it to ``--xla_dump_to``. A thunk is a kernel, a copy, or control. Kernels in a command buffer are submitted
together; a loop whose number of iterations only the device knows makes the host wait for each answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from accelerators.hlo import Instruction, Module, size

THUNK = re.compile(r"^( *)(\d+): (k\w+)")
SECTION = re.compile(r"^( *)(condition|body|\w*branch\w*):$")
METADATA = re.compile(r'profile_annotation: "([^"]*)"\s*thunk_id: (\d+)')
NO_KERNEL = {"kWaitForStreams", "kReplicaId", "kPartitionId", "kHostExecuteDone"}


@dataclass
class Thunk:
    """One thunk: its kind, the name of its HLO instruction, and the thunks inside it by section."""

    kind: str
    name: str = ""
    inside: dict[str, list["Thunk"]] = field(default_factory=dict)


class Cost(NamedTuple):
    """What thunks cost.

    Attributes:
      kernels: the kernels and copies that the device runs.
      submissions: how often the host hands it something: a kernel, or a command buffer.
      waits: how often the host waits for its answer.
      bytes: what the kernels read and write, were each operand read once and each result written once.
    """

    kernels: int = 0
    submissions: int = 0
    waits: int = 0
    bytes: int = 0

    def times(self, count: int) -> "Cost":
        """The cost of so many."""
        return Cost(*(count * value for value in self))


def total(*costs: Cost) -> Cost:
    """Return the sum of costs."""
    return Cost(*map(sum, zip(Cost(), *costs, strict=True)))


def read(folder: Path) -> list[Thunk]:
    """Return the launch plan in a folder of one dumped module.

    Raises:
      FileNotFoundError: if there is none.
    """
    plans = sorted(folder.glob("*thunk_sequence_after_thunk_passes.txt"))
    if not plans:
        raise FileNotFoundError(f"XLA wrote no launch plan to {folder}")
    metadata = next(folder.glob("*thunk_metadata.txt")).read_text(encoding="utf-8")
    names = {int(number): name for name, number in METADATA.findall(metadata)}
    return parse(plans[-1].read_text(encoding="utf-8"), names)


def parse(text: str, names: dict[int, str]) -> list[Thunk]:
    """Parse a launch plan; ``names`` are those of the HLO instructions by the thunks' numbers.

    Inside a thunk everything is indented by four more; ``condition:`` is not indented at all.
    """
    root: list[Thunk] = []
    open_thunks: list[tuple[int, Thunk]] = []
    section, lines = "", [line for line in text.splitlines() if line.strip()]
    for i, line in enumerate(lines):
        if found := SECTION.match(line):
            following = THUNK.match(lines[i + 1]) if i + 1 < len(lines) else None
            depth = len(following.group(1)) if following else 0
            open_thunks = [(at, thunk) for at, thunk in open_thunks if at < depth]
            section = found.group(2)
            open_thunks[-1][1].inside.setdefault(section, [])
        elif found := THUNK.match(line):
            depth = len(found.group(1))
            open_thunks = [(at, thunk) for at, thunk in open_thunks if at < depth]
            thunk = Thunk(found.group(3), names.get(int(found.group(2)), ""))
            if open_thunks:
                parent = open_thunks[-1][1]
                parent.inside.setdefault(next(reversed(parent.inside), ""), []).append(thunk)
            else:
                root.append(thunk)
            open_thunks.append((depth, thunk))
    return root


def cost(thunks: list[Thunk], module: Module, buffered: bool = False) -> Cost:
    """Return what ``thunks`` cost, with the loops' iterations from ``module``; ``buffered`` in a command buffer."""
    return total(*(_cost(thunk, module, buffered) for thunk in thunks))


def _cost(thunk: Thunk, module: Module, buffered: bool) -> Cost:
    if thunk.kind == "kWhile":
        condition, body = _parts(thunk, module, buffered)
        times = module.trips[thunk.name]
        return total(body.times(times), condition.times(times + 1))
    together = thunk.kind == "kCommandBuffer"
    sections = [cost(inside, module, buffered or together) for inside in thunk.inside.values()]
    if together:
        return total(*sections, Cost(submissions=1))
    if thunk.kind == "kConditional":
        return total(min(sections), Cost(waits=int(not buffered)))
    if sections:
        return total(*sections)
    if thunk.kind in NO_KERNEL or thunk.kind.endswith("Done"):
        return Cost()
    moved = module.instructions.get(thunk.name)
    return Cost(1, int(not buffered), 0, traffic(moved, module) if moved else 0)


def _parts(loop: Thunk, module: Module, buffered: bool) -> tuple[Cost, Cost]:
    """The cost of a loop's condition, with the wait for its answer, and of its body.

    If the number of iterations is known there is no condition to compute and no answer to wait for.
    """
    body = cost(loop.inside["body"], module, buffered)
    if module.instructions[loop.name].known_trips is not None:
        return Cost(), body
    return total(cost(loop.inside["condition"], module, buffered), Cost(waits=int(not buffered))), body


def iteration(loop: Instruction, plan: list[Thunk], module: Module) -> Cost:
    """Return what one iteration of a loop costs, its condition included."""
    thunk, buffered = next(_found(loop.name, plan))
    return total(*_parts(thunk, module, buffered))


def _found(name: str, thunks: list[Thunk], buffered: bool = False) -> Iterator[tuple[Thunk, bool]]:
    for thunk in thunks:
        if thunk.name == name and thunk.kind == "kWhile":
            yield thunk, buffered
        for inside in thunk.inside.values():
            yield from _found(name, inside, buffered or thunk.kind == "kCommandBuffer")


def traffic(one: Instruction, module: Module) -> int:
    """Return the bytes of an instruction's operands and results; of those that are only sliced, the slices' bytes."""
    fused = module.computations.get(one.attribute("calls") or "", [])
    shapes = [module.instructions[name].shape for name in one.operands if name in module.instructions]
    if not fused:
        return size(one.shape) + sum(map(size, shapes))
    given = {p.rest.partition(")")[0].removeprefix("parameter("): p for p in fused if p.opcode == "parameter"}
    return _written(fused[-1], module) + sum(_read(given[str(i)], fused) for i in range(len(shapes)) if str(i) in given)


def _written(result: Instruction, module: Module) -> int:
    """The bytes that are written to a fusion's result: of an update in place, the update's."""
    operands = [module.instructions[name] for name in result.operands]
    if result.opcode == "tuple":
        return sum(_written(one, module) for one in operands)
    if result.opcode == "bitcast":
        return _written(operands[0], module)
    return size(operands[1].shape if result.opcode == "dynamic-update-slice" else result.shape)


def _read(value: Instruction, fused: list[Instruction]) -> int:
    """The bytes that a fusion reads of a value, at most all of it."""
    read = 0
    for user in (one for one in fused if value.name in one.operands):
        sliced = user.operands[0] == value.name and user.opcode.removeprefix("dynamic-")
        if user.opcode == "bitcast":
            read += _read(user, fused)
        elif sliced in ("slice", "gather"):
            read += size(user.shape)
        elif sliced != "update-slice":
            read += size(value.shape)
    return min(read, size(value.shape))
