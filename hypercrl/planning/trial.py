"""A look at a planner of somebody else's before anything is planned with it."""

import torch
from torch import Tensor

from hypercrl.planning.planner import Planner
from hypercrl.planning.search import Search


def try_out(planner: Planner, name: str) -> None:
    """Search twice for two robots, for actions near zero.

    Args:
        name: that it was chosen by, for messages.

    Raises:
        ValueError: samples of another shape or type, not finite or beyond the bounds, a `fit` that
            returns no such search, another plan by the same noise, or what it raised.
    """
    from hypercrl_envs.checked import told

    generator = torch.Generator(planner.low.device)
    start = planner.initial(2)
    shape = tuple(start[:, 0].shape)
    faults: list[str] = []

    def evaluate(actions: Tensor) -> Tensor:
        if (fault := _fault(planner, actions, shape)) is not None:
            faults.append(f"sample {fault}")
        return -actions.square().sum((2, 3))

    try:
        found, again = (
            planner._search(evaluate, start, generator.manual_seed(0), None, None) for _ in range(2)
        )
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"planner={name}: {faults[0] if faults else f'trying it {told(error)}'}"
        ) from error
    if not faults:
        faults += _faults_of_fit(found, shape, planner.low.dtype)
    if not faults and not torch.equal(found.best, again.best):
        faults.append(
            "the same search comes to another plan the second time: what it keeps from one to the "
            "next is in no checkpoint, so that a run cannot be resumed; keep it in the Search, and "
            "draw nothing but the noise that sample gets"
        )
    if faults:
        raise ValueError(f"planner={name}: {faults[0]}")


def _fault(planner: Planner, actions: Tensor, shape: tuple[int, ...]) -> str | None:
    robots, *sequence = shape
    if actions.dim() != 4 or [len(actions), *actions.shape[2:]] != [robots, *sequence]:
        wanted = f"({robots}, K, {', '.join(map(str, sequence))})"
        return f"returned {tuple(actions.shape)} where [B, K, H, A] is {wanted}"
    if actions.dtype != planner.low.dtype:
        return f"returned numbers of {actions.dtype}, not {planner.low.dtype}"
    if not bool(actions.isfinite().all()):
        return "returned numbers that are not finite"
    if not bool(((actions >= planner.low) & (actions <= planner.high)).all()):
        return (
            "returned actions beyond the bounds, which nothing executes; end it with "
            ".clamp(self.low, self.high)"
        )
    return None


def _faults_of_fit(found: Search, shape: tuple[int, ...], dtype: torch.dtype) -> list[str]:
    faults = []
    for part, value in {"mean": found.mean, "std": found.std, "best": found.best}.items():
        if tuple(value.shape) != shape:
            faults.append(f"fit made {part} {tuple(value.shape)} where [B, H, A] is {shape}")
        elif value.dtype != dtype:
            faults.append(f"fit made a {part} of {value.dtype}, not {dtype}")
        elif not bool(value.isfinite().all()):
            faults.append(f"fit made a {part} that is not finite")
    return faults
