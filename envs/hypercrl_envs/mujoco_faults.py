"""Whether MuJoCo found its state unusable and, unasked, began again from its reference pose."""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import mujoco

_BAD = {
    int(mujoco.mjtWarning.mjWARN_BADQPOS): "the position of degree of freedom {}",
    int(mujoco.mjtWarning.mjWARN_BADQVEL): "the velocity of degree of freedom {}",
    int(mujoco.mjtWarning.mjWARN_BADQACC): "the acceleration of degree of freedom {}",
    int(mujoco.mjtWarning.mjWARN_BADCTRL): "the control of actuator {}",
}


def mujoco_fault(data: object) -> str | None:
    """What has gone bad in MjData since `mj_resetData` or `forget_faults`; None: nothing.

    None too if it is no `MjData`: environments of other engines have a `data` of their own.

    MuJoCo checks a state at every step. One that is not a number or beyond 1e10 it replaces by the
    reference configuration; all that is left of it is a warning in `data`, and an observation that
    looks like any other.
    """
    if not isinstance(data, mujoco.MjData) or not data.warning.number.any():
        return None
    for index, what in _BAD.items():
        warning = data.warning[index]
        if warning.number:
            return (
                f"MuJoCo's state went bad: {what.format(warning.lastinfo)} was not a number, or "
                "beyond 1e10, and MuJoCo reset it; a smaller timestep or smaller actions may help"
            )
    return None


def forget_faults(data: mujoco.MjData) -> None:
    """A state restored into `data` has not gone bad."""
    for index in _BAD:
        data.warning[index].number = 0
