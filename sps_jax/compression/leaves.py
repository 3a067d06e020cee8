"""Which leaves of a model are pruned: its weights, as names and shapes tell them, or what the user says.

:func:`chosen` is the one answer, for a model that is pruned, for the messages that are counted and for who asks.
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
"""Words in the own name of a leaf that is no weight."""
NORM = re.compile(r"(ln|bn|gn|.*norm|.*normali[sz]ation)")
"""Such words in the own name, or in that of the layer that the leaf lies in."""
LISTED = 30
"""Leaves that a message names, at most."""


def chosen(params: Tree, prunable: Prunable = None) -> list[bool]:
    """Of each leaf of ``params``, in order, whether it is pruned; no leaf without entries is.

    * None takes the weights: the leaves with two axes or more that are not named as a bias, scale, offset or norm, in
      a model without any such leaf its vectors that are not; see :func:`weights`.
    * Patterns take the leaves that one of them fits, but for those that one with a ``!`` before it fits; of the weights
      where all have a ``!``. A pattern fits whole names of a leaf's path, joined by ``/``, that follow each other:
      ``kernel``, ``Dense_0/kernel``, ``first``; in it ``*`` stands for anything, ``?`` for any one character.
    * A function takes those of whose key path and leaf it says so.

    ``params`` may be shapes, or a message made of such models. There a path begins with the model's place, 0 or 1 in
    SCAFFOLD's pair, so that a function should look at the last keys of a path, and a pattern not begin with a number.

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
    """Of leaves with these names, which are weights.

    Those with two axes or more are, but for the ones with a word of :data:`BESIDE` in their own name, with a word of
    :data:`NORM` in it or in their layer's, and the ``b`` of a ``w`` beside it: biases of attention heads, biases and
    norms of stacked layers have two axes too. In a model without such a leaf, the vectors that are not excepted.

    Example:
      >>> import jax.numpy as jnp
      >>> weights(["query/kernel", "query/bias"], [jnp.ones((8, 2, 4)), jnp.ones((2, 4))])
      [True, False]
      >>> weights(["w", "b"], [jnp.ones(9), jnp.ones(1)])
      [True, False]
    """
    beside: dict[tuple[str, str], int] = defaultdict(int)  # (layer, rest of the name) -> most axes of a w there
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
    """The layer's path and the leaf's own name."""
    layer, _, own = name.rpartition("/")
    return layer, own


def _words(name: str) -> list[str]:
    """The words of ``LayerNorm_0``, ``layer_norm`` or ``ln1``, small letters."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def names(params: Tree) -> list[str]:
    """The leaves' paths, joined by ``/``; that of an array by itself is empty.

    Example:
      >>> names({"Dense_0": {"kernel": 1.0}, "layers": [2.0]})
      ['Dense_0/kernel', 'layers/0']
    """
    return [_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


def _name(path: tuple) -> str:
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):  # flax's boxes of an array, as in nnx
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def patterns_of(prunable: Any) -> tuple[str, ...]:
    """One pattern, or a tuple or list of them, as a tuple; of None an empty one.

    Raises:
      ValueError: for what is no pattern, or no function where one could be.

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
    """Whether ``pattern`` fits whole names of the path that follow each other.

    Example:
      >>> [fits(pattern, "params/Dense_0/kernel") for pattern in ("kernel", "Dense_*", "Dense", "params/*/kernel")]
      [True, True, False, True]
    """
    return fnmatchcase(f"/{name}/", f"*/{pattern.strip('/')}/*")


def refuse_strangers(params: Tree, prunable: Prunable) -> None:
    """Raise a ``ValueError`` for a pattern that fits no leaf of ``params``.

    Example:
      >>> refuse_strangers({"kernel": 1.0}, "kernel")
    """
    named = names(params)
    for pattern in () if callable(prunable) else patterns_of(prunable):
        if not any(fits(pattern.removeprefix("!"), name) for name in named):
            raise ValueError(f"the pattern {pattern!r} fits no leaf of the model: {listed(params)}")


def nothing(params: Tree, prunable: Prunable) -> ValueError:
    """The error for a model of which nothing would be pruned; raise what it returns.

    Example:
      >>> import jax.numpy as jnp
      >>> str(nothing({"scale": jnp.ones((2, 3))}, None)).split(";")[0]
      'nothing of this model is pruned, its leaves are no weights but biases, scales, norms or numbers: scale (2, 3)'
    """
    why = "no weights but biases, scales, norms or numbers" if prunable is None else "none of those asked for"
    return ValueError(
        f"nothing of this model is pruned, its leaves are {why}: {listed(params)}; say which are to be, "
        "Sparsifier(prunable='kernel') or --prune-leaves kernel, or take a method that does not prune"
    )


def listed(params: Tree) -> str:
    """The leaves' names and shapes, for a message.

    Example:
      >>> import jax.numpy as jnp
      >>> listed({"b": jnp.ones(3), "w": jnp.ones((2, 3))})
      'b (3,), w (2, 3)'
    """
    each = [
        f"{name or 'one without a name'} {leaf.shape}"
        for name, leaf in zip(names(params), jax.tree.leaves(params), strict=True)
    ]
    more = [f"and {len(each) - LISTED} more"] if len(each) > LISTED else []
    return ", ".join(each[:LISTED] + more) or "none"
