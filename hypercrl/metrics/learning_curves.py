"""How much sooner a task is learned after others: measures of its curve of success."""

import math

import numpy as np
from numpy.typing import ArrayLike

from hypercrl.metrics.matrix import Array


def auc_forward_transfer(curve: ArrayLike, single_curve: ArrayLike) -> float:
    """How much sooner a task is learnt after others, (AUC − AUC_single) / (1 − AUC_single).

    AUC is the trapezoidal mean of a success curve; 1 is a task that was solved from the start. NaN
    when the single-task agent itself has AUC 1 and leaves nothing to gain.

    Args:
        curve: success rate on the task at evenly spaced times of its training, shape [T].
        single_curve: the same for the agent trained on that task alone, at the same times, [T].

    Raises:
        ValueError: shapes differ, T < 2, or a value lies outside [0, 1] and so is no success rate.
    """
    curves = _success_curves(curve, single_curve)
    return _share_of_room(*((c[1:] + c[:-1]).mean() / 2 for c in curves))


def continual_world_forward_transfer(curve: ArrayLike, single_curve: ArrayLike) -> float:
    """`auc_forward_transfer` as Continual World has it: AUC is the plain mean of the evaluations.

    Wołczyk et al. 2021, section 3; theirs is the mean over all tasks, the first one included.

    Args:
        curve, single_curve: as of `auc_forward_transfer`.

    Raises:
        ValueError: as `auc_forward_transfer`.
    """
    return _share_of_room(*(c.mean() for c in _success_curves(curve, single_curve)))


def _success_curves(curve: ArrayLike, single_curve: ArrayLike) -> tuple[Array, Array]:
    curve, single_curve = np.asarray(curve, np.float64), np.asarray(single_curve, np.float64)
    if curve.ndim != 1 or curve.shape != single_curve.shape or curve.size < 2:
        raise ValueError(
            "both success curves need the same shape [T] with T ≥ 2, "
            f"got {curve.shape} and {single_curve.shape}"
        )
    if any(((c < 0) | (c > 1)).any() for c in (curve, single_curve)):
        raise ValueError("a success curve lies in [0, 1]; the AUC of returns is not comparable")
    return curve, single_curve


def _share_of_room(area: float, single_area: float) -> float:
    room = 1 - single_area
    return float((area - single_area) / room) if room > 1e-8 else math.nan
