"""The help of ``sps-jax run`` and ``sweep``: options by subject; ``--help`` has the usual ones, ``--help-all`` all."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import docstring_parser
from tyro.conf import OmitArgPrefixes, Suppress

from sps_jax.algorithms import ALGORITHMS
from sps_jax.cli.options import own_options
from sps_jax.problems import PROBLEMS

BARE: Any = OmitArgPrefixes  # for mypy tyro's markers are aliases
HIDDEN: Any = Suppress

USUAL = {
    "problem": ("problem", "clients", "partition", "dirichlet_alpha", "batch_size", "validation"),
    "method": ("algorithm", "stepsize", "prob", "local_steps", "cohort"),
    "pruning": ("sparsity", "criterion", "structure", "scope"),
    "length": ("rounds", "evaluate_every", "seeds", "seed", "data_seed", "stop_at", "search", "trials"),
    "output": ("out", "target", "checkpoint_every", "config", "json", "quiet"),
    "machine": ("devices", "chunk", "precision"),
}
"""Subject -> the options that ``--help`` shows."""
FURTHER = {
    "problem": (),
    "method": ("clip_norm", "cohort_by", "cohort_estimate", "lose_up", "lose_down", "burst", "unaware"),
    "pruning": ("sparsity_rounds", "prune_leaves", "prune_ends"),
    "length": ("patience", "best_by"),
    "output": ("metric", "per_client", "keep", "track", "encoding"),
    "machine": (
        *("matmul_precision", "points_chunk", "stream", "coordinator", "num_processes", "process_id"),
        *("shard", "submit", "jobs", "submit_with"),
    ),
}
"""Subject -> the others; options of problems and algorithms that are in no list are added to those subjects."""
REST = "other"
"""The subject of options in no list, which ``--help`` shows."""
EXAMPLES = {
    "run": (
        "sps-jax run --problem femnist --algorithm sparse_proxskip fedavg --seeds 3",
        "sps-jax run --algorithm fedavg --local-steps 10 --stepsize 0.1 --rounds 500 --out results",
    ),
    "sweep": (
        "sps-jax sweep --algorithm sparse_proxskip --stepsize logspace:0.1:10:5 --seeds 3 --out results",
        "sps-jax sweep --algorithm proxskip gd --dirichlet-alpha 0.1 1 10 --local-steps 5 10",
    ),
}


def subjects(names: list[str]) -> dict[str, list[str]]:
    """Return subject -> those of the options, in the order of the lists."""
    of_problem, of_method = (own_options(tuple(makers.values())) for makers in (PROBLEMS, ALGORITHMS))
    found: dict[str, list[str]] = {}
    for subject in USUAL:
        found[subject] = [name for name in (*USUAL[subject], *FURTHER[subject]) if name in names]
    listed = {name for own in found.values() for name in own}
    for name in names:
        if name not in listed:
            subject = "problem" if name in of_problem else "method" if name in of_method else REST
            found.setdefault(subject, []).append(name)
    return {subject: own for subject, own in found.items() if own}


def grouped(
    make: type, command: str, brief: bool, defaults: Mapping[str, Any] | None = None
) -> Callable[..., dict[str, Any]]:
    """Return a function that tyro parses arguments for, with the options of ``make`` by subject; it returns them.

    Args:
      make: a data class of options.
      command: whose examples to give, a key of ``EXAMPLES``, or any other word for none.
      brief: whether only the usual options are options: then the help is short, but nothing else can be parsed.
      defaults: option -> value in place of its default.
    """
    doc = docstring_parser.parse(make.__doc__ or "")
    helps = {each.arg_name: " ".join((each.description or "").split()) for each in doc.params}
    new = defaults or {}
    takes = {n: p.replace(default=new.get(n, p.default)) for n, p in inspect.signature(make).parameters.items()}

    def given(**groups: Any) -> dict[str, Any]:
        return {name: value for group in groups.values() for name, value in vars(group).items()}

    parameters = []
    for subject, names in subjects(list(takes)).items():
        shown = [name for name in names if not brief or subject == REST or name in USUAL[subject]]
        own = _group(subject, {name: takes[name] for name in names}, shown, helps, brief)
        parameters.append(inspect.Parameter(subject, inspect.Parameter.KEYWORD_ONLY, annotation=BARE[own]))
    vars(given)["__signature__"] = inspect.Signature(parameters)
    given.__annotations__ = {each.name: each.annotation for each in parameters}
    more = ["Further options: --help-all."] if brief and command in EXAMPLES else []
    given.__doc__ = "\n\n".join(
        [plain(doc.short_description or ""), *(f"For example: {each}" for each in EXAMPLES.get(command, ())), *more]
    )
    return given


def _group(
    subject: str, takes: Mapping[str, inspect.Parameter], shown: list[str], helps: Mapping[str, str], brief: bool
) -> type:
    """Return the data class of one subject's options."""
    fields = [
        (
            name,
            each.annotation if name in shown else HIDDEN[each.annotation],
            dataclasses.field(default=each.default),
        )
        for name, each in takes.items()
    ]
    made = dataclasses.make_dataclass(subject, fields, frozen=True)
    words = {name: plain(first(helps.get(name, "")) if brief else helps.get(name, "")) for name in shown}
    made.__doc__ = "\n".join(["", "Attributes:", *(f"  {name}: {text}" for name, text in words.items()), ""])
    return made


def first(text: str) -> str:
    """Return what the first problem or algorithm says of an option that several have, without their names.

    >>> first("digits, libsvm: n, the number of clients. [10]; femnist: n. [100]")
    'n, the number of clients. [10]'
    >>> first("number of rounds; more take longer.")
    'number of rounds; more take longer.'
    """
    said = re.fullmatch(r"[a-z0-9_, ]+: (.*?\[[^\]]*\])(?:; [a-z0-9_, ]+: .*)?", text)
    return said[1] if said else text


def plain(text: str) -> str:
    """Return a docstring's text without the marks of reStructuredText.

    >>> plain("see :class:`~sps_jax.Problem`, or ``--help``; `sps-jax list` prints them")
    'see Problem, or --help; sps-jax list prints them'
    """
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return re.sub(r"`+([^`]*)`+", r"\1", text)
