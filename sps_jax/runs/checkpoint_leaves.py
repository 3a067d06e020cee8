"""The leaves of a checkpoint: which leaves of a pytree can be stored, as which arrays, and how to restore them."""

import zlib
from typing import Any

import jax
import numpy as np

Tree = Any
NUMBERS = (bool, int, float, complex)
KEPT = {
    "bool", "int2", "int4", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float4_e2m1fn", "float8_e3m4", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
}  # fmt: skip
"""The names of the dtypes that orbax's format can store."""


def named(tree: Tree) -> dict[str, Any]:
    """Return the leaves by their paths.

    >>> named({"x": [1, 2]})
    {"['x'][0]": 1, "['x'][1]": 2}
    """
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def stored(name: str, leaf: Any) -> np.ndarray:
    """Return a copy of a leaf as an array of numbers in native byte order.

    Raises:
      ValueError: naming the leaf, if it is not a number, an array of numbers or a random key, or its dtype is not in
        ``KEPT``.

    >>> stored("x", True), stored("x", jax.random.key(1, impl="threefry2x32"))
    (array(True), array([0, 1], dtype=uint32))
    """
    plain = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    if isinstance(plain, (*NUMBERS, np.generic, np.ndarray, jax.Array)):
        array = np.array(plain)
        if array.dtype.name in KEPT and not (type(plain) is int and array.dtype != np.int64):
            return array.astype(array.dtype.newbyteorder("="), copy=False)
    what = f"of type {type(leaf).__name__}"
    if isinstance(leaf, np.ndarray | jax.Array):
        what = f"an array of {leaf.dtype}"
    elif isinstance(leaf, int):
        what = f"the integer {leaf}, which does not fit in int64"
    raise ValueError(
        f"{name or 'the tree'} is {what}; a checkpoint holds arrays of numbers, JAX random keys and Python numbers"
    )


def generators(tree: Tree) -> dict[str, str]:
    """Return the generator names of the random keys in a tree, by their paths; keys may be abstract.

    >>> generators({"key": jax.random.key(1, impl="rbg"), "x": 1})
    {"['key']": 'rbg'}
    """
    return {name: _generator(leaf) for name, leaf in named(tree).items() if _is_key(leaf)}


def like_stored(name: str, like: Any) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype in which a leaf like this one, possibly abstract, is stored; raises as :func:`stored`.

    >>> like_stored("x", 1.5)
    ShapeDtypeStruct(shape=(), dtype=float64)
    """
    if _is_key(like):
        return jax.eval_shape(jax.random.key_data, like)
    if isinstance(like, NUMBERS) or not (hasattr(like, "shape") and hasattr(like, "dtype")):
        like = stored(name, like)
    return jax.ShapeDtypeStruct(like.shape, np.dtype(like.dtype).newbyteorder("="))


def given_back(array: np.ndarray, like: Any) -> Any:
    """Convert a stored array to a leaf like this one: a random key, a Python or NumPy number, or else the array.

    >>> given_back(np.array(3), 0), given_back(np.array(3), np.zeros(()))
    (3, array(3))
    """
    if _is_key(like):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=_generator(like))
    if isinstance(like, np.generic):
        return array[()]
    return type(like)(array.item()) if isinstance(like, NUMBERS) else array


def checksum(array: np.ndarray) -> int:
    """Return the CRC-32 of the bytes of an array.

    >>> checksum(np.zeros(2, np.uint8)) == zlib.crc32(bytes(2))
    True
    """
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", np.dtype(bool)), jax.dtypes.prng_key)


def _generator(key: Any) -> str:
    names: list[str] = []
    jax.eval_shape(lambda key: names.append(str(jax.random.key_impl(key))), key)  # eval_shape accepts abstract keys too
    return names[0]
