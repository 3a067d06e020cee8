"""Jobs: methods on one problem, each from several seeds, run one after another with a writer of their records."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from sps_jax.layout import Layout, random_key
from sps_jax.problem import Problem
from sps_jax.runs import console, processes, trackers
from sps_jax.runs.blocks import Row, go_on, start_run, summarise
from sps_jax.runs.drivers import Driver, on_devices, on_host
from sps_jax.runs.watched import Keeper, RunWatch, Watching, tracked
from sps_jax.simulation.method import Method


class Job(NamedTuple):
    """Methods on a problem, ready to run.

    Attributes:
      name: name of the problem, for the records.
      problem: the problem of the first seed.
      methods: name -> method, on that problem.
      layouts: name -> layout of that method.
      seeds: the seeds from which each method runs.
      rounds: communications of a run.
      evaluate_every: rounds between evaluations.
      checkpoint_every: rounds between checkpoints, None for none.
      encoding: of the messages, see :mod:`sps_jax.compression.bits`.
      streamed: whether the clients' data and memory stay on the host.
      watching: what is kept, told and stopped at.
      draw: seed -> problem and methods of that seed; None if the seeds share those above.
    """

    name: str
    problem: Problem
    methods: dict[str, Method]
    layouts: dict[str, Layout]
    seeds: range
    rounds: int
    evaluate_every: int
    checkpoint_every: int | None
    encoding: str
    streamed: bool
    watching: Watching = Watching()
    draw: Callable[[int], tuple[Problem, dict[str, Method]]] | None = None

    def layouts_in_words(self) -> dict[str, str]:
        """Return name -> the method's layout in words."""
        return {name: f"{each.devices} devices, chunk {each.chunk or 'all'}" for name, each in self.layouts.items()}

    def of_seed(self, seed: int) -> "Job":
        """Return the job with the problem and the methods of one of its seeds."""
        if self.draw is None or seed == self.seeds[0]:
            return self
        problem, methods = self.draw(seed)
        return self._replace(problem=problem, methods=methods)

    def driver(self, name: str, length: int, programs: dict) -> Driver:
        """Return the driver of a method, whose blocks have ``length`` rounds; compiled unless in ``programs``."""
        method, layout = self.methods[name], self.layouts[name]
        if self.streamed:
            return on_host(method, layout, self.problem, length)
        return on_devices(method, layout, self.problem, random_key(self.seeds[0]), length, programs)


def run_all(job: Job, keeper: Keeper) -> list[Row]:
    """Run every method from every seed, seed by seed, except the runs that ``keeper`` has.

    One problem is in memory beside the first seed's, and what is interrupted has whole comparisons of methods. A method
    is compiled once, unless problems differ in shape.

    Returns:
      One summary per run; the records are on disk.
    """
    left = itertools.islice(itertools.product(job.seeds, job.methods), len(keeper.finished), None)
    done, total = job.rounds * len(keeper.finished), job.rounds * len(job.seeds) * len(job.methods)
    length = job.watching.block_length(job.rounds, job.checkpoint_every, job.evaluate_every)
    programs: dict[Any, Any] = {}
    console.doing("")
    with console.progress(total, done, "round", hidden=not processes.first()) as bar:
        for seed, group in itertools.groupby(left, key=lambda run: run[0]):
            drawn = job.of_seed(seed)
            for _, name in group:
                bar.set_description(f"{name}: compiling")
                driver = drawn.driver(name, length, programs)
                bar.set_description(name)
                _run(drawn, driver, (name, seed), keeper, bar)
    return keeper.finished


def _run(job: Job, driver: Driver, which: tuple[str, int], keeper: Keeper, bar: console.Bar) -> None:
    """Run one method from one seed, or the rest of it, and hand its records to ``keeper``."""
    name, seed = which
    method, key = job.methods[name], random_key(seed)
    names, hyper = {"algorithm": name, "problem": job.name, "seed": seed}, method.recorded()
    start = keeper.standing(names, start_run(method, driver, key))
    bar.update(start.past.rounds)
    settings: dict[str, Any] = {name: getattr(job, name) for name in ("rounds", "evaluate_every", "encoding")}
    watch, after = RunWatch(job.watching, method, keeper, names, job.rounds), start.past.rounds
    with contextlib.ExitStack() as stack:
        tell = None
        if job.watching.track and keeper.out is not None:
            run = tracked(keeper.out, names, hyper, start)
            tell = stack.enter_context(trackers.opened(job.watching.track, run))
        watch.resume(start, tell)
        for at, rows in go_on(method, driver, key, start, **settings):
            at = watch(at, rows)
            told = [names | row | hyper for row in rows]
            if at.stopped is not None:
                told[-1]["stopped"] = True  # a rule sees evaluations, so there is one
            keeper.add(names, told, at)
            bar.update(at.past.rounds - after)
            after = at.past.rounds
            if at.stopped is not None:
                break
    bar.update(job.rounds - after)
    keeper.finish(names | hyper | summarise(driver, at))
