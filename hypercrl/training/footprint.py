"""What a run needs of memory at least, and what there is, looked at before anything is built."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from omegaconf import DictConfig, OmegaConf

from hypercrl.agent.value import NETWORKS as VALUE_NETWORKS
from hypercrl.base.errors import GPUUnavailable, UserError
from hypercrl.base.sizes import FLOAT, TRAINED
from hypercrl.config.schema import TrainConfig, learned_tasks
from hypercrl_envs import TaskFault, TaskSequence

ON_A_GPU = 2**30
"""Bytes that a process holds of a GPU beside what it computes with: context, kernels, libraries."""


def check_fits(config: TrainConfig, obs_size: int, action_size: int, device: torch.device) -> None:
    """Refuse a run of which one part alone is larger than the memory that is free.

    Raises:
        UserError: names the part, its settings, and both sizes; GPUUnavailable where a GPU has as
            much, but others use it.
    """
    free = free_bytes(device)
    for settings, needed in least_bytes(config, obs_size, action_size).items():
        if free is None or needed <= free:
            continue
        what = f"{settings}: this run needs {_gib(needed)} of memory at least, and {device} has"
        if device.type == "cuda" and needed <= (all_of_it := torch.cuda.mem_get_info(device)[1]):
            raise GPUUnavailable(
                f"{what} {_gib(free)} of its {_gib(all_of_it)} free. End other programs on it, "
                "or give less."
            )
        raise UserError(f"{what} {_gib(free)} free. Give less.")


def least_bytes(config: TrainConfig, obs_size: int, action_size: int) -> dict[str, int]:
    """Settings → bytes of what they ask for; lower bounds, so that nothing that fits is refused."""
    hidden, method, planner = config.dynamics.hidden, config.method, config.planner
    outputs = (1 + config.dynamics.probabilistic) * obs_size
    widths = [obs_size + action_size, *hidden, outputs]
    needs = method.least_bytes(sum((inputs + 1) * outputs for inputs, outputs in pairwise(widths)))
    transition = 2 * obs_size + action_size
    protocol, context, memory = config.protocol, config.context, config.memory
    members = method.members
    of_members = members if members > 1 else 0  # of the bootstrap
    batch = "protocol.batch_size" + (" and method.members" if of_members else "")
    imagined = planner.horizon * action_size + obs_size
    needs |= {
        "protocol.replay_capacity": FLOAT * protocol.replay_capacity * (transition + of_members),
        batch: FLOAT * protocol.batch_size * members * sum(widths),
        "planner.samples and planner.horizon": FLOAT * planner.samples * members * imagined,
    }
    if config.value.kind != "none":
        widths = [obs_size, *config.value.hidden, 1]
        layers = sum((inputs + 1) * outputs for inputs, outputs in pairwise(widths))
        needs["value.hidden"] = VALUE_NETWORKS * TRAINED * layers
    if memory.name != "none":
        windows = context.windows * context.length
        needs |= {
            "memory.width and memory.layers": TRAINED * memory.layers * memory.width**2,
            "context.windows and context.horizon": FLOAT * windows * memory.width,
            **memory.least_bytes(),
        }
    return needs


def gpu_bytes(config: DictConfig) -> int:
    """About what a training run takes of a GPU in all, so that several share one.

    Sizes of tasks that cannot be made are left out: the run itself says what is wrong.
    """
    settings = cast(TrainConfig, OmegaConf.to_object(config))
    sizes = 0, 0
    with suppress(ValueError, TaskFault):
        tasks = learned_tasks(settings)
        sequence = TaskSequence(tasks, name=settings.env.name, pad=settings.env.pad)
        sizes = sequence.observation_size, sequence.action_size
    return ON_A_GPU + 2 * sum(least_bytes(settings, *sizes).values())


def free_bytes(device: torch.device) -> int | None:
    """Memory that a process may still take; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if not info.exists():
        return None
    lines = (line.split() for line in info.read_text().splitlines())
    found = {name: 1024 * int(value) for name, value, *_ in lines}
    return found["MemAvailable:"] + found["SwapFree:"] if "MemAvailable:" in found else None


def _gib(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
