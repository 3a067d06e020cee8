"""Partial participation: who is drawn, what the others keep, and that the methods still do what they promise."""

import dataclasses
from collections import Counter
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import COHORTS, hyper, least_squares, matrix

from sps_jax.algorithms import ALGORITHMS
from sps_jax.cli.from_options import build_problem
from sps_jax.cli.job import prepare_algorithm
from sps_jax.cli.option_checks import check
from sps_jax.cli.options import command_type
from sps_jax.layout import Layout
from sps_jax.results import files
from sps_jax.runs import blocks, checkpoint, drivers
from sps_jax.simulation import stream as streaming
from sps_jax.simulation.cohort import Cohort
from sps_jax.simulation.participation import taking_part
from sps_jax.simulation.schedule import split_key
from sps_jax.simulation.simulate import simulate
from sps_jax.simulation.step import begin, iterate
from sps_jax.simulation.stream import stream

KEY, N, C = jax.random.key(4), 4, 2
x64 = pytest.mark.usefixtures("x64")


# --- who is drawn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(5, 3), (9, 2), (1, 1), (4, 4)])
def test_every_set_is_as_likely(n, size):
    """20,000 draws: different clients, each set within five deviations of its share; few of many and many of few."""
    draws = 20_000
    counts = jnp.ones(n, jnp.int32)
    drawn = jax.jit(jax.vmap(lambda key: Cohort(size).draw(key, counts)))(jax.random.split(KEY, draws))
    assert drawn.dtype == jnp.int32 and drawn.shape == (draws, size)
    sets = Counter(map(tuple, np.sort(drawn, axis=1).tolist()))
    every = list(combinations(range(n), size))
    assert set(sets) <= set(every)
    share = draws / len(every)
    assert all(abs(sets[one] - share) < 5 * np.sqrt(share) for one in every)


def test_large_clients_are_drawn_more_often():
    """First with a probability proportional to size, and nobody twice."""
    counts = jnp.array([1, 2, 3, 4], jnp.int32)
    drawn = jax.vmap(lambda key: Cohort(2, "size").draw(key, counts))(jax.random.split(KEY, 20_000))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    np.testing.assert_allclose(np.bincount(drawn[:, 0]) / 20_000, counts / 10, atol=0.02)


def test_few_of_a_million():
    drawn = jax.jit(lambda key: Cohort(1000).draw(key, jnp.ones(1_000_000, jnp.int32)))(KEY)
    assert len(set(drawn.tolist())) == 1000 and drawn.min() >= 0 and drawn.max() < 1_000_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cohort(0), "at least 1, not 0"),
        (lambda: Cohort(2.5), "whole number of clients"),
        (lambda: Cohort(2, "sizes"), "did you mean 'size'"),
        (lambda: Cohort(5).draw(KEY, jnp.ones(4, jnp.int32)), "a cohort of 5 clients cannot be drawn from 4"),
    ],
)
def test_what_cannot_be_drawn(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- what a round of a cohort is ---------------------------------------------------------------------------------


def cohorts(problem, lengths):
    """Who takes part in rounds of these lengths."""
    starts = np.cumsum([0, *lengths[:-1]])
    return [np.asarray(taking_part(problem, Cohort(C), split_key(KEY), t).who.ids) for t in starts.tolist()]


def fedprox(quadratic, b, lengths, gamma, p, mu=0.1):
    for ids, steps in zip(cohorts(quadratic.problem, lengths), lengths, strict=True):
        x = np.stack([b] * C)
        for _ in range(steps):
            x = x - gamma * (quadratic.H[ids] @ x - quadratic.c[ids] + mu * (x - b))
        b = x.mean(0)
    return b, None


def fedavg(*args):
    return fedprox(*args, mu=0.0)


def proxskip(quadratic, b, lengths, gamma, p):
    h = np.zeros((N, *b.shape))
    for ids, steps in zip(cohorts(quadratic.problem, lengths), lengths, strict=True):
        x = np.stack([b] * C)
        for _ in range(steps):
            x = x - gamma * (quadratic.H[ids] @ x - quadratic.c[ids] - h[ids])
        b = x.mean(0)
        h[ids] += p / gamma * (b - x)
    return b, h


def scaffold(quadratic, b, lengths, gamma, p):
    c, own = np.zeros_like(b), np.zeros((N, *b.shape))
    for ids, steps in zip(cohorts(quadratic.problem, lengths), lengths, strict=True):
        x = np.stack([b] * C)
        for _ in range(steps):
            x = x - gamma * (quadratic.H[ids] @ x - quadratic.c[ids] - own[ids] + c)
        new = own[ids] - c + (b - x) / (steps * gamma)
        c = c + C / N * (new - own[ids]).mean(0)
        own[ids], b = new, x.mean(0)
    return b, own


def feddyn(quadratic, b, lengths, gamma, p, alpha=0.1):
    s, own = np.zeros_like(b), np.zeros((N, *b.shape))
    for ids, steps in zip(cohorts(quadratic.problem, lengths), lengths, strict=True):
        x = np.stack([b] * C)
        for _ in range(steps):
            x = x - gamma * (quadratic.H[ids] @ x - quadratic.c[ids] - own[ids] + alpha * (x - b))
        own[ids] -= alpha * (x - b)
        s = s - alpha * C / N * (x - b).mean(0)
        b = x.mean(0) - s / alpha
    return b, own


@x64
@pytest.mark.parametrize("twin", [fedavg, fedprox, proxskip, scaffold, feddyn])
def test_against_numpy(twin):
    quadratic, lengths = least_squares(), [3] * 40
    gamma, first = 0.5 / quadratic.L, quadratic.problem.init(KEY)
    state, _ = simulate(
        ALGORITHMS[twin.__name__],
        quadratic.problem,
        {"stepsize": gamma},
        KEY,
        rounds=40,
        local_steps=3,
        evaluate_every=40,
        cohort=C,
        params=first,
    )
    b, h = twin(quadratic, matrix(first), lengths, gamma, 1 / 3)
    server = state.server[0] if twin in (scaffold, feddyn) else state.server
    np.testing.assert_allclose(matrix(server), b, rtol=0, atol=1e-10)
    if h is None:
        assert not jax.tree.leaves(state.memory)
    else:
        np.testing.assert_allclose(matrix(state.memory), h, rtol=0, atol=1e-10)


@x64
def test_all_clients_as_a_cohort_are_all_clients():
    """The same round in another order; an answer to a cohort counts as bits."""
    problem = least_squares().problem
    run = {"problem": problem, "hyper": {"stepsize": 0.01}, "key": KEY, "rounds": 5, "local_steps": 3}
    (one, first), (other, second) = (simulate(ALGORITHMS["proxskip"], **run, cohort=cohort) for cohort in (None, N))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), one[:3], other[:3])
    np.testing.assert_allclose(first["train_loss"], second["train_loss"], rtol=1e-12)


def test_absent_clients_keep_their_memory():
    problem = least_squares(dtype=np.float32).problem
    state, _ = simulate(ALGORITHMS["proxskip"], problem, {"stepsize": 0.01}, KEY, rounds=1, local_steps=3, cohort=C)
    (ids,) = cohorts(problem, [3])
    assert np.flatnonzero(np.abs(state.memory["w"]).sum((1, 2))).tolist() == sorted(ids.tolist())


@pytest.mark.parametrize(("name", "down"), [("fedavg", 1), ("scaffold", 1), ("proxskip", 2)])
def test_only_the_cohort_sends_and_receives(name, down):
    """Dense messages of 18 numbers (SCAFFOLD: two): C a round up; down as many, and the answer where it is needed."""
    problem, numbers = least_squares(dtype=np.float32).problem, 36 if name == "scaffold" else 18
    run = {"rounds": 3, "local_steps": 2, "cohort": C, "encoding": "dense"}
    _, history = simulate(ALGORITHMS[name], problem, {"stepsize": 0.01}, KEY, **run)
    np.testing.assert_array_equal(history["uplink_bits"], np.arange(1, 4) * C * numbers * 32)
    np.testing.assert_array_equal(history["downlink_bits"], np.arange(1, 4) * down * C * numbers * 32)
    assert ("answer_bits" in history) == (down == 2)
    if down == 2:  # without them every member of a cohort gets one broadcast a round
        broadcasts = history["downlink_bits"] - history["answer_bits"]
        np.testing.assert_array_equal(broadcasts, np.arange(1, 4) * C * numbers * 32)


@pytest.mark.slow
def test_the_table_says_what_answers_took(command):
    """Where a cohort gets answers, a column of the table says how much of the downlink they are."""
    options = ["--problem", "quadratic", "--clients", 4, "--rounds", 2, "--local-steps", 2, "--algorithm", "proxskip"]
    assert "answers in it" in command("run", *options, "--cohort", 2, "--out", "some").stdout
    assert "answers" not in command("run", *options, "--out", "all").stdout


# --- what stays true ---------------------------------------------------------------------------------------------


@x64
@pytest.mark.parametrize("name", COHORTS)
def test_t5_sum_of_control_variates(name):
    """sum_i h_i over all n clients stays zero while 3 of them take part in a round."""
    quadratic = least_squares()
    values = hyper(name, stepsize=0.3 / quadratic.L, prob=0.3, sparsity=0.7, l1=0.01)
    run = {"rounds": 100, "evaluate_every": 50, "cohort": 3}
    _, history = simulate(ALGORITHMS[name], quadratic.problem, values, KEY, **run)
    assert history["control_sum"].max() < 1e-12


@x64
@pytest.mark.parametrize("name", ["proxskip", "tamuna", "feddyn"])
def test_the_minimiser_is_reached(name):
    """Linear convergence to x*, though half of the clients are away."""
    quadratic = least_squares(ridge=0.5)
    values = hyper(name, stepsize=0.5 / quadratic.L, prob=0.3, alpha=1.0)
    state, _ = iterate(ALGORITHMS[name], quadratic.problem, values, KEY, iterations=20_000, cohort=C)
    algorithm = ALGORITHMS[name](**values)
    np.testing.assert_allclose(matrix(algorithm.model(state.server)), quadratic.optimum, rtol=0, atol=1e-8)


def test_the_state_between_iterations_has_a_row_a_member():
    problem = least_squares(dtype=np.float32).problem
    state = begin(ALGORITHMS["fedavg"](stepsize=0.1, prob=0.5), problem, KEY, cohort=Cohort(C))
    assert state.x["w"].shape[0] == C


# --- clients in host memory --------------------------------------------------------------------------------------


@pytest.mark.slow
@x64
@pytest.mark.parametrize("weights", [None, (0.1, 0.2, 0.3, 0.4)], ids=["equal", "by size"])
@pytest.mark.parametrize("name", ["sparse_proxskip", "scaffold", "fedavg", "fednova"])
def test_streaming_gives_the_same_numbers(name, weights):
    """The states are equal, the records but for the order of their sums; data are memory-mapped or not."""
    problem = least_squares(batch_size=2).problem
    if weights is not None:
        problem = dataclasses.replace(problem, weights=jnp.array(weights))
    values = hyper(name, stepsize=0.02, prob=0.4, sparsity=0.7)
    run = {"rounds": 12, "evaluate_every": 5, "cohort": 3}
    state, history = simulate(ALGORITHMS[name], problem, values, KEY, **run)
    host = dataclasses.replace(problem, data=tuple(map(np.asarray, problem.data)))
    streamed, seen = stream(ALGORITHMS[name], host, values, KEY, **run)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), streamed, state)
    assert all(isinstance(a, np.ndarray) for a in jax.tree.leaves(streamed.memory))
    assert seen.keys() == history.keys()
    for column, values in history.items():
        np.testing.assert_allclose(seen[column], values, rtol=1e-11, atol=1e-13, err_msg=column)


def test_data_may_be_memory_mapped_and_only_the_cohort_is_loaded(tmp_path):
    problem = least_squares(dtype=np.float32).problem
    mapped = []
    for i, a in enumerate(problem.data):
        np.save(tmp_path / f"{i}.npy", a)
        mapped.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    run = {"rounds": 4, "local_steps": 2, "cohort": C}
    args = (ALGORITHMS["proxskip"], dataclasses.replace(problem, data=tuple(mapped)), {"stepsize": 0.01}, KEY)
    _, seen = stream(*args, **run)
    _, history = simulate(ALGORITHMS["proxskip"], problem, {"stepsize": 0.01}, KEY, **run)
    np.testing.assert_allclose(seen["train_loss"], history["train_loss"], rtol=1e-5)


def test_memory_may_be_memory_mapped_and_no_cohort_is_loaded_in_vain(tmp_path, monkeypatch):
    """4 rounds of 2 of 4 clients and one evaluation of all: 6 loads."""
    loads, load = [], streaming.load
    monkeypatch.setattr(streaming, "load", lambda *a: loads.append(None) or load(*a))
    problem = least_squares(dtype=np.float32).problem
    run = {"rounds": 4, "local_steps": 2, "cohort": C, "evaluate_every": 4}
    args = (ALGORITHMS["proxskip"], problem, {"stepsize": 0.01}, KEY)
    state, _ = stream(*args, **run, folder=tmp_path)
    assert len(loads) == 6
    assert all(isinstance(a, np.memmap) for a in jax.tree.leaves(state.memory))
    for number, leaf in enumerate(jax.tree.leaves(stream(*args, **run)[0].memory)):
        np.testing.assert_array_equal(np.load(tmp_path / f"memory-{number}.npy"), leaf)


@x64
@pytest.mark.slow
def test_a_streamed_run_of_blocks_is_that_of_the_device_and_can_be_taken_up(tmp_path):
    """As ``sps-jax run --stream`` has it: equal records, and from a checkpoint on bit for bit."""
    settings, key = {"rounds": 4, "evaluate_every": 3}, jax.random.key(0)
    ends = {}
    for streamed in (False, True):
        options = command_type()(
            problem="quadratic", precision="float64", stream=streamed, cohort=2, clients=5, local_steps=2
        )
        problem = build_problem(options)
        chosen = prepare_algorithm(options, "proxskip", problem)
        driver = (
            drivers.on_host(chosen, Layout(1), problem, 2)
            if streamed
            else drivers.on_devices(chosen, Layout(1), problem, key, 2)
        )
        rows = []
        for at, some in blocks.go_on(
            chosen, driver, key, blocks.start_run(chosen, driver, key), **settings, encoding="dense"
        ):
            rows += some
            if at.past.rounds == 2:
                checkpoint.save(tmp_path / str(streamed), 2, at.state)
                middle = at
        ends[streamed] = rows, at.state
    for row, like in zip(*(rows for rows, _ in ends.values()), strict=True):
        assert row.keys() == like.keys()
        for name, value in row.items():
            np.testing.assert_allclose(like[name], value, rtol=1e-12, atol=1e-12, err_msg=name)
    middle = middle._replace(state=checkpoint.restore(tmp_path / "True", at.state))
    again = list(blocks.go_on(chosen, driver, key, middle, **settings, encoding="dense"))
    assert [row for _, some in again for row in some] == [row for row in rows if row["round"] > 2]
    jax.tree.map(np.testing.assert_array_equal, again[-1][0].state, at.state)
    assert all(isinstance(a, np.ndarray) for a in jax.tree.leaves((at.state.memory, problem.data)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--stream needs --cohort"),
        (
            {"cohort": 2, "coordinator": "localhost:1", "num_processes": 2, "process_id": 0},
            "--stream needs a single process",
        ),
    ],
)
def test_where_nothing_can_be_streamed(options, message):
    with pytest.raises(ValueError, match=message):
        check(command_type()(stream=True, **options))


def test_a_streamed_run_that_diverges_keeps_what_it_had():
    problem = least_squares(dtype=np.float32).problem
    run = {"rounds": 60, "local_steps": 20, "cohort": C, "evaluate_every": 7}
    _, seen = stream(ALGORITHMS["fedavg"], problem, {"stepsize": 5.0}, KEY, **run)
    assert len(seen["round"]) < 8 and np.isfinite(seen["train_loss"]).all()


def test_streaming_is_for_a_cohort():
    values = {"stepsize": 0.1, "prob": 0.5}
    with pytest.raises(ValueError, match="cohort must be the number of clients per round"):
        stream(ALGORITHMS["fedavg"], least_squares(dtype=np.float32).problem, values, KEY, rounds=1, cohort=None)


@pytest.mark.slow
def test_from_the_shell(tmp_path, shell):
    few = ["run", "--rounds", "3", "--clients", "8", "--algorithm", "tamuna", "sparse_proxskip"]
    done = shell(*few, "--cohort", "4", "--cohort-by", "size", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "of 2 clients at once" in done.stderr or "of 4 clients at once" in done.stderr
    for more, message in (
        (["--cohort", "9"], "cannot be drawn from 8"),
        (["--cohort-by", "sizes"], "'size'"),
        (["--cohort-by", "size"], "--cohort"),
    ):
        done = shell(*few, *more, "--out", tmp_path / "other")
        assert done.returncode == 2 and message in done.stderr and not (tmp_path / "other").exists()


@pytest.mark.slow
def test_streamed_from_the_shell(tmp_path, shell):
    """The same records, and a run that was stopped and goes on."""
    few = ["run", "--rounds", "20", "--clients", "8", "--algorithm", "scaffold", "--cohort", "4", "--seeds", "2"]
    few += ["--precision", "float64", "--checkpoint-every", "5"]
    for name, more in (("device", ()), ("host", ("--stream",))):
        done = shell(*few, *more, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    device, host = (files.read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("device", "host"))
    for row, like in zip(device, host, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                np.testing.assert_allclose(like[name], value, rtol=1e-10, atol=1e-12, err_msg=name)
            else:
                assert like[name] == value
    out = tmp_path / "host"
    before = (out / "metrics.jsonl").read_bytes()
    ended = out / "checkpoints" / "finished.jsonl"
    ended.write_text(ended.read_text().splitlines(keepends=True)[0])  # as if it had been killed in the second run
    done = shell("resume", out)
    assert done.returncode == 0 and "resumes after round 15 of 20" in done.stderr, done.stderr
    assert (out / "metrics.jsonl").read_bytes() == before
