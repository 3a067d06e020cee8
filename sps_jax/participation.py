"""Who takes part in a round, and where their memory is among that of all clients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.random import fold_in

from sps_jax.cohort import Cohort
from sps_jax.problem import Problem
from sps_jax.schedule import Keys
from sps_jax.tree import Tree


class Member(NamedTuple):
    """Clients that take part in a round, int32: their numbers among all n, and their places in the cohort."""

    ids: jax.Array
    slots: jax.Array


SERVER = Member(np.int32(-1), np.int32(-1))  # type: ignore[arg-type]  # put on no device when this is imported


def taking_part(problem: Problem, cohort: Cohort | None, keys: Keys, t: jax.Array) -> tuple[Member, Problem]:
    """Who takes part in the round that begins at iteration ``t``, (C,) each, and the problem of these clients."""
    if cohort is None:
        everybody = jnp.arange(problem.clients, dtype=jnp.int32)
        return Member(everybody, everybody), problem
    who = drawn(cohort, keys, t, problem.counts)
    return who, problem.only(who.ids)


def drawn(cohort: Cohort, keys: Keys, t: jax.Array, counts: jax.Array) -> Member:
    """The cohort of the round that begins at iteration ``t``, of clients with ``counts`` (n,) examples."""
    ids = cohort.draw(fold_in(fold_in(keys.common, t), jnp.int32(-2)), counts)
    return Member(ids, jnp.arange(cohort.size, dtype=jnp.int32))


def memory_of(who: Member, cohort: Cohort | None, memory: Tree) -> Tree:
    """The memory of the clients that take part."""
    return memory if cohort is None else jax.tree.map(lambda a: a[who.ids], memory)


def remember(who: Member, cohort: Cohort | None, memory: Tree, new: Tree) -> Tree:
    """``memory`` of all clients with ``new`` in place of that of those who took part."""
    return new if cohort is None else jax.tree.map(lambda a, b: a.at[who.ids].set(b), memory, new)
