"""Labels as users have them become the numbers that a loss takes; what a user gets wrong ends in one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

import sps_jax as sps
from sps_jax.problems.labels import encoded, loss_for

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y, IDS = np.arange(12) % 3, np.arange(12) % 4
FRUIT = np.array(["pear", "apple", "fig"])[Y]  # sorted: apple 0, fig 1, pear 2
KEY = jax.random.key(0)


def labels_of(problem):
    """The clients' labels, client after client: rows 0, 4, 8, then 1, 5, 9, ..."""
    return np.asarray(problem.data[1]).ravel().tolist()


BY_CLIENT = np.arange(12).reshape(3, 4).T.ravel()


@pytest.mark.parametrize(
    ("y", "numbers", "classes"),
    [
        (FRUIT, np.array([2, 0, 1])[Y], ("apple", "fig", "pear")),
        (pandas.Categorical(FRUIT), np.array([2, 0, 1])[Y], ("apple", "fig", "pear")),
        (Y + 1, Y, (1, 2, 3)),
        (Y * 10, Y, (0, 10, 20)),
        (2 * (Y % 2) - 1, Y % 2, (-1, 1)),
        (Y, Y, None),
        (Y == 1, Y == 1, None),
        (np.eye(3)[Y], Y, None),
        (np.eye(3, dtype=bool)[Y], Y, None),
        (pandas.get_dummies(pandas.Series(Y)), Y, None),
        (Y[:, None], Y, None),
        ((Y + 1)[:, None].tolist(), Y, (1, 2, 3)),
    ],
)
def test_classes_are_numbered_and_remembered(y, numbers, classes):
    """The model has an output per class, not one for each number up to the largest; at least two."""
    problem = sps.from_arrays(X, y, IDS)
    assert labels_of(problem) == np.asarray(numbers)[BY_CLIENT].tolist() and problem.classes == classes
    (kernel,) = (a for a in jax.tree.leaves(problem.init(KEY)) if a.ndim == 2)
    assert len(kernel) == max(2, len(set(np.asarray(numbers).tolist())))


def test_numbers_that_a_models_outputs_have_room_for_stay():
    """Of ten classes some may be missing here; only what lies outside is counted anew."""
    problem = sps.from_arrays(X, Y + 5, IDS, outputs=10)
    assert labels_of(problem) == (Y + 5)[BY_CLIENT].tolist() and problem.classes is None
    problem = sps.from_arrays(X, Y + 8, IDS, outputs=10)
    assert labels_of(problem) == Y[BY_CLIENT].tolist() and problem.classes == (8, 9, 10)


def test_training_and_test_labels_are_numbered_together():
    problem = sps.from_arrays(X[:4], FRUIT[[0, 2, 0, 2]], IDS[:4], test=(X[:2], FRUIT[1:3]))
    assert problem.classes == ("apple", "fig", "pear") and problem.test[1].tolist() == [0, 1]
    assert labels_of(problem) == [2, 1, 2, 1]


def test_two_names_are_the_labels_of_logistic_regression():
    problem = sps.from_arrays(X, np.where(Y > 0, "yes", "no"), IDS, loss="logistic", test=0.34)
    assert labels_of(problem)[:2] == [0.0, 1.0] and problem.data[1].dtype == jnp.float32
    assert problem.classes == ("no", "yes")


def test_a_loss_of_ones_own_gets_numbers_as_they_are():
    same = lambda outputs, y: outputs[:, 0] * 0 + y  # noqa: E731
    assert labels_of(sps.from_arrays(X, Y + 0.5, IDS, loss=same)) == (Y + 0.5)[BY_CLIENT].tolist()
    assert encoded([np.array([3, 5])], same, 1) == ([pytest.approx([3, 5])], None)
    with pytest.raises(ValueError, match=r"softmax of 2 outputs, not -2"):  # no class is below zero, but for -1 and 1
        sps.from_arrays(X, Y - 2, IDS)


@pytest.mark.parametrize("whole", [Y % 2 * 1.0, Y * 1.0, np.zeros(12)])
def test_whole_floats_ask_what_they_are(whole):
    with pytest.raises(
        ValueError, match=r"^y holds floats that are all whole numbers, such as 0.0: name the loss, softmax if they are"
    ):
        sps.from_arrays(X, whole, IDS)
    assert labels_of(sps.from_arrays(X, whole, IDS, loss="softmax")) == whole[BY_CLIENT].tolist()
    assert sps.from_arrays(X, whole, IDS, loss="squares").data[1].dtype == jnp.float32
    assert loss_for(whole + 0.5, None) == "squares"


def test_images_of_bytes_are_scaled():
    """255 is 1, for the linear model and one's own, which keeps bytes in memory; other integers stay."""
    images = np.full((12, 2, 2), 255, np.uint8)
    assert np.asarray(sps.from_arrays(images, Y, IDS).data[0]).max() == 1.0
    summed = (lambda key: jnp.zeros((2, 3)), lambda params, x: jnp.sum(x, axis=1) @ params + jnp.sum(x, axis=1)[:, :1])
    problem = sps.from_arrays(images, Y, IDS, model=summed, loss=lambda outputs, y: outputs[:, 0])
    assert problem.data[0].dtype == jnp.uint8
    assert problem.objective(jnp.zeros((2, 3))) == 2  # two pixels in a column
    kept = sps.from_arrays(images.astype(np.int32), Y, IDS)
    assert np.asarray(kept.data[0]).max() == 255.0
    assert np.asarray(sps.from_arrays(images[:, 0], Y, IDS).data[0]).max() == 255.0  # no image


class Dataset:
    """As torch's: entries are pairs, or dicts."""

    def __init__(self, entry):
        self.entry = entry

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i >= 12:
            raise IndexError
        return self.entry(i)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (Dataset(lambda i: (X[i], Y[i])), r"a Dataset whose entries are tuples: .* np.stack\(\[entry\[0\] for entry"),
        (Dataset(lambda i: {"image": X[i]}), r"a Dataset whose entries are dicts: .* np.stack\(\[entry\['image'\] for"),
        ([[1.0, 2.0], [1.0]], r"x is ragged: x\[0\] has shape \(2,\), x\[1\] \(1,\)"),
        ({"image": X}, "x is a dict, which is not a number, array, data frame or list of them"),
    ],
)
def test_what_is_no_array_of_examples(x, says):
    with pytest.raises(ValueError, match=rf"^{says}|^x is {says}"):
        sps.from_arrays(x, Y, IDS)


PROBLEM = sps.problems.quadratic(clients=2, dimension=1)
HYPER = {"stepsize": 0.1, "prob": 0.5}
WRONG = {
    "name": (("fedavg", HYPER, KEY), {}, r"the algorithm must be a factory such as sps.fedavg, not 'fedavg': give sps"),
    "made": (
        (sps.fedavg(**HYPER), {}, KEY),
        {},
        "the algorithm must be a factory such as sps.fedavg, not an Algorithm",
    ),
    "seed": ((sps.fedavg, HYPER, 0), {}, r"key must be one JAX random key, such as jax.random.key\(0\), not 0"),
    "keys": ((sps.fedavg, HYPER, jax.random.split(KEY)), {}, "key must be one JAX random key, .* not an array of keys"),
    "params": (
        (sps.fedavg, HYPER, KEY),
        {"params": {"y": jnp.ones(1)}},
        r"params must be .*, x \(1, 1\), not y \(1,\)",
    ),
    "shape": ((sps.fedavg, HYPER, KEY), {"params": {"x": jnp.ones((2, 1))}}, r"params must be like .* not x \(2, 1\)"),
    "local steps": (
        (sps.fedavg, {"stepsize": 0.1, "local_steps": 3}, KEY),
        {},
        r"local_steps is no hyperparameter: give it beside them, as local_steps=\.\.\.",
    ),
    "lr": (
        (sps.fedavg, {"lr": 0.1, "prob": 0.5}, KEY),
        {},
        "unknown hyperparameter of fedavg 'lr': did you mean 'step",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("run", ["simulate", "iterate", "stream"])
def test_a_simulation_says_what_is_wrong(case, run):
    (make, hyper, key), options, says = WRONG[case]
    how = {"simulate": {"rounds": 1}, "iterate": {"iterations": 1}, "stream": {"rounds": 1, "cohort": 1}}[run]
    with pytest.raises(ValueError, match=f"^{says}"):
        getattr(sps, run)(make, PROBLEM, hyper, key, **how, **options)


@pytest.mark.parametrize("given", ["--lr", "--lr=0.1", "--learning-rate"])
def test_the_command_line_knows_other_names(given, command):
    done = command("run", given, *([] if "=" in given else ["0.1"]))
    assert done.returncode == 2 and "did you mean --stepsize?" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("given", ["digits", sps.problems.digits, None])
def test_what_is_no_problem(given):
    """Its name, the function that makes it, None: wherever a problem is taken."""
    says = "^the problem must be an sps.Problem, one that sps.from_arrays or a function of sps.problems makes, not "
    calls = {"rounds": 1}, {"rounds": 1, "cohort": 1}, {"iterations": 1}
    for call, settings in zip((sps.simulate, sps.stream, sps.iterate), calls, strict=True):
        with pytest.raises(ValueError, match=says):
            call(sps.fedavg, given, HYPER, KEY, **settings)
    with pytest.raises(ValueError, match=says):
        list(sps.sweep(sps.fedavg, given, [HYPER], rounds=1))
