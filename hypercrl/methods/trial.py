"""A look at a method of somebody else's before anything is trained with it."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from hypercrl.base.errors import UserError
from hypercrl.dynamics import DynamicsModel
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.methods.base import STEP_REPORT, Method
from hypercrl.replay.transitions import Batch

Make = Callable[[DynamicsModel, torch.Generator, torch.Generator], Method]
"""From a model and the generators of initial values and of later draws."""


def try_out(make: Make, model: DynamicsModel, name: str) -> None:
    """Take it through a change of the task, save and load it there, and go on with both.

    A run that is resumed is the run that was not stopped only if both come to the same, bit for
    bit. This happens on the CPU, on copies, with random transitions.

    Args:
        make: makes the method; called twice.
        model: as yet untrained, which it stays.
        name: that it was chosen by, for messages.

    Raises:
        UserError: they come to something else, weights of another shape than the network's, a
            report without its numbers, something of another type than is wanted of a place to step
            in, or what the method raised.
    """
    from hypercrl_envs.checked import retold

    try:
        with retold(UserError, f"method={name}: trying it", but=(UserError, _Misfit)):
            fault = _fault(make, model)
    except _Misfit as misfit:
        fault = str(misfit)
    if fault is not None:
        raise UserError(f"method={name}: {fault}.")


def _fault(make: Make, model: DynamicsModel) -> str | None:
    """What is wrong with one that lives on, or with one that was loaded in the second task."""
    one, other = (make(deepcopy(model), _generator(0), _generator(1)) for _ in range(2))
    for name, (wanted, fits) in _RETURNED.items():
        if hasattr(one, name):
            setattr(one, name, _watched(name, getattr(one, name), wanted, fits))
    one.model.fit_normalisers(_transitions(one, 0))
    one.begin_task()
    shape, size = tuple(one.weights(0).shape), one.layout(0).numel
    if shape != (wanted := (size,) if one.members == 1 else (one.members, size)):
        return f"weights(0) are {shape} where the network has {wanted}"
    _learn(one, 0)
    one.end_task(_transitions(one, 0))
    one.begin_task()
    _learn(one, 1)
    if missing := [part for part in STEP_REPORT if part not in _step(one, 1)]:
        return f"training_step returned no {' and no '.join(missing)}"
    other.load_state(deepcopy(one.state()))
    for own, saved in ((other.generator, one.generator), (other.sampler, one.sampler)):
        own.set_state(saved.get_state())
    for stage in _LATER:
        for method in (one, other):
            stage(method)
        if (differs := _first_difference(one.state(), other.state())) is not None:
            return (
                f"once it is saved and loaded, {differs} becomes something else than without, so "
                "that a run cannot be resumed: what it keeps has to be a parameter or a buffer, "
                "made in _prepare or _add_task, and all draws from self.generator or self.sampler"
            )
    return None


_LATER: tuple[Callable[[Method], Any], ...] = (
    lambda method: _step(method, 1),
    lambda method: method.observe(_transitions(method, 1)),
    lambda method: method.end_task(_transitions(method, 1)),
    lambda method: method.begin_task(),
    lambda method: _learn(method, 2),
)
"""What comes of a method that is saved in its second task."""


class _Misfit(Exception):
    """A method's function returned something else than what calls it can use."""


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.dim()


def _lists(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(each, kind) for each in value)


_LOSS = "a scalar tensor or None", lambda value: value is None or _is_scalar(value)
_RETURNED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "_rehearse": _LOSS,
    "_protect": _LOSS,
    "_trained": ("a list of nn.Parameter", _lists(nn.Parameter)),
    "_weights": ("a tensor", lambda value: isinstance(value, Tensor)),
    "_new_optimisers": ("a list of torch.optim.Adam", _lists(torch.optim.Adam)),
    "training_step": (
        "a dict of scalar tensors",
        lambda value: isinstance(value, Mapping) and all(map(_is_scalar, value.values())),
    ),
}
"""What is wanted of the places to step in, in words and as a test."""


def _watched(
    name: str, function: Callable[..., Any], wanted: str, fits: Callable[[Any], bool]
) -> Callable[..., Any]:
    """The function, which raises _Misfit where what it returns does not fit."""

    def watched(*args: Any, **more: Any) -> Any:
        value = function(*args, **more)
        if not fits(value):
            raise _Misfit(f"{name} returned {_described(value)} where {wanted} is wanted")
        return value

    return watched


def _described(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, list | tuple) and value:
        return f"a {type(value).__name__} of {type(value[0]).__name__}"
    if isinstance(value, Mapping):
        odd = (f"{key!r}: {_described(v)}" for key, v in value.items() if not _is_scalar(v))
        return f"{{{', '.join(odd)}}}"
    return f"a {type(value).__name__}"


def _learn(method: Method, task: int) -> None:
    """A round of training in a task that has begun."""
    batch = _transitions(method, task)
    method.follow(batch, len(batch))
    for _ in range(2):
        _step(method, task)
    method.observe(batch)


def _step(method: Method, task: int) -> Mapping[str, Tensor]:
    """A training step on transitions of a task, on windows if the model has a memory."""
    batch, length = _transitions(method, task), 0
    if isinstance(method.model, ContextModel):
        length = method.model.context_config.length
    shape = (8,) if method.members == 1 else (method.members, 8)
    slots = torch.randint(len(batch) - length, shape, generator=_generator(task))
    if length:
        slots = slots[..., None] + torch.arange(length)
    return method.training_step(batch.at(slots))


def _transitions(method: Method, task: int) -> Batch:
    """Those of a robot that wanders, slower in one task than in another: all that it has seen."""
    model, generator = method.model, _generator(task)
    length = model.context_config.length if isinstance(model, ContextModel) else 0
    action = torch.rand(64 + length, model.action_size, generator=generator) * 2 - 1
    change = torch.randn(64 + length, model.obs_size, generator=generator) / (1 + task)
    obs = change.cumsum(0)
    return Batch(obs - change, action, obs)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _first_difference(one: Any, other: Any, name: str = "") -> str | None:
    """Where two states differ first, by its name; None: nowhere."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        pairs = [(one[key], other[key], str(key)) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(*pair, name) for pair in zip(one, other, strict=True)]
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        return None if torch.equal(one, other) else name
    else:
        return None if one == other else name
    return next((found for pair in pairs if (found := _first_difference(*pair)) is not None), None)
