"""Which device a run computes on."""

import torch

from hypercrl.base.errors import GPUUnavailable, UserError


def choose_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one.

    Raises:
        UserError: a GPU is asked for and there is none, or the name means nothing.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device={name} is not a device; use cpu, cuda or auto.") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported; use cpu, cuda or auto.")
    if device.type == "cuda" and not torch.cuda.is_available():
        none = f"device={name}, but torch {torch.__version__} sees no GPU. Use device=cpu, or"
        if torch.backends.cuda.is_built():
            raise GPUUnavailable(f"{none} see with nvidia-smi what has become of it.")
        raise UserError(f"{none} install a CUDA build of torch and its driver.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}, but there are {torch.cuda.device_count()} GPUs.")
    if device.index is not None:
        torch.cuda.set_device(device)  # Triton launches on the current one
    return device
