"""The methods as loops in NumPy, from their equations alone.

``x`` holds the clients' iterates (n, 1 + F, C), ``b`` the last broadcast (1 + F, C) with the bias in row 0,
``lengths`` the numbers of local steps between communications. Each function returns the shipped model, the last
broadcast, and the clients' memory.
"""

from reference.case import Case as Case
from reference.case import topk as topk
from reference.compressed import (
    compressed_scaffnew,
    ef21,
    ef21_sgdm,
    fedcomloc_com,
    fedcomloc_local,
    locodl,
    scafcom,
    scallion,
)
from reference.dense import (
    fedavg,
    feddyn,
    fednova,
    fedprox,
    gd,
    gradskip,
    proxskip,
    randprox_l1,
    randprox_server,
    scafflix,
    scaffold,
)
from reference.pruned import (
    fedavg_client_pruning,
    fedavg_server_pruning,
    feddst,
    mask_proxskip,
    server_pruning,
    server_pruning_modified,
    sparse_proxskip,
    sparse_proxskip_local,
)
from reference.servers import fedadam, fedavgm, fedsmu, fedyogi

METHODS = {
    f.__name__: f
    for f in (
        gd,
        fedavg,
        fedprox,
        scaffold,
        proxskip,
        gradskip,
        scafflix,
        sparse_proxskip,
        sparse_proxskip_local,
        server_pruning,
        server_pruning_modified,
        mask_proxskip,
        fedavg_server_pruning,
        fedavg_client_pruning,
        fedavgm,
        fedadam,
        fedyogi,
        fedsmu,
        randprox_l1,
        randprox_server,
        fednova,
        feddyn,
        fedcomloc_com,
        fedcomloc_local,
        compressed_scaffnew,
        ef21,
        ef21_sgdm,
        scallion,
        scafcom,
        locodl,
        feddst,
    )
}
METHODS |= {"fedcomloc_global": server_pruning, "tamuna": compressed_scaffnew}  # the same numbers
