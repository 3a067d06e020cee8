"""Metrics of each client, as statistics over the clients, of the shipped model and of the clients' own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sps_jax as sps
from sps_jax.layout import Layout, clients_mesh
from sps_jax.problems import quadratic
from sps_jax.results.files import write_jsonl
from sps_jax.simulation import per_client

RNG, KEY, N = np.random.default_rng(0), jax.random.key(0), 12
IDS = np.repeat(np.arange(N), np.arange(2, N + 2))  # of 2 to 13 examples
X = RNG.normal(size=(len(IDS), 4)).astype(np.float32) + IDS[:, None].astype(np.float32) / N
Y = (X @ RNG.normal(size=(4, 3)) + RNG.normal(size=(len(IDS), 3))).argmax(1)
MODEL = (lambda key: jnp.zeros((4, 3)), lambda params, x: x @ params)
RUN = {"rounds": 2, "local_steps": 3, "cohort": 4, "per_client": True}


def local(*, stepsize, prob=1.0):
    """FedAvg whose clients keep their last iterate, which is their own model."""
    return sps.Algorithm(
        move=sps.descend(stepsize),
        init=lambda params: (params, params),
        receive=lambda x, h, m, b, info: x,
        personal=lambda h, server: h,
    )


def problem(**options):
    return sps.from_arrays(X, Y, IDS, model=MODEL, batch_size=2, **options)


def wanted(values, largest):
    """The statistics by NumPy: the worst tenth of twelve clients are two."""
    low, middle, high = np.percentile(values, [10, 50, 90])
    worst = np.sort(values)[:2] if largest else np.sort(values)[-2:]
    return {"p10": low, "p50": middle, "p90": high, "worst": worst.mean(), "variance": np.var(values)}


def by_hand(models):
    """Loss and accuracy of model i on the examples of client i."""
    loss, accuracy = np.zeros(N), np.zeros(N)
    for i, model in enumerate(np.asarray(models, np.float64)):
        z, y = X[i == IDS] @ model, Y[i == IDS]
        loss[i] = (np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]).mean()
        accuracy[i] = (z.argmax(1) == y).mean()
    return {"loss": wanted(loss, False), "accuracy": wanted(accuracy, True)}


def named(whose, metric, statistic):
    return f"{whose}_{metric}_variance" if statistic == "variance" else f"{whose}_{statistic}_{metric}"


LAYOUTS = {"one": Layout(), "chunks": Layout(chunk=5), "mesh": Layout(mesh=clients_mesh(jax.devices()[:1]))}


@pytest.mark.parametrize("how", [*LAYOUTS, "stream"])
def test_they_are_those_of_numpy(how):
    """At each evaluation, here the last: of the server's model on each client's data, and of each client's memory."""
    if how == "stream":
        state, history = sps.stream(local, problem(), {"stepsize": 0.3}, KEY, **RUN)
    else:
        state, history = sps.simulate(local, problem(), {"stepsize": 0.3}, KEY, layout=LAYOUTS[how], **RUN)
    for whose, models in {"per_client": [state.server] * N, "per_client_own": state.memory}.items():
        for metric, statistics in by_hand(models).items():
            for statistic, value in statistics.items():
                assert history[named(whose, metric, statistic)][-1] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_a_sweep_records_them_too():
    """The point of the same key and numbers as above."""
    _, history = sps.simulate(local, problem(), {"stepsize": 0.3}, KEY, layout=Layout(), **RUN)
    (outcome,) = sps.sweep(local, problem(), [{"stepsize": 0.3, "seed": 0}], **RUN)
    own = [name for name in history if name.startswith("per_client_")]
    assert len(own) == 20
    for name in own:
        np.testing.assert_allclose(outcome.history[name], history[name], rtol=1e-5, atol=1e-6)


def test_who_does_not_ask_gets_none_and_methods_without_own_models_only_the_shipped():
    asked = {"local_steps": 1, "per_client": True}
    quiet = sps.prepare(local, {"stepsize": 0.3}, jnp.float32)
    plain = sps.prepare(sps.gd, {"stepsize": 0.3}, jnp.float32, **asked)
    assert per_client.names(quiet, problem()) == []
    assert sorted(per_client.names(plain, problem())) == sorted(
        named("per_client", metric, one) for metric in ("loss", "accuracy") for one in wanted(np.zeros(N), True)
    )
    assert {name.rpartition("_")[2] for name in per_client.names(plain, quadratic(clients=3))} == {"loss", "variance"}


def varying(t):
    return 0.3 / (1 + t.astype(jnp.float32))


def cut(*, stepsize, prob=1.0):
    return sps.pruned(local(stepsize=stepsize), sps.topk, 0.5)


@pytest.mark.parametrize(
    ("make", "hyper", "choices"),
    [
        (local, {"stepsize": varying}, {}),
        (local, {"stepsize": 0.3}, {"transform": optax.clip_by_global_norm(1.0)}),
        (cut, {"stepsize": 0.3}, {}),
    ],
    ids=["scheduled", "transformed", "pruned"],
)
def test_what_is_made_of_a_personalised_method_is_one(make, hyper, choices):
    method = sps.prepare(make, hyper, jnp.float32, per_client=True, **choices)
    assert "per_client_own_worst_accuracy" in per_client.names(method, problem())


def test_moments_have_a_loss():
    """Full batches of least squares are summed up in moments, whose rows are no examples: the loss alone is f_i."""
    own = sps.from_arrays(X, X[:, 0], IDS, bias=False)
    assert own.sizes is not None
    params = own.init(KEY)
    state = sps.State((), (), jnp.int32(0))
    method = sps.Algorithm(move=sps.descend(0.1), model=lambda server: params)
    values = per_client.client_values(method, own, state)["per_client"]
    want = jax.vmap(own.client_loss, in_axes=(None, 0, 0))(params, own.data, own.counts)
    np.testing.assert_allclose(values["loss"], want - own.ridge / 2 * optax.tree.norm(params, squared=True), rtol=1e-5)


def test_the_variance_of_large_losses_is_a_number():
    """The square of 1e30 is none in float32, and a loss of 1e30 is on the way to divergence, not there."""
    found = per_client.spread({"per_client": {"loss": jnp.array([0.0, 1e30])}})
    assert found["per_client_loss_variance"] == np.finfo(np.float32).max


def test_the_contract_of_personal():
    assert "control variates" not in sps.check_algorithm(local, {"stepsize": 0.1})

    def wrong(*, stepsize, prob):
        return local(stepsize=stepsize)._replace(personal=lambda h, server: {"w": h["w"]})

    with pytest.raises(AssertionError, match="a client's own model differs from the parameters in shape or dtype"):
        sps.check_algorithm(wrong)


@pytest.mark.slow
def test_the_command_line(command, tmp_path):
    """A rule, a table and a picture take the names; --target counts the bits until the worst clients reach it."""
    run = ["run", "--algorithm", "gd", "--rounds", "3", "--stepsize", "1", "--seeds", "1", "--out", "out"]
    done = command(*run, "--per-client", "--stop-at", "per_client_worst_accuracy>=0", "--quiet")
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, (tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    assert row["stopped"] and 0 <= row["per_client_worst_accuracy"] <= row["per_client_p10_accuracy"] <= 1
    options = ["--metric", "per_client_worst_accuracy"]
    done = command("table", "out", *options, "--target", "0", "--json")
    (shown,) = json.loads(done.stdout)["rows"]
    assert (shown["mean"], shown["bits_to_target"]) == (row["per_client_worst_accuracy"], row["uplink_bits"])
    assert command("plot", "out", *options, "--out", "worst.png").returncode == 0
    done = command("table", "out", "--against", "seconds", "--network", "mobile", "--json")
    assert json.loads(done.stdout)["rows"][0]["seconds_to_target"] > 0.15  # the latency alone
    done = command(*run[:-1], "other", "--stop-at", "per_client_worst_accuracy>=0", "--quiet")
    assert done.returncode == 2 and "unknown metric of stop_at" in done.stderr


def test_results_with_and_without(command, tmp_path):
    """A method without own models has the shipped model's numbers there; a folder without the metric is named."""
    bits = {"uplink_bits": 8, "downlink_bits": 8, "control_sum": None, "round": 1, "iteration": 1, "density": 1.0}
    common = {"problem": "p", "seed": 0, "stepsize": 0.1, "train_loss": 1.0} | bits
    shipped, name = {"per_client_worst_loss": 3.0}, "per_client_own_worst_loss"
    for folder, row in {"a": shipped | {name: 2.0}, "b": shipped, "c": {}}.items():
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "metrics.jsonl", [{"algorithm": folder} | common | row])
    done = command("table", "a", "b", "--metric", name, "--json")
    assert [row["mean"] for row in json.loads(done.stdout)["rows"]] == [2, 3]
    done = command("table", "a", "c", "--metric", name)
    assert done.returncode == 2 and f"{name} is not recorded in c: give folders" in done.stderr
