"""A seed moves everything random, and error bars over seeds: what is said of them, and where they are none."""

import json
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

from sps_jax import results
from sps_jax.cli.from_options import build_problem
from sps_jax.cli.options import command_type
from sps_jax.cli.padding import built, of_seeds, padded, sizes
from sps_jax.layout import Layout, clients_mesh
from sps_jax.problems.arrays import from_arrays
from sps_jax.results import tables
from sps_jax.results.files import read_jsonl
from sps_jax.results.statistics import differences, interval, unmoved
from sps_jax.simulation.simulate import run_points

FIXED = ["--algorithm", "gd", "proxskip", "--local-steps", "2", "--rounds", "3", "--clients", "4"]


def metrics(folder, algorithm, seed, *names):
    rows = [r for r in read_jsonl(folder / "metrics.jsonl") if (r["algorithm"], r["seed"]) == (algorithm, seed)]
    return [[row[name] for name in names] for row in rows]


@pytest.fixture(scope="module")
def options():
    """``options(**given)``: those of the command line."""
    return lambda **given: command_type()(**given)


# --- what a seed moves ------------------------------------------------------------------------------------------------


def test_a_seed_draws_the_data_unless_they_have_their_own(options):
    own = [build_problem(options(clients=4, seed=seed)) for seed in (0, 1)]
    given = [build_problem(options(clients=4, seed=seed, data_seed=1)) for seed in (0, 1)]
    assert not np.array_equal(own[0].test[1], own[1].test[1])
    for problem in given:
        np.testing.assert_array_equal(problem.test[1], own[1].test[1])
        np.testing.assert_array_equal(problem.counts, own[1].counts)


@pytest.mark.parametrize("partition", ["dirichlet", "few_labels", "quantity"])
def test_seeds_of_one_run_share_their_shapes_and_a_lone_seed_is_not_padded(partition, options):
    """Padded to the largest client and the largest validation set of all seeds; what is added repeats a first row."""
    few = {"clients": 10, "validation": 0.1, "partition": partition}
    several, alone = options(**few, seeds=3), options(**few)
    problems = [built(options(**few, seed=seed), of_seeds(several)) for seed in range(3)]
    assert len({tuple(sizes(problem).items()) for problem in problems}) == 1
    assert problems[0].data[0].shape[1] == max(int(p.counts.max()) for p in problems)
    assert len(problems[0].validation[0]) == max(int(p.held_counts["validation"]) for p in problems)
    small = min(problems, key=lambda problem: int(problem.counts.max()))
    assert int(small.counts.max()) < small.data[0].shape[1]
    np.testing.assert_array_equal(small.data[0][:, -1], small.data[0][:, 0])
    least = min(problems, key=lambda problem: int(problem.held_counts["validation"]))
    np.testing.assert_array_equal(least.validation[0][-1], least.validation[0][0])
    assert of_seeds(alone) == of_seeds(options(**few, seeds=3, data_seed=0)) == {}
    assert of_seeds(options(clients=10, seeds=3, partition="iid")) == {} and built(alone, {}).held_counts is None


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [None, 4])
@pytest.mark.parametrize("mesh", [None, clients_mesh(jax.devices())], ids=["no mesh", "mesh"])
def test_padding_is_in_no_metric(at_once, mesh):
    """Of 7 examples padded to 12 by the first: the means of the 7, an own metric with sums, in batches of 4 too."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(7, 3)), np.array([0, 1, 2, 0, 1, 2, 0])
    own = {"first": lambda z, y: z[:, 0], "total": (lambda z, y: z[:, 0], lambda total: total)}
    bare = replace(from_arrays(x, y, y, test=(x, y), metrics=own), evaluate_batch=at_once)
    longer = padded(bare, {"test": 12})
    assert len(longer.test[0]) == 12 and "7 test examples" in repr(longer)
    params = jax.tree.map(lambda a: jnp.asarray(draw.normal(size=a.shape), a.dtype), bare.init(jax.random.key(0)))
    found, wanted = (p.evaluate_held(params, Layout(mesh=mesh)) for p in (longer, bare))
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_seeds_of_a_sweep_share_one_program_with_validation_too(command, tmp_path):
    """Three seeds of a Dirichlet partition, whose validation sets differ in size: each ends as it does alone."""
    few = ["--algorithm", "gd", "--rounds", "2", "--clients", "4", "--stepsize", "0.5", "--validation", "0.2"]
    before = run_points._cache_size()
    assert command("sweep", *few, "--seeds", "3", "--out", "all").returncode == 0
    assert run_points._cache_size() == before + 1
    assert command("sweep", *few, "--seed", "2", "--out", "alone").returncode == 0
    for name in ("validation_loss", "validation_accuracy", "train_loss", "test_accuracy"):
        own, among = (metrics(tmp_path / folder, "gd", 2, name) for folder in ("alone", "all"))
        np.testing.assert_allclose(among, own, rtol=1e-5)


@pytest.mark.slow
def test_full_batches_and_fixed_steps_still_differ_by_seed(command, tmp_path):
    """Seeds 1 and 2 of a run are the runs of seed 1 and seed 2; the data are padded, so to float32's last bits."""
    done = command("run", *FIXED, "--seed", "1", "--seeds", "2", "--out", "both")
    assert done.returncode == 0 and "change nothing" not in done.stderr
    compiled = {
        (s["algorithm"], s["seed"]): s["compile_seconds"]
        for s in json.loads((tmp_path / "both" / "summary.json").read_text())
    }
    assert compiled["gd", 2] == compiled["proxskip", 2] == 0.0  # the seeds share a program
    assert metrics(tmp_path / "both", "gd", 1, "train_loss") != metrics(tmp_path / "both", "gd", 2, "train_loss")
    command("run", *FIXED, "--seed", "2", "--out", "two")
    for name in ("gd", "proxskip"):
        own, among = (metrics(tmp_path / each, name, 2, "train_loss", "stepsize") for each in ("two", "both"))
        np.testing.assert_allclose(among, own, rtol=1e-5)
    rows = json.loads(command("table", "both", "--json").stdout)["rows"]  # 1/L is one setting, though L differs
    assert [(row["algorithm"], row["seeds"]) for row in rows] == [("gd", 2), ("proxskip", 2)]


@pytest.mark.slow
def test_where_seeds_change_nothing_it_is_said_in_one_line(command, tmp_path):
    options = ["--problem", "quadratic", "--rounds", "2", "--seeds", "2", "--data-seed", "3"]
    done = command("run", *options, "--algorithm", "gd", "proxskip", "--prob", "0.5", "--out", "out")
    said = [line for line in done.stderr.splitlines() if "change nothing" in line]
    assert len(said) == 1 and "in gd:" in said[0]  # the coin of proxskip is random
    one = "sweep", *options[:-2], "--algorithm", "gd"
    assert "change nothing in gd" in command(*one, "--data-seed", "3", "--out", "sweep").stderr
    assert "change nothing" not in command(*one, "--out", "moved").stderr


def test_what_differs_is_not_unmoved():
    """A diverged seed without records is no equal of another; a lone seed moves nothing, which goes without saying."""
    row = {"round": 1, "train_loss": 0.5}
    assert unmoved({("a", 0): [row]}) == unmoved({("a", 0): [], ("a", 1): []}) == []
    assert unmoved({("a", 0): [row], ("a", 1): []}) == []
    assert unmoved({("a", 0): [row], ("a", 1): [row | {"train_loss": 0.6}]}) == []


@pytest.mark.slow
def test_data_settings_are_swept_and_compared_separately(command, tmp_path):
    """Each data setting has its own block; a point is what a run with that setting is."""
    few = ["--problem", "digits", "--algorithm", "gd", "--rounds", "2", "--validation", "0"]
    done = command("sweep", *few, "--dirichlet-alpha", "0.1", "10", "--clients", "3", "4", "--out", "out")
    assert done.returncode == 0, done.stderr
    points = read_jsonl(tmp_path / "out" / "summary.jsonl")
    assert sorted((p["clients"], p["dirichlet_alpha"]) for p in points) == [(3, 0.1), (3, 10.0), (4, 0.1), (4, 10.0)]
    command("run", *few, "--dirichlet-alpha", "10", "--clients", "3", "--out", "alone")
    (point,) = [p["point"] for p in points if (p["clients"], p["dirichlet_alpha"]) == (3, 10.0)]
    own = [r["train_loss"] for r in read_jsonl(tmp_path / "out" / "metrics.jsonl") if r["point"] == point]
    np.testing.assert_allclose([own], np.transpose(metrics(tmp_path / "alone", "gd", 0, "train_loss")), rtol=1e-5)
    headings = [line.split()[:3] for line in command("table", "out").stdout.splitlines() if line.startswith("method")]
    assert headings == [["method", "clients", "alpha"]] * 4
    assert command("plot", "out", "--heat", "clients", "dirichlet_alpha").returncode == 0
    command("sweep", *few, "--dirichlet-alpha", "0.1", "10", "--clients", "3", "4", "--out", "out")
    assert read_jsonl(tmp_path / "out" / "summary.jsonl") == points  # nothing is run twice


def test_a_negative_data_seed_is_refused_in_a_sweep(command, tmp_path):
    done = command("sweep", "--data-seed", "0", "-1")
    assert done.returncode == 2 and "--data-seed must be at least 0, not -1" in done.stderr
    assert not list(tmp_path.iterdir())


# --- what is said over seeds ------------------------------------------------------------------------------------------


def test_interval_is_students():
    """Of 1, 2, 3: s = 1, n = 3; and the 0.975 quantile of Student's distribution is 4.3027 (2 degrees, any table)."""
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_differences_are_paired_by_seed():
    """``b`` is below ``a`` by 1, 1, 1 though both vary by more; ``c`` shares one seed with ``a``."""
    ends = {"a": {0: 3.0, 1: 5.0, 2: 7.0}, "b": {0: 2.0, 1: 4.0, 2: 6.0}, "c": {2: 3.0, 5: 0.0}}
    best, found = differences(ends, largest=True)
    assert best == "a" and found["a"] is None and found["b"] == (-1, 0) and found["c"] == (-4, None)
    assert differences(ends, largest=False)[0] == "c"
    assert differences({"a": {}, "b": {}}, largest=True) == (None, {"a": None, "b": None})


def summaries(ends):
    """Of runs that ended with these test accuracies; None: diverged."""
    common = {"target_metric": "test_accuracy", "target": 0.5, "bits_to_target": 2000}
    rest = {"uplink_bits": 4000, "downlink_bits": 1000, "density": 0.25, "control_sum": None}
    return [
        common
        | {"algorithm": name, "seed": seed}
        | ({"diverged_at_round": 3} if end is None else {"final": {"test_accuracy": end} | rest})
        for name, values in ends.items()
        for seed, end in enumerate(values)
    ]


def test_table_of_a_run_has_intervals_and_paired_differences_over_seeds():
    """Half-widths: 12.7062 / sqrt(2) times the deviations 0.1 / sqrt(2) of ``a`` and 0 of the differences."""
    head, _, a, b, c = tables.run_table(summaries({"a": [0.5, 0.6], "b": [0.4, 0.5], "c": [None, 0.5]})).splitlines()
    assert head.split()[:5] == ["method", "seeds", "test_accuracy", "minus", "a"]
    assert a.split()[:4] == ["a", "2", "0.5500+-0.6353", "-"]
    assert b.split()[:4] == ["b", "2", "0.4500+-0.6353", "-0.1000+-0.0000"]
    assert c.split()[:6] == ["c", "1", "of", "2", "0.5000", "-0.1000"]  # seed 1 alone
    assert "t-interval" in tables.caption(summaries({"a": [0.5, 0.6]}))


def test_one_seed_has_no_interval():
    made = summaries({"a": [0.5], "b": [0.4]})
    assert "+-" not in tables.run_table(made) and "minus" not in tables.run_table(made)
    assert "interval" not in tables.caption(made)


def test_all_diverged_is_a_table_too():
    assert tables.run_table(summaries({"a": [None, None], "b": [None, None]})).count("diverged") == 2


def test_a_lone_method_reaches_the_default_target():
    """The mean of three times 0.7 is below 0.7 by its rounding; the target is not above it."""
    value = 0.7
    assert pandas.DataFrame({"round": 1, "value": [value] * 3}).groupby("round")["value"].mean()[1] < value
    rows = [
        {"algorithm": "a", "problem": "p", "seed": seed, "round": 1, "test_accuracy": value, "train_loss": 1.0}
        | {"uplink_bits": 8, "downlink_bits": 8, "control_sum": None}
        for seed in range(3)
    ]
    (row,) = tables.rows({"a": pandas.DataFrame(rows)}, "test_accuracy")
    assert row["bits_to_target"] == 8


@pytest.mark.parametrize(
    ("option", "begins", "has"),
    [
        ("--latex", r"\begin{tabular}", [r"\toprule", r"sparse\_proxskip", r" \pm ", r"% test\_accuracy after"]),
        ("--markdown", "| method", ["| sparse_proxskip", " ± ", "test_accuracy after"]),
        ("--csv", "algorithm,", ["sparse_proxskip,", "minus_best_interval", "stepsize"]),
    ],
)
def test_tables_for_papers(option, begins, has, two_seeds, command):
    done = command("table", two_seeds, option)
    assert done.returncode == 0 and done.stdout.startswith(begins)
    assert all(words in done.stdout.replace("% test_", r"% test\_") for words in has)
    if option == "--csv":
        table = pandas.read_csv(pandas.io.common.StringIO(done.stdout))
        assert table["seeds"].tolist() == [2, 2] and table["interval"].notna().all()


def test_one_format_at_a_time(two_seeds, command):
    done = command("table", two_seeds, "--latex", "--csv")
    assert done.returncode == 2 and "give one format, not --latex and --csv" in done.stderr


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """A folder as a sweep of two points leaves it, of two methods and two seeds."""
    folder = tmp_path_factory.mktemp("two")
    rows = [
        {"point": 0, "algorithm": name, "problem": "digits", "seed": seed, "stepsize": stepsize, "mu": 1.0, "round": 1}
        | {"test_accuracy": 0.5 + 0.1 * seed + stepsize, "train_loss": stepsize if name == "gd" else -stepsize}
        | {"uplink_bits": 800, "downlink_bits": 800, "control_sum": None, "iteration": 1, "density": 1.0}
        for name in ("sparse_proxskip", "gd")
        for seed in (0, 1)
        for stepsize in (0.1, 0.2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_titles_name_the_chosen_points(two_seeds):
    """Of step sizes 0.1 and 0.2 each method has its own; ``mu`` has one value; a point of both is in the title."""
    records = results.load(two_seeds)
    best = {(name, ""): own for name, own in tables.best_points(records).items()}
    labels, title = tables.titles(records, best)
    assert list(labels.values()) == ["sparse_proxskip (gamma 0.2)", "gd (gamma 0.1)"]
    assert title == "digits: best train loss"
    assert tables.titles(records, {("gd", ""): best["gd", ""]}) == (
        {("gd", ""): "gd"},
        "digits: best train loss at gamma 0.1",
    )
    single = records[records["stepsize"] == 0.1]
    assert tables.titles(single, best) == ({key: key[0] for key in best}, "digits")
