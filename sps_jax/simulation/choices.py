"""Options that several functions share: type, default and description of each, declared once."""

import inspect
import textwrap
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypedDict, TypeVar, cast, get_args

import optax

from sps_jax.errors import unknown
from sps_jax.simulation.cohort import Cohort

Function = TypeVar("Function", bound=Callable[..., Any])


class Choices(TypedDict, total=False):
    """The choices of every simulation, see :func:`sps_jax.prepare`; each ``Annotated[type, default, description]``."""

    local_steps: Annotated[
        int | None,
        None,
        "k, the fixed number of local steps per round, which implies ``prob = 1/k`` and compiles a program "
        'for each k; None to toss a coin with probability ``hyper["prob"]`` after each step.',
    ]
    transform: Annotated[
        optax.GradientTransformation | None,
        None,
        "an optax transform of the local direction, for example ``optax.clip_by_global_norm(1.0)``.",
    ]
    transform_on: Annotated[
        str, "direction", '``"direction"`` or ``"gradient"``, see :func:`sps_jax.algorithms.transformed`.'
    ]
    cohort: Annotated[
        int | Cohort | None,
        None,
        "the number of clients per round, sampled uniformly, or a :class:`sps_jax.Cohort`; None for all clients.",
    ]
    matmul_precision: Annotated[
        str | None,
        None,
        "the precision of float32 matrix products and convolutions on GPUs and TPUs, one of ``MATMUL_PRECISIONS``; None"
        " for ``jax.config.jax_default_matmul_precision`` if it is set, else float32.",
    ]
    per_client: Annotated[
        bool,
        False,
        "whether evaluations record how the model serves each client, see :mod:`sps_jax.simulation.per_client`.",
    ]


def with_shared(**defaults: Any) -> Callable[[Function], Function]:
    """Spells out the options that a function takes as ``**options: Unpack[...]`` of a class such as :class:`Choices`.

    The function receives all of them. Its signature names each, and its docstring describes each in the class's words
    unless it has its own.

    Args:
      defaults: values that replace the class's defaults.

    Returns:
      A decorator. The decorated function raises a ``TypeError`` for an unknown option and suggests the nearest one.

    Example:
      >>> from typing import Unpack
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
        assert defaults.keys() <= shared.keys()
        filled = {name: option.__metadata__[0] for name, option in shared.items()} | defaults
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
    """Returns ``doc`` with a line added, after those of ``Args``, for each option that they do not describe yet."""
    before, args, after = inspect.cleandoc(doc).partition("\nArgs:")
    told, blank, rest = after.partition("\n\n")
    lines = [
        textwrap.fill(f"{name}: {text}", 118, initial_indent="  ", subsequent_indent="    ")
        for name, text in words.items()
        if f"\n  {name}: " not in told
    ]
    return before + args + "\n".join([told, *lines]) + blank + rest
