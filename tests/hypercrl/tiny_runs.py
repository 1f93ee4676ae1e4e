"""Runs of two pushing tasks that take seconds, for tests of what is done with a run."""

from hypercrl.agent.task_inference import TaskInference

SETTINGS = {
    "env": "push",
    "method": "hnet",
    "preset": "smoke",
    "device": "cpu",
    "protocol": {
        "num_tasks": 2,
        "random_steps": 24,
        "planned_steps": 12,
        "update_every": 12,
        "updates": 20,
        "eval_every": 1000,
        "eval_episodes": 1,
        "final_episodes": 1,
        "heldout_episodes": 1,
        "prediction_horizon": 3,
    },
    "dynamics": {"hidden": [16, 16]},
    "planner": {"samples": 24, "horizon": 4, "iterations": 3, "elites": 4},
}
EPISODE = 12
"""Steps of an episode where its length is not the point: evaluation is most of a tiny run."""
MEMORY = {"memory": "gru", "context": {"burn_in": 4, "horizon": 2}}

FEW_STEPS = (
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[16]",
    "planner.samples=8",
    "planner.elites=2",
    "planner.horizon=3",
    "protocol.random_steps=14",
    "protocol.planned_steps=16",
    "protocol.update_every=8",
    "protocol.updates=6",
    "protocol.final_episodes=1",
)
"""Words of a command for a run whose steps can be counted: 14 random, 16 planned, every task."""


def of_two_tasks(inference: TaskInference) -> TaskInference:
    """Two settled tasks, and which of them it is now is open."""
    for level in (0.5, 2.0):
        inference.begin_new()
        inference.levels[-1] = level
    inference.learned = inference.config.settle
    return inference
