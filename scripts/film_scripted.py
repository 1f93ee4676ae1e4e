"""One episode of every task of a sequence, solved by its script, side by side in one mp4.

    python scripts/film_scripted.py SEQUENCE OUT.mp4 [--size 240] [--seed 0] [--every 1]

SEQUENCE is a file of configs/env without .yaml. For an agent's own episodes: hypercrl play.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from hypercrl.base.paths import configs_dir
from hypercrl.runs.video import VideoWriter, caption, tile
from hypercrl_envs import TaskSequence


def film(sequence: TaskSequence, video: Path, size: int, seed: int, every: int) -> list[bool]:
    """Write the video, a picture every so many steps, and say which tasks were solved."""
    tasks = [
        sequence.make(index, render_mode="rgb_array", width=size, height=size)
        for index in range(len(sequence))
    ]
    rates = {task.control_rate for task in tasks}
    last = max(task.max_episode_steps for task in tasks)
    states = [task.reset(seed=seed) for task in tasks]
    with VideoWriter(video, min(rates) / every) as writer:
        for step in range(last):
            for index, task in enumerate(tasks):
                if step < task.max_episode_steps:
                    obs, *_, info = task.step(task.scripted_action(states[index][0]))
                    states[index] = obs, info
            if step % every == 0 or step == last - 1:
                writer.add(
                    tile(
                        [
                            caption(
                                np.asarray(task.render()),
                                task.caption + ", success" * info["success"],
                                str(number),
                            )
                            for number, (task, (_, info)) in enumerate(
                                zip(tasks, states, strict=True), start=1
                            )
                        ]
                    )
                )
    for task in tasks:
        task.close()
    return [info["success"] for _, info in states]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sequence")
    parser.add_argument("video", type=Path)
    parser.add_argument("--size", type=int, default=240, help="pixels of a task's picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="steps between two pictures")
    arguments = parser.parse_args()
    file = configs_dir() / "env" / f"{arguments.sequence}.yaml"
    if not file.exists():
        parser.error(f"there is no sequence {arguments.sequence!r}; see: hypercrl tasks")
    config: Any = OmegaConf.to_container(OmegaConf.load(file))
    sequence = TaskSequence(config["tasks"], config["name"], config.get("pad", False))
    solved = film(sequence, arguments.video, arguments.size, arguments.seed, arguments.every)
    for text, done in zip(sequence.captions, solved, strict=True):
        print(f"{'solved' if done else 'NOT SOLVED'}  {text}")


if __name__ == "__main__":
    main()
