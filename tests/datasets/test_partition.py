import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sps_jax.datasets import partition

labels = st.lists(st.integers(-3, 8), min_size=1, max_size=60)
seeds = st.integers(0, 2**63)
alphas = st.floats(0, exclude_min=True, allow_infinity=False)


def assert_deals_out(parts, examples, clients):
    assert len(parts) == clients
    for part in parts:
        assert part.dtype == np.int64 and part.ndim == 1 and len(part) > 0
        assert (np.diff(part) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(examples))


def assert_same(one, other):
    assert [part.tolist() for part in one] == [part.tolist() for part in other]


@given(labels)
def test_natural(groups):
    parts = partition.natural(groups)
    assert_deals_out(parts, len(groups), len(set(groups)))
    assert [groups[part[0]] for part in parts] == list(dict.fromkeys(groups))
    assert all(len({groups[i] for i in part}) == 1 for part in parts)


def test_natural_of_names():
    assert_same(partition.natural(["b", "a", "b"]), [np.array([0, 2]), np.array([1])])


@given(st.data(), st.integers(1, 60), seeds)
def test_iid(data, examples, seed):
    clients = data.draw(st.integers(1, examples))
    parts = partition.iid(examples, clients, seed)
    assert_deals_out(parts, examples, clients)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert_same(parts, partition.iid(examples, clients, seed))


def test_iid_depends_on_the_seed():
    assert partition.iid(1000, 2, 0)[0].tolist() != partition.iid(1000, 2, 1)[0].tolist()


@settings(max_examples=300)
@given(st.data(), labels, alphas, seeds)
def test_dirichlet(data, labels, alpha, seed):
    clients = data.draw(st.integers(1, len(labels)))
    parts = partition.dirichlet(labels, clients, alpha, seed)
    assert_deals_out(parts, len(labels), clients)
    assert_same(parts, partition.dirichlet(labels, clients, alpha, seed))


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-12, 1e12, 1.7e308])
def test_dirichlet_at_the_ends_of_alpha(alpha):
    labels = np.repeat(np.arange(10), 100)
    parts = partition.dirichlet(labels, 4, alpha, 0)
    assert_deals_out(parts, 1000, 4)
    counts = np.array([np.bincount(labels[part], minlength=10) for part in parts])
    if alpha < 1:  # a class lies with one client, but for examples given to clients left empty
        assert (counts.max(0) >= 97).all()
    else:
        assert (counts == 25).all()


def test_dirichlet_gives_each_class_the_proportions_drawn():
    """With a single class, the mean and variance of a client's share are those of the Dirichlet distribution."""
    clients, alpha, examples = 5, 2.0, 2000
    shares = [
        [len(part) / examples for part in partition.dirichlet(np.zeros(examples), clients, alpha, seed)]
        for seed in range(400)
    ]
    mean, total = 1 / clients, clients * alpha
    np.testing.assert_allclose(np.mean(shares, 0), mean, atol=0.02)
    np.testing.assert_allclose(np.var(shares, 0), mean * (1 - mean) / (total + 1), rtol=0.25)


def test_dirichlet_fills_from_the_largest():
    parts = partition.dirichlet(np.zeros(10), 10, 1e-9, 0)
    assert [len(part) for part in parts] == [1] * 10


@given(st.data(), labels)
def test_by_label(data, labels):
    clients = data.draw(st.integers(1, len(labels)))
    parts = partition.by_label(labels, clients)
    assert_deals_out(parts, len(labels), clients)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for before, after in itertools.pairwise(parts):
        assert max(labels[i] for i in before) <= min(labels[i] for i in after)


def test_by_label_is_stable():
    assert_same(partition.by_label([1, 0, 1, 0, 1, 0], 3), [np.array([1, 3]), np.array([0, 5]), np.array([2, 4])])


@given(st.data(), labels)
def test_by_size(data, groups):
    clients = data.draw(st.integers(1, len(set(groups))))
    parts = partition.by_size(groups, clients)
    assert_deals_out(parts, len(groups), clients)
    owners = {}
    for client, part in enumerate(parts):
        for row in part:
            assert owners.setdefault(groups[row], client) == client
    # The greedy deal: whoever ends with most had no more than the others before the last group it was dealt.
    largest = max(parts, key=len)
    smallest_group = min(groups.count(groups[row]) for row in largest)
    assert len(largest) - smallest_group <= min(map(len, parts))


def test_by_size_breaks_ties_by_first_appearance_and_lowest_client():
    groups = ["c", "c", "a", "b", "b", "d"]
    assert_same(partition.by_size(groups, 2), [np.array([0, 1, 2]), np.array([3, 4, 5])])


@given(labels, st.floats(0, 1, exclude_max=True), seeds)
def test_split(groups, fraction, seed):
    parts = partition.natural(groups)
    train, test = partition.split(parts, fraction, seed)
    for part, kept, held in zip(parts, train, test, strict=True):
        assert len(kept) >= 1
        assert len(held) in (math.floor(fraction * len(part)), len(part) - 1)
        assert kept.dtype == held.dtype == np.int64
        np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), part)
    again = partition.split(parts, fraction, seed)
    assert_same(train + test, again[0] + again[1])


def test_split_of_a_client_does_not_depend_on_the_others():
    parts = [np.arange(10), np.arange(10, 30)]
    longer = [np.arange(10), np.arange(10, 30), np.arange(30, 40)]
    assert_same(partition.split(parts, 0.3, 1)[1], partition.split(longer, 0.3, 1)[1][:2])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: partition.iid(10, 0, 0), r"clients = 0: .* at least 1"),
        (lambda: partition.iid(10, -1, 0), r"clients = -1"),
        (lambda: partition.iid(10, 2.5, 0), r"clients = 2\.5: allowed is a whole number"),
        (lambda: partition.iid(10, 11, 0), r"clients = 11: allowed is at most 10, the number of examples"),
        (lambda: partition.iid(0, 1, 0), r"examples = 0"),
        (lambda: partition.iid(10, 2, -1), r"seed = -1"),
        (lambda: partition.iid(10, 2, 0.5), r"seed = 0\.5"),
        (lambda: partition.natural([]), r"groups has shape \(0,\)"),
        (lambda: partition.natural([[1, 2]]), r"groups has shape \(1, 2\)"),
        (lambda: partition.dirichlet([], 1, 1.0, 0), r"labels has shape \(0,\)"),
        (lambda: partition.dirichlet([1, 2], 3, 1.0, 0), r"clients = 3"),
        (lambda: partition.dirichlet([1, 2], 2, 0.0, 0), r"alpha = 0\.0: allowed is a positive, finite number"),
        (lambda: partition.dirichlet([1, 2], 2, -1, 0), r"alpha = -1"),
        (lambda: partition.dirichlet([1, 2], 2, math.inf, 0), r"alpha = inf"),
        (lambda: partition.dirichlet([1, 2], 2, math.nan, 0), r"alpha = nan"),
        (lambda: partition.dirichlet([1, 2], 2, "1", 0), r"alpha = '1'"),
        (lambda: partition.dirichlet([1, 2], 2, 1.0, -3), r"seed = -3"),
        (lambda: partition.by_label([1, 2], 3), r"clients = 3"),
        (lambda: partition.by_label([], 1), r"labels"),
        (lambda: partition.by_size([1, 1, 2], 3), r"clients = 3: allowed is at most 2, the number of groups"),
        (lambda: partition.by_size([1, 1, 2], 0), r"clients = 0"),
        (lambda: partition.split([np.arange(3)], 1.0, 0), r"test_fraction = 1\.0"),
        (lambda: partition.split([np.arange(3)], -0.1, 0), r"test_fraction = -0\.1"),
        (lambda: partition.split([np.arange(3)], math.nan, 0), r"test_fraction = nan"),
        (lambda: partition.split([np.arange(3)], 0.5, -1), r"seed = -1"),
        (lambda: partition.split([], 0.5, 0), r"parts is empty"),
        (lambda: partition.split([np.arange(3), np.arange(0)], 0.5, 0), r"parts\[1\] has shape \(0,\)"),
    ],
)
def test_errors_name_the_value_and_what_is_allowed(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# --- further skews ----------------------------------------------------------------------------------------------------


@given(
    examples=st.integers(1, 60),
    clients=st.integers(1, 8),
    least=st.integers(1, 9),
    alpha=st.sampled_from([1e-3, 1, 1e3]),
)
def test_no_client_has_fewer_than_the_least(examples, clients, least, alpha):
    labels = np.arange(examples) % 3
    makes = [
        lambda: partition.dirichlet(labels, clients, alpha, 0, least),
        lambda: partition.quantity(examples, clients, alpha, 0, least),
        lambda: partition.few_labels(labels, clients, min(3, examples), 0, least),
    ]
    for make in makes:
        if clients * least > examples:
            with pytest.raises(ValueError, match=r"^(least|clients) = "):
                make()
        else:
            parts = make()
            assert_deals_out(parts, examples, clients)
            assert min(map(len, parts)) >= least and len(parts) == clients
            assert all((a == b).all() for a, b in zip(parts, make(), strict=True))


def test_the_least_changes_nothing_where_it_is_reached():
    labels = np.arange(200) % 4
    one, other = (partition.dirichlet(labels, 5, 1.0, 3, least) for least in (1, 2))
    assert min(map(len, one)) >= 2 and all((a == b).all() for a, b in zip(one, other, strict=True))


def test_quantity_skews_sizes_alone():
    """Sizes are N times the Dirichlet shares to within one; a class keeps its share of each client, but for chance."""
    shares = np.random.default_rng(7).dirichlet(np.full(4, 0.5))
    parts = partition.quantity(20_000, 4, 0.5, 7)
    assert (np.abs(np.array(list(map(len, parts))) - 20_000 * shares) <= 1).all()
    labels = np.arange(20_000) % 2
    for part in parts:  # 4 standard deviations of a fair coin
        assert abs(labels[part].mean() - 1 / 2) < 4 * 0.5 / np.sqrt(len(part))


@given(classes=st.integers(1, 6), clients=st.integers(1, 9), each=st.integers(1, 6), seed=st.integers(0, 5))
def test_every_client_has_few_labels(classes, clients, each, seed):
    """Exactly ``each`` per client, and every label is split evenly among nearly equally many clients."""
    labels = np.repeat(np.arange(classes), 60)
    if not each <= classes <= clients * each:
        with pytest.raises(ValueError, match=rf"^each = {each}: allowed is \d+ to {classes}"):
            partition.few_labels(labels, clients, each, seed)
        return
    parts = partition.few_labels(labels, clients, each, seed)
    assert_deals_out(parts, 60 * classes, clients)
    counts = np.array([np.bincount(labels[part], minlength=classes) for part in parts])
    assert ((counts > 0).sum(axis=1) == each).all()
    owners = (counts > 0).sum(axis=0)
    assert owners.max() - owners.min() <= 1
    for label in range(classes):
        sizes = counts[:, label][counts[:, label] > 0]
        assert sizes.max() - sizes.min() <= 1


def test_parts_are_ids_of_clients():
    parts = partition.dirichlet(np.arange(40) % 4, 5, 0.5, 0)
    assert [part.tolist() for part in partition.natural(partition.ids(parts))] == sorted(
        part.tolist() for part in parts
    )
    for wrong in ([[0, 1], [1, 2]], [[0], [2]], [[-1, 0]]):
        with pytest.raises(ValueError, match="parts must have each row from 0 to"):
            partition.ids(wrong)


def test_noise_grows_with_the_client():
    """Client i of n has the variance sigma i / n; a sample variance of 40,000 is off by 4 sqrt(2 / 40,000) of it."""
    x = np.full((8, 10_000), 3.0, np.float32)
    noisy = partition.noisy(x, [[0, 1, 2, 3], [4, 5, 6, 7]], 2.0, 0)
    assert noisy.dtype == np.float32 and (x == 3).all()
    for rows, variance in ((slice(0, 4), 1.0), (slice(4, 8), 2.0)):
        assert abs(noisy[rows].var() / variance - 1) < 4 * np.sqrt(2 / 40_000)
    np.testing.assert_array_equal(partition.noisy(x, [[0]], 0, 0), x)
    with pytest.raises(ValueError, match="variance = -1: allowed is a finite number, not negative"):
        partition.noisy(x, [[0]], -1, 0)
