"""A trained run's parts, with what it has learned, to be looked at and not gone on with."""

from pathlib import Path

from hypercrl.base.errors import UserError
from hypercrl.config.schema import TrainConfig
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.training.experiment import Experiment, build


def open_run(
    run: Path, device: str, checkpoint: str = LATEST, *, trust: bool = False
) -> Experiment:
    """The experiment that a run folder describes, its agent as the checkpoint has it.

    With `planner.dynamics=simulator` nothing was learned, and no checkpoint is read.

    Args:
        run: the folder, or the name of a demo.
        device: where the parts live, whatever the run was trained on.
        checkpoint: name of one in the run's checkpoints/.
        trust: import code that the run names even where a stranger wrote it.

    Raises:
        UserError: there is no such run, device or checkpoint, they do not fit one another, or
            nothing is learned yet.
    """
    folder = RunFolder.open(run)
    config = folder.config(TrainConfig, trust=trust)
    config.device = device
    experiment = build(config, trained=True)
    if experiment.plans_with_simulator and checkpoint != LATEST:
        raise UserError(f"{run} plans with the simulator and has no checkpoint {checkpoint!r}.")
    if not experiment.plans_with_simulator:
        with folder.foreign_state_refused(checkpoint):
            experiment.load_agent(folder.load_checkpoint(checkpoint))
        if not experiment.method.tasks:
            raise UserError(f"{run} has not begun its first task in checkpoint {checkpoint!r}.")
    return experiment
