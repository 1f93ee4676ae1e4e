"""result.json: what a finished run comes to."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hypercrl import metrics
from hypercrl.agent.task_inference import score_decisions
from hypercrl.base.counted import counted
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.runs.run_folder import SCHEMA
from hypercrl.training.durations import Durations
from hypercrl.training.experiment import Experiment
from hypercrl.training.trainer import Trainer

PACKAGES = ("hypercrl", "torch", "numpy", "mujoco", "gymnasium")

TIMES = (
    "seconds",
    "seconds_by",
    "plan_milliseconds",
    "update_milliseconds",
    "memory_step_milliseconds",
    "training_seconds",
)
"""Keys of a result that are measured by the clock, of training, the oracle and recall alike."""
ORIGIN = ("git", "machine", "versions")
"""Keys that say which program ran where."""


def repeatable(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that is a function of the settings: without times and origin.

    The same program comes to the same values, bit for bit, on the same machine's CPU with the same
    number of threads.
    """
    return {key: value for key, value in result.items() if key not in (*TIMES, *ORIGIN)}


def summarise(trainer: Trainer) -> dict[str, Any]:
    """Everything a report needs, as JSON values; matrices are (N + 1) × N, row 0 untrained."""
    tallies = trainer.tallies
    return {
        **about(trainer.experiment),
        **of_matrices(tallies.matrix),
        "seconds": sum(tallies.seconds.values()),
        "seconds_by": dict(tallies.seconds),
        "plans": len(tallies.plan_seconds),
        "plan_milliseconds": _milliseconds(tallies.plan_seconds),
        "updates": tallies.updates,
        "extra_updates": trainer.method.extra_updates,
        "update_milliseconds": _milliseconds(tallies.update_seconds),
        "env_steps": trainer.position.env_steps,
        "memory_bytes": tallies.memory_bytes,
        **_of_memory(trainer),
        **_of_inference(trainer),
        "training_seconds": tallies.training_seconds,
        "parameters": sum(p.numel() for p in trainer.experiment.parameters()),
    }


def _milliseconds(durations: Durations) -> float | None:
    """The median; None: there were none."""
    return 1e3 * durations.median() if len(durations) else None


def _of_memory(trainer: Trainer) -> dict[str, Any]:
    """What a robot's memory takes, in bytes and in time for each control step."""
    model, seconds = trainer.experiment.model, trainer.tallies.memory_seconds
    return {
        "memory_state_bytes": model.encoder.state_bytes() if isinstance(model, ContextModel) else 0,
        "memory_step_milliseconds": _milliseconds(seconds),
    }


def _of_inference(trainer: Trainer) -> dict[str, Any]:
    """When the agent changed its mind about the task, and how right it was."""
    if trainer.experiment.config.task_id == "given":
        return {}
    tallies, same = trainer.tallies, trainer.sequence.identities
    return {
        "decisions": [asdict(decision) for decision in tallies.decisions],
        "task_inference": score_decisions(tallies.decisions, tallies.boundaries, same),
    }


def about(experiment: Experiment) -> dict[str, Any]:
    """What was run, and on what."""
    config = experiment.config
    return {
        "schema": SCHEMA,
        "method": config.method.name,
        "env": config.env.name,
        "memory": config.memory.name,
        "task_id": config.task_id,
        "preset": config.preset,
        "seed": config.seed,
        "device": str(experiment.device),
        "tasks": list(experiment.sequence.captions),
        "prediction_horizon": config.protocol.prediction_horizon,
        "machine": machine(experiment.device),
        **program(),
    }


def of_matrices(matrix: dict[str, list[list[float]]]) -> dict[str, Any]:
    """The matrices (N + 1) × N of every quantity of a `Score`, and what they come to.

    Means of success are over tasks in which there can be any, see `metrics.can_succeed`.
    """
    scores, success, distance = (
        matrix[name] for name in ("episode_return", "success", "goal_distance")
    )
    return {
        "scores": scores,
        "success": success,
        "goal_distance": distance,
        "prediction_error": matrix["prediction_error"],
        **_transfer(scores, ""),
        **_transfer(success, "success_", metrics.can_succeed(success, distance)),
    }


def score(result: Mapping[str, Any]) -> float:
    """What a sweep maximises: success at the end, in [0, 1], the mean over tasks that can succeed.

    Where none can, as none says how far from done it is, the mean return over all tasks.
    """
    told = metrics.can_succeed(result["success"], result["goal_distance"]).any()
    return result["success_average_performance" if told else "average_performance"]


def program() -> dict[str, Any]:
    """Commit and versions of what runs, as they were when a process first asked.

    Whoever begins a run asks: as it ends, hours later, the checkout may be another one.
    """
    return {"git": git_revision(), "versions": {**_versions()}}


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _transfer(
    matrix: list[list[float]], prefix: str, counted: metrics.Mask | None = None
) -> dict[str, float | None]:
    r = np.array(matrix)
    values = {
        "average_performance": metrics.average_performance(r, counted),
        "forgetting": metrics.forgetting(r, counted),
        "continual_world_forgetting": metrics.continual_world_forgetting(r, counted),
        "chaudhry_forgetting": metrics.chaudhry_forgetting(r, counted),
        "forward_transfer": metrics.zero_shot_forward_transfer(r, counted),
    }
    return {prefix + k: None if np.isnan(v) else float(v) for k, v in values.items()}


@cache
def git_revision() -> str:
    """Commit of the checkout this package runs from, "-dirty" if changed; else "unknown".

    Asked once: what is imported is of then, whatever becomes of the checkout.
    """
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def machine(device: torch.device) -> str:
    """Processor, threads and, if used, the GPU."""
    threads = torch.get_num_threads()
    cpu = f"{_processor()}, {counted(threads, 'thread')}"
    return f"{torch.cuda.get_device_name(device)}; {cpu}" if device.type == "cuda" else cpu


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
