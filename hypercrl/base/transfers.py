"""Tensors on their way between this process and a device, without waiting for what runs there."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def uploaded(value: Tensor, device: torch.device) -> Tensor:
    """`value` on the device, float32.

    From ordinary memory a copy waits until the device has done all that it was given before: pinned
    memory is read when its turn comes, so that a plan can be begun while another one runs. What
    becomes of `value` afterwards changes nothing.
    """
    if device.type == "cuda" and not value.is_cuda:
        value = value.to(torch.float32).pin_memory()
    return value.to(device, torch.float32, non_blocking=True)


def begin_download(values: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors of one device to the CPU, as they are when what it was given so far is
    done.

    Returns:
        Waits for the copies, and not for what the device is given after this call.
    """
    copies = [value.to("cpu", non_blocking=True) for value in values]  # pinned, from CUDA
    if not any(value.is_cuda for value in values):
        return lambda: copies
    done = torch.cuda.Event()
    done.record()

    def wait() -> list[Tensor]:
        done.synchronize()
        return copies

    return wait
