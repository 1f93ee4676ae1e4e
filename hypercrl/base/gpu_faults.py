"""What ends a command that did nothing wrong: its GPU ran out of memory, or failed."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hypercrl.base.errors import GPUUnavailable

GPU_FAULT = 3
"""Exit code of such a command; on another GPU, or alone on this one, it may end well."""

OUT_OF_MEMORY = (
    "end other programs, or give smaller sizes (dynamics.hidden, method.hidden, memory.width, "
    "planner.samples, protocol.batch_size, context.windows); a run goes on with: hypercrl train "
    "resume=DIR"
)
FAILED = (
    "the system's log (dmesg) says more; name another one with CUDA_VISIBLE_DEVICES, a run goes on "
    "with: hypercrl train resume=DIR"
)
_NO_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|Triton Error \[CUDA\]: out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
)
_FAILURE = re.compile(
    r"CUDA (unknown )?error|Triton Error \[CUDA\]|CUDNN_STATUS_|CUBLAS_STATUS_|No CUDA GPUs are"
)
_ACCOUNT = re.compile(r"Tried to allocate .*? is free\.")
"""The part of torch's message that says how much was wanted, and how much there is."""
_OF_THE_PROGRAM = re.compile(r"assert|illegal|misaligned|invalid|captur")


@dataclass(frozen=True)
class GPUFault:
    """What an exception says of a GPU.

    Attributes:
        reason: and what to do about it, in one line.
        of_the_program: whether CUDA's words are of the code that ran there, as after an illegal
            access; then a traceback helps.
    """

    reason: str
    of_the_program: bool = False


def gpu_fault(error: BaseException) -> GPUFault | None:
    """The fault of a GPU that an exception, or one it was raised from, tells of; None: of none.

    Told by the words: torch 2.6 has no class of its own for most faults, and the libraries beneath
    have none at all.
    """
    for each in _causes(error):
        if isinstance(each, GPUUnavailable):
            return GPUFault(str(each))
        if isinstance(each, RuntimeError) and (fault := _told(" ".join(str(each).split()))):
            return fault
    return None


def _told(said: str) -> GPUFault | None:
    """The fault that a message in one line tells of."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    which = f"GPU {visible}" if visible else "the GPU"
    if _NO_MEMORY.search(said):
        account = _ACCOUNT.search(said)
        how = account[0] if account else _first_sentence(said)
        return GPUFault(f"out of memory on {which}: {how.rstrip('.')}; {OUT_OF_MEMORY}")
    if _FAILURE.search(said):
        what = _first_sentence(said)
        return GPUFault(f"{which} failed: {what}; {FAILED}", bool(_OF_THE_PROGRAM.search(what)))
    return None


def _first_sentence(said: str) -> str:
    """Behind it torch says where to search and how to debug."""
    return re.split(r" Search for | CUDA kernel errors | Compile with ", said)[0][:200]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """It, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__
