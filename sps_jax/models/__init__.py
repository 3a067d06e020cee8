"""Networks, each a pair of pure functions ``(init, apply)``.

The first layer's weights lie under the name ``first``, the last one's under ``last``, for those who would not prune
them. Deep networks run through the same engine as linear models:

    sps-jax run --problem cifar10 --model resnet18 --clients 10 --sparsity 0.9 --local-steps 10 --manual-dir DIR
    sps-jax run --problem shakespeare --model transformer --clients 20 --local-steps 10 --manual-dir DIR

ResNet18 has 11.2 million parameters and GroupNorm; the thin ResNet20, 32, 44 and 56 have 0.27 to 0.85 million; an LSTM
and a small transformer are for text. Where a network is trained, the local direction is clipped at norm 1
(``--clip-norm``), TopK acts over the whole network or layer by layer (``--scope layerwise``, ``erk``), the first and
the last layer can stay dense (``--no-prune-ends``), and biases and norms do unless ``--prune-leaves`` names them;
``config.json`` names what was pruned.

``--precision bfloat16`` computes in bfloat16 and keeps parameters and control variates in float32. It is for
accelerators: on a CPU it takes twice the time. Losses and metrics are summed in float32 or better whatever the network
computes in. A module of your own must have parameters alone: normalise by GroupNorm, say, not by batch statistics.
"""

from sps_jax.models.base import Model, storage
from sps_jax.models.linear import linear
from sps_jax.models.lstm import lstm
from sps_jax.models.resnet import resnet, resnet18
from sps_jax.models.resnet_cifar import resnet20, resnet32, resnet44, resnet56
from sps_jax.models.transformer import transformer

__all__ = ["Model", "linear", "lstm", "resnet", "resnet18", "storage", "transformer"]
__all__ += ["resnet20", "resnet32", "resnet44", "resnet56"]
