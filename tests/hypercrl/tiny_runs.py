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
MEMORY = {"memory": "gru", "context": {"burn_in": 4, "horizon": 2}}


def of_two_tasks(inference: TaskInference) -> TaskInference:
    """Two settled tasks, and which of them it is now is open."""
    for level in (0.5, 2.0):
        inference.begin_new()
        inference.levels[-1] = level
    inference.learned = inference.config.settle
    return inference
