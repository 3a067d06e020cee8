"""The history of a simulation: what was seen of its rounds as rows, the bits counted, and where it diverged."""

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from sps_jax.compression.bits import MessageCount, message_bits, total_bits
from sps_jax.errors import whole_number
from sps_jax.simulation.placement import Shapes


class Past(NamedTuple):
    """What was before some rounds of a simulation: how many rounds, and bits, totals over all clients."""

    rounds: int = 0
    uplink_bits: int | float = 0
    downlink_bits: int | float = 0


def tabulate(
    seen: Mapping[str, np.ndarray],
    asked: np.ndarray,
    of: Shapes,
    encoding: str = "cheapest",
    past: Past = Past(),  # noqa: B008 (immutable)
) -> dict[str, np.ndarray]:
    """The history of a simulation: one row per evaluated communication.

    Args:
      seen: from :func:`sps_jax.simulation.simulate.run_rounds`, R rounds.
      asked: (R,), which were evaluated.
      of: from :func:`sps_jax.shapes`.
      encoding: see :mod:`sps_jax.compression.bits`.
      past: the rounds before them.

    Returns:
      Columns of equal length: ``round`` (from 1), ``iteration``, ``uplink_bits`` and ``downlink_bits`` (totals over
      all clients since the start), and what :func:`sps_jax.simulation.evaluation.observe` recorded. With a cohort a
      round begins with a broadcast to those who take part and, where the method needs it, ends with an answer to them,
      the same b; a client of this cohort and the next gets it twice. ``answer_bits``, only where there are answers, is
      what they took of ``downlink_bits``, so that the difference counts broadcasts alone.
    """
    columns = {name: np.asarray(values) for name, values in seen.items()}
    clients = columns["up"].shape[1]
    up, down = columns.pop("up"), columns.pop("down")
    del columns["finite"]
    history = {"round": past.rounds + np.flatnonzero(asked) + 1} | {
        name: values[asked] for name, values in columns.items()
    }
    uplink = [total_bits(MessageCount(*row.T), of.up, encoding) for row in up]
    each = 1 if of.cohort is None or not of.answer else 2  # an answer, and the next cohort starts from it
    downlink = [each * clients * message_bits(MessageCount(*row), of.down, encoding) for row in down]
    bits = {"uplink_bits": (past.uplink_bits, uplink), "downlink_bits": (past.downlink_bits, downlink)}
    totals = {name: list(accumulate(sent, initial=before))[1:] for name, (before, sent) in bits.items()}
    history |= {name: np.array(total)[asked] for name, total in totals.items()}
    return history if each == 1 else history | {"answer_bits": history["downlink_bits"] / 2}


def diverged_at(seen: Mapping[str, np.ndarray], asked: np.ndarray) -> int | None:
    """The first round, from 1, whose server or evaluated training loss is not finite; None if there is none."""
    bad = ~(seen["finite"] & (~asked | np.isfinite(seen["train_loss"])))
    return int(bad.argmax()) + 1 if bad.any() else None


def healthy_history(
    seen: Mapping[str, np.ndarray], asked: np.ndarray, of: Shapes, encoding: str
) -> tuple[dict[str, np.ndarray], int | None]:
    """:func:`tabulate` of the rounds before the one that :func:`diverged_at` names, and that."""
    diverged = diverged_at(seen, asked)
    done = len(asked) if diverged is None else diverged - 1
    return tabulate({name: values[:done] for name, values in seen.items()}, asked[:done], of, encoding), diverged


def asked_rounds(rounds: int, evaluate_every: int) -> np.ndarray:
    """(rounds,) booleans: every ``evaluate_every``-th round, and the last."""
    rounds, evaluate_every = whole_number("rounds", rounds), whole_number("evaluate_every", evaluate_every)
    asked = np.zeros(rounds, bool)
    asked[evaluate_every - 1 :: evaluate_every] = asked[-1] = True
    return asked
