"""Functions of batches that a user writes: imported by name, tried out before any step."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from hypercrl_envs.checked import TaskFault, calls_into, shown
from hypercrl_envs.plugins import HINT, imported

_OWN = ("hypercrl_envs.gym_rewards", "hypercrl_envs.terminations")
"""Modules of this package whose `__all__` are functions for others to name."""

_ROWS = 8
"""Of the batch on which a function is tried."""

_CLOSE = 1e-3
"""Of the largest value in a batch: a row alone may differ by so much, for rounding."""

TAKEN = {
    "kind",
    "env_steps",
    "task",
    "on",
    "return",
    "success",
    "goal_distance",
    "prediction_error",
}
"""Names in the record of an evaluation, which `Task.figures` cannot have."""


class CheckedFunction:
    """A function of tensors [..., n] to [...], such as a reward, a distance or a termination.

    Called as planners call it: batched with any leading dimensions, without gradients. What it
    returns is looked at in every call as far as that does not wait for a device: a tensor with
    those leading dimensions, of floats (or of booleans, where that is what is asked). Floats of
    another width become those of its first input.
    """

    def __init__(self, function: Callable[..., Any], name: str, boolean: bool = False) -> None:
        """
        Args:
            name: of the function and what it belongs to, for messages.
            boolean: it says yes or no.
        """
        self._function = function
        self._name = name
        self._boolean = boolean

    def __call__(self, *inputs: Tensor) -> Tensor:
        """
        Raises:
            TaskFault: it raised, or returned something else.
        """
        with calls_into(self._name):
            value: Any = self._function(*inputs)
        if not isinstance(value, Tensor):
            raise TaskFault(f"{self._name} returned no tensor, but {shown(value)}.")
        wanted = "booleans" if self._boolean else "floats"
        fits = value.dtype == torch.bool if self._boolean else value.is_floating_point()
        if not fits:
            raise TaskFault(f"{self._name} returned {value.dtype}, and is to return {wanted}.")
        leading, given = inputs[0].shape[:-1], tuple(inputs[0].shape)
        if value.shape != leading:
            raise TaskFault(
                f"{self._name} returned shape {tuple(value.shape)} for inputs {given}, and is to "
                f"return {tuple(leading)}: one value for each row, whatever the leading dimensions."
            )
        if value.device != inputs[0].device:
            raise TaskFault(
                f"{self._name} returned a tensor on {value.device} for inputs on "
                f"{inputs[0].device}; make its constants with device=obs.device."
            )
        return value if self._boolean else value.to(inputs[0].dtype)

    def try_out(self, *starts: Tensor) -> None:
        """Call it as training will.

        Args:
            starts: its inputs [N, n] for transitions between states that the environment begins
                in. Beside these rows it is tried on others around them, as a model imagines them.

        Raises:
            TaskFault: it raised or returned something else than it is to, is not finite on
                `starts`, writes into its inputs, returns gradients, or its value for a row depends
                on other rows or on chance.
        """
        generator = torch.Generator().manual_seed(0)
        inputs = [_with_others_around(x, generator) for x in starts]
        copies = [x.clone() for x in inputs]
        with torch.no_grad():
            values = self(*inputs)
            if not all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True)):
                raise TaskFault(
                    f"{self._name} writes into its inputs; change a copy (x.clone()) instead."
                )
            if not values[: len(starts[0])].isfinite().all():
                raise TaskFault(
                    f"{self._name} returned {values[: len(starts[0])].tolist()} for states that "
                    "the environment begins in."
                )
            in_two = self(*(x.clone().unflatten(0, (2, -1)) for x in inputs)).flatten()
            alone = torch.stack([self(*(x[row].clone() for x in inputs)) for row in range(_ROWS)])
        for other in (in_two, alone):
            if not _close(values, other):
                raise TaskFault(
                    f"{self._name} is not batched, or draws random numbers: for the same rows it "
                    f"returned {values.tolist()} together and {other.tolist()} apart."
                )
        with torch.enable_grad():
            if self(*(x.clone() for x in inputs)).requires_grad:
                raise TaskFault(
                    f"{self._name} returned a tensor that requires gradients; detach its constants."
                )


class TaskFunction(CheckedFunction):
    """One that a configuration names."""

    def __init__(self, path: str, id: str, boolean: bool = False) -> None:
        """
        Args:
            path: "package.module:function". Modules of the current folder are found too.
            id: of the environment it belongs to.
            boolean: it says yes or no.

        Raises:
            ValueError: there is no such function.
        """
        self.path = path
        super().__init__(_imported(path), f"{id}: function {path}", boolean)


def is_own(path: str) -> bool:
    """Whether "module:name" is a function of this package that is there to be named.

    Those are functions of tensors alone, which whoever wrote a configuration may name.

    Example:
        >>> is_own("hypercrl_envs.terminations:hopper")
        True
        >>> is_own("hypercrl_envs.terminations:torch")
        False
    """
    module, _, name = path.partition(":")
    return module in _OWN and name in import_module(module).__all__


def try_figures(figures: Callable[[Tensor], Any], caption: str, obs: Tensor) -> None:
    """Call a task's `figures` as evaluations will, see `CheckedFunction.try_out`.

    Args:
        caption: of the task, for messages.
        obs: [N, O] of states that it begins in.

    Raises:
        TaskFault: it returned no dict, a name of `TAKEN`, or a function that cannot be used.
    """
    where = f"{caption}: figures"
    with calls_into(where):
        found = figures(obs)
    if not isinstance(found, dict):
        raise TaskFault(f"{where} returned no dict, but {shown(found)}.")
    if taken := sorted(set(found) & TAKEN):
        raise TaskFault(f"{where}: {taken[0]!r} is what evaluations log anyway; rename it.")
    for name in found:
        CheckedFunction(lambda x, name=name: figures(x)[name], f"{where}: {name}").try_out(obs)


def _with_others_around(starts: Tensor, generator: torch.Generator) -> Tensor:
    """[_ROWS, n]: `starts`, then those with noise as large as they are, or 1, on them."""
    rows = torch.arange(_ROWS) % len(starts)
    noise = torch.randn(_ROWS, starts.shape[1], generator=generator)
    noise[: len(starts)] = 0.0
    return starts[rows] + noise * starts[rows].abs().clamp_min(1.0)


def _close(values: Tensor, others: Tensor) -> bool:
    if values.dtype == torch.bool:
        return torch.equal(values, others)
    finite = values[values.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    return torch.allclose(values, others, _CLOSE, _CLOSE * largest, equal_nan=True)


def _imported(path: str) -> Callable[..., Any]:
    if not isinstance(path, str):
        raise ValueError(f"{path!r} names no function: {HINT}")
    try:
        found = imported(path)
    except ValueError as error:
        raise ValueError(f"no function {path!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"no function {path!r}: it is {shown(found)}; {HINT}")
    return found
