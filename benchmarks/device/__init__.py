"""The parts of ``benchmarks/accelerator.py``: a module each, with ``records(settings)`` and its table's ``COLUMNS``.

A record is a flat mapping of names and finite numbers, strings or lists. ``holds`` says whether what is promised of it
holds; ``absent`` and ``failed`` say why there are no figures.
"""

PARTS = ("jobs", "masks", "sweeps", "agreement", "images", "rates", "cifar", "many")  # what may take long is last
