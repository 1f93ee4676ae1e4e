"""A signal, wherever it comes, saves within two seconds, and what goes on ends the same."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from killed_runs import assert_same, learned, outcome, saved_and_killed
from tiny_runs import FEW_STEPS

from hypercrl.base import interrupts
from hypercrl.base.interrupts import Interruption
from hypercrl.cli import main
from hypercrl.methods.ewc import EWC
from hypercrl.replay.datasets import Episode, write_dataset
from hypercrl.report.page import run_status
from hypercrl.report.runs import load_run
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.evaluation import Episodes, Evaluator
from hypercrl.training.learner import Learner
from hypercrl.training.measurements import Measurements
from hypercrl.training.trainer import Trainer
from hypercrl_envs import make_task

pytestmark = pytest.mark.usefixtures("short_episodes_throughout")

SMALL = (
    *FEW_STEPS,
    "method=ewc",
    "protocol.replay_capacity=20",
    "protocol.checkpoint_every=1000",
    "seed=2",
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, short_episodes_throughout):
    path = tmp_path_factory.mktemp("runs") / "straight"
    main(["train", *SMALL, f"run_dir={path}"])
    return path


def send(number):
    os.kill(os.getpid(), number)


def at_call(monkeypatch, place, name, call, do):
    """Have `do` done as the function is called for the so-many-th time."""
    function, calls = getattr(place, name), iter(range(1, 10**9))

    def called(*arguments, **named):
        if next(calls) == call:
            do()
        return function(*arguments, **named)

    monkeypatch.setattr(place, name, called)


# In each task: 14 random steps, with the last one a round of six training steps, in the first task
# after an evaluation of the untrained agent on both; 16 planned steps, with two rounds more; and at
# the end an evaluation on both.
MOMENTS = {
    "a random step": (Trainer, "_act", 9),
    "the last random step": (Trainer, "_act", 14),
    "held-out episodes": (Evaluator, "_draw_heldout", 2),
    "the first evaluation": (Episodes, "move", 2),
    "the first training step": (Learner, "_step_on_slots", 1),
    "a training step": (Learner, "_step_on_slots", 9),
    "the last one of a round": (Learner, "_step_on_slots", 12),
    "a planned step": (Trainer, "_act", 20),
    "the end of a task": (EWC, "end_task", 1),
    "inside it": (EWC, "_consolidate", 1),
    "an evaluation after a task": (Evaluator, "prediction_error", 4),
    "the end of the last task": (EWC, "end_task", 2),
    "the last record": (Measurements, "log_forgetting", 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_saves_at_once_and_nothing_is_lost(
    moment, straight, tmp_path, monkeypatch, capsys
):
    number = interrupts.SIGNALS[list(MOMENTS).index(moment) % 3]
    run, sent = tmp_path / "run", []

    def interrupt():
        sent.append(time.monotonic())
        send(number)

    with monkeypatch.context() as patch:
        place, name, call = MOMENTS[moment]
        at_call(patch, place, name, call, interrupt)
        with pytest.raises(SystemExit) as ended:
            main(["train", *SMALL, f"run_dir={run}"])
    assert time.monotonic() - sent[0] < 2
    assert ended.value.code == 128 + number
    said = capsys.readouterr().err
    assert "hypercrl: interrupted; saved after " in said
    assert said.strip().endswith(f"continue with: hypercrl train resume={run}")
    saved = said.partition("interrupted; ")[2].partition("; continue")[0]
    assert run_status(load_run(run)) == f"not finished: {saved}"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    main(["train", f"resume={run}"])
    assert outcome(run) == outcome(straight)
    assert_same(learned(run), learned(straight))


def test_a_run_that_is_saved_at_every_pause_and_resumed_anywhere_ends_the_same(
    straight, tmp_path, monkeypatch
):
    """In training steps, in evaluations, in the random steps."""
    run = tmp_path / "run"
    saved = saved_and_killed(run, SMALL, (10, 80, 120, 250, 300), monkeypatch)
    assert {stage for _, _, stage in saved} == set(range(7))
    assert len(saved) > 300
    assert outcome(run) == outcome(straight)
    assert_same(learned(run), learned(straight))


def recorded(path, steps):
    """A dataset of one episode, which need not be a real one."""
    draws, task = np.random.default_rng(steps), make_task("push")
    episode = Episode(
        0.1 * draws.normal(size=(steps + 1, 10)).astype(np.float32),
        draws.uniform(-1, 1, (steps, 2)).astype(np.float32),
        draws.normal(size=steps),
        terminated=False,
        info={"success": np.zeros(steps + 1, bool)},
    )
    write_dataset(path, [episode], task.observation_space, task.action_space, None, {})
    return path


@pytest.mark.extra("minari")
def test_so_does_one_that_begins_its_tasks_with_recorded_episodes(tmp_path, monkeypatch):
    """The first task with more transitions than its random steps, the second one with fewer."""
    datasets = ",".join(str(recorded(tmp_path / f"{n}-v0", n)) for n in (20, 8))
    words = (*SMALL, f"replay.datasets=[{datasets}]")
    straight, run = tmp_path / "straight", tmp_path / "run"
    main(["train", *words, f"run_dir={straight}"])
    saved = saved_and_killed(run, words, (2, 20, 90, 150, 170, 200), monkeypatch)
    assert saved[1][:2] == (0, 14), "the random steps of the first task are all recorded ones"
    assert min(step for task, step, _ in saved if task == 1 and step) == 9
    assert outcome(run) == outcome(straight)
    assert_same(learned(run), learned(straight))


def test_what_is_saved_by_the_clock_has_not_diverged(tmp_path, monkeypatch, capsys):
    """The loss of a round's first training steps is large, or no number, before it ends."""
    monkeypatch.setattr(interrupts, "SAVE_SECONDS", 0.0)
    wild = ("method=finetune", "method.learning_rate=1e6", "method.clip_norm=1e30")
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        main(["train", *SMALL, *wild, f"run_dir={run}"])
    assert ended.value.code == 2
    assert "The model diverged" in capsys.readouterr().err
    # The first step's loss is of the weights before it; the second one's gives it away.
    assert len(load_checkpoint(run / "checkpoints/latest.safetensors")["learner"]["round"]) == 5


def test_an_ignored_signal_stays_ignored():
    """As nohup, or a shell's background, has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        watched = Interruption()
        with watched.noted():
            send(signal.SIGHUP)
            assert watched.number is None
            send(signal.SIGTERM)
            assert watched.number == signal.SIGTERM
            send(signal.SIGTERM)  # a scheduler may say it twice
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_ends_at_once():
    with Interruption().noted():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_the_clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watched = Interruption()
    now[0] += 299
    assert not watched.due
    now[0] += 2
    assert watched.due
    watched.saved()
    assert not watched.due


def test_a_signal_outside_of_training_is_not_held_back(tmp_path: Path, monkeypatch, capsys):
    """Nothing is to be saved while a run is built, or once it is over."""
    at_call(monkeypatch, RunFolder, "write_result", 1, lambda: send(signal.SIGINT))
    run = tmp_path / "run"
    small = ("protocol.planned_steps=5", "protocol.num_tasks=1", f"run_dir={run}")
    with pytest.raises(SystemExit) as ended:
        main(["train", *SMALL, *small])
    assert ended.value.code == 130
    assert not (run / "result.json").exists()
    main(["train", f"resume={run}"])
    assert (run / "result.json").exists()
