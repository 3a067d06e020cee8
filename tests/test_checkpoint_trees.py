"""Saving and restoring pytrees, and going on with a simulation from one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import hyper

from sps_jax.algorithms import ALGORITHMS
from sps_jax.cli.from_options import build_problem
from sps_jax.cli.job import prepare_algorithm
from sps_jax.cli.options import command_type
from sps_jax.layout import Layout
from sps_jax.runs import blocks, checkpoint, drivers
from sps_jax.runs.checkpoint_leaves import named

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ALGORITHMS if name != "tamuna"]


@pytest.mark.parametrize("name", ["tamuna", *SLOW])
def test_every_method_goes_on_from_its_state(name, tmp_path):
    cohort = 2 if name == "tamuna" else None
    options = command_type()(algorithm=(name,), local_steps=2, cohort=cohort, clients=4, **hyper(name))
    problem, key = build_problem(options), jax.random.key(0)
    chosen = prepare_algorithm(options, name, problem)
    driver = drivers.on_devices(chosen, Layout(), problem, key, blocks.block_length(4, checkpoint_every=1))
    start, settings = (
        blocks.start_run(chosen, driver, key),
        {"rounds": 4, "evaluate_every": 3, "encoding": "entropy"},
    )
    want = []
    for at, rows in blocks.go_on(chosen, driver, key, start, **settings):
        want += rows
        if at.past.rounds == 2:
            checkpoint.save(tmp_path, 2, at.state)
            middle, before = at, list(want)
    middle = middle._replace(state=checkpoint.restore(tmp_path, at.state))
    again = list(blocks.go_on(chosen, driver, key, middle, **settings))
    assert before + [row for _, rows in again for row in rows] == want and [row["round"] for row in want] == [3, 4]
    jax.tree.map(np.testing.assert_array_equal, again[-1][0].state, at.state)


TREE = {
    "a": (np.arange(3.0), jnp.int32(4)),
    "b/c.d": [np.zeros((0, 2), np.float32)],
    "e": np.arange(6e4).reshape(2, -1),
}


def test_a_tree_comes_back_bit_by_bit_and_only_the_last_few_are_kept(tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 10):
            checkpoints.save(step, TREE, {"step": step})
        with pytest.raises(ValueError, match="a later one"):
            checkpoints.save(5, TREE)
    with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 10] and checkpoints.about(2) == {"step": 2}
    found = checkpoint.restore(tmp_path, TREE)
    assert found.keys() == TREE.keys() and type(found["a"]) is tuple
    for name, leaf in named(TREE).items():
        np.testing.assert_array_equal(named(found)[name], leaf, strict=True)


def test_restore_refuses_what_is_not_there_damaged_or_of_another_shape(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.restore(tmp_path / "none", TREE)
    checkpoint.save(tmp_path, 3, TREE)
    with pytest.raises(FileNotFoundError, match="no checkpoint 4"):
        checkpoint.restore(tmp_path, TREE, step=4)
    for other in ({"a": TREE["a"]}, TREE | {"e": np.ones(3)}, TREE | {"a": (np.arange(3), jnp.int32(4))}):
        with pytest.raises(checkpoint.Unreadable):
            checkpoint.restore(tmp_path, other)
    for path in (tmp_path / "3" / "state").glob("ocdbt*/d/*"):
        bits = bytearray(path.read_bytes())
        bits[len(bits) // 2] ^= 1
        path.write_bytes(bits)
    with pytest.raises(checkpoint.Unreadable, match="not those that were written"):
        checkpoint.restore(tmp_path, TREE)


@pytest.mark.parametrize(
    "rounds, every, length", [(200, None, 10), (200, 10, 10), (200, 15, 5), (199, 10, 1), (40, 2, 2)]
)
def test_a_block_ends_at_every_checkpoint(rounds, every, length):
    assert blocks.block_length(rounds, every) == length
