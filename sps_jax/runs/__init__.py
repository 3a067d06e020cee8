"""Runs: in blocks of rounds, with checkpoints, on several processes, and what is asked of them by signals.

    sps-jax run --problem femnist --rounds 2000 --seeds 3 --checkpoint-every 50 --out results --manual-dir DIR
    sps-jax resume results

With ``--checkpoint-every`` (best a divisor of ``--rounds``) a run that was killed goes on from its last checkpoint. It
ends with the records, the table and the picture of a run that was never stopped: ``metrics.jsonl`` is the same byte for
byte, on the same machine with the same versions.

The last three checkpoints are in ``results/checkpoints``; a damaged one is set aside, and the one before it is used.
The folder may be deleted once all runs are finished. Ctrl-C or SIGTERM finish the block of rounds that is being
computed (at most a twentieth of the run), save, and say how to go on; Ctrl-C again stops at once. Where nothing can be
written, on a full disk say, what was saved before is whole, and the run goes on once there is room.

``resume`` takes every setting from ``config.json`` and refuses one that was changed, except ``target``, ``chunk``,
``manual_dir`` and ``data_dir``; start it in the folder in which ``run`` was started if these are relative paths. With
``--devices`` it goes on with another number of devices, and the records then agree as those of two layouts do (see
:mod:`sps_jax.layout`). For several processes see :mod:`sps_jax.runs.processes`. :func:`sps_jax.checkpoint.save` and
:func:`sps_jax.checkpoint.restore` do the same for a pytree of your own.
"""
