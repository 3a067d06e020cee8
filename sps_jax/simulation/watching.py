"""Watch a simulation between its compiled blocks: rules that stop it, and which evaluation was the best."""

import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypedDict, cast

import jax

from sps_jax.errors import described, refuse_unknown, whole_number
from sps_jax.problem import Problem
from sps_jax.results import PARTS, larger_is_better
from sps_jax.simulation import per_client
from sps_jax.simulation.choices import Choices
from sps_jax.simulation.method import Method

Row = dict[str, Any]
OnEvaluation = Callable[[Row], Any]
"""``row -> whether to stop``, called after each evaluation with its row of the history, as Python numbers."""

CRITERIA = ("validation_accuracy", "validation_loss", "test_accuracy", "train_loss")
"""What tells the best evaluation, unless another metric is named: the first of these that is recorded."""

COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
COUNTED = ("round", "iteration", "uplink_bits", "downlink_bits", "density", "average_density", "control_sum")


class Watched(Choices, TypedDict, total=False):
    """The choices of a simulation that is watched, see :func:`sps_jax.simulate`."""

    on_evaluation: Annotated[
        OnEvaluation | None,
        None,
        "a function that is called after each evaluation with its row of the history as a dict of Python numbers, "
        "between compiled blocks; if it returns True, the simulation ends.",
    ]
    stop_at: Annotated[
        str | None,
        None,
        'a column of the history compared with a number, ``"test_accuracy>=0.9"``; the evaluation that fulfils it is '
        "the last.",
    ]
    patience: Annotated[
        int | None,
        None,
        "how many evaluations in a row may pass without a new best one before the simulation ends.",
    ]
    best_by: Annotated[
        str | None,
        None,
        "the metric that tells the best evaluation, your own too; None for ``validation_accuracy``, else "
        "``validation_loss``, ``test_accuracy`` or ``train_loss``. Which way is better follows from its name, see "
        ":func:`sps_jax.results.larger_is_better`.",
    ]


class Best:
    """The best evaluation so far.

    Args:
      by: the metric that tells it; None for the first of :data:`CRITERIA` that is recorded.

    Attributes:
      metric: that metric; None before the first evaluation if none is given.
      value: its best value.

    Example:
      >>> best = Best()
      >>> [best.improves({"train_loss": loss}) for loss in (0.5, 0.5, math.nan, 0.4)], best.value
      ([True, False, False, True], 0.4)
    """

    def __init__(self, by: str | None = None) -> None:
        self.metric, self.value = by, math.nan

    def improves(self, row: Row) -> bool:
        """Return whether the evaluation ``row`` is better than all before, which then takes their place."""
        self.metric = self.metric or next(name for name in CRITERIA if name in row)
        value = math.nan if row[self.metric] is None else row[self.metric]  # null on disk
        better = value > self.value if larger_is_better(self.metric) else value < self.value
        if better or (math.isnan(self.value) and not math.isnan(value)):
            self.value = value
            return True
        return False


class Watch:
    """A function that is called after each evaluation, and the rules that end a simulation early.

    Args:
      on_evaluation: see :data:`OnEvaluation`.
      stop_at: a comparison of a column of the history with a number, such as ``"test_accuracy>=0.9"``.
      patience: the number of evaluations in a row that may pass without a new :class:`Best` one.
      best_by: the metric that tells it, see :class:`Best`.

    Raises:
      ValueError: for an argument that is none of these.

    Example:
      >>> watch = Watch(stop_at="train_loss < 0.3", patience=2)
      >>> watch([{"train_loss": 0.5}]), watch([{"train_loss": 0.2}])
      (None, 'train_loss < 0.3')
      >>> watch([{"train_loss": 0.6}]), watch([{"train_loss": 0.7}])
      (None, 'train_loss has not improved in 2 evaluations')
    """

    def __init__(
        self,
        on_evaluation: OnEvaluation | None = None,
        stop_at: str | None = None,
        patience: int | None = None,
        best_by: str | None = None,
    ) -> None:
        if on_evaluation is not None and not callable(on_evaluation):
            raise ValueError(f"on_evaluation must be a function of one row, not {described(on_evaluation)}")
        self._tell, self._stop_at = on_evaluation, stop_at
        self._metric: str | None = None
        self._reached: Callable[[Row], bool] | None = None
        if stop_at is not None:
            self._metric, self._reached = comparison(stop_at)
        self._patience = None if patience is None else whole_number("patience", patience)
        self._best_by, self._best, self._waited = best_by, Best(best_by), 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to call and no rule, so that a whole run may be one block."""
        return self._tell is None and not self.has_rules

    @property
    def has_rules(self) -> bool:
        """Whether a rule may end the simulation."""
        return self._reached is not None or self._patience is not None

    def check(self, problem: Problem, params: Any = None, method: Method | None = None) -> None:
        """Raise a ``ValueError`` if ``stop_at`` or ``best_by`` names no column of the history of ``problem``."""
        if self._metric is not None:
            refuse_unknown("metric of stop_at", self._metric, columns(problem, params, method))
        if self._best_by is not None:
            refuse_unknown("metric of best_by", self._best_by, measured(problem, params, method))

    def recall(self, rows: Iterable[Row]) -> None:
        """Let the rules see evaluations of a run that is resumed, without calling ``on_evaluation``."""
        for row in rows:
            self._rules(row)

    def __call__(self, rows: Iterable[Row]) -> str | None:
        """Let all see the rows of a block; return why the simulation is to stop, or None."""
        why = None
        for row in rows:
            asked = self._tell is not None and self._tell(row) is True
            why = why or ("on_evaluation returned True" if asked else None) or self._rules(row)
        return why

    def _rules(self, row: Row) -> str | None:
        if self._reached is not None and self._reached(row):
            return self._stop_at
        if self._patience is None:
            return None
        self._waited = 0 if self._best.improves(row) else self._waited + 1
        if self._waited < self._patience:
            return None
        return f"{self._best.metric} has not improved in {self._patience} evaluations"


def comparison(text: str) -> tuple[str, Callable[[Row], bool]]:
    """Return the metric of a comparison such as ``"test_accuracy>=0.9"``, and whether a row fulfils it.

    Raises:
      ValueError: if it is no such comparison.

    Example:
      >>> metric, fulfilled = comparison("test_accuracy >= 0.9")
      >>> metric, fulfilled({"test_accuracy": 0.9}), fulfilled({"test_accuracy": 0.8})
      ('test_accuracy', True, False)
    """
    found = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", text) if isinstance(text, str) else None
    try:
        metric, sign, number = found.groups() if found else ("", "", "")
        bound = float(number)
    except ValueError:
        raise ValueError(
            f"stop_at must be a metric, one of {', '.join(COMPARE)}, and a number, such as 'test_accuracy>=0.9', "
            f"not {described(text)}"
        ) from None
    return metric, lambda row: row[metric] is not None and COMPARE[sign](row[metric], bound)


def columns(problem: Problem, params: Any = None, method: Method | None = None) -> list[str]:
    """Return the names of the columns that every history of ``problem``, by ``method``, has; nothing is computed.

    Example:
      >>> from sps_jax.problems import quadratic
      >>> columns(quadratic(clients=2))[-2:]
      ['control_sum', 'train_loss']
    """
    params = jax.eval_shape(problem.init, jax.random.key(0)) if params is None else params
    own = [] if method is None else per_client.names(method, problem)
    return [*COUNTED, "train_loss", *jax.eval_shape(problem.evaluate_held, params), *own]


def measured(problem: Problem, params: Any = None, method: Method | None = None) -> list[str]:
    """Return those of :func:`columns` that are metrics of the model.

    Example:
      >>> from sps_jax.problems import quadratic
      >>> measured(quadratic(clients=2))
      ['train_loss']
    """
    return [name for name in columns(problem, params, method) if name.startswith(PARTS)]


def parted(options: Watched) -> tuple[Watch, Choices]:
    """Return the watch that the options describe, and the other options."""
    watch = Watch(options["on_evaluation"], options["stop_at"], options["patience"], options["best_by"])
    return watch, cast(Choices, {name: value for name, value in options.items() if name in Choices.__annotations__})
