"""Read an optimised HLO module: its loops and the functions of the package that they come from, and what runs in them.

How often a loop runs is known from the module, or assumed: see ``ASSUMED``. Counts are of executed instructions, with
each loop's body times its iterations, and of a conditional the branch that counts less: a round without evaluation.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, prod

ASSUMED = {"narrowed": (9, 0), "round_length": (9,), "Round.local_steps": (10,)}
"""Iterations of loops whose number depends on the data, by the function of the package that has the loop.

``narrowed`` was TopK's search in the records ``before``, over magnitudes and then over ties, in turn. Under ``vmap``
the slowest client decided: on normal and Laplace entries 4 to 6 passes for 10 clients of 640 entries, 8 to 11 for 100
clients of 7,840 or 48,608, and for 640 of 640 entries 8 to 13 and up to 5 over ties. A coin of probability 1/10 has 9
tails."""

HEAD = re.compile(r"^(ENTRY )?%?([\w.\-<>]+) \(.*\) -> .*\{$")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-<>]+) = (.*)$")
ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+)\[([\d,]*)\]")
ROW = re.compile(r"^(\d+) (.*)$")
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name, the shape of its result, its operation, and the text after the shape."""

    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of its operands."""
        return re.findall(r"%([\w.\-<>]+)", self.rest[: self.rest.find(")") + 1])

    def attribute(self, name: str) -> str | None:
        """The computation, or number, that is given for ``name=``."""
        found = re.search(rf"\b{name}=%?([\w.\-<>]+)", self.rest)
        return found and found.group(1)

    @property
    def branches(self) -> list[str]:
        """The computations of a conditional."""
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.rest)
        if listed:
            return [name.strip().lstrip("%") for name in listed.group(1).split(",")]
        return [b for b in map(self.attribute, ("true_computation", "false_computation")) if b]

    @property
    def known_trips(self) -> int | None:
        """How often a loop runs, if the compiler knows."""
        found = re.search(r'known_trip_count"?:\{"n":"(\d+)"', self.rest)
        return int(found.group(1)) if found else None

    @property
    def cycles(self) -> int:
        """The cycles that the TPU compiler estimates for it."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found.group(1)) if found else 0

    @property
    def target(self) -> str | None:
        """What a custom call calls."""
        found = re.search(r'custom_call_target="([^"]+)"', self.rest)
        return found and found.group(1)


@dataclass
class Module:
    """A module: its text, its instructions by computation, the entry's name, and the stack frames."""

    text: str
    entry: str = ""
    computations: dict[str, list[Instruction]] = field(default_factory=dict)
    tables: dict[str, dict[int, str]] = field(default_factory=dict)

    @cached_property
    def instructions(self) -> dict[str, Instruction]:
        """All instructions by name."""
        return {one.name: one for listed in self.computations.values() for one in listed}

    @cached_property
    def trips(self) -> dict[str, int]:
        """How often each loop runs, by its name: as known, as assumed, else once."""
        found, seen = {}, Counter[tuple[str, str]]()
        for name, listed in self.computations.items():
            for loop in (one for one in listed if one.opcode == "while"):
                function = self.function(loop)
                turns = ASSUMED.get(function, (1,))
                known = self.counted(loop)
                found[loop.name] = turns[seen[name, function] % len(turns)] if known is None else known
                seen[name, function] += 1
        return found

    def counted(self, loop: Instruction) -> int | None:
        """How often a loop runs, if the compiler says so or the loop, as JAX's do, counts from 0 to a constant."""
        *_, last = self.computations[loop.attribute("condition") or ""]
        if loop.known_trips is not None or last.opcode != "compare" or "direction=LT" not in last.rest:
            return loop.known_trips
        bound = re.match(r"constant\((\d+)\)", self.instructions[last.operands[1]].rest)
        return int(bound.group(1)) if bound else None

    def function(self, instruction: Instruction) -> str:
        """The innermost function of the package that ``instruction`` comes from, such as ``Round.local_steps``."""
        return next(iter(self.functions(instruction)), "")

    def functions(self, instruction: Instruction) -> list[str]:
        """The functions that were traced when it was made, the innermost first."""
        number, names = int(instruction.attribute("stack_frame_id") or 0), []
        while number:
            location, number = map(int, re.findall(r"=(\d+)", self.tables["StackFrames"][number]))
            number -= 1  # the parent's number is printed one too large; 1 is none
            function = re.search(r"function_name_id=(\d+)", self.tables["FileLocations"][location])
            names.append(self.tables["FunctionNames"][int(function.group(1))].strip('"') if function else "")
        return names

    def loops(self, function: str) -> list[Instruction]:
        """The loops that ``function`` of the package has."""
        loops = (one for one in self.instructions.values() if one.opcode == "while")
        return [loop for loop in loops if self.function(loop) == function]

    def executed(self, computation: str | None, value: Callable[[Instruction], int]) -> int:
        """The sum of ``value`` over the instructions that ``computation`` executes, by the rules of this file."""
        return sum(self._executed(one, value) for one in self.computations.get(computation or "", ()))

    def _executed(self, one: Instruction, value: Callable[[Instruction], int]) -> int:
        if one.opcode == "while":
            times = self.trips[one.name]
            once = self.executed(one.attribute("condition"), value)
            return times * self.executed(one.attribute("body"), value) + (times + 1) * once
        if one.opcode == "conditional":
            return min(self.executed(branch, value) for branch in one.branches)
        if one.opcode == "call":
            return self.executed(one.attribute("to_apply"), value)
        if one.opcode == "async-start":
            return value(one) + self.executed(one.attribute("calls"), value)
        return value(one)

    def iteration(self, loop: Instruction, value: Callable[[Instruction], int]) -> int:
        """The same of one iteration of a loop, its condition included."""
        return sum(self.executed(loop.attribute(part), value) for part in ("condition", "body"))


def parse(text: str) -> Module:
    """Parse the text of an optimised module."""
    module, computation, table = Module(text), None, None
    for line in text.splitlines():
        head, row = HEAD.match(line), ROW.match(line)
        if head:
            computation = module.computations.setdefault(head.group(2), [])
            module.entry = head.group(2) if head.group(1) else module.entry
        elif re.fullmatch(r"[A-Z]\w+", line):
            table = module.tables.setdefault(line, {})
        elif row and table is not None:
            table[int(row.group(1))] = row.group(2)
        elif computation is not None and (found := INSTRUCTION.match(line)):
            computation.append(_instruction(found.group(2), found.group(3)))
    return module


def _instruction(name: str, text: str) -> Instruction:
    text = re.sub(r"/\*.*?\*/", "", text)
    end = _end_of_shape(text)
    return Instruction(name, text[:end], text[end + 1 :].partition("(")[0], text[end + 1 :])


def _end_of_shape(text: str) -> int:
    depth = 0
    for end, character in enumerate(text):  # a tuple's shape has spaces, but in parentheses
        depth += (character == "(") - (character == ")")
        if depth == 0 and character == " ":
            return end
    return len(text)


def size(shape: str) -> int:
    """Return the bytes of the arrays of a shape, such as ``(f32[10,2]{1,0}, pred[3]{0})``, without a TPU's padding."""
    return sum(_width(kind) * prod(map(int, filter(None, axes.split(",")))) for kind, axes in ARRAY.findall(shape))


def _width(kind: str) -> int:
    return 1 if kind == "pred" else int(re.sub(r"\D", "", kind)) // 8


def collective(instruction: Instruction) -> int:
    """Return whether it begins a collective operation, as 0 or 1."""
    return int(instruction.opcode.removesuffix("-start") in COLLECTIVES)


def facts(module: Module) -> dict:
    """Return what a whole module has: loops, sorts and their lengths, float64, callbacks, custom calls."""
    every = module.instructions.values()
    calls = Counter(one.target for one in every if one.opcode == "custom-call")
    sorts = [one for one in every if one.opcode == "sort"]
    return {
        "whiles": sum(one.opcode == "while" for one in every),
        "sorts": len(sorts),
        "longest_sort": max((_axis(one) for one in sorts), default=0),
        "float64": len(re.findall(r"\bf64\[", module.text)),
        "callbacks": sum(count for name, count in calls.items() if name and "callback" in name),
        "custom_calls": dict(sorted((str(name), count) for name, count in calls.items())),
        "convolutions": sum(one.opcode == "convolution" for one in every),
        "assumed_trips": _assumed(module),
    }


def _axis(sort: Instruction) -> int:
    axes = ARRAY.search(sort.shape)
    lengths = [int(n) for n in axes.group(2).split(",") if n] if axes else []
    along = re.search(r"dimensions=\{(\d+)\}", sort.rest)
    return lengths[int(along.group(1))] if along and lengths else 0


def _assumed(module: Module) -> dict[str, list[int]]:
    loops = (one for one in module.instructions.values() if one.opcode == "while")
    found: dict[str, list[int]] = {}
    for loop in (loop for loop in loops if module.counted(loop) is None):
        found.setdefault(module.function(loop), []).append(module.trips[loop.name])
    return found


def padding(module: Module, most: int = 5) -> list[dict]:
    """Return the arrays that a TPU's tiles enlarge to the most bytes: their shape, bytes, and bytes with padding."""
    pattern = re.compile(r"\b(pred|bf16|[sufc]\d+)\[([\d,]+)\]\{([\d,]+):T\(([\d,]+)\)")
    found = {}
    for text, kind, axes, order, tile in ((m.group(), *m.groups()) for m in pattern.finditer(module.text)):
        lengths, minor_first = ([int(n) for n in part.split(",")] for part in (axes, order))
        tiles = [int(n) for n in tile.split(",")][::-1]
        padded = [lengths[axis] for axis in minor_first]
        padded[: len(tiles)] = [ceil(n / t) * t for n, t in zip(padded, tiles, strict=False)]
        found[text + "}"] = _width(kind) * prod(lengths), _width(kind) * prod(padded)
    largest = sorted(found.items(), key=lambda item: -item[1][1])[:most]
    return [{"shape": shape, "bytes": own, "padded_bytes": padded} for shape, (own, padded) in largest]
