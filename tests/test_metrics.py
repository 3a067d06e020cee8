"""Metrics of one's own: means of numbers per example, and functions of sums over all examples, wherever they go."""

import json
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

import sps_jax as sps
from sps_jax.layout import Layout, clients_mesh
from sps_jax.models import Model
from sps_jax.problems.losses import metrics_of
from sps_jax.problems.metrics import own_metrics
from sps_jax.results.files import read_jsonl, write_jsonl

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(60, 4)).astype(np.float32), RNG.normal(size=(4, 3)).astype(np.float32)
Y, IDS = (X @ W + RNG.normal(size=(60, 3))).argmax(1), np.arange(60) % 5


def top2(outputs, y):
    """Whether y is among the two largest outputs: fewer than two are larger than its own."""
    own = jnp.take_along_axis(outputs, y[:, None], axis=1)
    return jnp.sum(outputs > own, axis=1) < 2


def counts(outputs, y):
    """Of class 0: how many are rightly named, named, and there."""
    named, there = outputs.argmax(1) == 0, y == 0
    return {"both": named & there, "either": jnp.stack([named, there], axis=1)}


def f1(total):
    return 2 * total["both"] / jnp.sum(total["either"])


BINS = 8


def in_bins(outputs, y):
    """Of a score in (0, 1), in eighths: how many of either class fall into each bin, (b, 2, 8)."""
    score = jax.nn.softmax(outputs, axis=1)[:, 0]
    place = jnp.floor(score * BINS)[:, None] == jnp.arange(BINS, dtype=score.dtype)[None]
    return place[:, None] & jnp.stack([y != 0, y == 0], axis=1)[:, :, None]


def auc(total):
    """Pairs of a negative and a positive whose bins are in order, ties half, over all pairs."""
    below = jnp.cumsum(total[0]) - total[0]
    return jnp.sum(total[1] * (below + total[0] / 2)) / (jnp.sum(total[0]) * jnp.sum(total[1]))


def nats(outputs, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], axis=1)[:, 0], jnp.ones(len(y))


OWN = {"top2": top2, "f1": (counts, f1), "auc": (in_bins, auc), "perplexity": (nats, lambda t: jnp.exp(t[0] / t[1]))}


def wanted(outputs, y):
    """The same by plain NumPy and scikit-learn, from all examples at once."""
    order = np.argsort(-outputs, axis=1)[:, :2]
    p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    bins = np.floor(p[:, 0] * BINS)
    high, low = bins[y == 0][:, None], bins[y != 0][None]
    return {
        "top2": (order == y[:, None]).any(1).mean(),
        "f1": f1_score(y == 0, outputs.argmax(1) == 0),
        "auc": ((high > low) + (high == low) / 2).mean(),
        "perplexity": np.exp(-np.log(p[np.arange(len(y)), y]).mean()),
    }


@pytest.mark.parametrize("evaluate_batch", [None, 7])
@pytest.mark.parametrize("mesh", [None, clients_mesh(jax.devices())], ids=["no mesh", "mesh"])
def test_they_are_those_of_all_examples(evaluate_batch, mesh):
    """60 held-out examples in batches of 7, the last not full; on a mesh each device sums its share."""
    problem = replace(sps.from_arrays(X, Y, IDS, metrics=OWN, test=(X, Y)), evaluate_batch=evaluate_batch)
    params = jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape), a.dtype), problem.init(jax.random.key(0)))
    found = jax.jit(lambda problem, params: problem.evaluate_held(params, Layout(mesh=mesh)))(problem, params)
    kernel, bias = (np.asarray(params["params"][name]) for name in ("kernel", "bias"))
    for name, value in wanted(X @ kernel.T + bias, Y).items():
        np.testing.assert_allclose(found[f"test_{name}"], value, rtol=1e-5, err_msg=name)
    assert {"test_loss", "test_accuracy"} < set(found)


def test_they_are_in_every_history():
    """Of a simulation, a sweep and a stream, the same; with a network and with the linear model."""
    problem = sps.from_arrays(X, Y, IDS, metrics=OWN, test=0.2, validation=0.2)
    hyper, key = dict(stepsize=0.5), jax.random.key(0)
    _, one = sps.simulate(sps.fedavg, problem, hyper, key, rounds=2, local_steps=1)
    _, streamed = sps.stream(sps.fedavg, problem, hyper, key, rounds=2, local_steps=1, cohort=5)
    points = sps.grid(stepsize=[0.5], local_steps=1, seed=[0])
    (swept,) = sps.sweep(sps.fedavg, problem, points, rounds=2)
    for name in OWN:
        for part in ("test", "validation"):
            np.testing.assert_allclose(swept.history[f"{part}_{name}"], one[f"{part}_{name}"], rtol=1e-5)
            assert np.isfinite(one[f"{part}_{name}"]).all() and f"{part}_{name}" in streamed
    assert one["test_perplexity"] == pytest.approx(np.exp(one["test_loss"]), rel=1e-5)


class Coarse(nn.Module):
    """Names class 0 for everything, in bfloat16."""

    @nn.compact
    def __call__(self, x):
        bias = self.param("bias", nn.initializers.zeros, (3,))
        return jnp.broadcast_to(jnp.array([1, 0, 0], jnp.bfloat16), (len(x), 3)) + 0 * bias.astype(jnp.bfloat16)[None]


def test_sums_are_float32_whatever_the_model_computes_in():
    """301 of 1000 are class 0; bfloat16 has 8 significant bits, so the nearest to 0.301 are 0.30078125 and 0.302."""
    y = np.repeat([0, 1], [301, 699])
    problem = sps.from_arrays(
        np.zeros((1000, 1)), y, y, model=Coarse(), metrics={"right": right}, test=(np.zeros((1000, 1)), y)
    )
    found = problem.evaluate_held(problem.init(jax.random.key(0)))
    for name in ("test_accuracy", "test_right"):
        assert found[name].dtype == jnp.float32 and float(found[name]) == np.float32(301) / np.float32(1000)


def right(outputs, y):
    return (outputs.argmax(1) == y).astype(jnp.bfloat16)


def test_positions_are_averaged_in_float32():
    """Of 1000 positions of one example 301 are right; see above."""
    y = jnp.repeat(jnp.array([0, 1]), jnp.array([301, 699]), total_repeat_length=1000)[None]
    logits = jnp.broadcast_to(jnp.array([1, 0], jnp.bfloat16), (1, 1000, 2))
    found = metrics_of(Model(None, lambda params, x: logits), "softmax")(None, None, y)
    assert found["accuracy"].dtype == jnp.float32 and found["accuracy"].item() == pytest.approx(0.301, rel=1e-6)


def smoothed(outputs, y):
    return jnp.sum((outputs - 0.9 * jax.nn.one_hot(y, 3)) ** 2, axis=1)


def test_a_loss_of_ones_own_keeps_the_accuracy_of_classes():
    model = (lambda key: jnp.asarray(W), lambda params, x: x @ params)
    problem = sps.from_arrays(X, Y, IDS, model=model, loss=smoothed, test=(X, Y))
    assert float(problem.evaluate_held(jnp.asarray(W))["test_accuracy"]) == pytest.approx(
        ((X @ W).argmax(1) == Y).mean()
    )
    floats = sps.from_arrays(X, Y + 0.5, IDS, model=model, loss=lambda z, y: z[:, 0] * y, test=(X, Y + 0.5))
    assert set(floats.evaluate_held(jnp.asarray(W))) == {"test_loss"}


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ([top2], "metrics must be a dict of names and functions, not a list"),
        ({"top2": 3}, r"metric top2 must be a function \(outputs, y\) -> \(b,\), or a pair of functions .*, not 3"),
        ({"f1": (counts, f1, f1)}, "metric f1 must be a function"),
        ({"loss": top2}, "a metric's name must be a word such as top5, other than loss, not 'loss'"),
        ({"top 2": top2}, "a metric's name must be a word"),
        ({"mean": lambda z, y: z.mean()}, r"metric mean must be one number per example, \(2,\) for 2 examples"),
        ({"f1": counts}, "metric f1 must be one number per example"),
        ({"f1": (lambda z, y: {"a": z.sum()}, f1)}, r"the sums of metric f1 must be arrays \(2, ...\) for 2 examples"),
        ({"f1": (counts, lambda total: total["either"])}, "metric f1 must be one number in the end"),
    ],
)
def test_what_is_no_metric(metrics, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        sps.from_arrays(X, Y, IDS, metrics=metrics)


def test_tables_and_pictures_show_them(command, tmp_path):
    """Of f1 the larger is better, of perplexity the smaller: the first record that reaches the target counts."""
    rows = [
        {"round": r, "uplink_bits": 100 * r, "downlink_bits": 0, "train_loss": 1.0, "control_sum": None}
        | {"test_f1": r / 4, "test_perplexity": 4.0 - r, "density": 1.0, "iteration": r}
        for r in (1, 2, 3)
    ]
    (tmp_path / "out").mkdir()
    names = {"algorithm": "gd", "problem": "own", "seed": 0, "stepsize": 0.1}
    write_jsonl(tmp_path / "out" / "metrics.jsonl", [names | row for row in rows])
    for metric, target in (("test_f1", 0.5), ("test_perplexity", 2.0)):
        done = command("table", "out", "--metric", metric, "--target", target, "--json")
        (row,) = json.loads(done.stdout)["rows"]
        assert row["mean"] == rows[-1][metric] and row["bits_to_target"] == 200
        assert command("plot", "out", "--metric", metric, "--out", f"{metric}.png").returncode == 0
        assert (tmp_path / f"{metric}.png").is_file()


def test_equal_metrics_share_their_compiled_programs():
    one, other = (sps.from_arrays(X, Y, IDS, metrics=dict(OWN)) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert own_metrics(None) == ()


UNDEFINED = """
import numpy as np
import sps_jax as sps


def make(*, data_seed: int = 0, validation: float = 0.0):
    draw = np.random.default_rng(data_seed)
    x = draw.normal(size=(60, 3))
    own = {"f1": (lambda z, y: z[:, 0] * 0, lambda total: total / total)}
    return sps.from_arrays(x, x.argmax(1), np.arange(60) % 3, test=0.2, validation=validation, metrics=own)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_one_that_is_undefined_ends_nothing(seeds, tmp_path, command):
    """0/0 in every evaluation: null in the records, NaN in the table, no picture of it."""
    (tmp_path / "mine.py").write_text(UNDEFINED)
    options = ("--problem", "mine.py:make", "--algorithm", "gd", "fedavg", "--rounds", 3, "--seeds", seeds, "--quiet")
    own = ("--metric", "test_f1", "--keep", "best", "--best-by", "test_f1", "--patience", 9, "--checkpoint-every", 1)
    done = command("run", *options, *own, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].split()[2].startswith("nan")
    assert {row["test_f1"] for row in read_jsonl(tmp_path / "out" / "metrics.jsonl")} == {None}
    assert command("table", "out", "--metric", "test_f1").returncode == 0
    assert "test_f1 is nowhere a number" in command("plot", "out", "--metric", "test_f1").stderr
    assert command("resume", "out").returncode == 0
    assert command("sweep", *options, "--best-by", "validation_f1", "--out", "sweep").returncode == 0
    done = command("table", "sweep")
    assert done.returncode == 2 and "validation_f1" in done.stderr and "Traceback" not in done.stderr
