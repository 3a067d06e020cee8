"""Which leaves of a model are pruned: by default its weights, recognised by names and shapes, or the user's choice.

:func:`chosen` alone decides this, both for pruning a model and for counting the bits of its messages.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax

from sps_jax.tree import Tree

Prunable = Callable[[tuple, jax.Array], bool] | str | tuple[str, ...] | None
"""``path, leaf -> bool``, a pattern or several of them, or None for the weights: see :func:`chosen`."""

BESIDE = {"bias", "biases", "scale", "scales", "offset", "offsets", "intercept"}
"""Words in the last name of a leaf's path that mark the leaf as no weight."""
NORM = re.compile(r"(ln|bn|gn|.*norm|.*normali[sz]ation)")
"""Words that do so in the leaf's own name or in the name of its layer."""
LISTED = 30
"""The most leaves that an error message lists."""


def chosen(params: Tree, prunable: Prunable = None) -> list[bool]:
    """Returns for each leaf of ``params``, in order, whether it is pruned; an empty leaf never is.

    * None chooses the weights: the leaves with at least two axes that are not named as a bias, scale, offset or norm;
      in a model without such leaves, the vectors that are not so named. See :func:`weights`.
    * Patterns choose the leaves that at least one of them matches, except those that a pattern with a leading ``!``
      matches; if all have a ``!``, they choose among the weights. A pattern matches consecutive whole names of a leaf's
      path, joined by ``/``: ``kernel``, ``Dense_0/kernel``, ``first``. ``*`` stands for anything, ``?`` for one
      character.
    * A function ``path, leaf -> bool`` chooses the leaves for which it returns true.

    ``params`` may consist of shapes, or be a message made of several such models. The paths then begin with the model's
    index, 0 or 1 in SCAFFOLD's pair, so a function should look at a path's last keys, and a pattern should not begin
    with a number.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"first": {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}, "last": {"kernel": jnp.ones((3, 1))}}
      >>> chosen(params), chosen(params, "first"), chosen(params, "!first")
      ([False, True, True], [True, True, False], [False, False, True])
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in paths]
    if callable(prunable):
        return [leaf.size > 0 and bool(prunable(path, leaf)) for path, leaf in paths]
    named = names(params)
    patterns = patterns_of(prunable)
    wanted = [p for p in patterns if not p.startswith("!")]
    found = [any(fits(p, name) for p in wanted) for name in named] if wanted else weights(named, leaves)
    left_out = [any(fits(p[1:], name) for p in patterns if p.startswith("!")) for name in named]
    return [yes and not no and leaf.size > 0 for yes, no, leaf in zip(found, left_out, leaves, strict=True)]


def weights(named: Sequence[str], leaves: Sequence[Any]) -> list[bool]:
    """Returns which of the leaves with these names are weights.

    Leaves with at least two axes are weights, except those with a word of :data:`BESIDE` in their own name, those with
    a word of :data:`NORM` in their own or their layer's name, and a ``b`` next to a ``w``: biases of attention heads,
    and biases and norms of stacked layers, have two axes too. In a model without such weights, the vectors that are not
    excepted are.

    Example:
      >>> import jax.numpy as jnp
      >>> weights(["query/kernel", "query/bias"], [jnp.ones((8, 2, 4)), jnp.ones((2, 4))])
      [True, False]
      >>> weights(["w", "b"], [jnp.ones(9), jnp.ones(1)])
      [True, False]
    """
    beside: dict[tuple[str, str], int] = defaultdict(int)  # (layer, rest of the name) -> most axes of its w
    for name, leaf in zip(named, leaves, strict=True):
        layer, own = _split(name)
        for rest in {own[1:], ""} if own[:1].lower() == "w" else ():
            beside[layer, rest] = max(beside[layer, rest], leaf.ndim, 2)

    def excepted(name: str, leaf: Any) -> bool:
        layer, own = _split(name)
        parts = [*layer.split("/")[-1:], own]
        if BESIDE & set(_words(own)) or any(NORM.fullmatch(word) for part in parts for word in _words(part)):
            return True
        return own[:1].lower() == "b" and leaf.ndim < beside.get((layer, own[1:]), 0)

    others = [leaf.size == 0 or excepted(name, leaf) for name, leaf in zip(named, leaves, strict=True)]
    matrices = [leaf.ndim > 1 and not other for leaf, other in zip(leaves, others, strict=True)]
    return matrices if any(matrices) else [leaf.ndim > 0 and not o for leaf, o in zip(leaves, others, strict=True)]


def _split(name: str) -> tuple[str, str]:
    """Returns the layer's path and the leaf's own name."""
    layer, _, own = name.rpartition("/")
    return layer, own


def _words(name: str) -> list[str]:
    """Returns the words of a name such as ``LayerNorm_0``, ``layer_norm`` or ``ln1``, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def names(params: Tree) -> list[str]:
    """Returns the leaves' paths, joined by ``/``; the path is empty if ``params`` is a single array.

    Example:
      >>> names({"Dense_0": {"kernel": 1.0}, "layers": [2.0]})
      ['Dense_0/kernel', 'layers/0']
    """
    return [_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


def _name(path: tuple) -> str:
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):  # flax, nnx for instance, boxes arrays
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def patterns_of(prunable: Any) -> tuple[str, ...]:
    """Returns one pattern, or a tuple or list of patterns, as a tuple; an empty one for None.

    Raises:
      ValueError: for anything else.

    Example:
      >>> patterns_of("kernel")
      ('kernel',)
    """
    if prunable is None:
        return ()
    patterns = tuple(prunable) if isinstance(prunable, tuple | list) and prunable else (prunable,)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern.removeprefix("!").strip("/"):
            raise ValueError(
                f"prunable must be patterns such as 'kernel', 'Dense_0/kernel' or '!first', a function of a leaf's "
                f"path and the leaf, or None for all weights, not {pattern!r}"
            )
    return patterns


def fits(pattern: str, name: str) -> bool:
    """Whether ``pattern`` matches consecutive whole names of the path ``name``.

    Example:
      >>> [fits(pattern, "params/Dense_0/kernel") for pattern in ("kernel", "Dense_*", "Dense", "params/*/kernel")]
      [True, True, False, True]
    """
    return fnmatchcase(f"/{name}/", f"*/{pattern.strip('/')}/*")


def refuse_strangers(params: Tree, prunable: Prunable) -> None:
    """Raise a ``ValueError`` for a pattern that matches no leaf of ``params``.

    Example:
      >>> refuse_strangers({"kernel": 1.0}, "kernel")
    """
    named = names(params)
    for pattern in () if callable(prunable) else patterns_of(prunable):
        if not any(fits(pattern.removeprefix("!"), name) for name in named):
            raise ValueError(f"the pattern {pattern!r} matches no leaf of the model; its leaves are {listed(params)}")


def nothing(params: Tree, prunable: Prunable) -> ValueError:
    """Returns the error for a model in which no leaf would be pruned.

    Example:
      >>> import jax.numpy as jnp
      >>> str(nothing({"scale": jnp.ones((2, 3))}, None)).split(";")[0]
      'no leaf of this model would be pruned: all are biases, scales, norms or scalars: scale (2, 3)'
    """
    why = "all are biases, scales, norms or scalars" if prunable is None else "prunable chooses none of them"
    return ValueError(
        f"no leaf of this model would be pruned: {why}: {listed(params)}; choose leaves, with "
        "Sparsifier(prunable='kernel') or --prune-leaves kernel, or use a method that does not prune"
    )


def listed(params: Tree) -> str:
    """Returns the leaves' names and shapes, for an error message.

    Example:
      >>> import jax.numpy as jnp
      >>> listed({"b": jnp.ones(3), "w": jnp.ones((2, 3))})
      'b (3,), w (2, 3)'
    """
    each = [
        f"{name or 'an array without a name'} {leaf.shape}"
        for name, leaf in zip(names(params), jax.tree.leaves(params), strict=True)
    ]
    more = [f"and {len(each) - LISTED} more"] if len(each) > LISTED else []
    return ", ".join(each[:LISTED] + more) or "none"
