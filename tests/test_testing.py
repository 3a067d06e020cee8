"""The check of one's own algorithms sees each broken promise; ``algorithms/test_contract.py`` puts ours to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sps_jax.algorithms import fedavg, proxskip
from sps_jax.compression.bits import FLOATS, MessageCount, MessageFormat
from sps_jax.simulation.contract import check_algorithm


def halved(params):
    return jax.tree.map(lambda a: a / 2, params)


def forgets_precision(*, stepsize, prob):
    """The server goes on in float16."""
    return fedavg(stepsize=stepsize, prob=prob)._replace(
        serve=lambda server, mean, info: jax.tree.map(lambda m: m.astype(jnp.float16), mean)
    )


def promotes(*, stepsize, prob):
    """Float64 where the parameters are float32."""
    return fedavg(stepsize=stepsize, prob=prob)._replace(
        serve=lambda server, mean, info: jax.tree.map(lambda m: m.astype(jnp.float64), mean)
    )


def with_momentum(*, stepsize, prob):
    """The server keeps two things, and ``with_model`` puts one there."""
    return fedavg(stepsize=stepsize, prob=prob)._replace(
        init=lambda params: ((), (params, params)),
        broadcast=lambda server: server[0],
        serve=lambda server, mean, info: (mean, server[1]),
        model=lambda server: server[0],
    )


def looks_at_numbers(*, stepsize, prob):
    """A Python ``if`` on what is traced."""
    return fedavg(stepsize=stepsize if stepsize < 1 else 1.0, prob=prob)


def draws_with_numpy(*, stepsize, prob):
    """Noise that no key decides: other numbers whenever it is traced."""
    generator = np.random.default_rng(0)

    def direction(x, h, b, gradient, key):
        return jax.tree.map(lambda g: g + generator.normal(size=g.shape).astype(g.dtype), gradient(x))

    return fedavg(stepsize=stepsize, prob=prob)._replace(direction=direction)


def knows_its_layout(*, stepsize, prob):
    """Something else is sent where clients are not under ``vmap``."""
    return fedavg(stepsize=stepsize, prob=prob)._replace(
        send=lambda x, h, b, gradient, info: x if "Batch" in type(info.slot).__name__ else halved(x)
    )


def hides_bits(*, stepsize, prob):
    """Sends 18 numbers and counts three."""
    cheap = MessageFormat(lambda message, info: MessageCount(jnp.int32(3), jnp.int32(3)), FLOATS.size)
    return fedavg(stepsize=stepsize, prob=prob)._replace(uplink=cheap)


def counts_too_much(*, stepsize, prob):
    """More numbers than the broadcast has."""
    dear = MessageFormat(lambda message, info: MessageCount(jnp.int32(19), jnp.int32(19)), FLOATS.size)
    return fedavg(stepsize=stepsize, prob=prob)._replace(downlink=dear)


def loses_the_sum(*, stepsize, prob):
    """Sends half of x and updates its control variate with x."""
    base = proxskip(stepsize=stepsize, prob=prob)
    return base._replace(
        send=lambda x, h, b, gradient, info: halved(x),
        receive=lambda x, h, m, b, info: base.receive(x, h, x, b, info),
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (forgets_precision, "a round changes the shapes or dtypes of the server state: .*float32.* became .*float16"),
        (promotes, "a round changes the shapes or dtypes of the server state: .*float32.* became .*float64"),
        (with_momentum, "with_model changes the shapes or dtypes of the server state"),
        pytest.param(draws_with_numpy, "a round differs from its steps run one by one", marks=pytest.mark.slow),
        pytest.param(knows_its_layout, "all clients at once and one after another differs", marks=pytest.mark.slow),
        pytest.param(hides_bits, "the uplink counts 3 numbers in a message that contains 18", marks=pytest.mark.slow),
        pytest.param(counts_too_much, "the downlink counts 19 numbers in a message of 18", marks=pytest.mark.slow),
        pytest.param(loses_the_sum, "the control variates do not sum to zero", marks=pytest.mark.slow),
    ],
)
def test_a_broken_promise_is_seen(make, message):
    with pytest.raises(AssertionError, match=message):
        check_algorithm(make)


def changed(**functions):
    """FedAvg with other functions."""

    def method(*, stepsize, prob):
        return fedavg(stepsize=stepsize, prob=prob)._replace(**functions)

    return method


def returns_nothing(*, stepsize, prob):
    fedavg(stepsize=stepsize, prob=prob)


SENTENCES = {
    "too few arguments": (
        changed(direction=lambda x, h, b: x),
        r"direction takes (x, h, b), but it is called with 5 arguments by position: direction(x, h, b, gradient, key)",
    ),
    "no function": (changed(serve=0.5), "serve must be a function serve(server, mean, info), not 0.5"),
    "no return": (
        changed(send=lambda x, h, b, gradient, info: None),
        "send(x, h, b, gradient, info) returns None: is its `return` missing?",
    ),
    "no pair": (changed(init=lambda params: params), "init(params) must return the pair (h, server), not a dict"),
    "a key that is not there": (
        changed(receive=lambda x, h, m, b, info: m["c"]),
        "receive(x, h, m, b, info) fails with KeyError: 'c'; x has the keys b, w, m has the keys b, w, b has ",
    ),
    "a key left out": (
        changed(serve=lambda server, mean, info: {"w": mean["w"]}),
        "a round changes the shapes or dtypes of the server state",
    ),
    "another error": (
        changed(move=lambda x, d: x + d),
        "move(x, d) fails with TypeError: unsupported operand type(s) for +: 'dict' and 'dict'",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_a_slip_of_the_pen_gets_one_sentence(case):
    make, says = SENTENCES[case]
    with pytest.raises(AssertionError) as raised:
        check_algorithm(make)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_a_factory_without_return_is_told_so():
    with pytest.raises(
        ValueError, match=r"returns_nothing must return an sps_jax.Algorithm, not None: is its `return`"
    ):
        check_algorithm(returns_nothing)


@pytest.mark.slow
def test_a_problem_of_ones_own_is_what_it_runs_on():
    """In the problem's own shapes and dtype, float32 here: a method for models with a leaf x is right there."""
    from sps_jax.problems import quadratic

    problem = quadratic(clients=3, dimension=4)
    doubled = changed(serve=lambda server, mean, info: {"x": mean["x"] * 1})
    assert check_algorithm(doubled, problem=problem) == ["shapes", "steps", "layouts", "bits"]
    with pytest.raises(
        AssertionError, match=r"serve.server, mean, info. fails with KeyError: 'x'; .* mean has the keys"
    ):
        check_algorithm(doubled)
    with pytest.raises(AssertionError, match="the control variates do not sum to zero"):
        check_algorithm(loses_the_sum, problem=problem)
    assert "control variates" in check_algorithm(proxskip, problem=problem)


def test_hyperparameters_are_traced():
    with pytest.raises(jax.errors.TracerBoolConversionError):
        check_algorithm(looks_at_numbers)


def test_hyperparameters_are_those_it_takes():
    with pytest.raises(ValueError, match="unknown hyperparameter of fedavg 'momentom'"):
        check_algorithm(fedavg, {"momentom": 0.9})


@pytest.mark.slow
def test_divergence_is_not_taken_for_a_broken_promise():
    with pytest.raises(AssertionError, match=r"the algorithm diverges with .*1e\+30.*smaller stepsize"):
        check_algorithm(fedavg, {"stepsize": 1e30})
