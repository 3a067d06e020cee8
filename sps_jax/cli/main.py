"""The command line ``sps-jax``: its commands and their exit statuses, which ``sps-jax --help`` lists too.

| status | meaning |
|---|---|
| 0 | success |
| 1 | an output could not be written, or `sps-jax doctor` found a fault |
| 2 | invalid input, or not enough memory; the error message says which |
| 3 | a run diverged: ``summary.json`` has the round, and the records before it are kept |
| 4 | another process of the run ended or never joined |
| 130, 143 | Ctrl-C, SIGTERM |

After status 1, for example on a full disk, the files saved before are intact, and ``sps-jax resume`` continues a run
with checkpoints once there is space. A sweep records a point that diverges and still ends with status 0. A command
whose reader stops early (``sps-jax list | head``) runs to its end.
"""

import inspect
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro

from sps_jax import __version__
from sps_jax.cli import config_file, own_code
from sps_jax.cli.data import data
from sps_jax.cli.doctor import doctor
from sps_jax.cli.help import grouped, plain
from sps_jax.cli.list import list_all
from sps_jax.cli.options import command_type, flag
from sps_jax.cli.resume import resume
from sps_jax.cli.run import run
from sps_jax.cli.show import Plot, Table, plot, table
from sps_jax.cli.sweep import sweep
from sps_jax.cli.sweep_options import sweep_type
from sps_jax.errors import SYNONYMS
from sps_jax.results.files import at_home
from sps_jax.runs import console, environment, processes

DESCRIPTION = """Simulate sparse, communication-efficient federated learning. --version prints the version.

Exit status: 0 success; 1 an output could not be written, or doctor found a fault; 2 invalid input, or not enough
memory; 3 a run diverged; 4 another process of the run ended or never joined; 130 after Ctrl-C, 143 after SIGTERM."""


def command(arguments: list[str]) -> int:
    """Parse the arguments, run the command and return its exit status (see the module)."""
    if arguments == ["--version"]:
        print(f"sps_jax {__version__}")
        return 0
    return processes.leave(status_of(lambda: own_code.blaming(lambda: performed(arguments))))


def performed(arguments: list[str]) -> int:
    """Parse the arguments and run the command; return its exit status."""
    brief, whole, asked = "--help" in arguments or "-h" in arguments, "--help-all", "".join(arguments[:1])
    if arguments == ["data"] or whole in arguments:
        arguments = [argument for argument in arguments if argument != whole] + ["--help"]
    arguments, named = own_code.absolute(spelt_out(arguments))
    if (file := config_file.named(arguments)) is not None:
        for kind, own in own_code.named(config_file.settings(file)):
            named[kind].append(own)

    def by_subject(command: str, made: type) -> Callable[..., dict[str, Any]]:
        return grouped(made, asked, brief, config_file.defaults(made, arguments) if asked == command else {})

    running, sweeping = command_type(named), sweep_type(named)
    commands = {
        "run": kept(running, run, by_subject("run", running)),
        "resume": kept(resume),
        "sweep": kept(sweeping, sweep, by_subject("sweep", sweeping)),
        "table": kept(Table, table),
        "plot": kept(Plot, plot),
        "list": kept(list_all),
        "data": kept(data),
        "doctor": kept(doctor),
    }
    try:
        given, perform = tyro.extras.subcommand_cli_from_dict(
            commands, prog="sps-jax", description=DESCRIPTION, args=arguments or ["--help"]
        )
    except SystemExit as end:
        if end.code:
            suggest(arguments)
        raise
    console.hush(given.get("quiet", False))
    return perform(**expanded(heard(given, arguments)))


def spelt_out(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--problem tfds:mnist`` spelt out.

    >>> spelt_out(["run", "--problem", "tfds:mnist", "--quiet"])
    ['run', '--problem', 'tfds', '--dataset', 'mnist', '--quiet']
    """
    found = []
    for before, argument in itertools.pairwise(["", *arguments]):
        name, is_set, data_set = argument.removeprefix("--problem=").partition("tfds:")
        if is_set and not name and (before == "--problem" or argument.startswith("--problem=")):
            found += [*(["--problem"] if before != "--problem" else []), "tfds", "--dataset", data_set]
        else:
            found.append(argument)
    return found


def suggest(arguments: list[str]) -> None:
    """Print our name of each option that is known elsewhere by the name given here, such as ``--lr``."""
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--").replace("-", "_")
        if argument.startswith("--") and name in SYNONYMS:
            print(f"sps-jax: error: no option {flag(name)}: did you mean {flag(SYNONYMS[name])}?", file=sys.stderr)


def kept(
    make: Callable[..., Any], work: Callable[[Any], int] = int, options: Callable[..., dict[str, Any]] | None = None
) -> Callable[..., tuple[dict[str, Any], Callable]]:
    """Return ``make`` for tyro, which calls what it parses arguments for: it returns them, and what to do with them.

    Args:
      make: a command, which returns its exit status, or a class of options.
      work: what to do with such options.
      options: a function of other arguments that returns those of ``make``; None for those of ``make`` themselves.
    """

    def given(**arguments: Any) -> tuple[dict[str, Any], Callable]:
        return options(**arguments) if options else arguments, lambda **checked: work(make(**checked))

    takes = inspect.signature(options or make)
    vars(given)["__signature__"] = takes
    given.__annotations__ = {name: each.annotation for name, each in takes.parameters.items()}
    # tyro keeps a function's line breaks
    given.__doc__ = options.__doc__ if options else plain(re.sub(r"\n {4,}", " ", inspect.getdoc(make) or ""))
    return given


def heard(given: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Return what is given unchanged; an empty list option would silently get its default.

    Raises:
      ValueError: if a list option is given without a value.
    """
    for argument, following in itertools.pairwise([*arguments, "--"]):
        value = given.get(argument.removeprefix("--").replace("-", "_"))
        if argument.startswith("--") and following.startswith("--") and isinstance(value, tuple):
            raise ValueError(f"{argument} has no value; give at least one, or leave it out")
    return given


def expanded(given: Any) -> Any:
    """Return what is given with ``~`` expanded in every path; a shell does not expand it in ``--out=~/results``.

    Raises:
      ValueError: if ``~name`` names no user.
    """
    if isinstance(given, dict):
        return {name: expanded(value) for name, value in given.items()}
    if isinstance(given, tuple):
        return tuple(map(expanded, given))
    return at_home(given) if isinstance(given, Path) else given


def status_of(work: Callable[[], int]) -> int:
    """Return the exit status of ``work``, or print the error it raises and return the matching status."""
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
        print("sps-jax: interrupted; finished work is kept", file=sys.stderr)
        return 130
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            return out_of_memory(error)
        if not processes.several():
            raise
        print(f"sps-jax: error: {processes.LOST} ({str(error).splitlines()[0]:.100})", file=sys.stderr)
        return 4
    except Exception as error:
        if type(error).__name__.endswith("FloatingPointError"):  # a compiled program raises a private class (jax 0.10)
            print(f"sps-jax: error: JAX found a number that is not finite{environment.chosen()}", file=sys.stderr)
            return 3
        sentence = processes.no_devices() if isinstance(error, RuntimeError | AssertionError) else None
        if sentence is None:
            raise
        print(f"sps-jax: error: {sentence}", file=sys.stderr)
        return 2


def out_of_memory(error: Exception) -> int:
    """Print the error and a remedy; return the exit status."""
    why = str(error).splitlines()[0][:100] if str(error) else "no details"
    print(
        f"sps-jax: error: this needs more memory than is available ({why}); try fewer --clients, a smaller --chunk or "
        "--batch-size, or --stream with --cohort",
        file=sys.stderr,
    )
    return 2
