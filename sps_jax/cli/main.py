"""The command line ``sps-jax``: its commands, and the exit status they end with, which ``sps-jax --help`` tells too.

| status | what happened |
|---|---|
| 0 | all went well |
| 1 | something could not be written, or `sps-jax doctor` found a fault |
| 2 | a wrong input, or more memory than there is; one sentence says which |
| 3 | a run diverged: its round is in ``summary.json``, and the records before it are kept |
| 4 | another process of the run has gone |
| 130, 143 | Ctrl-C, SIGTERM |

With status 1, on a full disk say, what was saved before is whole, and a run with checkpoints goes on with ``sps-jax
resume`` once there is room. In a sweep a point that diverges is a record, and the status is 0. A reader of the output
that goes away (``sps-jax list | head``) stops nothing.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro

from sps_jax import __version__
from sps_jax.cli.data import Data, data
from sps_jax.cli.doctor import Doctor, doctor
from sps_jax.cli.list import List, list_all
from sps_jax.cli.options import command_type
from sps_jax.cli.resume import Resume, resume
from sps_jax.cli.run import run
from sps_jax.cli.show import Plot, Table, plot, table
from sps_jax.cli.sweep import sweep
from sps_jax.cli.sweep_options import sweep_type
from sps_jax.results.files import at_home
from sps_jax.runs import console, environment, processes

DESCRIPTION = """Simulate sparse, communication-efficient federated learning. --version tells the version.

Exit status: 0 all went well; 1 something could not be written, or doctor found a fault; 2 a wrong input, or more memory
than there is; 3 a run diverged; 4 another process of the run has gone; 130 after Ctrl-C, 143 after SIGTERM."""


def command(arguments: list[str]) -> int:
    """Parse and run; user errors become one message and status 2, a disk's status 1, a lost process's status 4."""
    if arguments == ["--version"]:
        print(f"sps_jax {__version__}")
        return 0
    types: dict[str, Callable[..., Any]] = {
        "run": command_type(),
        "resume": Resume,
        "sweep": sweep_type(),
        "table": Table,
        "plot": Plot,
        "list": List,
        "data": Data,
        "doctor": Doctor,
    }
    options = tyro.extras.subcommand_cli_from_dict(
        types,
        prog="sps-jax",
        description=DESCRIPTION,
        args=arguments or ["--help"],
    )
    work: dict[Any, Callable[[Any], int]] = {
        types["run"]: run,
        Resume: resume,
        types["sweep"]: sweep,
        Table: table,
        Plot: plot,
        List: list_all,
        Data: data,
        Doctor: doctor,
    }
    console.hush(getattr(options, "quiet", False))
    return processes.leave(status_of(lambda: work[type(options)](expanded(heard(options, arguments)))))


def heard(options: Any, arguments: list[str]) -> Any:
    """The options, if each list that is named has a value; else it would be its default, and nobody would know.

    Raises:
      ValueError: for one without.
    """
    for argument, following in itertools.pairwise([*arguments, "--"]):
        given = getattr(options, argument.removeprefix("--").replace("-", "_"), None)
        if argument.startswith("--") and following.startswith("--") and isinstance(given, tuple):
            raise ValueError(f"{argument} has no value")
    return options


def expanded(options: Any) -> Any:
    """The options with the home folder in place of ``~`` in every path; a shell leaves it in ``--out=~/results``.

    Raises:
      ValueError: for a ``~name`` of nobody.
    """
    return dataclasses.replace(options, **{name: _expanded(value) for name, value in vars(options).items()})


def _expanded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_expanded, value))
    return at_home(value) if isinstance(value, Path) else value


def status_of(work: Callable[[], int]) -> int:
    """The exit status that ``work`` returns, or that goes with what it raises, which is said."""
    try:
        return work()
    except (ValueError, FileNotFoundError) as error:
        print(f"sps-jax: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sps-jax: error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        return out_of_memory(error)
    except KeyboardInterrupt:
        print("sps-jax: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return out_of_memory(error)
        if not processes.several():
            raise
        print(f"sps-jax: error: {processes.LOST} ({str(error).splitlines()[0]:.100})", file=sys.stderr)
        return 4
    except Exception as error:
        if type(error).__name__.endswith("FloatingPointError"):  # of a compiled program a private class, jax 0.10
            print(f"sps-jax: error: JAX found a number that is not finite{environment.chosen()}", file=sys.stderr)
            return 3
        sentence = processes.no_devices() if isinstance(error, RuntimeError | AssertionError) else None
        if sentence is None:
            raise
        print(f"sps-jax: error: {sentence}", file=sys.stderr)
        return 2


def out_of_memory(error: Exception) -> int:
    """Say it; the exit status that goes with it."""
    why = str(error).splitlines()[0][:100] if str(error) else "no more is told"
    print(
        f"sps-jax: error: this needs more memory than there is ({why}); fewer --clients, a smaller --chunk or "
        "--batch-size, or --stream with a --cohort need less",
        file=sys.stderr,
    )
    return 2
