"""Which tests judge the mutants of ``mutation.py``."""

METHODS = "tests/algorithms/test_reference.py"
CONTRACT = "tests/algorithms/test_contract.py"
IDENTITIES = "tests/algorithms/test_identities.py"
"""What judges the named mutants."""
CLOSED_FORMS = "tests/algorithms/test_closed_forms.py"
SPARSIFY = ["tests/test_sparsify.py"]
SPARSIFIERS = ["tests/test_sparsifiers.py", *SPARSIFY]


def of_method(names: str, *more: str) -> list[str]:
    """The NumPy twins of some methods, then what else is of them, then what is of all."""
    return [f"{METHODS} -k {names}", *more, f"{CONTRACT} -k another_model_or_unequal_or_defaults"]


TESTS: dict[str, list[str]] = {
    "compression/bits": ["tests/test_communication.py", "tests/test_sparsifiers.py", "tests/algorithms/test_fedsmu.py"],
    "compression/quantize": ["tests/algorithms/test_compression.py"],
    "compression/rand_k": ["tests/algorithms/test_locodl.py"],
    "compression/threshold": SPARSIFY,
    "compression/straight_through": SPARSIFY,
    "compression/sparsifier": SPARSIFIERS,
    "compression/structures": SPARSIFIERS,
    "compression/scopes": [*SPARSIFY, "tests/test_deep.py -k first_and_last", "tests/test_sparsifiers.py"],
    "compression/criteria": SPARSIFIERS,
    "algorithms/base": [f"{CONTRACT} -k clipping_or_momentum_or_unequal", f"{CONTRACT} -k scaffold"],
    "algorithms/pruning": of_method("pruning_or_sparse", f"{CONTRACT} -k nonzeros", "tests/test_sparsifiers.py"),
    "algorithms/ramped": ["tests/test_sparsifiers.py"],
    "algorithms/gd": of_method("gd"),
    "algorithms/fedavg": of_method("fedavg"),
    "algorithms/fedavg_pruning": of_method("fedavg_"),
    "algorithms/fedprox": of_method("fedprox", "tests/algorithms/test_theory.py -k fedprox", CLOSED_FORMS),
    "algorithms/scaffold": of_method("scaffold", f"{CONTRACT} -k scaffold", "tests/test_cohort.py"),
    "algorithms/proxskip": of_method("proxskip"),
    "algorithms/sparse_proxskip": of_method("sparse_proxskip_or_server_pruning"),
    "algorithms/randprox_l1": of_method("randprox_l1", "tests/algorithms/test_theory.py -k lasso"),
    "algorithms/randprox_server": of_method("randprox_server", "tests/algorithms/test_theory.py -k lasso"),
    "algorithms/fednova": of_method("fednova", "tests/algorithms/test_theory.py -k fednova"),
    "algorithms/feddyn": of_method("feddyn", "tests/test_cohort.py -k feddyn"),
    "algorithms/fedcomloc": of_method("fedcomloc", "tests/algorithms/test_compression.py"),
    "algorithms/compressed_scaffnew": of_method(
        "scaffnew_or_tamuna", "tests/algorithms/test_compression.py", "tests/test_cohort.py -k tamuna"
    ),
    "algorithms/tamuna": of_method("tamuna"),
    "algorithms/feddst": of_method("feddst", "tests/algorithms/test_feddst.py", f"{CONTRACT} -k feddst"),
    "algorithms/mask_proxskip": of_method("mask_proxskip", "tests/algorithms/test_mask_proxskip.py"),
    "algorithms/gradskip": of_method("gradskip", "tests/algorithms/test_gradskip.py"),
    "algorithms/scafflix": of_method("scafflix", "tests/algorithms/test_scafflix.py"),
    "algorithms/fedopt": of_method("fedavgm_or_fedadam_or_fedyogi", "tests/algorithms/test_server_optimizer.py"),
    "algorithms/server_optimizer": ["tests/algorithms/test_server_optimizer.py"],
    "algorithms/powerpropagated": ["tests/algorithms/test_powerpropagated.py"],
    "algorithms/ef21": of_method("ef21", "tests/algorithms/test_ef21.py"),
    "algorithms/error_feedback": ["tests/algorithms/test_error_feedback.py"],
    "algorithms/scallion": of_method("scallion_or_scafcom", "tests/algorithms/test_scallion.py"),
    "algorithms/locodl": of_method("locodl", "tests/algorithms/test_locodl.py"),
    "algorithms/fedsmu": of_method("fedsmu", "tests/algorithms/test_fedsmu.py"),
}
"""For each module the tests that judge its mutants, in order; ``-k a_or_b`` stands for ``-k "a or b"``."""
