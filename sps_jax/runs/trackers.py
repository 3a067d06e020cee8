"""Send the records of a simulation, as they come, to TensorBoard, Weights & Biases, MLflow or Trackio.

    sps-jax run --track tensorboard:logs wandb:my-project

Each tracker is an extra of this package, ``pip install 'sps_jax[wandb]'``, and writes by its own library: TensorBoard
into the folder ``DIR/NAME``, the others to a run of a W&B or Trackio project, or of the experiment ``sps_jax`` at an
MLflow URI such as ``sqlite:///mlflow.db`` or ``http://host:5000``. A run of the tracker is one algorithm from one seed,
its steps are communication rounds. A resumed run goes on in the same one. In Python :func:`track` makes the
``on_evaluation`` of :func:`sps_jax.simulate`.
"""

import contextlib
import importlib.util
import io
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sps_jax.errors import refuse_unknown
from sps_jax.results.files import at_home
from sps_jax.runs import console

Tell = Callable[[int, dict[str, float]], Any]
"""``round, metrics``: record the metrics of one evaluation."""


class Tracked(NamedTuple):
    """One run, as a tracker knows it.

    Attributes:
      name: its name.
      config: its hyperparameters, numbers and texts.
      id: an identifier by which a resumed run is found again.
      done: the rounds done when it is resumed, else 0.
    """

    name: str
    config: Mapping[str, Any]
    id: str
    done: int = 0


@contextlib.contextmanager
def tensorboard(where: str, run: Tracked) -> Iterator[Tell]:
    """Write TensorBoard's files into the folder ``where/name``."""
    import tensorboardX

    folder = str(at_home(where) / run.name)
    with tensorboardX.SummaryWriter(folder, purge_step=run.done + 1 if run.done else None) as writer:
        if not run.done:
            writer.add_text("config", f"    {json.dumps(dict(run.config), default=str)}")
        yield lambda step, row: [writer.add_scalar(name, value, step) for name, value in row.items()]


@contextlib.contextmanager
def wandb(where: str, run: Tracked) -> Iterator[Tell]:
    """Log to a run of the W&B project ``where``."""
    import wandb

    settings = wandb.Settings(silent=console.quiet())
    config = dict(run.config)
    with wandb.init(
        project=where, name=run.name, config=config, id=run.id, resume="allow", settings=settings
    ) as logged:
        yield lambda step, row: logged.log(row, step=step)


@contextlib.contextmanager
def mlflow(where: str, run: Tracked) -> Iterator[Tell]:
    """Log to a run of the experiment ``sps_jax`` of the MLflow store or server ``where``."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient(tracking_uri=where)
    kept = client.get_experiment_by_name("sps_jax")
    experiment = kept.experiment_id if kept else client.create_experiment("sps_jax")
    same = client.search_runs([experiment], f"tags.sps_jax_id = '{run.id}'", max_results=1) if run.done else []
    if same:
        number = same[0].info.run_id
    else:
        number = client.create_run(experiment, run_name=run.name, tags={"sps_jax_id": run.id}).info.run_id
        client.log_batch(number, params=[Param(name, str(value)) for name, value in run.config.items()])

    def tell(step: int, row: dict[str, float]) -> None:
        now = int(1000 * time.time())
        client.log_batch(number, metrics=[Metric(name, value, now, step) for name, value in row.items()])

    status = "FAILED"
    try:
        yield tell
        status = "FINISHED"
    finally:
        client.set_terminated(number, status)


@contextlib.contextmanager
def trackio(where: str, run: Tracked) -> Iterator[Tell]:
    """Log to a run of the Trackio project ``where``."""
    said = io.StringIO() if console.quiet() else sys.stderr  # standard output is the command's own
    with contextlib.redirect_stdout(said):
        import trackio

        logged = trackio.init(project=where, name=run.name, config=dict(run.config), resume="allow", embed=False)
    try:
        yield lambda step, row: logged.log(row, step=step)
    finally:
        with contextlib.redirect_stdout(said):
            trackio.finish()  # and no second time when the process ends


TRACKERS = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow, "trackio": trackio}
PACKAGES = {"tensorboard": "tensorboardX"}
"""Tracker -> the package that it imports, unless that has its name."""
PLACES = {"tensorboard": "DIR", "wandb": "PROJECT", "mlflow": "URI", "trackio": "PROJECT"}


def split(to: str) -> tuple[str, str]:
    """Return the tracker and the place of ``tensorboard:DIR`` and the like.

    Raises:
      ValueError: if the tracker is unknown or not installed, or there is no place.

    Example:
      >>> split("wandb")
      Traceback (most recent call last):
      ValueError: track needs a place behind its colon, wandb:PROJECT, not 'wandb'
    """
    kind, _, where = to.partition(":")
    refuse_unknown("tracker", kind, TRACKERS)
    if not where:
        raise ValueError(f"track needs a place behind its colon, {kind}:{PLACES[kind]}, not {to!r}")
    if importlib.util.find_spec(PACKAGES.get(kind, kind)) is None:
        package = PACKAGES.get(kind, kind)
        raise ValueError(f"{kind} needs the package {package}, which is missing: pip install 'sps_jax[{kind}]'")
    return kind, where


@contextlib.contextmanager
def track(*to: str, name: str = "simulation", config: Mapping[str, Any] | None = None) -> Iterator[Callable]:
    """Context manager that yields a function for ``on_evaluation``, which sends each row to trackers.

    Args:
      to: ``tensorboard:DIR``, ``wandb:PROJECT``, ``mlflow:URI`` or ``trackio:PROJECT``, any number of them.
      name: the name of the run.
      config: its hyperparameters.

    Raises:
      ValueError: if a tracker is unknown or not installed.
      OSError: if one cannot be opened.

    Example:
      >>> with track() as tell:  # "wandb:my-project", for instance
      ...     tell({"round": 1, "train_loss": 0.5})
    """
    with opened(to, Tracked(name, config or {}, uuid.uuid4().hex[:16])) as tell:
        yield tell


@contextlib.contextmanager
def opened(to: Iterable[str], run: Tracked) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Context manager that yields a function of a row of the history, which sends it to all trackers ``to``.

    Raises:
      OSError: if a tracker cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        tells: list[Tell] = []
        for one in to:
            kind, where = split(one)
            try:
                tells.append(stack.enter_context(TRACKERS[kind](where, run)))
            except Exception as error:  # each library has its own
                raise OSError(f"cannot track by {one}: {(str(error).splitlines() or [''])[0]}") from error

        def tell(row: dict[str, Any]) -> None:
            numbers = {name: value for name, value in row.items() if name != "round" and value is not None}
            for record in tells:
                record(row["round"], numbers)

        yield tell
