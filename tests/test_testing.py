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
