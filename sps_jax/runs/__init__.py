"""Runs: blocks of rounds, checkpoints, models, live records, early ends, several processes, and signals.

    sps-jax run --problem femnist --rounds 2000 --seeds 3 --checkpoint-every 50 --out results --manual-dir DIR
    sps-jax resume results

With ``--checkpoint-every`` (best a divisor of ``--rounds``) a killed run resumes from its last checkpoint. It ends with
the records, the table and the picture of an uninterrupted run: on the same machine with the same versions,
``metrics.jsonl`` is the same byte for byte.

``results/checkpoints`` holds the last three checkpoints; a damaged one is set aside, and the one before it is used. You
may delete the folder once all runs have finished. On Ctrl-C or SIGTERM the run finishes the current block of rounds (at
most a twentieth of the run), saves, and prints how to resume; a second Ctrl-C stops at once. If a write fails, for
example on a full disk, everything saved before stays intact, and the run can be resumed once there is space.

Without checkpoints Ctrl-C keeps all evaluations so far, but the run cannot be resumed. ``--stop-at
"test_accuracy>=0.9"`` and ``--patience N`` end a run early, ``--keep best|last|none`` says which model it leaves
(:mod:`sps_jax.runs.models`), ``--track wandb:PROJECT`` and others send its records elsewhere as they come
(:mod:`sps_jax.runs.trackers`), and ``--config FILE`` takes options from another run's ``config.json``, or from TOML.
Where standard error is no terminal, lines of progress come every ten seconds, later less often. In Python
:func:`sps_jax.simulate` takes ``stop_at=``, ``patience=`` and ``on_evaluation=``, and ``state=`` to go on.

``resume`` takes every setting from ``config.json`` and refuses changed ones, except ``target``, ``track``, ``chunk``,
``manual_dir`` and ``data_dir``; if these are relative paths, start it in the folder in which ``run`` was started.
``--devices`` resumes on another number of devices; the records then agree as those of two layouts do (see
:mod:`sps_jax.layout`). For several processes see :mod:`sps_jax.runs.processes`. :func:`sps_jax.checkpoint.save` and
:func:`sps_jax.checkpoint.restore` save and restore a pytree of your own.
"""
