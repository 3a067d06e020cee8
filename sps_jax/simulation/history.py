"""The history of a simulation: one row per evaluation, the bits sent so far, and the round that diverged."""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from sps_jax.compression.bits import MessageCount, message_bits, total_bits
from sps_jax.errors import whole_number
from sps_jax.simulation.footprint import Shapes
from sps_jax.simulation.state import Past


def tabulate(
    metrics: Mapping[str, np.ndarray],
    evaluated: np.ndarray,
    shapes: Shapes,
    encoding: str = "cheapest",
    past: Past = Past(),  # noqa: B008 (immutable)
) -> dict[str, np.ndarray]:
    """Return the history of some rounds: columns with one row per evaluated round.

    Args:
      metrics: from :func:`sps_jax.simulation.simulate.run_rounds`, of R rounds.
      evaluated: (R,) booleans, the rounds that were evaluated.
      shapes: from :func:`sps_jax.shapes`.
      encoding: see :mod:`sps_jax.compression.bits`.
      past: the rounds and bits before these R rounds.

    Returns:
      Columns of equal length: ``round`` (from 1), ``iteration``, ``uplink_bits`` and ``downlink_bits`` (totals over
      all clients since the start), and the metrics of :func:`sps_jax.simulation.evaluation.observe`. With a cohort, a
      round begins with a broadcast to its members and, if the method needs it, ends with an answer to them, the same b;
      a client in this cohort and the next gets it twice. ``answer_bits``, present only if there are answers, is their
      part of ``downlink_bits``; the rest counts broadcasts.
    """
    columns = {name: np.asarray(values) for name, values in metrics.items()}
    clients = columns["up"].shape[1]
    up, down = columns.pop("up"), columns.pop("down")
    del columns["finite"]
    history = {"round": past.rounds + np.flatnonzero(evaluated) + 1} | {
        name: values[evaluated] for name, values in columns.items()
    }
    uplink = [total_bits(MessageCount(*row.T), shapes.up, encoding) for row in up]
    each = 1 if shapes.cohort is None or not shapes.answer else 2  # the answer, and the broadcast to the next cohort
    downlink = [each * clients * message_bits(MessageCount(*row), shapes.down, encoding) for row in down]
    bits = {"uplink_bits": (past.uplink_bits, uplink), "downlink_bits": (past.downlink_bits, downlink)}
    totals = {name: list(accumulate(sent, initial=before))[1:] for name, (before, sent) in bits.items()}
    history |= {name: np.array(total)[evaluated] for name, total in totals.items()}
    return history if each == 1 else history | {"answer_bits": history["downlink_bits"] / 2}


def advance(
    metrics: Mapping[str, np.ndarray], evaluated: np.ndarray, shapes: Shapes, encoding: str, past: Past
) -> tuple[dict[str, np.ndarray], Past]:
    """Return the history of R rounds, as :func:`tabulate` does, and the :class:`Past` after them."""
    if not len(evaluated):
        return tabulate(metrics, evaluated, shapes, encoding, past), past
    last = np.arange(len(evaluated)) == len(evaluated) - 1  # tabulated for the bit totals, even if not evaluated
    history = tabulate(metrics, evaluated | last, shapes, encoding, past)
    after = Past(*(history[name][-1].item() for name in ("round", "uplink_bits", "downlink_bits")))
    return history if evaluated[-1] else {name: column[:-1] for name, column in history.items()}, after


def diverged_at(metrics: Mapping[str, np.ndarray], evaluated: np.ndarray) -> int | None:
    """Return the first round, from 1, whose server state or evaluated training loss is not finite; None if all are."""
    bad = ~(metrics["finite"] & (~evaluated | np.isfinite(metrics["train_loss"])))
    return int(bad.argmax()) + 1 if bad.any() else None


def healthy(metrics: Mapping[str, np.ndarray], evaluated: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of the rounds before divergence, see :func:`diverged_at`; of all rounds without one."""
    diverged = diverged_at(metrics, evaluated)
    return {name: values[: None if diverged is None else diverged - 1] for name, values in metrics.items()}


def healthy_history(
    metrics: Mapping[str, np.ndarray], evaluated: np.ndarray, shapes: Shapes, encoding: str
) -> tuple[dict[str, np.ndarray], int | None]:
    """Return the history (:func:`tabulate`) of the rounds before divergence, and the round that diverged or None."""
    before = healthy(metrics, evaluated)
    history = tabulate(before, evaluated[: len(before["finite"])], shapes, encoding)
    return history, diverged_at(metrics, evaluated)


def asked_rounds(rounds: int, evaluate_every: int, done: int = 0) -> np.ndarray:
    """Return (rounds,) booleans, the rounds to evaluate: every ``evaluate_every``-th round, and the last.

    Rounds are counted from the first of the simulation, of which ``done`` came before these.

    >>> asked_rounds(3, 2).tolist(), asked_rounds(3, 2, done=3).tolist()
    ([False, True, True], [True, False, True])
    """
    rounds, evaluate_every = whole_number("rounds", rounds), whole_number("evaluate_every", evaluate_every)
    evaluated = (done + np.arange(1, rounds + 1)) % evaluate_every == 0
    evaluated[-1] = True
    return evaluated
