"""One robot or many, NumPy or torch: tensors of what comes in, and what goes out as that came."""

from typing import TypeVar, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def batch(name: str, values: ArrayLike | Tensor, *shape: int | None) -> tuple[Tensor, bool]:
    """[B, ...] float32, a copy, and whether it was of one robot, without the axis of robots.

    Args:
        name: of the argument, for messages.
        shape: of one robot's; None where any length will do.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(_array(name, values))
    tensor = tensor.detach().to(torch.float32, copy=True)
    single = tensor.dim() == len(shape)
    many = tensor[None] if single else tensor
    wanted = ", ".join("any" if n is None else str(n) for n in shape)
    fits = many.dim() == 1 + len(shape) and all(
        n in (None, there) for n, there in zip(shape, many.shape[1:], strict=True)
    )
    if not fits or 0 in many.shape:
        raise ValueError(
            f"{name} must be [{wanted}] of one robot or [B, {wanted}] of B, "
            f"not {list(tensor.shape)}"
        )
    if not bool(many.isfinite().all()):
        raise ValueError(f"{name} has numbers in it that are not finite")
    return many, single


def _array(name: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.array(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers: {error}") from error


@overload
def alike(values: Tensor, single: bool, given: Tensor) -> Tensor: ...
@overload
def alike(values: Tensor, single: bool, given: ArrayLike) -> np.ndarray: ...
def alike(values: Tensor, single: bool, given: ArrayLike | Tensor) -> np.ndarray | Tensor:
    """[B, ...] as what was given: a tensor on its device or an array, and of one robot alone."""
    values = values[0] if single else values
    return values.to(given.device) if isinstance(given, Tensor) else values.cpu().numpy()
