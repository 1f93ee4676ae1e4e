"""The ordered tasks of one continual-learning experiment."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypercrl_envs.closing import close
from hypercrl_envs.padded import PaddedTask
from hypercrl_envs.parameters import parameters_of
from hypercrl_envs.registry import PICTURE, TASKS, find_task, make_task
from hypercrl_envs.state_trial import try_state
from hypercrl_envs.task import Task


class TaskSequence:
    """Tasks in the order in which an agent meets them, made on demand.

    Attributes:
        name: of the sequence.
        specs: one mapping of `make_task` arguments per task.
        captions: short text per task, of those with the same one with what else differs.
        episode_steps: steps of an episode, per task.
        observation_size, action_size: O and A, shared by all tasks that `make` returns.
    """

    def __init__(self, specs: Sequence[Mapping[str, Any]], name: str, pad: bool = False) -> None:
        """
        Args:
            specs: such as [{"task": "push", "densities": [100, 500]}, ...].
            name: of the sequence, used in messages.
            pad: bring tasks of different sizes to the largest: observations end in zeros, and
                actions that a task does not have do nothing.

        Raises:
            ValueError: no tasks, a spec that makes no task, or, without `pad`, tasks whose
                observations or actions differ in size: one dynamics model cannot serve them all.
            TaskFault: a task that cannot begin or be closed, or whose functions do not do what
                they are to.
        """
        if not specs:
            raise ValueError(f"sequence {name!r} has no tasks")
        for index, spec in enumerate(specs):
            if not isinstance(spec, Mapping) or not all(isinstance(key, str) for key in spec):
                raise ValueError(
                    f"sequence {name!r}, task {index + 1}: a task is a mapping such as "
                    f"{{task: push, densities: [100, 500]}}, not {spec!r}"
                )
        self.name = name
        self.specs: tuple[dict[str, Any], ...] = tuple(dict(spec) for spec in specs)
        captions: list[str] = []
        steps: list[int] = []
        sizes: list[tuple[int, int]] = []
        for index in range(len(self.specs)):
            task = self._make(index, None)
            captions.append(task.caption)
            steps.append(task.max_episode_steps)
            sizes.append(_sizes(task))
            tasks_agree = pad or sizes[index] == sizes[0]
            if tasks_agree:
                task.try_out()
                self._try_state(index, task)
            close(task)
            if not tasks_agree:
                raise ValueError(
                    f"sequence {name!r}: task {index + 1} ({captions[index]}) has "
                    f"{sizes[index][0]} observations and {sizes[index][1]} actions, task 1 "
                    f"({captions[0]}) has {sizes[0][0]} and {sizes[0][1]}; one model cannot serve "
                    "both unless the sequence says pad: true"
                )
        self.captions = told_apart(captions, self.specs)
        self.episode_steps = tuple(steps)
        self.observation_size, self.action_size = map(max, zip(*sizes, strict=True))

    def __len__(self) -> int:
        return len(self.specs)

    @property
    def learned(self) -> list[tuple[str, ...]]:
        """Of each task what the dynamics model learns beside the motion: "reward", "ends"."""
        return [find_task(spec["task"]).learned_parts(spec) for spec in self.specs]

    @property
    def identities(self) -> list[int]:
        """Of each task the number (from 0) of the first that is the same one, however both are
        written: what is left out is its default, and how pictures are taken is no matter."""
        whole = [spelt_out(spec) for spec in self.specs]
        return [whole.index(each) for each in whole]

    def make(self, index: int, render_mode: str | None = None, **picture: Any) -> Task:
        """A fresh task number `index` (from 0).

        Args:
            render_mode: "rgb_array" to use `render`, else None.
            picture: width and height in pixels, camera; as the task's class takes them. What is
                left out is as the sequence says.

        Raises:
            IndexError: there is no such task.
            ValueError: its spec is wrong; the message names sequence and task, from 1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {self.name!r} has tasks 0 to {len(self) - 1}, not {index}")
        task = self._make(index, render_mode, **picture)
        task.caption = self.captions[index]
        if _sizes(task) == (self.observation_size, self.action_size):
            return task
        return PaddedTask(task, self.observation_size, self.action_size)

    def _try_state(self, index: int, task: Task) -> None:
        """See `try_state`; the program's own tasks are tried by its tests."""
        if self.specs[index]["task"] not in TASKS:
            copy = self._make(index, None)
            try_state(task, copy)
            close(copy)

    def _make(self, index: int, render_mode: str | None, **picture: Any) -> Task:
        spec = self.specs[index]
        if "task" not in spec:
            raise ValueError(f"sequence {self.name!r}, task {index + 1}: no key 'task' in {spec}")
        if "render_mode" in spec:
            raise ValueError(
                f"sequence {self.name!r}, task {index + 1}: render_mode is no part of a task; "
                "pass it to make()"
            )
        try:
            return make_task(render_mode=render_mode, **{**spec, **picture})
        except ValueError as error:
            raise ValueError(f"sequence {self.name!r}, task {index + 1}: {error}") from error


def _sizes(task: Task) -> tuple[int, int]:
    return task.observation_space.shape[0], task.action_space.shape[0]


def spelt_out(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a task but those of pictures: two specs of one task come to the same.

    Args:
        spec: arguments of `make_task`.
    """
    accepted = parameters_of(find_task(spec["task"]))
    values = {**{name: parameter.default for name, parameter in accepted.items()}, **spec}
    return {name: _listed(value) for name, value in values.items() if name not in PICTURE}


def _listed(value: Any) -> Any:
    """The same with lists for tuples, as files have them."""
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def told_apart(captions: Sequence[str], specs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Captions, and where several are the same, behind them the parameters that differ.

    Tasks that are the same in all of them keep the same caption.
    """
    told = list(captions)
    for caption in set(captions):
        same = [index for index, other in enumerate(captions) if other == caption]
        flat = [dict(_flat(specs[index])) for index in same]
        differ = [
            key
            for key in dict.fromkeys(itertools.chain(*flat))
            if any(other.get(key) != flat[0].get(key) for other in flat)
        ]
        for index, values in zip(same, flat, strict=True):
            added = [f"{key} {values[key]}" for key in differ if key in values]
            told[index] = ", ".join([caption, *added])
    return tuple(told)


def _flat(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Parameters, those inside of another one like options by their own names."""
    for key, value in spec.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield key, value
