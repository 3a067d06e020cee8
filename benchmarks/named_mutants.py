"""Mutants for ``mutation.py --named``: what defines a method, undone.

``tests/algorithms/test_identities.py`` must notice each by itself, for the methods' NumPy twins could share a mistake.
"""

from typing import NamedTuple


class Named(NamedTuple):
    """A change of ``module``: ``old``, which is there once, becomes ``new``."""

    name: str
    module: str
    old: str
    new: str

    def applied(self, code: str) -> str:
        """The module's text with the change; raises a ``ValueError`` where ``old`` is not there exactly once."""
        if code.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.module} has {code.count(self.old)} times {self.old!r}, not once")
        return code.replace(self.old, self.new)


NAMED = [
    Named(
        "sparse_proxskip: the gradient masked by the support of C(x)",
        "algorithms/pruning",
        "lambda p: g(cut(p, g))",
        "lambda p: __import__('jax').tree.map(lambda c, d: d * (c != 0).astype(d.dtype), cut(p, g), g(cut(p, g)))",
    ),
    Named(
        "fedcomloc_local: the gradient at x",
        "algorithms/fedcomloc",
        "gradient(compress(params, key))",
        "gradient(params)",
    ),
    Named("fednova: tau_eff halved", "algorithms/fednova", "b - steps * d", "b - steps / 2 * d"),
    Named(
        "server_pruning_modified: a dense start",
        "algorithms/pruning",
        "start=lambda b, h: cut(base.start(b, h))",
        "start=base.start",
    ),
    Named("feddyn: share 1", "algorithms/feddyn", "(b, s), share = server, info.share", "(b, s), share = server, 1.0"),
    Named(
        "tamuna: eta with the cohort's size for n",
        "algorithms/compressed_scaffnew",
        "n, s = info.clients, share(info)",
        "n, s = info.cohort, share(info)",
    ),
]
