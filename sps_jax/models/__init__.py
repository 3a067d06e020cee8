"""Networks, each a pair of pure functions ``(init, apply)``.

The first layer's weights have the name ``first``, the last layer's ``last``, so that you can leave them unpruned. Deep
networks run through the same engine as linear models:

    sps-jax run --problem cifar10 --model resnet18 --clients 10 --sparsity 0.9 --local-steps 10 --manual-dir DIR
    sps-jax run --problem shakespeare --model transformer --clients 20 --local-steps 10 --manual-dir DIR

ResNet18 has 11.2 million parameters and GroupNorm; the thin ResNet20, 32, 44 and 56 have 0.27 to 0.85 million; an LSTM
and a small transformer are for text. For these networks the command line clips the local direction at norm 1
(``--clip-norm``). TopK acts over the whole network or per layer (``--scope layerwise``, ``erk``), and
``--no-prune-ends`` keeps the first and the last layer dense. Biases and norms stay dense unless ``--prune-leaves``
names them; ``config.json`` lists the pruned leaves.

``--precision bfloat16`` computes in bfloat16 and keeps parameters and control variates in float32. It is for
accelerators: on a CPU it takes twice the time. Losses and metrics are summed in float32 or wider, whatever the network
computes in. Your own network may be a module of flax.linen, flax.nnx or equinox, a pair of haiku, or two functions; see
:func:`sps_jax.models.adapters.network_of`. It may hold parameters only: normalise with GroupNorm, for example, not with
batch statistics.
"""

from sps_jax.models.base import Model, after, storage
from sps_jax.models.linear import linear
from sps_jax.models.lstm import lstm
from sps_jax.models.resnet import resnet, resnet18
from sps_jax.models.resnet_cifar import resnet20, resnet32, resnet44, resnet56
from sps_jax.models.transformer import transformer

__all__ = ["Model", "after", "linear", "lstm", "resnet", "resnet18", "storage", "transformer"]
__all__ += ["resnet20", "resnet32", "resnet44", "resnet56"]
