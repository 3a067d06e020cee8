"""Any data set that TensorFlow Datasets has prepared, read without TensorFlow where it is stored as array_record."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from sps_jax.datasets.columns import Examples, Named, chosen
from sps_jax.datasets.prepare import root_of
from sps_jax.errors import unknown

DECLARED = Named()
"""The label and the input that a set declares."""


class Catalogued(NamedTuple):
    """A prepared data set.

    ``train``: its training examples. ``test``: its test examples, None if it has none. ``classes``: the names of its
    labels 0, 1, ..., None if they have none.
    """

    train: Examples
    test: Examples | None
    classes: tuple[str, ...] | None


def catalogued(name: str, named: Named = DECLARED, data_dir: str | os.PathLike[str] | None = None) -> Catalogued:
    """Return a prepared data set's splits ``train`` and ``test``.

    Args:
      name: ``mnist``, or ``name/config`` where a set has several.
      named: the features that are label, client and inputs; by default the label and the input that the set declares.
      data_dir: see :func:`sps_jax.datasets.prepare.root_of`.

    Raises:
      ValueError: if it is not prepared there, not as array_record, cannot be read without TensorFlow, or has no such
        features.
    """
    builder = tfds.builder_from_directory(os.fspath(_folder(name, root_of(data_dir))))
    stored = builder.info.file_format.value
    if stored != "array_record":
        raise ValueError(
            f"{name} in {builder.data_path} is stored as {stored}, which only TensorFlow can read: prepare it again by "
            f"tfds build {name} --file_format=array_record"
        )
    named = _declared(name, builder.info, named)
    if "train" not in builder.info.splits:
        raise ValueError(f"{name} has no split train, only {', '.join(builder.info.splits)}")
    parts = [_read(builder, split, named) for split in ("train", "test") if split in builder.info.splits]
    names = getattr(builder.info.features[named.label], "names", None)
    return Catalogued(parts[0], parts[1] if len(parts) > 1 else None, tuple(names) if names else None)


def _folder(name: str, root: Path) -> Path:
    """Return the folder of the latest version of a data set, of its only config if ``name`` has none."""
    found = [path.parent for path in (root / name).glob("**/dataset_info.json")]
    if not found:
        raise ValueError(
            f"{name} is not prepared in {root}: with TensorFlow, tfds build {name} --file_format=array_record does that"
        )
    configs = sorted({str(folder.parent.relative_to(root)) for folder in found})
    if len(configs) > 1:
        raise ValueError(f"{name} is prepared in several configs, name one of {', '.join(configs)}")
    return max(found, key=lambda folder: [int(part) if part.isdigit() else -1 for part in folder.name.split(".")])


def _declared(name: str, info: tfds.core.DatasetInfo, named: Named) -> Named:
    """Return the names with the label and the input that the set declares, where they are missing."""
    keys: Any = info.supervised_keys
    keys = keys if keys and len(keys) == 2 and all(isinstance(key, str) for key in keys) else None
    if keys is None and named.label is None:
        raise ValueError(f"{name} declares no label: name its label and inputs among {', '.join(info.features)}")
    return Named(named.label or keys[1], named.client, named.inputs or (keys and keys[:1]))


def _read(builder: tfds.core.DatasetBuilder, split: str, named: Named) -> Examples:
    """Return the examples of a split; only the named features are decoded, or all if no inputs are named."""
    features = builder.info.features
    wanted = [*filter(None, named[:2]), *(named.inputs or features)]
    for one in wanted:
        if one not in features:
            raise unknown("feature", one, features)
    decoders = {one: tfds.decode.SkipDecoding() for one in features if one not in wanted}
    try:
        source = builder.as_data_source(split, decoders=decoders)
        rows = [source[i] for i in range(len(source))]
    except ImportError as error:
        raise ValueError(f"{builder.name} has features that only TensorFlow can decode ({error})") from None
    columns: dict[str, Any] = {one: [row[one] for row in rows] for one in dict.fromkeys(wanted)}
    for one, values in columns.items():
        shapes = sorted({np.shape(value) for value in values})
        if len(shapes) > 1:
            raise ValueError(
                f"{builder.name}'s {one} has examples of several shapes, such as {shapes[0]} and {shapes[-1]}; a model "
                "here takes one"
            )
        columns[one] = np.asarray(values)
    return chosen(columns, named)
