"""Jobs: methods on one problem, each from several seeds, run one after another with a writer of their records."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from tqdm import tqdm

from sps_jax.layout import Layout, random_key
from sps_jax.problem import Problem
from sps_jax.runs import console, processes
from sps_jax.runs.blocks import Row, block_length, go_on, start_run, summarise
from sps_jax.runs.drivers import Driver, on_devices, on_host
from sps_jax.runs.journal import Journal, RunWriter
from sps_jax.runs.shared_journal import SharedJournal
from sps_jax.simulation.method import Method

Keeper = RunWriter | Journal | SharedJournal
"""What writes the records of runs, and knows which have ended."""


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
    length, programs = block_length(job.rounds, job.checkpoint_every), dict[Any, Any]()
    console.doing("")
    hidden = None if processes.first() and not console.quiet() else True  # None: hidden unless on a terminal
    with tqdm(total=total, initial=done, unit="round", disable=hidden, leave=False) as bar:
        for seed, group in itertools.groupby(left, key=lambda run: run[0]):
            drawn = job.of_seed(seed)
            for _, name in group:
                bar.set_description(f"{name}: compiling")
                driver = drawn.driver(name, length, programs)
                bar.set_description(name)
                _run(drawn, driver, (name, seed), keeper, bar)
    return keeper.finished


def _run(job: Job, driver: Driver, which: tuple[str, int], keeper: Keeper, bar: tqdm) -> None:
    """Run one method from one seed, or the rest of it, and hand its records to ``keeper``."""
    name, seed = which
    method, key = job.methods[name], random_key(seed)
    names, hyper = {"algorithm": name, "problem": job.name, "seed": seed}, method.recorded()
    start = keeper.standing(names, start_run(method, driver, key))
    bar.update(start.past.rounds)
    settings: dict[str, Any] = {name: getattr(job, name) for name in ("rounds", "evaluate_every", "encoding")}
    for at, rows in go_on(method, driver, key, start, **settings):
        keeper.add(names, [names | row | hyper for row in rows], at)
        bar.update(driver.length)
    keeper.finish(names | hyper | summarise(driver, at))
