"""The options that problems share: type, default and description of each, declared once."""

import inspect
import textwrap
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypedDict, TypeVar, Unpack, cast, get_args

from sps_jax.errors import unknown

Function = TypeVar("Function", bound=Callable[..., Any])


class Drawn(TypedDict, total=False):
    """The options of every problem with client data; each is ``Annotated[type, default, description]``."""

    clients: Annotated[int, 10, "n, the number of clients."]
    batch_size: Annotated[int | None, None, "number of examples per local gradient, None for all."]
    data_seed: Annotated[int, 0, "seed of the test set and of the partition."]
    precision: Annotated[str, "float32", "float32, float64, or bfloat16 to compute in it with float32 parameters."]


class Split(Drawn, TypedDict, total=False):  # bases in full: before Python 3.12 a TypedDict forgets them
    """The options of a problem whose examples are dealt to clients, see :func:`sps_jax.problems.dealing.deal`."""

    partition: Annotated[str, "dirichlet", "dirichlet, iid or by_label."]
    dirichlet_alpha: Annotated[float, 0.3, "alpha of the dirichlet partition; a small alpha makes clients differ more."]
    weights: Annotated[
        str,
        "equal",
        "the clients' weights in the objective and in the server's mean: equal (the paper's f), or size, proportional "
        "to their numbers of examples.",
    ]
    validation: Annotated[
        float, 0.0, "fraction of each client's training examples to set apart for choosing hyperparameters."
    ]


class SplitOfFile(Split, Drawn, TypedDict, total=False):
    """The options of a problem whose examples come from a file."""

    manual_dir: Annotated[str | None, None, "folder into which you have put the file."]
    data_dir: Annotated[str | None, None, "folder for prepared data."]


def with_shared(**defaults: Unpack[SplitOfFile]) -> Callable[[Function], Function]:
    """Spells out the options that a function takes as ``**options: Unpack[...]`` of a class such as :class:`Split`.

    The function receives all of them. Its signature names each, and its docstring describes each in the class's words
    unless it has its own.

    Args:
      defaults: values that replace the class's defaults.

    Returns:
      A decorator. The decorated function raises a ``TypeError`` for an unknown option and suggests the nearest one.

    Example:
      >>> class Shared(TypedDict, total=False):
      ...     clients: Annotated[int, 10, "n."]
      >>> @with_shared(clients=3)
      ... def sizes(*, m: int = 2, **shared: Unpack[Shared]) -> list[int]:
      ...     return [m] * shared["clients"]
      >>> sizes(), sizes(clients=2, m=5), inspect.signature(sizes)
      ([2, 2, 2], [5, 5], <Signature (*, m: int = 2, clients: int = 3) -> list[int]>)
      >>> sizes(client=2)
      Traceback (most recent call last):
      TypeError: unknown option of sizes 'client': did you mean 'clients'? Allowed: m, clients
    """

    def spelt_out(make: Function) -> Function:
        bare = inspect.signature(make)
        *own, rest = bare.parameters.values()
        shared = get_args(rest.annotation)[0].__annotations__
        filled = {name: option.__metadata__[0] for name, option in shared.items()} | dict(defaults)
        spelt = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=filled[name], annotation=option.__origin__)
            for name, option in shared.items()
        ]
        signature = bare.replace(parameters=[*own, *spelt])

        @wraps(make)
        def filling(*arguments: Any, **options: Any) -> Any:
            for name in options:
                if name not in signature.parameters:
                    raise TypeError(str(unknown(f"option of {filling.__name__}", name, signature.parameters)))
            return make(*arguments, **filled | options)

        filling.__doc__ = documented(make.__doc__ or "", {name: each.__metadata__[1] for name, each in shared.items()})
        vars(filling)["__signature__"] = signature
        return cast(Function, filling)

    return spelt_out


def documented(doc: str, words: dict[str, str]) -> str:
    """Returns ``doc`` with a line added, before any ``Raises``, for each option that it does not describe yet."""
    head, raises, rest = inspect.cleandoc(doc).partition("\n\nRaises:")
    lines = [
        textwrap.fill(f"{name}: {text}", 118, initial_indent="  ", subsequent_indent="    ")
        for name, text in words.items()
        if f"\n  {name}: " not in head
    ]
    return "\n".join([head, *lines]) + raises + rest
