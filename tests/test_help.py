"""The help of the command line, and what is printed of a problem: short, by subject, in plain words."""

import re

import jax
import numpy as np
import pytest

import sps_jax as sps
from sps_jax.cli import help
from sps_jax.cli.options import command_type
from sps_jax.cli.sweep_options import sweep_type

MOST = 120


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_help_is_short_by_subject_and_has_examples(name, command):
    done = command(name, "--help")
    assert done.returncode == 0 and len(done.stdout.splitlines()) < MOST
    assert re.findall(r"^\W*(\w+) options\W*$", done.stdout, re.MULTILINE) == list(help.USUAL)
    assert "--help-all" in done.stdout
    for example in help.EXAMPLES[name]:
        assert example in done.stdout
    assert "--kappa" not in done.stdout and "--structure" in done.stdout


@pytest.mark.parametrize(("name", "made"), [("run", command_type), ("sweep", sweep_type)])
def test_help_all_has_every_option_in_plain_words(name, made, command):
    said = command(name, "--help-all").stdout
    gone = {"chunk", "devices", "stream", "target", "checkpoint_every", "coordinator", "num_processes", "process_id"}
    gone |= {"keep", "stop_at", "patience", "track", "metric"}
    for option in made().__dataclass_fields__:
        here = re.search(rf"--{option.replace('_', '-')}[ ,]", said) is not None
        assert here == (name == "run" or option not in gone), option
    assert "`" not in said and ":class:" not in said and ":func:" not in said


def test_every_option_is_of_one_subject():
    names = [*command_type().__dataclass_fields__, "brand_new"]
    found = help.subjects(names)
    assert sorted(name for own in found.values() for name in own) == sorted(names)
    assert found[help.REST] == ["brand_new"]
    assert "kappa" in found["problem"] and "alpha" in found["method"]  # of libsvm and of feddyn


@pytest.mark.parametrize("example", [each for own in help.EXAMPLES.values() for each in own])
def test_examples_can_be_parsed(example, command):
    """With a name that is none, which is refused after parsing and before anything is loaded."""
    _, name, *options = example.split()
    done = command(name, *options, "--encoding", "none")
    assert done.returncode == 2 and "unknown encoding 'none'" in done.stderr


def test_data_alone_shows_help(command):
    alone, asked = command("data"), command("data", "--help")
    assert alone.returncode == 0 and alone.stdout == asked.stdout and "prepare" in alone.stdout
    assert "licence" not in alone.stdout.lower() and "femnist" in command("data", "list").stdout


def test_a_problem_is_printed_in_one_line():
    """1,797 digits: 359 (a fifth, rounded down) are test data; 8 x 8 pixels, 10 classes."""
    problem = sps.problems.digits(clients=7)
    few, many = int(problem.counts.min()), int(problem.counts.max())
    sizes = f"1,438 examples ({few} to {many} a client) of shape (64,)"
    assert str(problem) == repr(problem) == f"<Problem of 7 clients, {sizes}, 10 classes, 359 test examples>"
    assert repr(sps.problems.quadratic(clients=3)) == "<Problem of 3 clients, 3 examples (1 a client) of shape (20, 1)>"


def test_binary_labels_are_two_classes_and_other_numbers_none():
    x = np.eye(4)
    binary = sps.from_arrays(x, np.array([0, 1, 1, 0]), list("abab"), loss="logistic")
    assert "2 classes" in repr(binary)
    assert "classes" not in repr(sps.from_arrays(x, np.array([0.0, 1.5, 1.0, 0.0]), list("abab")))


def test_a_problem_without_arrays_is_printed_too():
    problem, seen = sps.problems.quadratic(clients=3), []
    jax.jit(lambda problem: seen.append(repr(problem)))(problem)
    seen.append(repr(jax.eval_shape(lambda problem: problem, problem)))
    assert len(seen) == 2 and all("traced, abstract" in said for said in seen)
