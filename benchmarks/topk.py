"""Times of the TopK mask against sorting, lax.top_k, lax.approx_max_k and numpy.partition.

`python benchmarks/topk.py [--json OUT] [--quick]` prints a table and writes one JSON line per size and system. All
systems of a size run in info, so that what else the machine does falls on all alike. Every mask is compared with
NumPy's stable argsort. lax.approx_max_k is exact on CPU; where it is not, its line says how many entries differ.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from sps_jax.compression import topk_mask

SIZES = [(1, 1_000), (1, 10_000), (1, 48_670), (1, 100_000), (1, 1_000_000), (1, 11_173_962), (100, 48_670)]
QUICK = [(1, 1_000), (1, 48_670), (4, 10_000)]


def sort_mask(x, k):
    """The mask of the first k of a stable descending sort of (|x|, index)."""
    order = jnp.argsort(-jnp.abs(x), stable=True)
    return jnp.zeros(x.shape, bool).at[order[:k]].set(True)


def select_mask(select):
    """The mask from the indices that ``select(values, k)`` returns."""
    return lambda x, k: jnp.zeros(x.shape, bool).at[select(jnp.abs(x), k)[1]].set(True)


def numpy_mask(x, k):
    """The mask of the k largest of each row as a NumPy stable argsort chooses them."""
    mask = np.zeros(x.shape, bool)
    np.put_along_axis(mask, np.argsort(-np.abs(x), axis=1, kind="stable")[:, :k], True, axis=1)
    return mask


def once(run):
    """Seconds of one call, its result awaited."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def interleaved(systems, seconds, most):
    """Seconds of every call: all systems in info, each until its share of ``seconds`` or ``most`` calls are spent."""
    times = {name: [] for name in systems}
    for run in systems.values():
        once(run)
    left = dict(systems)
    while left:
        for name, run in list(left.items()):
            times[name].append(once(run))
            if sum(times[name]) > seconds or len(times[name]) >= most:
                del left[name]
    return times


def measure(rows, d, density, quick):
    """One record per system for ``rows`` normal vectors of ``d`` entries of which ``density`` are kept."""
    x = np.random.default_rng(0).normal(size=(rows, d)).astype(np.float32)
    k, magnitudes, on_device = max(1, round(density * d)), np.abs(x), jnp.asarray(x)
    traced_k = jnp.int32(k)  # put on the device once: that takes longer than a short mask
    masks = {"sort": sort_mask}
    masks |= {f"lax.{select.__name__}": select_mask(select) for select in (jax.lax.top_k, jax.lax.approx_max_k)}
    traced, compiled = jax.jit(jax.vmap(topk_mask, (0, None))), {}
    for name, mask in masks.items():
        compiled[name] = jax.jit(jax.vmap(lambda row, mask=mask: mask(row, k)))
    copy = jax.jit(jnp.negative)
    systems = {"ours": lambda: traced(on_device, traced_k)}
    systems |= {name: lambda run=run: run(on_device) for name, run in compiled.items()}
    systems["numpy.partition"] = lambda: [np.partition(row, d - k) for row in magnitudes]
    systems["copy"] = lambda: copy(on_device)
    expected = numpy_mask(x, k)
    differ = {name: int((np.asarray(systems[name]()) != expected).sum()) for name in ("ours", *masks)}
    if differ["ours"]:
        raise SystemExit(f"wrong mask: rows={rows} d={d} k={k}, {differ['ours']} entries differ")
    for name, times in interleaved(systems, 0.2 if quick else 4, 20 if quick else 200).items():
        low, middle = float(np.min(times)), float(np.median(times))
        yield {
            "d": d,
            "rows": rows,
            "k": k,
            "system": name,
            "median_seconds": middle,
            "min_seconds": low,
            "runs": len(times),
            "differing_entries": differ.get(name),
            "gigabytes_per_second": (2 if name == "copy" else 1) * x.nbytes / low / 1e9,  # a copy reads and writes
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="OUT", help="write one JSON line per size and system to this file")
    parser.add_argument("--quick", action="store_true", help="small sizes and few runs")
    parser.add_argument("--density", type=float, default=0.1, help="share of the entries that is kept")
    options = parser.parse_args()
    records = []
    print(f"{'rows':>5} {'d':>10} {'k':>9}  {'system':<17} {'median ms':>11} {'min ms':>11} {'/ ours':>8} {'GB/s':>7}")
    for rows, d in QUICK if options.quick else SIZES:
        group = list(measure(rows, d, options.density, options.quick))
        for r in group:
            ratio = r["median_seconds"] / group[0]["median_seconds"]
            print(
                f"{rows:>5} {d:>10} {r['k']:>9}  {r['system']:<17} {1e3 * r['median_seconds']:>11.4f} "
                f"{1e3 * r['min_seconds']:>11.4f} {ratio:>8.2f} {r['gigabytes_per_second']:>7.2f}"
            )
        ours, copy = group[0]["gigabytes_per_second"], group[-1]["gigabytes_per_second"]
        print(f"{'':>5} roofline: {ours:.2f} GB/s if ours read x once, a copy reaches {copy:.2f} GB/s\n", flush=True)
        records += group
    if options.json:
        with open(options.json, "w") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()
