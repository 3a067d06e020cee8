"""Seconds on a network and weighted totals of bits, after the run."""

import json

import numpy as np
import pytest

import sps_jax as sps
from sps_jax.results import clock
from sps_jax.results.clock import Lognormal, Network, elapsed
from sps_jax.results.files import write_json, write_jsonl

HISTORY = {"round": [1, 3], "iteration": [4, 10], "uplink_bits": [30, 90], "downlink_bits": [60, 120]}
THREE = Network(np.array([1.0, 2, 0]), np.array([0.5, 0, 9]), np.array([10.0, 1, 10]), np.array([5.0, 5, 20]))
"""Of three clients, each with 10 bits up and 20 down in round 1, 10 and 10 in each of rounds 2 and 3."""


def test_the_slowest_client_ends_a_round():
    """Round 1, k = 4: 4 + 0.5 + 1 + 4 = 9.5, 8 + 0 + 10 + 4 = 22, 0 + 9 + 1 + 1 = 11; rounds 2 and 3, k = 3 each:
    3 + 0.5 + 1 + 2 = 6.5, 6 + 0 + 10 + 2 = 18, 0 + 9 + 1 + 0.5 = 10.5. A deadline of 10 cuts off two of three."""
    whole = elapsed(HISTORY, THREE, clients=3, scenarios=2)
    assert whole.seconds.tolist() == [[22, 58]] * 2 and not whole.late.any()
    cut = elapsed(HISTORY, THREE, clients=3, scenarios=1, deadline=10)
    assert cut.seconds.tolist() == [[10, 30]]
    np.testing.assert_allclose(cut.late, [[2 / 3, 2 / 3]])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_cohort_waits_for_the_slow_client_as_often_as_it_is_drawn(size):
    """One of four clients takes 10 seconds, the others 1: a round takes 1 + 9 C / 4 on average, and one of C clients
    is late in C / 4 of the rounds. 10,000 rounds, within five standard deviations of a coin of C / 4, times 9."""
    network, rounds = Network(0, np.array([1.0, 1, 10, 1]), 1e9, 1e9), 50
    history = {name: [0] for name in HISTORY} | {"round": [rounds]}
    found = elapsed(history, network, clients=4, cohort=size, scenarios=200)
    share, tolerance = size / 4, 5 * 0.5 / np.sqrt(200 * rounds)
    assert found.seconds.mean() / rounds == pytest.approx(1 + 9 * share, abs=9 * tolerance)
    late = elapsed(history, network, clients=4, cohort=size, deadline=5, scenarios=200).late
    assert late.mean() == pytest.approx(1 / 4, abs=tolerance)


def test_lognormal_numbers_have_their_median_and_spread():
    """Of 40,000 logarithms mean and deviation lie within five standard errors of ln 8 and 0.5."""
    network = Network(Lognormal(8, 0.5), 0, 1, 1)
    step, latency, up, _ = network.draw(np.random.default_rng(0), 200, 200)
    logs = np.log(step)
    assert abs(logs.mean() - np.log(8)) < 5 * 0.5 / 200 and abs(logs.std() - 0.5) < 5 * 0.5 / 200 / np.sqrt(2)
    assert not latency.any() and (up == 1).all() and len(np.unique(step[0])) == 200


def test_methods_meet_the_same_clients():
    """Where only bandwidth counts, half the bits take half the time, in every scenario."""
    network = Network(0, 0, Lognormal(1e6, 1), Lognormal(1e6, 1))
    half = HISTORY | {name: [bits / 2 for bits in HISTORY[name]] for name in ("uplink_bits", "downlink_bits")}
    one, other = (elapsed(history, network, clients=9, cohort=4) for history in (HISTORY, half))
    np.testing.assert_allclose(one.seconds, 2 * other.seconds)
    assert len(np.unique(one.seconds[:, -1])) == clock.SCENARIOS


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Network(0, 0, 0, 1), "up of a network must be positive and finite"),
        (lambda: Network(-1, 0, 1, 1), "step of a network must be not negative and finite"),
        (lambda: Network(0, [1, [2]], 1, 1), "latency of a network must be not negative and finite"),
        (lambda: Network(0, 0, 1, Lognormal(0, 1)), "down of a network must be positive and finite"),
        (lambda: Network(0, 0, "fast", 1), "up of a network must be positive and finite: .*, not 'fast'"),
        (lambda: elapsed(HISTORY, THREE, clients=4), "the network has step for 3 clients, but the run has 4"),
        (lambda: elapsed(HISTORY, THREE, 3, cohort=4), "cohort must be from 1 to the number of clients, 3, not 4"),
        (lambda: elapsed(HISTORY, THREE, 3, deadline=0), "deadline must be a positive number of seconds, not 0"),
        (lambda: elapsed(HISTORY, THREE, 3, scenarios=0), "scenarios must be at least 1"),
        (lambda: clock.network_named("mobil"), "did you mean 'mobile'"),
    ],
)
def test_what_is_no_network(build, says):
    with pytest.raises(ValueError, match=says):
        build()


@pytest.fixture
def folder(tmp_path):
    """A run of three clients; method b sends half as much as a."""
    rows = [{name: values[r] for name, values in HISTORY.items()} for r in (0, 1)]
    common = {"problem": "own", "seed": 0, "control_sum": None, "density": 1.0, "stepsize": 0.1}
    records = []
    for name, share in (("a", 1), ("b", 0.5)):
        for row, loss in zip(rows, (2.0, 1.0), strict=True):
            bits = {"uplink_bits": share * row["uplink_bits"], "downlink_bits": row["downlink_bits"]}
            records.append({"algorithm": name, "train_loss": loss} | common | row | bits)
    (tmp_path / "out").mkdir()
    write_jsonl(tmp_path / "out" / "metrics.jsonl", records)
    write_json(tmp_path / "out" / "config.json", {"settings": {"cohort": None}, "versions": {}, "clients": 3})
    numbers = {name: getattr(THREE, name).tolist() for name in ("step", "latency", "up", "down")}
    write_json(tmp_path / "net.json", numbers)
    return tmp_path


def rows(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


def test_a_table_counts_seconds(command, folder):
    """Those of above at the second evaluation; b has 5 bits up: 22 - 5 = 17 and 2 x (18 - 5) more, 43."""
    options = ["--against", "seconds", "--network", "net.json"]
    a, b = rows(command("table", "out", *options, "--json"))
    assert (a["seconds_to_target"], b["seconds_to_target"]) == (58, 43) and a["bits_to_target"] == 90
    assert (a["seconds_p10_to_target"], a["seconds_p90_to_target"]) == (58, 58) and "late" not in a
    done = command("table", "out", *options, "--deadline", "10", "--target", "2")
    assert "seconds to 2" in done.stdout and "10 (10 to 10)" in done.stdout and "66.7 %" in done.stdout
    assert "seconds on the network net.json, deadline 10 s." in done.stdout
    done = command("plot", "out", *options, "--out", "seconds.svg")
    assert done.returncode == 0 and (folder / "seconds.svg").is_file()


def test_the_seconds_of_a_step_may_be_given(command, folder):
    """At 0 seconds a step the second client needs 14 seconds in round 1 and 12 in rounds 2 and 3."""
    options = ["--against", "seconds", "--network", "net.json", "--step-seconds", "0"]
    assert rows(command("table", "out", *options, "--json"))[0]["seconds_to_target"] == 38


def test_a_table_weighs_the_downlink(command, folder):
    """90 + 0.5 x 120 bits at the second evaluation, all of it where nothing is said."""
    weighed = rows(command("table", "out", "--against", "total_bits", "--downlink-weight", "0.5", "--json"))
    plain = rows(command("table", "out", "--against", "total_bits", "--json"))
    assert [row["total_bits_to_target"] for row in weighed] == [150, 105]
    assert [row["total_bits_to_target"] for row in plain] == [210, 165]
    assert [row["round_to_target"] for row in rows(command("table", "out", "--against", "round", "--json"))] == [3, 3]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--against", "second"], "unknown --against 'second': did you mean 'seconds'?"),
        (["--against", "seconds"], "--against seconds needs --network: mobile, broadband, datacentre or a file"),
        (["--network", "mobile"], "--network needs --against seconds"),
        (["--downlink-weight", "0.1"], "--downlink-weight needs --against total_bits"),
        (["--against", "total_bits", "--downlink-weight", "-1"], "--downlink-weight must be finite and not negative"),
        (["--against", "seconds", "--network", "out/config.json"], "config.json must have step, latency, up, down"),
    ],
)
def test_what_does_not_go_together_is_said(command, folder, options, says):
    done = command("table", "out", *options)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_a_folder_that_does_not_say_how_many_clients_it_has(command, folder):
    write_json(folder / "out" / "config.json", {"settings": {"clients": None}, "versions": {}})
    done = command("table", "out", "--against", "seconds", "--network", "mobile")
    assert done.returncode == 2 and "out does not say how many clients it has" in done.stderr


def test_the_clock_has_a_name():
    assert sps.clock.elapsed is elapsed
