"""A look at an encoder of somebody else's before anything is trained with it."""

from collections.abc import Callable

import torch

from hypercrl.base.errors import UserError
from hypercrl.memory.base import MemoryEncoder

_CLOSE = 1e-3
"""Of the largest context: by so much may two ways to compute one differ, for rounding."""


def tried_out(
    make: Callable[[torch.Generator], MemoryEncoder], name: str, generator: torch.Generator
) -> MemoryEncoder:
    """The encoder that `make` makes, if training and control compute the same with it.

    Args:
        name: that it was chosen by, for messages.
        generator: of its initial parameters.

    Raises:
        ValueError: contexts or states of another shape or type, a `_step` that computes something
            else than `_encode`, contexts without gradients, initial parameters that do not come
            from `generator`, or what it raised.
    """
    from hypercrl_envs.checked import retold

    began = generator.get_state()
    with retold(ValueError, f"memory={name}: making it", but=(UserError, ValueError), end=""):
        encoder = make(generator)
        generator.set_state(began)
        again = make(generator).state_dict()
    if not all(torch.equal(x, again[key]) for key, x in encoder.state_dict().items()):
        raise ValueError(
            f"memory={name}: its initial parameters are others each time; draw all of them from "
            "the generator that __init__ gets"
        )
    with retold(ValueError, f"memory={name}: trying it", end=""):
        fault = _fault(encoder) or _fault_of_training(encoder)
    if fault is not None:
        raise ValueError(f"memory={name}: {fault}")
    return encoder


@torch.no_grad()
def _fault(encoder: MemoryEncoder) -> str | None:
    """What is wrong with its contexts of two robots' six transitions."""
    tokens = torch.randn(2, 6, encoder.input_size, generator=torch.Generator().manual_seed(0))
    whole, _ = encoder.encode(tokens)
    wanted = (2, 6, encoder.context_size)
    if tuple(whole.shape) != wanted:
        return f"_encode returned contexts {tuple(whole.shape)} of 6 transitions, not {wanted}"
    if whole.dtype != tokens.dtype:
        return f"_encode returned contexts of {whole.dtype}, not {tokens.dtype}"
    for robots in (1, 3):
        for part, value in encoder.initial(robots).items():
            if value.shape[:1] != (robots,):
                return f"_initial made {part} {tuple(value.shape)} for a batch of {robots}"
    state = encoder.initial(2)
    stepped = [encoder.step(state, token)["context"].clone() for token in tokens.unbind(1)]
    first, state = encoder.encode(tokens[:, :3])
    second, _ = encoder.encode(tokens[:, 3:], state)
    for contexts, how in (
        (torch.stack(stepped, 1), "_step, one transition after the other"),
        (torch.cat([first, second], 1), "_encode of a window that goes on from its state"),
    ):
        difference = float((contexts - whole).abs().max())
        if not difference <= _CLOSE * float(whole.abs().max()):
            return (
                f"its contexts differ by {difference:.3g} between _encode of a whole window and "
                f"{how}; both are to be the same, or it acts by something else than it learned"
            )
    return None


@torch.enable_grad()
def _fault_of_training(encoder: MemoryEncoder) -> str | None:
    """What is wrong with the gradients of its contexts."""
    learned = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    if not learned:
        return None
    tokens = torch.randn(2, 6, encoder.input_size, generator=torch.Generator().manual_seed(0))
    contexts, _ = encoder.encode(tokens)
    if not contexts.requires_grad:
        return "_encode returned contexts without gradients, so that nothing of it would be learned"
    gradients = torch.autograd.grad(contexts.square().sum(), learned, allow_unused=True)
    if not all(bool(each.isfinite().all()) for each in gradients if each is not None):
        return "the gradients of its contexts are not finite"
    return None
