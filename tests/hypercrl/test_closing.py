"""A `close` of somebody else's task that raises: one message, and nothing is lost."""

import importlib
import json

import numpy as np
import pytest
import torch

from hypercrl.cli import main
from hypercrl_envs import LocalFleet, SpreadFleet, TaskFault, TaskSequence, close, closed
from hypercrl_envs.double_integrator import DoubleIntegratorTask

SMALL = (
    "preset=smoke",
    "device=cpu",
    "method=single",
    "dynamics.hidden=[8]",
    "planner={samples: 4, horizon: 2, elites: 2}",
    "protocol={random_steps: 20, planned_steps: 10, update_every: 5, updates: 2}",
    "protocol={prediction_horizon: 3, final_episodes: 1, eval_every: 100}",
)


class Stubborn(DoubleIntegratorTask):
    """Those that were made are counted; from that number on they cannot be closed."""

    from_number = 0
    made = 0
    open: set["Stubborn"] = set()  # noqa: RUF012

    def __init__(self, **settings):
        super().__init__(**settings)
        self.number = Stubborn.made
        Stubborn.made += 1
        Stubborn.open.add(self)

    def close(self):
        Stubborn.open.discard(self)
        super().close()
        if self.number >= Stubborn.from_number:
            raise OSError(f"robot {self.number}: the port is gone")


class Leaving(Stubborn):
    """It ends the program instead."""

    def close(self):
        raise SystemExit(3)


@pytest.fixture(autouse=True)
def fresh(monkeypatch, short_episodes):
    monkeypatch.setattr(Stubborn, "from_number", 0)
    monkeypatch.setattr(Stubborn, "made", 0)
    monkeypatch.setattr(Stubborn, "open", set())


def message(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("hypercrl:") == 1
    assert "Traceback" not in said
    return said


def tasks(count, kind="Stubborn"):
    each = ", ".join(f"{{task: '{__name__}:{kind}', mass: {1 + i}}}" for i in range(count))
    return f"env.tasks=[{each}]"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("Stubborn", "raised OSError: robot 1: the port is gone (test_closing.py, line"),
        ("Leaving", "exit(3)"),
    ],
)
def test_it_is_found_before_anything_is_trained(kind, says, tmp_path, capsys):
    said = message(capsys, "train", *SMALL, tasks(1, kind), f"run_dir={tmp_path / 'run'}")
    assert "close" in said
    assert says in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["none", "td"])
def test_one_that_raises_later_costs_nothing(value, tmp_path, capsys, monkeypatch):
    words = [*SMALL, tasks(2), f"value.kind={value}", "protocol.num_tasks=2"]
    monkeypatch.setattr(Stubborn, "from_number", 10**9)
    main(["train", *words, f"run_dir={tmp_path / 'straight'}"])
    assert not Stubborn.open
    straight = json.loads((tmp_path / "straight/result.json").read_text())
    monkeypatch.setattr(Stubborn, "made", 0)
    monkeypatch.setattr(Stubborn, "from_number", 4)  # each of both was tried, and a copy of it
    run = tmp_path / "run"
    said = message(capsys, "train", *words, f"run_dir={run}")
    assert "the port is gone" in said
    assert f"after task 1. Last good checkpoint: {run}/checkpoints/latest" in said
    assert not Stubborn.open
    assert (run / "checkpoints/after_task_1.safetensors").exists()
    monkeypatch.setattr(Stubborn, "made", 0)
    again = "2" if value == "none" else "1"  # whose value a resumed run has open
    assert f"after task {again}. Last good" in message(capsys, "train", f"resume={run}")
    monkeypatch.setattr(Stubborn, "from_number", 10**9)
    main(["train", f"resume={run}"])
    got = json.loads((run / "result.json").read_text())
    assert got["scores"] == straight["scores"]


def test_one_that_raises_at_the_very_end_costs_nothing_either(tmp_path, capsys, monkeypatch):
    """Those of evaluations, which are open until the run has ended."""
    monkeypatch.setattr(Stubborn, "from_number", 4)  # a try, a copy, the robot, its functions
    run = tmp_path / "run"
    said = message(capsys, "train", *SMALL, tasks(1), "protocol.num_tasks=1", f"run_dir={run}")
    assert f"after task 1. Last good checkpoint: {run}/checkpoints/latest" in said
    assert not Stubborn.open
    assert not (run / "result.json").exists()
    monkeypatch.setattr(Stubborn, "made", 0)
    main(["train", f"resume={run}"])
    assert (run / "result.json").exists()


def test_one_that_raises_after_a_film_leaves_the_film(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Stubborn, "from_number", 10**9)
    main(["train", *SMALL, tasks(2), "protocol.num_tasks=2", f"run_dir={tmp_path / 'run'}"])
    monkeypatch.setattr(Stubborn, "made", 0)
    monkeypatch.setattr(Stubborn, "from_number", 4)
    video = tmp_path / "film.mp4"
    words = ("tiled=true", "episodes=1", "size=64", f"video={video}")
    assert "the port is gone" in message(capsys, "play", f"run={tmp_path / 'run'}", *words)
    assert video.stat().st_size
    assert not Stubborn.open


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            ("format=minari", "episodes=2", "out=two-v0"), marks=pytest.mark.extra("minari")
        ),
        pytest.param(
            ("format=minari", "source=replay", "out=two-v0"), marks=pytest.mark.extra("minari")
        ),
        ("format=torch_export", "part=dynamics", "out=two.pt2"),
        ("format=torch_export", "part=act", "out=two.pt2"),
    ],
    ids=["rollout", "replay", "dynamics", "act"],
)
def test_one_that_raises_after_an_export_leaves_the_export(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Stubborn, "from_number", 10**9)
    monkeypatch.chdir(tmp_path)
    main(["train", *SMALL, tasks(1), "protocol.num_tasks=1", "run_dir=run"])
    monkeypatch.setattr(Stubborn, "made", 0)
    monkeypatch.setattr(Stubborn, "from_number", 2)  # a try and a copy of it are closed
    assert "the port is gone" in message(capsys, "export", "run=run", *words)
    left = tmp_path / words[-1].removeprefix("out=")
    straight = tmp_path / "straight" / left.name
    straight.parent.mkdir()
    monkeypatch.setattr(Stubborn, "from_number", 10**9)
    main(["export", "run=run", *words[:-1], f"out={straight}"])
    if left.suffix:
        one, other = (torch.export.load(path).state_dict for path in (left, straight))
        torch.testing.assert_close(dict(one), dict(other), rtol=0, atol=0)
    else:
        minari = importlib.import_module("minari")
        one, other = (
            list(minari.MinariDataset(path / "data").iterate_episodes())
            for path in (left, straight)
        )
        assert len(one) == len(other) > 0
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours.observations, theirs.observations)
            np.testing.assert_array_equal(ours.rewards, theirs.rewards)
    assert not Stubborn.open


def test_all_are_closed_and_the_first_fault_is_told(monkeypatch):
    monkeypatch.setattr(Stubborn, "from_number", 4)  # two tries, and two robots of three
    sequence = TaskSequence([{"task": f"{__name__}:Stubborn"}], "mine")
    fleet = LocalFleet(sequence)
    fleet.make(0, 3)
    fleet.task(0)
    with pytest.raises(TaskFault, match=r"double integrator.*close raised OSError: robot 4"):
        fleet.close()
    assert not Stubborn.open
    fleet.close()


def test_what_ended_a_block_is_told_before_what_closing_raises(monkeypatch):
    monkeypatch.setattr(Stubborn, "from_number", 2)
    fleet = LocalFleet(TaskSequence([{"task": f"{__name__}:Stubborn"}], "mine"))
    fleet.make(0, 1)
    with pytest.raises(KeyboardInterrupt), closed(fleet):
        raise KeyboardInterrupt
    assert not Stubborn.open
    with pytest.raises(TaskFault), closed(fleet):
        fleet.make(0, 1)


def test_robots_of_other_processes_are_told_of_too(monkeypatch):
    monkeypatch.setattr(Stubborn, "from_number", 2)
    sequence = TaskSequence([{"task": f"{__name__}:Stubborn"}], "mine")
    fleet = SpreadFleet(sequence, 1)
    try:
        robots = fleet.make(0, 2)
        with pytest.raises(TaskFault, match="the port is gone"):
            fleet.dismiss(robots)
        assert fleet.make(0, 1) == [2]
    finally:
        fleet.close()


def test_a_task_that_is_not_whole_is_closed_by_its_class():
    class Halfway(Stubborn):
        def __init__(self):
            pass

        def close(self):
            raise ValueError("nothing to close")

    with pytest.raises(TaskFault, match="close raised ValueError: nothing to close"):
        close(Halfway())
