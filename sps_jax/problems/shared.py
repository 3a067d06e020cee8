"""The options that problems share: type, default and description of each, declared once."""

from typing import Annotated, TypedDict


class Drawn(TypedDict, total=False):
    """The options of every problem with client data; each is ``Annotated[type, default, description]``."""

    clients: Annotated[int, 10, "n, the number of clients."]
    batch_size: Annotated[int | None, None, "number of examples per local gradient, None for all."]
    data_seed: Annotated[int, 0, "seed of the test set and of the partition."]
    precision: Annotated[str, "float32", "float32, float64, or bfloat16 to compute in it with float32 parameters."]


class Split(Drawn, TypedDict, total=False):  # bases in full: before Python 3.12 a TypedDict forgets them
    """The options of a problem whose examples are dealt to clients, see :func:`sps_jax.problems.dealing.deal`."""

    partition: Annotated[
        str,
        "dirichlet",
        "dirichlet, few_labels, by_label (skewed labels), quantity (skewed sizes) or iid.",
    ]
    dirichlet_alpha: Annotated[
        float, 0.3, "alpha of the partitions dirichlet and quantity; a small alpha makes clients differ more."
    ]
    labels_each: Annotated[int, 2, "number of labels of each client in the partition few_labels."]
    least: Annotated[int, 1, "least number of examples of a client in the partitions dirichlet, few_labels, quantity."]
    weights: Annotated[
        str,
        "equal",
        "the clients' weights in the objective and in the server's mean: equal (the paper's f), or size, proportional "
        "to their numbers of examples.",
    ]
    validation: Annotated[
        float, 0.0, "fraction of each client's training examples to set apart for choosing hyperparameters."
    ]


class SplitOfFile(Split, Drawn, TypedDict, total=False):
    """The options of a problem whose examples come from a file."""

    manual_dir: Annotated[str | None, None, "folder into which you have put the file."]
    data_dir: Annotated[str | None, None, "folder for prepared data."]
