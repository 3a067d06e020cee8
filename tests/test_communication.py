"""Bits of messages against exact integer formulas."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sps_jax.compression import Sparsifier
from sps_jax.compression.bits import ENCODINGS, KNOWN, MessageCount, MessageSpec, message_bits, total_bits, value_bits

quick = settings(deadline=None, database=None, max_examples=100)


@st.composite
def messages(draw, largest=3000):
    entries = draw(st.integers(1, largest))
    return draw(st.integers(0, entries)), entries


def ceil_log2(entries):
    """The least c with 2**c >= entries, by counting."""
    c = 0
    while 2**c < entries:
        c += 1
    return c


def exact(nonzeros, entries):
    return {
        "dense": 32 * entries,
        "indices": nonzeros * (32 + ceil_log2(entries)),
        "bitmap": entries + 32 * nonzeros,
    }


def entropy(nonzeros, entries):
    return 32 * nonzeros + math.log2(math.comb(entries, nonzeros))


def entropy_error(entries):
    """Rounding of three log-gammas no larger than log(entries!), a few ulps each, and of the sum."""
    return 16 * np.finfo(float).eps * (math.lgamma(entries + 1) / math.log(2) + 33 * entries)


def test_the_encodings_of_the_table():
    assert set(ENCODINGS) == {"dense", "indices", "bitmap", "entropy", "cheapest"}


@quick
@given(messages())
def test_exact_formulas(message):
    want = exact(*message)
    for name, bits in want.items():
        got = message_bits(*message, name)
        assert got == bits and type(got) is int
    assert message_bits(*message, "cheapest") == message_bits(*message) == min(want.values())
    assert type(message_bits(*message)) is int


@quick
@given(messages())
def test_entropy_is_the_log_of_the_binomial(message):
    got = message_bits(*message, "entropy")
    assert isinstance(got, float)
    assert abs(got - entropy(*message)) <= entropy_error(message[1])


@quick
@given(messages())
def test_no_sparse_code_beats_entropy(message):
    nonzeros, entries = message
    bound = message_bits(nonzeros, entries, "entropy") - entropy_error(entries)
    for name in ("indices", "bitmap"):
        assert bound <= message_bits(nonzeros, entries, name)


@pytest.mark.parametrize("entries", [1, 2, 3, 4, 5, 1023, 1024, 1025, 7840, 1_000_000])
@pytest.mark.parametrize("which", ["none", "one", "half", "all but one", "all"])
def test_edges(entries, which):
    nonzeros = {"none": 0, "one": 1, "half": entries // 2, "all but one": entries - 1, "all": entries}[which]
    want = exact(nonzeros, entries)
    for name, bits in want.items():
        assert message_bits(nonzeros, entries, name) == bits
    assert message_bits(nonzeros, entries) == min(want.values())
    if entries <= 7840:
        assert abs(message_bits(nonzeros, entries, "entropy") - entropy(nonzeros, entries)) <= entropy_error(entries)


@pytest.mark.parametrize("entries", [1, 2, 7840, 10**7])
def test_entropy_of_none_and_all_codes_no_position(entries):
    assert message_bits(0, entries, "entropy") == 0
    assert message_bits(entries, entries, "entropy") == 32 * entries


def test_values_by_hand():
    assert [message_bits(1, 1, name) for name in ("dense", "indices", "bitmap", "cheapest")] == [32, 32, 33, 32]
    assert [message_bits(0, 1, name) for name in ("dense", "indices", "bitmap", "cheapest")] == [32, 0, 1, 0]
    assert message_bits(1, 2, "indices") == 33
    assert message_bits(1, 2, "entropy") == pytest.approx(33, rel=1e-14)
    assert message_bits(3, 1024, "indices") == 3 * 42 and message_bits(3, 1025, "indices") == 3 * 43


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@quick
@given(data=st.data())
def test_total_is_the_sum_of_the_singles(encoding, data):
    entries = data.draw(st.integers(1, 2000))
    counts = data.draw(st.lists(st.integers(0, entries), max_size=20))
    want = math.fsum(message_bits(c, entries, encoding) for c in counts)
    got = total_bits(np.array(counts, np.int64), entries, encoding)
    if encoding == "entropy":
        assert got == pytest.approx(want, rel=1e-13)
    else:
        assert got == want and type(got) is int


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_total_of_any_shape_and_integer_type(dtype):
    counts = np.array([[3, 3, 0], [100, 7, 3]], dtype)
    want = sum(message_bits(int(c), 100) for c in counts.ravel())
    assert total_bits(counts, 100) == want
    assert total_bits(counts.T.reshape(2, 1, 3), 100) == want
    assert total_bits(jnp.asarray(counts.astype(np.int32)), 100) == want


def test_total_of_one_and_of_no_message():
    assert total_bits(np.int32(3), 100) == message_bits(3, 100)
    assert total_bits(np.zeros((0, 5), np.int32), 100) == 0


def test_total_beyond_1e13_bits_is_exact():
    entries = 2**31 - 1  # 32 d alone is past int32 and each sum past float32's integers
    counts = np.full(1000, entries, np.int32)
    counts[0] = 1
    got = total_bits(counts, entries, "dense")
    assert got == 1000 * 32 * entries and got > 10**13 and type(got) is int
    got = total_bits(counts, entries, "indices")
    assert got == (32 + 31) * (999 * entries + 1) and got > 10**13 and type(got) is int
    got = total_bits(counts, entries)
    assert got == 999 * 32 * entries + 63 and got > 10**13 and type(got) is int


def test_total_beyond_int64_is_exact():
    entries = 10**18 + 1
    counts = np.array([10**18, 10**18, 0, 1], np.int64)
    assert message_bits(10**18, entries, "dense") == 32 * entries > 2**63
    got = total_bits(counts, entries, "dense")
    assert got == 128 * entries > 2**64 and type(got) is int
    got = total_bits(counts, entries, "bitmap")
    assert got == 4 * entries + 32 * (2 * 10**18 + 1) > 2**64 and type(got) is int


def test_numpy_integers_do_not_overflow():
    assert message_bits(np.int32(2**30), np.int32(2**30), "dense") == 2**35
    assert total_bits(np.full(3, 2**30, np.int32), np.int32(2**30), "bitmap") == 3 * 33 * 2**30


@pytest.mark.parametrize("nonzeros, entries", [(-1, 5), (6, 5), (0, 0), (1, 0), (0, -3), (-4, -3)])
@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_counts_out_of_range(nonzeros, entries, encoding):
    with pytest.raises(ValueError, match=f"{entries} entries cannot have {nonzeros} nonzeros"):
        message_bits(nonzeros, entries, encoding)
    with pytest.raises(ValueError, match=f"{entries} entries cannot have {nonzeros} nonzeros"):
        total_bits(np.array([nonzeros]), entries, encoding)


def test_unknown_encoding_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown encoding 'bitmaps': did you mean 'bitmap'\? Allowed: .*cheapest"):
        message_bits(1, 5, "bitmaps")
    with pytest.raises(ValueError, match=r"did you mean 'entropy'"):
        total_bits(np.array([1]), 5, "entropi")
    with pytest.raises(ValueError, match="unknown encoding 'zzz'"):
        message_bits(1, 5, "zzz")


def test_known_positions_cost_nothing():
    size = MessageSpec(100, 100)
    for encoding in ("indices", "bitmap", "entropy", "cheapest"):
        assert message_bits(MessageCount(7, KNOWN), size, encoding) == 7 * 32
    assert message_bits(MessageCount(7, KNOWN), size, "dense") == 3200


def test_blocks_have_one_position_each():
    """Three blocks of four numbers among 25."""
    size, count = MessageSpec(100, 25), MessageCount(12, 3)
    assert message_bits(count, size, "indices") == 12 * 32 + 3 * 5
    assert message_bits(count, size, "bitmap") == 12 * 32 + 25
    assert message_bits(count, size, "entropy") == pytest.approx(12 * 32 + math.log2(math.comb(25, 3)))


def test_groups_have_positions_of_their_own():
    """Two of each four: two bits an index, four bits a group, or log2 6."""
    size, count = MessageSpec(40, 4, groups=10), MessageCount(20, 20)
    assert message_bits(count, size, "indices") == 20 * 32 + 20 * 2
    assert message_bits(count, size, "bitmap") == 20 * 32 + 40
    assert message_bits(count, size, "entropy") == pytest.approx(20 * 32 + 10 * math.log2(6))


def test_short_numbers_and_a_header():
    size = MessageSpec(100, 100, value_bits=5, header_bits=32)
    assert message_bits(MessageCount(10, 10), size, "dense") == 32 + 500
    assert message_bits(MessageCount(10, 10), size, "indices") == 32 + 10 * 12
    assert message_bits(MessageCount(10, 10), size) == 32 + 10 * 12
    assert total_bits(MessageCount(np.array([10, 0]), np.array([10, 0])), size) == 32 + 120 + 32


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 32), ("float64", 64), ("bfloat16", 16)])
@pytest.mark.parametrize("structure", ["entries", "rows", "blocks:2x2", "groups:2"])
@pytest.mark.usefixtures("x64")
def test_numbers_cost_the_bits_of_their_dtype(structure, dtype, bits):
    """A dense message of 6 numbers is 6 of that dtype, whatever structure its zeros could have."""
    message = jnp.ones((2, 3), dtype)
    code = Sparsifier(structure=structure).code
    assert message_bits(code.count(message, None), code.size(message), "dense") == 6 * bits
    counted = {"x": message, "mask": jnp.ones(6, bool), "t": jnp.int32(0)}
    assert value_bits(counted) == bits  # neither masks nor counters are numbers that are sent
