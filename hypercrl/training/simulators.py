"""In how many processes the robots of a run are stepped."""

import warnings

import torch

from hypercrl.base.cores import cores
from hypercrl.config.schema import TrainConfig
from hypercrl.training.footprint import free_bytes

MOST = 16
"""Processes that are begun unless it is said: with more, fifty robots of an evaluation would wait
for their plans."""

EACH = 300 * 2**20
"""Bytes of memory that one takes, most of it torch's."""


def processes(config: TrainConfig, device: torch.device, robots: int) -> int:
    """As many as `simulators` says, or as suit the machine; never more than there are robots.

    By default one on a CPU, where plans take longer than simulators. With a GPU as many as the run
    has threads, but no more than it has cores, than fit into half of the free memory, and `MOST`.

    Args:
        robots: that are ever stepped at the same time.

    Warns:
        UserWarning: more are asked for than this process has cores.
    """
    if config.simulators is not None:
        count, own = min(config.simulators, robots), cores()
        if count > own:
            warnings.warn(
                f"simulators={config.simulators} processes share {own} "
                f"core{'s' if own > 1 else ''} and wait for one another: results are the same, "
                f"and simulators={own} is quicker",
                stacklevel=2,
            )
        return count
    if device.type != "cuda":
        return 1
    free = free_bytes(torch.device("cpu"))
    fit = MOST if free is None else free // 2 // EACH
    return max(1, min(robots, torch.get_num_threads(), cores(), fit, MOST))
