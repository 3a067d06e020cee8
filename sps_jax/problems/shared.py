"""The options that problems share: type, default and words of each, declared once."""

import inspect
import textwrap
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypedDict, TypeVar, Unpack, cast, get_args

from sps_jax.errors import unknown

Function = TypeVar("Function", bound=Callable[..., Any])


class Drawn(TypedDict, total=False):
    """What a problem with data of clients has; an option is ``Annotated[type, default, words]``."""

    clients: Annotated[int, 10, "n."]
    batch_size: Annotated[int | None, None, "examples of a local gradient, None for all."]
    data_seed: Annotated[int, 0, "of the test part and of the partition."]
    precision: Annotated[str, "float32", "float32, float64, or bfloat16 to compute in it with float32 parameters."]


class Split(Drawn, total=False):
    """What a problem has whose examples are dealt to clients, see :func:`sps_jax.problems.dealing.deal`."""

    partition: Annotated[str, "dirichlet", "dirichlet, iid or by_label."]
    dirichlet_alpha: Annotated[float, 0.3, "of the dirichlet partition; small is heterogeneous."]
    weights: Annotated[
        str,
        "equal",
        "of the clients in the objective and in the server's mean: equal (the paper's f), or size, in proportion to "
        "their numbers of examples.",
    ]
    validation: Annotated[
        float, 0.0, "fraction of each client's training examples that is kept apart, for choosing hyperparameters."
    ]


class SplitOfFile(Split, total=False):
    """What a problem has whose examples lie in a file."""

    manual_dir: Annotated[str | None, None, "folder with the file, put there by hand."]
    data_dir: Annotated[str | None, None, "where prepared data are kept."]


def with_shared(**defaults: Unpack[SplitOfFile]) -> Callable[[Function], Function]:
    """Spell out the options that a function takes as ``**options: Unpack[...]`` of a class such as :class:`Split`.

    The function is given all of them. Its signature names them, and its docstring says of each what the class says,
    unless it has words of its own.

    Args:
      defaults: in place of those of the class.

    Returns:
      A decorator. What it makes raises a ``TypeError`` for an option that it has not, with the nearest that it has.

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
    """``doc`` with a line for each option that its last section but ``Raises`` does not tell yet."""
    head, raises, rest = inspect.cleandoc(doc).partition("\n\nRaises:")
    lines = [
        textwrap.fill(f"{name}: {text}", 118, initial_indent="  ", subsequent_indent="    ")
        for name, text in words.items()
        if f"\n  {name}: " not in head
    ]
    return "\n".join([head, *lines]) + raises + rest
