"""What comes out of a checkpoint is looked at before it is taken: its types, its tensors' kinds."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from torch import Tensor
from torch.optim import Optimizer


def same_kind(name: str, saved: Any, own: Tensor, rows: bool = False) -> Tensor:
    """`saved`, on the device of `own`.

    Args:
        name: for the message.
        saved: what is to be a tensor of the same type and shape as `own`; what diverged is not
            saved, so that there is no NaN in it.
        own: what it is to take the place of.
        rows: the first dimension may be another one.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(saved, Tensor):
        raise ValueError(f"{name} is no tensor but {type(saved).__name__}")
    skipped = 1 if rows else 0
    if (
        saved.dtype != own.dtype
        or saved.dim() != own.dim()
        or (saved.shape[skipped:] != own.shape[skipped:])
    ):
        raise ValueError(
            f"{name} is {saved.dtype} {list(saved.shape)}, wanted {own.dtype} {list(own.shape)}"
        )
    if saved.isnan().any():
        raise ValueError(f"{name} has NaN in it")
    return saved.to(own.device)


def same_type(name: str, value: Any, kind: Any) -> Any:
    """`value`, of a type made of bool, int, float, str, None, list, dict and dataclasses.

    A whole number is a float as well, a bool is no number, and a dataclass is a dict of its fields.

    Raises:
        ValueError: it is of another type, or a dataclass lacks a field; names the place.
        KeyError: the same.
    """
    origin, inside = get_origin(kind), get_args(kind)
    if origin is UnionType:
        kind = next((k for k in inside if isinstance(value, k)), inside[0])
        return same_type(name, value, kind)
    if is_dataclass(kind):
        types = get_type_hints(kind)
        same_type(name, value, dict)
        for each in fields(kind):
            same_type(f"{name}.{each.name}", value[each.name], types[each.name])
        return value
    wanted = (float, int) if kind is float else origin or kind
    if not isinstance(value, wanted) or (issubclass(type(value), bool) and kind is not bool):
        raise ValueError(f"{name} is {value!r:.40}, which is no {kind}")
    if origin is list:
        for number, each in enumerate(value):
            same_type(f"{name}[{number}]", each, inside[0])
    if origin is dict:
        for key, each in value.items():
            same_type(f"{name}.{key}", each, inside[1])
    return value


def load_moments(optimiser: Optimizer, moments: Mapping[Any, Any]) -> None:
    """Restore the "state" of an optimiser's `state_dict`; torch takes one of any shape.

    Raises:
        ValueError: it is not of the optimiser's parameters.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    by_index = {int(index): values for index, values in moments.items()}
    for index, values in by_index.items():
        if not 0 <= index < len(parameters):
            raise ValueError(f"an optimiser of {len(parameters)} parameters has no {index}")
        for name, value in values.items():
            own = parameters[index].new_zeros(()) if name == "step" else parameters[index]
            same_kind(f"{name} of parameter {index}", value, own)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": by_index})
