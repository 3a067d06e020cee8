"""The models that runs leave: one safetensors file per algorithm and seed, in ``models/`` of the folder of results.

    sps-jax run --algorithm sparse_proxskip --out results --keep best
    python -c "import sps_jax as sps; print(sps.load_model('results'))"

The model is the one that is evaluated, :func:`sps_jax.model_of`, with its zeros if it is pruned: of the last round
(``--keep last``, the default) or of the best evaluation (``--keep best``), that of the highest ``validation_accuracy``,
else lowest ``validation_loss``, else highest ``test_accuracy``, else lowest ``train_loss``: the first that is recorded.
A run that diverged leaves none, unless it keeps the best.

Any safetensors reader opens the file, PyTorch's and Rust's too. Its tensors have the names of the leaves' paths, such
as ``Dense_0/kernel``; its metadata are texts: ``algorithm``, ``problem``, ``seed``, ``round``, and what was ``kept``.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sps_jax.compression.leaves import names
from sps_jax.errors import refuse_unknown
from sps_jax.results.files import at_home, replaced
from sps_jax.tree import Tree

KEEP = ("best", "last", "none")
DTYPES = {"bool", "bfloat16", "complex64", *(f"float{bits}" for bits in (16, 32, 64))}
DTYPES |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
DICTS = "dicts"
"""Metadata: the leaves' names -> their paths, as JSON, for a model of nested dicts, or of a single array."""


def file_of(folder: Path, algorithm: str, seed: int) -> Path:
    """Return the path of the model of one run.

    >>> file_of(Path("out"), "fedavg", 0).as_posix()
    'out/models/fedavg-0.safetensors'
    """
    return folder / "models" / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', algorithm)}-{seed}.safetensors"


def save_model(path: Path, model: Tree, about: Mapping[str, Any]) -> None:
    """Write ``model``, arrays in any pytree, and the texts ``about`` it, atomically.

    Raises:
      ValueError: if safetensors has no such dtype.
      OSError: if the file cannot be written.
    """
    arrays = [np.asarray(leaf, order="C") for leaf in jax.tree.leaves(model)]
    for name, array in zip(_names(model), arrays, strict=True):
        if array.dtype.name not in DTYPES:
            raise ValueError(f"{name} is of {array.dtype}, which no safetensors file holds for NumPy: give --keep none")
    leaves = dict(zip(_names(model), arrays, strict=True))
    texts = {name: str(value) for name, value in about.items()}
    keys = [path for path, _ in jax.tree_util.tree_leaves_with_path(model)]
    if all(isinstance(key, jax.tree_util.DictKey) for path in keys for key in path):
        paths = {name: [key.key for key in path] for name, path in zip(leaves, keys, strict=True)}
        if str(jax.tree.structure(_nested(leaves, paths))) == str(jax.tree.structure(model)):
            texts[DICTS] = json.dumps(paths)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial:
        try:
            save_file(leaves, partial, texts)
        except SafetensorError as error:  # such as a full disk
            raise OSError(f"cannot write {path}: {error}") from None


def _names(model: Tree) -> list[str]:
    """Return a name per leaf: its path, ``model`` for a single array."""
    found = [name or "model" for name in names(model)]
    if len(set(found)) == len(found):
        return found
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(model)]


def _nested(leaves: Mapping[str, Any], paths: Mapping[str, list]) -> Tree:
    """Return the nested dicts whose leaves have these paths; a path of no key is that of a single array."""
    made: dict[Any, Any] = {}
    for name, path in paths.items():
        if not path:
            return leaves[name]
        inner = made
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = leaves[name]
    return made


def load_model(
    folder: str | os.PathLike[str], algorithm: str | None = None, seed: int = 0, like: Tree | None = None
) -> Tree:
    """Return the model that a run left in ``folder``: the parameters that were evaluated, as JAX arrays.

    Args:
      folder: the folder of results of ``sps-jax run``.
      algorithm: the name of the algorithm; None if the folder has models of only one.
      seed: the seed of the run.
      like: a pytree of the model's structure, such as ``problem.init(key)``. Only needed where the parameters are not
        nested dicts: in lists, tuples or classes of your own.

    Raises:
      FileNotFoundError: if there is no such folder, or no model in it.
      ValueError: if the algorithm or seed has no model, the file is damaged, or ``like`` has another structure.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_model(file_of(Path(folder), "gd", 0), {"x": np.ones(2, np.float32)}, {"algorithm": "gd", "seed": 0})
      ...     load_model(folder)
      {'x': Array([1., 1.], dtype=float32)}
    """
    path = _found(at_home(folder), algorithm, seed)
    leaves, texts = _read(path)
    wanted = None if like is None else _names(like)
    if wanted is None:
        if DICTS not in texts:
            raise ValueError(f"the model in {path} is not of nested dicts; give like=, such as problem.init(key)")
        return _nested(leaves, json.loads(texts[DICTS]))
    if odd := sorted(leaves.keys() ^ set(wanted)):
        raise ValueError(f"{path} and like have other leaves, first {odd[0]}; the file has {', '.join(leaves)}")
    for name, leaf in zip(wanted, jax.tree.leaves(like), strict=True):
        if np.shape(leaf) != leaves[name].shape:
            raise ValueError(f"{name} has shape {leaves[name].shape} in {path}, but {np.shape(leaf)} in like")
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in wanted])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: _array(file.get_tensor(name)) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _array(array: np.ndarray) -> Any:
    """Return a JAX array, or the NumPy array itself if JAX would round it (float64 without ``jax_enable_x64``)."""
    return jnp.asarray(array) if jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype else array


def _found(folder: Path, algorithm: str | None, seed: int) -> Path:
    """Return the file of a model; raise as :func:`load_model` if there is none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    about = {path: _read(path)[1] for path in sorted((folder / "models").glob("*.safetensors"))}
    if not about:
        raise FileNotFoundError(f"{folder} has no models: the run had --keep none, has not ended, or diverged")
    kept = list(dict.fromkeys(each.get("algorithm", path.stem) for path, each in about.items()))
    if algorithm is None and len(kept) > 1:
        raise ValueError(f"{folder} has models of several algorithms; name one of {', '.join(kept)}")
    algorithm = kept[0] if algorithm is None else algorithm
    refuse_unknown(f"algorithm with a model in {folder}", algorithm, kept)
    path = file_of(folder, algorithm, seed)
    if path not in about:
        seeds = [each.get("seed", "?") for each in about.values() if each.get("algorithm") == algorithm]
        raise ValueError(f"{folder} has no model of {algorithm} with seed {seed}, only with {', '.join(seeds)}")
    return path
