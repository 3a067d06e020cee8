"""Shakespeare by speaking role: predicting the next character."""

from typing import Unpack

import numpy as np

from sps_jax import datasets
from sps_jax.datasets.shakespeare import windows
from sps_jax.errors import refuse_unknown
from sps_jax.models import lstm, transformer
from sps_jax.problem import Problem
from sps_jax.problems.dealing import consecutive, hold_out_and_deal
from sps_jax.problems.shared import SplitOfFile
from sps_jax.problems.supervised import held_in, network_problem, objective
from sps_jax.simulation.choices import with_shared

MODELS = {"lstm": lstm, "transformer": transformer}
MIN_CHARACTERS = 1_000


@with_shared(clients=100, partition="natural", dirichlet_alpha=0.5, batch_size=8)
def shakespeare(
    *,
    model: str = "lstm",
    width: int | None = None,
    depth: int | None = None,
    length: int = 80,
    **split: Unpack[SplitOfFile],
) -> Problem:
    """Next-character prediction on tiny Shakespeare: roles with at least 1,000 characters, 65 symbols.

    An example is ``length`` characters and, for each, the character that follows; examples do not overlap. A tenth of
    each role's examples, drawn with ``data_seed``, is test data. Loss and accuracy are means over the positions.

    Args:
      model: lstm or transformer.
      width: width of the network; None for the model's default.
      depth: number of layers; None for the model's default.
      length: number of characters per example.
      clients: n; with the natural partition the first n roles, otherwise all roles' examples are dealt to n clients.
      partition: natural (a client is a role), iid, by_size (whole roles), dirichlet or by_label (by first character).
      manual_dir: folder into which you have put input.txt.
    """
    refuse_unknown("model", model, MODELS)
    chosen = {name: value for name, value in (("width", width), ("depth", depth)) if value is not None}
    for name, value in {**chosen, "length": length}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if model == "transformer":
        chosen["length"] = length
    held_in(split["precision"])
    raw = datasets.shakespeare(manual_dir=split["manual_dir"], data_dir=split["data_dir"])
    examples = [windows(text, length) for text in raw.texts if len(text) >= MIN_CHARACTERS]
    x, y = (np.concatenate(each) for each in zip(*examples, strict=True))
    own = consecutive([len(windows) for windows, _ in examples])
    called = f"roles of at least {MIN_CHARACTERS} characters"
    rows, held, parts, apart = hold_out_and_deal(split, x[:, 0], own, called)
    return network_problem(
        "softmax",
        MODELS[model](len(raw.vocabulary), dtype=split["precision"], **chosen),
        (x[rows], y[rows]),
        (x[held], y[held]),
        parts,
        evaluate_batch=64,
        **objective(split, apart),
    )
