#!/usr/bin/env bash
# From nothing to a method of one's own, and a day of research with it, as a newcomer would:
# `bash benchmarks/walk.sh ADDRESS > benchmarks/results/walk.txt`. ADDRESS is what git clones. Prints seconds since the start, and the first table.
set -euo pipefail
start=$(date +%s); at() { echo "$(( $(date +%s) - start )) s: $1"; }
cd "$(mktemp -d)"
git clone -q "$1" sps_jax; cd sps_jax; at "cloned"
python3 -m venv .venv; . .venv/bin/activate
pip install -q -e .; at "installed"
sps-jax run --quiet > table.txt; at "first table and picture"
cat > own.py <<'PY'
import jax
import numpy as np
import sps_jax as sps

draw = np.random.default_rng(0)
x, who = draw.normal(size=(600, 20)), draw.integers(0, 8, 600)
y = (x[:, 0] + 0.3 * draw.normal(size=600) > 0).astype(int)
problem = sps.from_arrays(x, y, who, loss="logistic", ridge=1e-3, test=0.2)
hyper = dict(stepsize=1 / float(problem.smoothness.max()), prob=0.2, sparsity=0.8)
state, history = sps.simulate(sps.sparse_proxskip, problem, hyper, jax.random.key(0), rounds=40)
print("own data, test accuracy", history["test_accuracy"][-1])
PY
python own.py; at "own data"
cat >> own.py <<'PY'


def fedavg_server_step(*, stepsize, prob, server_stepsize):
    def serve(server, mean, info):
        return jax.tree.map(lambda s, m: s + server_stepsize * (m - s), server, mean)

    return sps.Algorithm(move=sps.descend(stepsize), serve=serve)


sps.check_algorithm(fedavg_server_step, dict(stepsize=0.1, prob=0.2, server_stepsize=1.0))
hyper = dict(stepsize=1 / float(problem.smoothness.max()), prob=0.2, server_stepsize=1.5)
state, history = sps.simulate(fedavg_server_step, problem, hyper, jax.random.key(0), rounds=40)
print("own algorithm, test accuracy", history["test_accuracy"][-1])
PY
python own.py; at "own algorithm, checked"
# the day of somebody with a paper to write: tests/test_research_day.py holds its results
pip install -q -e '.[tensorboard]'; cp benchmarks/research_day/*.py .; python flowers.py; at "own data in a file, a tracker installed"
day="--problem mine.py:make --algorithm fedavg_client_pruning mine.py:calm --pull 0.7 --seeds 3 --data-seed 0"
day="$day --stepsize 0.5 --prob 0.2 --sparsity 0.5 --rounds 2000 --evaluate-every 100 --checkpoint-every 100"
day="$day --stop-at test_loss<=0.03 --metric test_top2"
sps-jax run $day --track tensorboard:logs --out day 2> said.txt & run=$!
until ls day/checkpoints/[0-9]* > /dev/null 2>&1; do kill -0 $run; sleep 0.1; done
kill $run; wait $run || at "three seeds of two methods begun, killed after a checkpoint, status $?"
sps-jax resume day --quiet; at "resumed, with $(grep -c '"stopped": true' day/metrics.jsonl) of 6 runs stopped early"
python outside.py; at "model loaded and evaluated outside"
sps-jax sweep --problem mine.py:make --algorithm mine.py:calm --pull 0.7 --prob 0.2 --sparsity 0.5 --rounds 20 --seeds 3 \
  --data-seed 0 --stepsize logspace:0.01:1:5 --best-by validation_top2 --quiet --out sweep
sps-jax table sweep; at "tuned by own metric"
sps-jax table day --latex; sps-jax plot day --metric test_top2 --columns 1 --no-title --out figure.pdf
head -c 4 figure.pdf; echo; at "LaTeX table, PDF figure"
python day.py; at "the same in Python"
cat table.txt
