"""Where does pruning at the server break, and what repairs it?

``python benchmarks/paper/server_pruning.py``, about 8 minutes of processor time. Three parts: least squares in float64,
where the limit is known (the minimiser of f(x) - <mean h, x> on the mask that stands still), over p, step size,
sparsity and start; the same formula on BlogFeedback; and pruning at the server and at the clients over other methods
with and without control variates, on scikit-learn's digits. ``--full``: more seeds, splits and rounds. Findings:
``benchmarks/results/README.md``.
"""

from functools import cache, partial

import common
import jax
import jax.numpy as jnp
import numpy as np
import tables
from server_pruning_bases import over_bases

import sps_jax as sps
from sps_jax.problem import Problem
from sps_jax.problems import blog_feedback
from sps_jax.problems.supervised import linear_problem
from sps_jax.results.files import append_jsonl, read_jsonl
from sps_jax.results.plots import heat_map

METHODS = ("server_pruning", "server_pruning_modified", "sparse_proxskip")
LOCAL_STEPS = (1, 2, 5, 10, 20)
STEPSIZES = (0.1, 0.2, 0.5, 1.0, 1.9)  # times 1/L of the worst client
SPARSITIES = (0.5, 0.8, 0.9, 0.95)
STARTS = (0.0, 2.0)
KEPT = ("round", "train_loss", "control_sum")


@cache
def least_squares(clients: int = 10, rows: int = 60, dimension: int = 40) -> Problem:
    """Clients with solutions of their own and well conditioned Gaussian rows."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(clients * rows, dimension))
    solutions = generator.normal(size=(1, dimension)) + generator.normal(size=(clients, dimension))
    y = np.sum(x * np.repeat(solutions, rows, axis=0), axis=1)
    parts = np.split(np.arange(len(y)), clients)
    return linear_problem("squares", (x, y), None, parts, bias=False, ridge=1e-3, precision="float64")


def flat(params) -> np.ndarray:
    """All numbers of a model."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def quadratic_form(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """H and c of f(x) = x'Hx/2 - c'x + const."""
    gram, right, _ = (np.asarray(a)[:, 0] for a in problem.data)
    return gram.mean(0) + float(problem.ridge) * np.eye(gram.shape[1]), right.mean(0)


def minimiser(problem: Problem, mask: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """argmin of f(x) - <tilt, x> over x that vanish off the mask."""
    h, c = quadratic_form(problem)
    x = np.zeros(len(c))
    x[mask] = np.linalg.solve(h[np.ix_(mask, mask)], (c + tilt)[mask])
    return x


def excess(problem: Problem, x: np.ndarray) -> float:
    """f(x) - min f."""
    h, c = quadratic_form(problem)
    off = x - np.linalg.solve(h, c)
    return float(off @ h @ off / 2)


def one_run(
    problem: Problem, name: str, local_steps: int, relative: float, sparsity: float, start: float, seed, rounds
):
    """What a method ends with, against what theory says of the mask it ends with."""
    hyper = {"stepsize": relative / float(problem.smoothness.max()), "sparsity": sparsity}
    zero = problem.init(jax.random.key(0))
    params = jax.tree.map(lambda a: start * jax.random.normal(jax.random.key(seed), a.shape, a.dtype), zero)
    settings = {"rounds": rounds, "evaluate_every": rounds, "local_steps": local_steps, "params": params}
    state, history = sps.simulate(sps.ALGORITHMS[name], problem, hyper, jax.random.key(seed), **settings)
    x = flat(sps.topk(state.server, sparsity))
    mask, mean_h = x != 0, np.mean([flat(h) for h in unstacked(state.memory)], axis=0)
    limit = minimiser(problem, mask, mean_h)
    return {
        "control_sum": float(history["control_sum"][-1]),
        "excess": excess(problem, x),
        "excess_of_mask": excess(problem, minimiser(problem, mask, np.zeros(len(x)))),
        "off_formula": float(np.abs(x - limit).max() / np.abs(x).max()),
    }


def unstacked(memory) -> list:
    """Each client's part of what is stacked along the first axis."""
    return [jax.tree.map(lambda a, i=i: a[i], memory) for i in range(jax.tree.leaves(memory)[0].shape[0])]


def checked(path, problem, points, rounds: int) -> list[dict]:
    """Results of :func:`one_run` at all points, those that the file has not got computed and appended."""
    found = {common.identity(record["point"]): record for record in read_jsonl(path)}
    for point in points:
        if common.identity(point) not in found:
            record = {"point": point} | one_run(problem(), **point, rounds=rounds)
            append_jsonl(path, [record])
            found[common.identity(point)] = record
    return [found[common.identity(point)] for point in points]


def ratios(path, seeds) -> dict[tuple, list[float]]:
    """Excess loss of ``server_pruning`` over that of the modified variant, by point, a number a seed."""
    problem, makes, found = least_squares(), common.algorithms(*METHODS[:2]), {}
    unit = 1 / float(problem.smoothness.max())
    zero = jax.tree.map(jnp.zeros_like, problem.init(jax.random.key(0)))
    least = float(problem.objective(zero)) - excess(problem, flat(zero))
    choices = {"relative": STEPSIZES, "local_steps": LOCAL_STEPS, "sparsity": SPARSITIES, "seed": seeds}
    points = sps.grid(**choices)
    plain = [{k: v for k, v in p.items() if k != "relative"} | {"stepsize": unit * p["relative"]} for p in points]
    settings = {"rounds": 1000, "evaluate_every": 1000, "points_chunk": None, "keep": KEPT}
    for start in STARTS:
        records = common.collect(path, partial(common.started, problem, start), makes, plain, start=start, **settings)
        ends = [[common.end(r, "train_loss") - least for r in records if r["algorithm"] == name] for name in makes]
        for point, one, other in zip(points, *ends, strict=True):
            key = (point["local_steps"], point["relative"], point["sparsity"], start)
            found.setdefault(key, []).append(one / other)
    return found


def lines(records: list[dict]):
    """A line a method and setting: medians over seeds."""
    names = ("name", "local_steps", "relative", "sparsity", "start")
    for key, own in common.groups(records, lambda r: tuple(r["point"][k] for k in names)).items():
        labels = dict(zip(("method", "k", "gamma L", "sparsity", "start"), map(str, key), strict=True))
        values = {k: float(np.median([r[k] for r in own])) for k in own[0] if k != "point"}
        yield labels | {
            "|sum h|": f"{values['control_sum']:.1e}",
            "f - min f": f"{values['excess']:.4g}",
            "best of its mask": f"{values['excess_of_mask']:.4g}",
            "off T6's formula": f"{values['off_formula']:.0e}",
        }


def summary(found: dict[tuple, list[float]]):
    """A line a value of each choice: the ratio over all other choices."""
    for place, name in enumerate(("k", "gamma L", "sparsity", "start")):
        for value in sorted({key[place] for key in found}):
            own = [ratio for key, several in found.items() if key[place] == value for ratio in several]
            quarter = np.percentile(own, [0, 25, 50, 75, 100])
            cells = dict(zip(("least", "quarter", "median", "three quarters", "most"), quarter, strict=True))
            yield {"choice": name, "value": f"{value:g}"} | {k: f"{v:.3g}" for k, v in cells.items()}


def draw(found: dict[tuple, list[float]], out) -> None:
    """Median ratios over p and step size, a picture a start, at 80 %."""
    for start in STARTS:
        cells = [[np.median(found[k, g, 0.8, start]) for g in STEPSIZES] for k in LOCAL_STEPS]
        title = f"(f - min f) of server pruning over the modified variant's, start {start:g} N(0, I), 80 %"
        axes, path = (("k = 1/p", LOCAL_STEPS), ("gamma L", STEPSIZES)), out / f"ratio_{start:g}.png"
        heat_map(np.array(cells), *axes, title, path, "median ratio")


def main() -> None:
    """The three parts."""
    options = common.parse(__doc__, __file__)
    common.all_cores()
    jax.config.update("jax_enable_x64", True)
    names, seeds = ("name", "local_steps", "relative", "sparsity", "start", "seed"), range(10 if options.full else 5)
    found = ratios(options.out / "least_squares.jsonl", seeds)
    tables.show(summary(found), options.out / "least_squares.txt", "Excess loss over the modified variant's")
    draw(found, options.out)
    over = sps.grid(**dict(zip(names, (METHODS, (2, 10), (0.2, 1.0), (0.5, 0.9), STARTS, range(3)), strict=True)))
    records = checked(options.out / "formula.jsonl", least_squares, over, rounds=500)
    tables.show(lines(records), options.out / "formula.txt", "Least squares, medians over 3 starts")
    folder = str(options.shared / "blogfeedback")
    over = sps.grid(**dict(zip(names, (METHODS, 10, (0.2, 1.9), 0.9, STARTS, 0), strict=True)))
    for ridge in (1e-3, 10.0):  # L/mu of a million, where 500 rounds are no limit, and of a hundred, where they are
        blog = cache(partial(blog_feedback, clients=10, ridge=ridge, precision="float64", manual_dir=folder))
        name = f"blog_feedback_ridge_{ridge:g}"
        records = checked(options.out / f"{name}.jsonl", blog, over, rounds=2000 if options.full else 500)
        tables.show(lines(records), options.out / f"{name}.txt", f"BlogFeedback, 10 clients, ridge {ridge:g}")
    over_bases(options)


if __name__ == "__main__":
    main()
