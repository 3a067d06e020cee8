"""Shakespeare by speaking role: predicting the next character."""

import numpy as np

from sps_jax import datasets
from sps_jax.datasets.shakespeare import windows
from sps_jax.errors import unknown
from sps_jax.models import lstm, transformer
from sps_jax.problem import Problem
from sps_jax.problems.dealing import hold_out_and_deal
from sps_jax.problems.supervised import held_in, network_problem

MODELS = {"lstm": lstm, "transformer": transformer}
MIN_CHARACTERS = 1_000


def shakespeare(
    *,
    model: str = "lstm",
    width: int | None = None,
    depth: int | None = None,
    length: int = 80,
    clients: int = 100,
    partition: str = "natural",
    dirichlet_alpha: float = 0.5,
    batch_size: int | None = 8,
    weights: str = "equal",
    validation: float = 0.0,
    data_seed: int = 0,
    precision: str = "float32",
    manual_dir: str | None = None,
    data_dir: str | None = None,
) -> Problem:
    """Next-character prediction on tiny Shakespeare, the roles with at least 1,000 characters, 65 symbols.

    An example is ``length`` characters and the ones that follow them, cut without overlap; a tenth of each role's
    examples, drawn with ``data_seed``, is test data. Loss and accuracy are means over the positions.

    Args:
      model: lstm or transformer.
      width: of the network; None for the model's own.
      depth: its number of layers; None for the model's own.
      length: characters of an example.
      clients: n, the first so many roles, or clients that their examples are dealt to.
      partition: natural (a client is a role), iid, by_size (whole roles), dirichlet or by_label (by first character).
      dirichlet_alpha: heterogeneity of the dirichlet partition.
      batch_size: examples of a local gradient, None for all.
      weights: of the clients in the objective and in the server's mean: equal (the paper's f), or size, in proportion
        to their numbers of examples.
      validation: fraction of each client's training examples that is kept apart, for choosing hyperparameters.
      data_seed: of the test part and of the partition.
      precision: float32, float64, or bfloat16 to compute in it with float32 parameters.
      manual_dir: folder with input.txt, put there by hand.
      data_dir: where prepared data are kept.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    chosen = {name: value for name, value in (("width", width), ("depth", depth)) if value is not None}
    for name, value in {**chosen, "length": length}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if model == "transformer":
        chosen["length"] = length
    held_in(precision)
    raw = datasets.shakespeare(manual_dir=manual_dir, data_dir=data_dir)
    examples = [windows(text, length) for text in raw.texts if len(text) >= MIN_CHARACTERS]
    x, y = (np.concatenate(each) for each in zip(*examples, strict=True))
    ends = np.cumsum([len(own) for own, _ in examples])
    rows, held, parts, apart = hold_out_and_deal(
        np.split(np.arange(len(x)), ends[:-1]),
        partition,
        clients,
        labels=x[:, 0],
        natural=f"roles of at least {MIN_CHARACTERS} characters",
        dirichlet_alpha=dirichlet_alpha,
        validation=validation,
        seed=data_seed,
    )
    return network_problem(
        "softmax",
        MODELS[model](len(raw.vocabulary), dtype=precision, **chosen),
        (x[rows], y[rows]),
        (x[held], y[held]),
        parts,
        batch_size=batch_size,
        weights=weights,
        validation=apart,
        precision=precision,
        evaluate_batch=64,
    )
