"""When a damper that is explicit in time is stable."""

from __future__ import annotations


def check_explicit_damper(name: str, damping: float, inertia: float, timestep: float) -> None:
    """Refuse a damper that takes more than the whole velocity away in one explicit step.

    Its step is v ← v (1 - r) with r = timestep · damping / inertia: above 1 it reverses the
    velocity, above 2 it makes it grow without end.

    Args:
        name: of the joint or actuator, for the message.
        damping: N·m·s/rad, or N·s/m.
        inertia: that is felt along its motion while everything else moves freely, kg·m² or kg.
        timestep: s.

    Raises:
        ValueError: r is not in [0, 1].
    """
    ratio = timestep * damping / inertia
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(
            f"{name}: a damping of {damping:.3g} on an inertia of {inertia:.3g} takes {ratio:.3g} "
            f"times the velocity away in one explicit step of {timestep:g} s, at most 1 is stable: "
            "lower the damping, shorten the step, add inertia, or integrate it implicitly"
        )
