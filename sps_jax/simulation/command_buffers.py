"""Command buffers: a GPU runs whole loops of kernels from one submission, and the host does not wait in between.

XLA records kernels that follow each other in a command buffer (a CUDA graph). By default a loop ends the buffer, and
the host decides in every iteration whether there is another. From CUDA 12.3 on a buffer may contain loops and branches;
with an older driver XLA leaves them out. ``--xla_gpu_enable_command_buffer`` in ``XLA_FLAGS`` takes precedence:
``XLA_FLAGS=--xla_gpu_enable_command_buffer=`` turns command buffers off.
"""

import os

FLAG = "xla_gpu_enable_command_buffer"
RECORDED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


def compiler_options() -> dict[str, str]:
    """Return the compiler options of the programs that run whole rounds; CPUs and TPUs ignore them.

    Example:
      >>> list(compiler_options())
      ['xla_gpu_enable_command_buffer']
    """
    return {} if FLAG in os.environ.get("XLA_FLAGS", "") else {FLAG: RECORDED}
