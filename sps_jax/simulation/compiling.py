"""How the programs of a simulation are traced and compiled.

Command buffers (CUDA graphs): a GPU runs whole loops of kernels from one submission, and the host does not wait in
between. By default a loop ends XLA's buffer, and the host decides in every iteration whether there is another. From
CUDA 12.3 on a buffer may contain loops and branches; with an older driver XLA leaves them out.
``--xla_gpu_enable_command_buffer`` in ``XLA_FLAGS`` takes precedence:
``XLA_FLAGS=--xla_gpu_enable_command_buffer=`` turns command buffers off.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax

from sps_jax.compression.selection import on_mesh
from sps_jax.layout import VMAP, Layout
from sps_jax.simulation.method import Method

FLAG = "xla_gpu_enable_command_buffer"
RECORDED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


def compiler_options() -> dict[str, str]:
    """Return the compiler options of the programs that run whole rounds; CPUs and TPUs ignore them.

    Example:
      >>> list(compiler_options())
      ['xla_gpu_enable_command_buffer']
    """
    return {} if FLAG in os.environ.get("XLA_FLAGS", "") else {FLAG: RECORDED}


def in_context(function: Callable) -> Callable:
    """Decorate ``function`` of a :class:`Method` and, maybe, a :class:`Layout` to be traced in their context.

    Float32 matrix products get the method's precision; GPUs and TPUs compute them in TF32 and bfloat16 by default. The
    layout's mesh lets a kernel of TopK say, on a TPU, that each device computes what the server does.
    """

    @wraps(function)
    def traced(method: Method, *args: Any) -> Any:
        mesh = next((a for a in args if isinstance(a, Layout)), VMAP).mesh
        with jax.default_matmul_precision(method.matmul_precision), on_mesh(mesh):
            return function(method, *args)

    return traced
