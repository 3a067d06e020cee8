"""What the options name: problems, methods and criteria of this package, of installed packages, and in own files.

An installed package adds methods through the entry point group ``sps_jax.algorithms``; in its ``pyproject.toml``:

    [project.entry-points."sps_jax.algorithms"]
    mymethod = "mypackage.methods:mymethod"
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from sps_jax import algorithms, compression, problems
from sps_jax.algorithms import Algorithm
from sps_jax.cli import own_code
from sps_jax.errors import described, unknown
from sps_jax.simulation.hyperparameters import parameters

GROUP = "sps_jax.algorithms"
RETURNS = {"problem": "an sps_jax.Problem", "algorithm": "an sps_jax.Algorithm", "criterion": "scores"}


class Table(Mapping[str, Callable]):
    """A table of functions by name that also finds ``FILE.py:NAME`` and, with a group, what packages add.

    Args:
      kind: the option that names its functions.
      known: the package's own table.
      group: a group of entry points.
    """

    def __init__(self, kind: str, known: Mapping[str, Callable], group: str | None = None) -> None:
        self.kind, self._known, self._group = kind, known, group

    @functools.cached_property
    def _added(self) -> dict[str, Callable | ValueError]:
        """What packages add, by name: the function, or the error that names a package whose function is none."""
        found: dict[str, Callable | ValueError] = {}
        for each in entry_points(group=self._group) if self._group else ():
            if each.name not in self._known:
                try:
                    found[each.name] = self._checked(each.name, each.load())
                except Exception as error:
                    of = each.dist.name if each.dist else each.value
                    found[each.name] = ValueError(f"{self.kind} {each.name} of the package {of} is of no use: {error}")
        return found

    def _checked(self, name: str, found: Any) -> Callable:
        """Return ``found`` if it is a function that an option can name."""
        wanted = f"a function that returns {RETURNS[self.kind]}"
        if isinstance(found, Algorithm) or not callable(found):
            raise ValueError(f"{name} is {described(found)}, not {wanted}")
        try:
            takes = list(inspect.signature(found).parameters.values())
        except (TypeError, ValueError):
            raise ValueError(f"{name} does not say which arguments it takes, so it is not {wanted}") from None
        if self.kind == "criterion":
            if len(takes) < 2 or any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in takes[:2]):
                raise ValueError(f"{name} is not a criterion: it must take (params, gradient), then keyword arguments")
            takes = takes[2:]
        odd = [str(p) for p in takes if p.kind not in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if odd:
            raise ValueError(
                f"{name} takes {odd[0]}, but {wanted} takes arguments by their names, which become options"
            )
        return found

    def __getitem__(self, name: str) -> Callable:
        if name in self._known:
            return self._known[name]
        if own_code.is_own(name):
            return self._checked(name, own_code.find(name))
        found = self._added.get(name)
        if found is None:
            raise unknown(self.kind, name, self)
        if isinstance(found, ValueError):
            raise found
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._known or own_code.is_own(name) or name in self._added)

    def __iter__(self) -> Iterator[str]:
        yield from self._known
        yield from (name for name, found in self._added.items() if not isinstance(found, ValueError))

    def __len__(self) -> int:
        return sum(1 for _ in self)


PROBLEMS = Table("problem", problems.PROBLEMS)
ALGORITHMS = Table("algorithm", algorithms.ALGORITHMS, GROUP)
CRITERIA = Table("criterion", compression.CRITERIA)


def makers(settings: Mapping[str, Any], *kinds: str) -> tuple[Callable, ...]:
    """Return the functions whose keyword arguments are options: own ones that the settings name, then the tables'.

    Args:
      settings: option -> what it names; the options of :data:`sps_jax.cli.own_code.KINDS` count.
      kinds: some of these options; all by default.
    """
    kinds = kinds or own_code.KINDS
    own = [maker(kind, name) for kind, name in own_code.named(settings) if kind in kinds]
    named = {"problem": PROBLEMS, "algorithm": ALGORITHMS}
    return (*own, *(make for kind in kinds if kind in named for make in named[kind].values()))


def maker(kind: str, name: str) -> Callable:
    """Return the function of keyword arguments that makes what an option of this ``kind`` names."""
    table = {"problem": PROBLEMS, "algorithm": ALGORITHMS, "criterion": CRITERIA}[kind]
    return scored(table[name]) if kind == "criterion" else table[name]


@functools.cache
def scored(score: Callable) -> Callable[..., Callable]:
    """Return a function of a criterion's keyword arguments that returns the criterion with these.

    >>> def score(params, gradient, *, power=2):
    ...     return [abs(w) ** power for w in params]
    >>> scored(score)(power=3)([2.0], None), scored(score)() is score
    ([8.0], True)
    """

    def make(**chosen: Any) -> Callable:
        return _with(score, tuple(sorted(chosen.items()))) if chosen else score

    functools.update_wrapper(make, score)
    vars(make)["__signature__"] = inspect.Signature(list(parameters(score).values())[2:])
    return make


@functools.cache
def _with(score: Callable, chosen: Sequence[tuple[str, Any]]) -> Callable:
    """One object for equal arguments: JAX looks compiled programs up by the identity of the criterion."""
    return functools.update_wrapper(functools.partial(score, **dict(chosen)), score)  # with its attributes
