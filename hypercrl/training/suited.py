"""Whether settings suit the tasks: what can only be said once these have been made."""

from hypercrl.base.errors import UserError
from hypercrl.config.schema import TrainConfig
from hypercrl_envs import TaskSequence, close


def check_windows(config: TrainConfig, sequence: TaskSequence) -> None:
    """Raise UserError where there may be no window for a training step."""
    length, protocol = config.context.length, config.protocol
    what = f"a window has context.burn_in + context.horizon = {length} transitions"
    for steps, caption in zip(sequence.episode_steps, sequence.captions, strict=True):
        if steps < length:
            raise UserError(f"{what}, an episode of {caption} only {steps}.")
    robots = protocol.robots
    each = f" for each of {robots} robots" if robots > 1 else ""
    if protocol.random_steps < robots * length:
        raise UserError(f"{what}; give protocol.random_steps that many at least{each}.")
    if config.task_id == "inferred" and protocol.random_steps < 2 * length - 1:
        raise UserError(
            f"{what}, and with task_id=inferred a task may begin in the midst of an episode; give "
            f"protocol.random_steps={2 * length - 1} at least."
        )
    if protocol.replay_capacity < robots * 2 * length:
        raise UserError(f"{what}; give protocol.replay_capacity room for two at least{each}.")


def check_heldout(config: TrainConfig, sequence: TaskSequence) -> None:
    """Raise UserError where no held-out window fits into an episode."""
    protocol = config.protocol
    needed = protocol.heldout_from + protocol.prediction_horizon
    for steps, caption in zip(sequence.episode_steps, sequence.captions, strict=True):
        if steps < needed:
            raise UserError(
                f"protocol.heldout_from + protocol.prediction_horizon = {needed}, but an episode "
                f"of {caption} has {steps} steps."
            )


def check_simulators(sequence: TaskSequence) -> None:
    """Raise UserError where a task cannot be rolled out by its simulator."""
    for index, caption in enumerate(sequence.captions):
        task = sequence.make(index)
        close(task)
        if not task.restores_at_once:
            raise UserError(
                f"planner.dynamics=simulator: task {index + 1} ({caption}) cannot be rolled out by "
                "its simulator. Only push, slide, door, workbench and cheetah in MuJoCo return to "
                "a state at once; leave the others out, or use planner.dynamics=model."
            )
