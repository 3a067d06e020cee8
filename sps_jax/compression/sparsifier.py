"""The sparsifier: a criterion, a structure, a scope and a choice of leaves."""

from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.compression import structures
from sps_jax.compression.bits import SHARED_POSITIONS, MessageFormat
from sps_jax.compression.criteria import CRITERIA, Criterion
from sps_jax.compression.leaves import Prunable, chosen, names, nothing, patterns_of, refuse_strangers
from sps_jax.compression.scopes import SCOPES, as_scalar, erk_densities, kept
from sps_jax.compression.selection import topk_mask
from sps_jax.compression.structures import Entries
from sps_jax.errors import refuse_unknown
from sps_jax.tree import Tree


@dataclass(frozen=True)
class Sparsifier:
    r"""A function ``prune(params, sparsity)`` that keeps the blocks with the largest scores and zeroes the others.

    It keeps exactly :math:`K = \max(1, \mathrm{round}((1 - s) d))` of the d blocks of the prunable leaves, s being the
    sparsity; ties go to the lowest index (leaf order of the pytree, then row-major). Equal options give equal
    sparsifiers, so that JAX reuses a compiled program.

    Attributes:
      criterion: what scores the entries: a name in :data:`CRITERIA`, or your own function, see
        :mod:`sps_jax.compression.criteria`.
      structure: the blocks that are kept or dropped together, a name in :data:`STRUCTURES`: ``"entries"``, ``"rows"``,
        ``"filters"``, ``"blocks:4x4"``, ``"groups:4"``, ``"2:4"``; see :mod:`sps_jax.compression.structures`.
      scope: ``"global"`` ranks the blocks of all prunable leaves together; ``"layerwise"`` and ``"erk"`` rank those of
        each leaf by itself, the latter with the densities of :func:`erk_densities`, so that K is the sum of the leaves'
        own rounded numbers. Groups and N:M rank within each group, whatever the scope.
      prunable: which leaves are pruned; the others stay unchanged. None for the weights: leaves with at least two axes
        whose names are not those of biases, scales and norms; in a model without such leaves, vectors that are not so
        named. Or patterns over the leaves' paths, ``"kernel"`` or ``("!first", "!last")``, or a function
        ``path, leaf -> bool``; see :func:`sps_jax.compression.leaves.chosen`.

    A leaf counts as one layer. If layers are stacked along a first axis, as by ``flax.linen.scan``, ``"layerwise"`` and
    ``"erk"`` rank them together, and a filter spans all of them.

    Raises:
      ValueError: for an unknown criterion, structure or scope, an invalid pattern, or ``"erk"`` with groups.

    >>> import jax.numpy as jnp
    >>> Sparsifier(structure="rows")(jnp.array([[1.0, -1.0], [0.0, 3.0]]), 0.5).tolist()
    [[0.0, 0.0], [0.0, 3.0]]
    """

    criterion: str | Criterion = "magnitude"
    structure: str | Entries = "entries"
    scope: str = "global"
    prunable: Prunable = None

    def __post_init__(self) -> None:
        if isinstance(self.criterion, str):
            refuse_unknown("criterion", self.criterion, CRITERIA)
            object.__setattr__(self, "criterion", CRITERIA[self.criterion])
        if isinstance(self.structure, str):
            object.__setattr__(self, "structure", structures.structure(self.structure))
        refuse_unknown("scope", self.scope, SCOPES)
        object.__setattr__(self, "prunable", _hashable(self.prunable))
        self._blocks.check(self.scope)

    @property
    def _score(self) -> Criterion:
        return cast(Criterion, self.criterion)  # __post_init__ has replaced the name

    @property
    def _blocks(self) -> Entries:
        return cast(Entries, self.structure)  # __post_init__ has replaced the name

    @property
    def wants_gradient(self) -> bool:
        """Whether the criterion uses the client's gradient when it is available."""
        return getattr(self.criterion, "wants_gradient", False)

    @property
    def code(self) -> MessageFormat:
        """The format of messages made of such pruned models; a message can be any pytree of them."""
        return SHARED_POSITIONS if getattr(self.criterion, "shared", False) else self._blocks.code(self.prunable)

    def agree(self, sparsity: float) -> None:
        """Raise a ``ValueError`` if the structure is an N:M and ``sparsity`` implies another N."""
        self._blocks.agree(sparsity)

    def leaves(self, params: Tree) -> dict[str, int]:
        """Returns the names of the leaves that are pruned, and the number of entries of each.

        ``params`` may consist of shapes.

        Raises:
          ValueError: if no leaf is pruned, or a pattern matches none.

        Example:
          >>> Sparsifier().leaves({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
          {'kernel': 6}
        """
        pruned = self._chosen(params)
        if not any(pruned):
            raise nothing(params, self.prunable)
        each = zip(names(params), jax.tree.leaves(params), pruned, strict=True)
        return {name: leaf.size for name, leaf, yes in each if yes}

    def _chosen(self, params: Tree) -> list[bool]:
        refuse_strangers(params, self.prunable)
        return chosen(params, self.prunable)

    def __call__(self, params: Tree, sparsity: jax.Array | float, gradient: Tree | None = None) -> Tree:
        """Returns ``params`` with all but the kept blocks set to zero.

        Args:
          params: pytree of floating-point arrays of ONE model.
          sparsity: s in [0, 1), the fraction of blocks set to zero; may be traced.
          gradient: a pytree like ``params``, or None.

        Returns:
          A pytree of the same structure, shapes and dtypes.

        Raises:
          ValueError: for a Python number out of range, or one that contradicts N:M; for a model without a leaf to
            prune or whose prunable entries are a single block, unless the sparsity is known to be 0; for a pattern that
            matches no leaf.
        """
        if isinstance(sparsity, float | int):
            if not 0 <= sparsity < 1:
                raise ValueError(f"sparsity must be in [0, 1), not {sparsity}")
            self.agree(sparsity)
        leaves, treedef = jax.tree.flatten(params)
        chosen = [i for i, yes in enumerate(self._chosen(params)) if yes]
        if not chosen:
            if any(leaf.size for leaf in leaves) and not _is_zero(sparsity):
                raise nothing(params, self.prunable)
            return params
        slopes = None if gradient is None else jax.tree.leaves(gradient)
        scores = self._score([leaves[i] for i in chosen], slopes and [slopes[i] for i in chosen])
        for i, mask in zip(chosen, self._masks(scores, as_scalar(sparsity)), strict=True):
            leaves[i] = jnp.where(mask, leaves[i], jnp.zeros_like(leaves[i]))
        return jax.tree.unflatten(treedef, leaves)

    def _masks(self, scores: list[jax.Array], sparsity: jax.Array) -> list[jax.Array]:
        """Returns for each leaf with these scores a mask of the entries that are kept."""
        shapes = [score.shape for score in scores]
        ranked = [self._blocks.ranked(score) for score in scores]
        together = [sum(map(len, ranked))] if self.scope == "global" else list(map(len, ranked))
        if isinstance(self.structure, structures.Tiles) and max(together) == 1 and not _is_zero(sparsity):
            raise ValueError(
                f"structure {self.structure} with scope {self.scope!r} ranks a single block, and at least one is kept, "
                "so nothing would be pruned; use smaller blocks or another structure, such as entries or filters"
            )
        if self.scope == "global" and not isinstance(self.structure, structures.Groups):
            ends = np.cumsum([len(each) for each in ranked])
            mask = topk_mask(jnp.concatenate(ranked), kept(sparsity, int(ends[-1])))
            masks = jnp.split(mask, ends[:-1])
        else:
            sparsities = [sparsity] * len(shapes)
            if self.scope == "erk":
                sparsities = [1 - density for density in erk_densities(shapes, 1 - sparsity)]
            masks = [self._blocks.choose(each, s) for each, s in zip(ranked, sparsities, strict=True)]
        return [self._blocks.spread(mask, shape) for mask, shape in zip(masks, shapes, strict=True)]


def topk(params: Tree, sparsity: jax.Array | float, *, scope: str = "global", prunable: Prunable = None) -> Tree:
    """Returns ``params`` with all but the entries of largest magnitude set to zero: the default :class:`Sparsifier`.

    Args:
      params: pytree of floating-point arrays of ONE model.
      sparsity: s in [0, 1), the fraction of entries set to zero; may be traced.
      scope, prunable: see :class:`Sparsifier`.

    Returns:
      A pytree of the same structure, shapes and dtypes.

    Raises:
      ValueError: for an unknown scope, and as for a :class:`Sparsifier`.

    Example:
      >>> topk({"w": jnp.array([[1.0, -3.0], [0.5, 2.0]]), "bias": jnp.array([0.1])}, 0.5)["w"].tolist()
      [[0.0, -3.0], [0.0, 2.0]]
    """
    return Sparsifier(scope=scope, prunable=prunable)(params, sparsity)


def _hashable(prunable: Prunable) -> Prunable:
    """Returns patterns as a tuple, so that one pattern and a list of one compare equal."""
    return prunable if prunable is None or callable(prunable) else patterns_of(prunable)


def _is_zero(sparsity: jax.Array | float) -> bool:
    """Whether ``sparsity`` is known to be 0; a traced one is not."""
    return not isinstance(sparsity, jax.core.Tracer) and float(sparsity) == 0
