"""Planners: pure functions of (rollout, reward, distribution, generator)."""

from hypercrl.planning.cem import CEM, CEMConfig, Reward, Rollout, trajectory_returns

__all__ = ["CEM", "CEMConfig", "Reward", "Rollout", "trajectory_returns"]
