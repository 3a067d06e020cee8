"""Which arrays live at once, on functions whose answer is plain."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from sps_jax.simulation import work
from sps_jax.simulation.liveness import Sized, alive

SQUARE, WIDE = jax.ShapeDtypeStruct((4, 4), jnp.float32), jax.ShapeDtypeStruct((4, 100), jnp.float32)


def shapes(function, *arguments, platform="cuda"):
    return sorted(array.shape for array in alive(function, *arguments, platform=platform))


def test_what_is_computed_entry_by_entry_needs_no_array():
    """Of a sum of entries only the sum, a scalar, is stored."""
    assert shapes(lambda x: jnp.sum(jnp.exp(x) + x**2), WIDE) == [()]


def test_a_product_stores_what_it_reads_and_writes():
    """exp(x) and the product beside each other; afterwards exp(x) is not needed any more."""
    assert shapes(lambda x, w: jnp.sum(jnp.exp(w @ x) ** 2), WIDE, SQUARE) == [(), (4, 100)]
    assert shapes(lambda x, w: w @ jnp.exp(x), WIDE, SQUARE) == [(4, 100), (4, 100)]


def test_what_is_computed_entry_by_entry_is_written_over_what_nothing_reads_later():
    """exp(w x) takes the place of w x, which is not read again: one wide array. Where it is, and in a softmax, whose
    kernel reads w x for the largest entry, the sum and the quotient, there are two; and so on a TPU."""

    def over(x, w, v):
        return jnp.exp(w @ x) @ v

    def beside(x, w, v):
        product = w @ x
        return jnp.exp(product) @ v + product @ v

    def softmax(x, w, v):
        return jax.nn.softmax(w @ x) @ v

    def wide(function, platform="cuda"):
        narrow = jax.ShapeDtypeStruct((100, 1), jnp.float32)
        return shapes(function, WIDE, SQUARE, narrow, platform=platform).count((4, 100))

    assert (wide(over), wide(beside), wide(softmax), wide(over, "tpu")) == (1, 2, 2, 2)


def test_a_gradient_keeps_the_outputs_of_every_layer():
    """Backward through two layers: exp of the first, a product of the second, which its cotangent follows."""

    def loss(w, x):
        for _ in range(2):
            x = jnp.exp(w @ x)
        return jnp.sum(x)

    held = shapes(lambda w, x: jax.grad(loss)(w, x), SQUARE, WIDE)
    assert held.count((4, 100)) == 2


def test_a_loop_holds_its_carry_and_what_its_body_holds():
    """The carry beside the exp that the body's product reads, and the product."""

    def loop(x, w):
        return lax.fori_loop(0, 3, lambda _, x: w @ jnp.exp(x), x)

    assert shapes(loop, WIDE, SQUARE).count((4, 100)) == 3


def test_on_a_tpu_long_rows_that_are_cut_into_pieces_are_stored_twice():
    """Rows of 1,024 entries and pieces of 256 lie in different tiles, pieces shorter than a tile's row in the same."""

    def cut(length):
        return lambda x: jnp.max((x * x).reshape(4, -1, length), axis=2)

    long = jax.ShapeDtypeStruct((4, 1024), jnp.float32)
    assert shapes(cut(256), long, platform="tpu") == [(4, 4, 256), (4, 1024)]
    assert shapes(cut(64), long, platform="tpu") == shapes(cut(64), long) == [(4, 16)]
    assert shapes(cut(256), long) == [(4, 4)]


def test_a_label_marks_an_entry_without_an_array():
    """The gradient of the cross-entropy is the softmax minus a mark of each label, which needs no array."""

    def slope(x, y):
        return jnp.zeros(x.shape).at[jnp.arange(4), y].add(1.0) + x

    assert (4, 100) not in shapes(slope, WIDE, jax.ShapeDtypeStruct((4,), jnp.int32))


@pytest.mark.parametrize(("platform", "rows"), [("cpu", 7), ("cuda", 5), ("tpu", 5)])
def test_the_platform_chooses_the_branch(platform, rows):
    """On a CPU the product with 7 rows, elsewhere that with 5, and the sum of its entries."""

    def either(x):
        product = partial(jnp.matmul, precision="highest")
        of_rows = {n: lambda x, n=n: jnp.sum(product(jnp.ones((n, 4)), x)) for n in (5, 7)}
        return lax.platform_dependent(x, cpu=of_rows[7], default=of_rows[5])

    assert (rows, 100) in shapes(either, WIDE, platform=platform)


def test_arrays_of_many_clients_are_resized():
    """The axis of clients is known by its length, also where it is merged with another one."""
    stacked = (Sized((work.STACKED, 3), jnp.dtype("float32")), Sized((2, 5 * work.STACKED), jnp.dtype("int32")))
    assert [a.shape for a in work.resized((*stacked, Sized((7,), jnp.dtype("int32"))), 10)] == [(10, 3), (2, 50), (7,)]
