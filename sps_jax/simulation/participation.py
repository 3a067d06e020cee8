"""Who takes part in a round, and where their memory is among that of all clients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.random import fold_in

from sps_jax.problem import Problem
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.schedule import Keys
from sps_jax.tree import Tree


class Member(NamedTuple):
    """Clients that take part in a round, int32: their numbers among all n, and their places in the cohort."""

    ids: jax.Array
    slots: jax.Array


SERVER = Member(np.int32(-1), np.int32(-1))  # type: ignore[arg-type]  # put on no device when this is imported


class Shares(NamedTuple):
    """What the members of a cohort count for, arrays or None where all clients count the same.

    Attributes:
      weights: (C,) their weights, which add up to one: the mean over the cohort.
      share: a scalar, what their weights among all n clients add up to.
      estimate: (C,) weights of an estimate of the mean over all n clients; None where these are ``weights`` too.
    """

    weights: jax.Array | None = None
    share: jax.Array | None = None
    estimate: jax.Array | None = None


class Participants(NamedTuple):
    """Those who take part in a round.

    Attributes:
      who: which of the clients.
      problem: of these clients alone, with the weights of ``shares``.
      shares: what they count for.
    """

    who: Member
    problem: Problem
    shares: Shares


def taking_part(problem: Problem, cohort: Cohort | None, keys: Keys, t: jax.Array) -> Participants:
    """Who takes part in the round that begins at iteration ``t``."""
    if cohort is None:
        everybody = jnp.arange(problem.clients, dtype=jnp.int32)
        return Participants(Member(everybody, everybody), problem, Shares(problem.weights))
    who, shares = drawn(cohort, keys, t, problem.examples, problem.weights, problem.ridge.dtype)
    return Participants(who, problem.only(who.ids), shares)


def drawn(
    cohort: Cohort, keys: Keys, t: jax.Array, examples: jax.Array, weights: jax.Array | None, dtype: Any
) -> tuple[Member, Shares]:
    """The cohort of the round that begins at iteration ``t``, and what its members count for.

    Args:
      examples: (n,) of each client.
      weights: (n,) of the clients, or None for equal ones.
      dtype: of what they count for.
    """
    ids, likely = cohort.sample(fold_in(fold_in(keys.common, t), jnp.int32(-2)), examples)
    who = Member(ids, jnp.arange(cohort.size, dtype=jnp.int32))
    if weights is None and cohort.by == "uniform":  # C/n and 1/n: the plain mean is unbiased
        return who, Shares()
    own = jnp.full(cohort.size, 1 / len(examples), dtype) if weights is None else weights[ids].astype(dtype)
    estimate = own / likely.astype(dtype) if cohort.estimate == "unbiased" else None
    if weights is None:
        return who, Shares(estimate=estimate)
    share = jnp.sum(own)
    return who, Shares(own / share, share, estimate)


def memory_of(who: Member, cohort: Cohort | None, memory: Tree) -> Tree:
    """The memory of the clients that take part."""
    return memory if cohort is None else jax.tree.map(lambda a: a[who.ids], memory)


def remember(who: Member, cohort: Cohort | None, memory: Tree, new: Tree) -> Tree:
    """``memory`` of all clients with ``new`` in place of that of those who took part."""
    return new if cohort is None else jax.tree.map(lambda a, b: a.at[who.ids].set(b), memory, new)
