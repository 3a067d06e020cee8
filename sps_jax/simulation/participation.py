"""Sample the clients of a round, and read and write their rows in the memory of all clients."""

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
    """Members of a cohort, int32: their client ids in 0..n-1, and their slots in the cohort, 0..C-1.

    ``updates``, (C,) booleans, says who updates its memory where messages may be lost; None for all.
    """

    ids: jax.Array
    slots: jax.Array
    updates: jax.Array | None = None


SERVER = Member(np.int32(-1), np.int32(-1))  # type: ignore[arg-type]  # NumPy: importing must not touch a device


class Shares(NamedTuple):
    """The weights of a cohort's members in averages; None where all clients weigh the same.

    Attributes:
      weights: (C,) weights of the mean over the cohort, which sum to one.
      share: a scalar, the sum of the members' weights among all n clients.
      estimate: (C,) weights of an estimate of the mean over all n clients; None if they equal ``weights``.
    """

    weights: jax.Array | None = None
    share: jax.Array | None = None
    estimate: jax.Array | None = None


class Participants(NamedTuple):
    """The cohort of a round, with its data and weights.

    Attributes:
      who: the members.
      problem: the problem of the members alone, with the weights of ``shares``.
      shares: the members' weights.
    """

    who: Member
    problem: Problem
    shares: Shares


def taking_part(
    problem: Problem, cohort: Cohort | None, keys: Keys, t: jax.Array, number: jax.Array | int = 0
) -> Participants:
    """Return the participants of round ``number``, from 0, which begins at iteration ``t``: a cohort, or all."""
    if cohort is None:
        ids = jnp.arange(problem.clients, dtype=jnp.int32)
        return Participants(Member(ids, ids), problem, Shares(problem.weights))
    at = t, jnp.asarray(number, jnp.int32)
    who, shares = drawn(cohort, keys, at, problem.examples, problem.weights, problem.ridge.dtype)
    return Participants(who, problem.only(who.ids), shares)


def drawn(
    cohort: Cohort,
    keys: Keys,
    at: tuple[jax.Array, jax.Array],
    examples: jax.Array,
    weights: jax.Array | None,
    dtype: Any,
) -> tuple[Member, Shares]:
    """Sample the cohort of a round, and which of its messages are lost; return its members and their weights.

    Args:
      cohort: how to sample.
      keys: the keys of the simulation.
      at: the iteration at which the round begins, and the round's number.
      examples: (n,) the number of examples of each client.
      weights: (n,) the client weights; None for equal weights.
      dtype: the dtype of the returned weights.
    """
    t, number = at
    ids, likely = cohort.sample(fold_in(fold_in(keys.common, t), jnp.int32(-2)), examples)
    who = Member(ids, jnp.arange(cohort.size, dtype=jnp.int32))
    plain = weights is None and cohort.by == "uniform"  # C/n and 1/n: the plain mean is unbiased
    if plain and cohort.lost is None:
        return who, Shares()
    own = jnp.full(cohort.size, 1 / len(examples), dtype) if weights is None else weights[ids].astype(dtype)
    if cohort.lost is not None:
        arrived, updates = cohort.lost.arrive(fold_in(keys.common, jnp.int32(-3)), ids, number)
        chance = None if plain or cohort.estimate == "normalised" else likely.astype(dtype) * cohort.lost.share
        return who._replace(updates=updates), _received(arrived, own, chance)
    estimate = own / likely.astype(dtype) if cohort.estimate == "unbiased" else None
    if weights is None:
        return who, Shares(estimate=estimate)
    share = jnp.sum(own)
    return who, Shares(own / share, share, estimate)


def _received(arrived: jax.Array, own: jax.Array, chance: jax.Array | None) -> Shares:
    """Return the shares of the clients whose messages ``arrived``, (C,) booleans; all are zero if none did.

    Args:
      arrived: whose message the server averages.
      own: (C,) the members' weights among all n clients.
      chance: (C,) the probabilities that a client is sampled and its message arrives, to divide by; None to normalise.
    """
    kept = jnp.where(arrived, own, jnp.zeros_like(own))
    share = jnp.sum(kept)
    return Shares(kept / jnp.where(share > 0, share, 1), share, None if chance is None else kept / chance)


def memory_of(who: Member, cohort: Cohort | None, memory: Tree) -> Tree:
    """Return the memory rows of the members, (C, ...)."""
    return memory if cohort is None else jax.tree.map(lambda a: a[who.ids], memory)


def remember(who: Member, cohort: Cohort | None, memory: Tree, new: Tree) -> Tree:
    """Return the memory of all clients, with the members' rows replaced by ``new``."""
    return new if cohort is None else jax.tree.map(lambda a, b: a.at[who.ids].set(b), memory, new)
