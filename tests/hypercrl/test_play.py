"""Replays: real time for every control rate, and an outcome that says only what is known."""

import itertools
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
from forked import ended, play_with_little_room
from linear_world import LinearWorld
from tiny_runs import FEW_STEPS

from hypercrl import load
from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.commands.play import _Stage
from hypercrl.runs.video import GREEN, VideoWriter, caption, framed, headed, tile
from hypercrl_envs.cheetah import CheetahTask

REACHER = "{task: gym, id: Reacher-v5, reward: 'hypercrl_envs.gym_rewards:reacher'}"

_DISTANCE = "distance: 'hypercrl_envs.gym_rewards:reacher_distance', solved_within: 0.05"
MEASURED = REACHER.replace("}", f", {_DISTANCE}}}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Half-cheetah at 20 Hz for 10 s, and Reacher at 50 Hz for 1 s, without a goal distance."""
    path = tmp_path_factory.mktemp("runs") / "rates"
    main(
        [
            "train",
            "preset=smoke",
            "method=finetune",
            "device=cpu",
            "dynamics.hidden=[8]",
            "env.pad=true",
            f"env.tasks=[{{task: cheetah, camera: side, width: 300}}, {REACHER}]",
            "planner={samples: 8, elites: 2, horizon: 2, iterations: 1}",
            "protocol={random_steps: 20, planned_steps: 10, updates: 2, final_episodes: 1}",
            "protocol.heldout_episodes=1",
            f"run_dir={path}",
        ]
    )
    return path


@pytest.mark.parametrize(
    ("settings", "rate", "seconds"),
    [(["task=1"], 20, 10), (["task=2"], 50, 1), (["tiled=true"], 50, 10)],
)
def test_videos_run_in_real_time(run, tmp_path, capsys, settings, rate, seconds):
    video = tmp_path / "out.mp4"
    main(["play", f"run={run}", f"video={video}", "episodes=1", "size=64", *settings])
    meta = imageio.immeta(video, plugin="FFMPEG")
    assert meta["fps"] == rate
    assert meta["duration"] == pytest.approx(seconds, abs=0.1)


def test_an_episode_is_played_to_its_end_where_the_last_picture_comes_before(
    run, capsys, monkeypatch
):
    """33 steps at 20 Hz are 82.5 pictures at 50 Hz."""
    monkeypatch.setattr(CheetahTask, "max_episode_steps", 33)
    main(["play", f"run={run}", "episodes=1", "tiled=true"])
    cheetah, reacher = capsys.readouterr().out.splitlines()
    assert " in 33 steps, " in cheetah
    assert reacher.endswith(" in 50 steps")


def test_outcomes_say_only_what_is_known(run, capsys):
    main(["play", f"run={run}", "episodes=1", "tiled=true"])
    cheetah, reacher = capsys.readouterr().out.splitlines()
    assert re.search(r" [\d.]+ m/s from the goal$", cheetah)
    assert reacher.startswith("task 2/2: Reacher-v5, episode 1: return -")
    assert reacher.endswith(" in 50 steps")


@pytest.mark.parametrize("word", ["size=200", "camera=top", "title=all"])
def test_what_is_of_pictures_needs_a_video(run, capsys, word):
    with pytest.raises(SystemExit) as end:
        main(["play", f"run={run}", "episodes=1", word])
    assert end.value.code == 2
    said = f"{word.partition('=')[0]}= is of the pictures of a video, and none is drawn: give video"
    assert said in capsys.readouterr().err


def test_one_task_and_all_of_them_are_not_shown_at_once(run, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["play", f"run={run}", "tiled=true", "task=2"])
    assert ended.value.code == 2
    assert "tiled=true shows all tasks and task= one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tiled=true", "tasks=[1,3]"], "task=3: this run has the tasks 1 to 2"),
        (["tiled=true", "tasks=[2,2]"], "tasks=[2, 2] is to name one task at least, and"),
        (["tiled=true", "tasks=[]"], "tasks=[] is to name one task at least"),
        (["tasks=[1,2]"], "tasks= is of tasks side by side: give tiled=true beside it"),
    ],
)
def test_tasks_to_show_are_those_of_the_run(run, capsys, settings, message):
    with pytest.raises(SystemExit) as ended:
        main(["play", f"run={run}", *settings])
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_some_tasks_are_shown_in_the_order_given_below_a_title(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(CheetahTask, "max_episode_steps", 20)
    video = tmp_path / "out.mp4"
    shown = ["tiled=true", "tasks=[2,1]", "size=64", "title=Both of them", f"video={video}"]
    main(["play", f"run={run}", "episodes=1", *shown])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["2/2:", "1/2:"]
    height, width = imageio.imread(video).shape[1:3]
    assert (height > 64, width) == (True, 2 * 64)


@pytest.mark.parametrize("size", [240, 480, 1000])
def test_the_words_above_a_solved_task_are_whole(size):
    black = np.zeros((size, size, 3), np.uint8)
    task: Any = SimpleNamespace(render=lambda: black, caption="push", width=size, height=size)
    agent: Any = None
    stage = _Stage(task, agent, "task 1/3: push 500 | 500 kg/m³", "1")
    stage.info = {"success": True}
    picture = stage.picture(0)
    words = caption(black, f"{stage.label}, episode 1, step 0, success", stage.short)
    white = (words == 255).all(-1)
    assert white.sum() > 10
    assert (picture[white] == 255).all()
    assert (picture[-1] == GREEN).all()


@pytest.mark.parametrize(
    ("total", "steps", "says"),
    [(-0.04, 2, "return 0.0 in 2 steps"), (-0.06, 1, "return -0.1 in 1 step,")],
)
def test_an_outcome_has_no_negative_zero_and_counts_as_people_do(total, steps, says):
    nothing: Any = SimpleNamespace(goal_unit="m")
    stage = _Stage(nothing, nothing, "task 1/1", "1", total=total, steps=steps)
    stage.info = {"success": True, "goal_distance": 0.25}
    assert f"{stage.outcome()}".startswith(says)
    assert stage.outcome().endswith(", success, 0.25 m from the goal")


def test_what_is_solved_is_framed_and_counted():
    black = np.zeros((30, 200, 3), np.uint8)
    green = framed(black)
    assert (green[0] == GREEN).all()
    assert (green[:, -1] == GREEN).all()
    np.testing.assert_array_equal(green[4:-4, 4:-4], black[4:-4, 4:-4])
    beside, below = (headed(black, title, 1, 2) for title in ("A", "A " * 40))
    assert below.shape[0] > beside.shape[0] > 30
    assert beside.shape[0] % 2 == below.shape[0] % 2 == 0
    np.testing.assert_array_equal(beside[-30:], black)
    strip = beside[:-30].max(axis=2)
    for letters in range(30):  # as high, however many are solved
        few, many = (headed(black, "A" * letters, solved, 25) for solved in (1, 25))
        assert few.shape == many.shape
    assert (strip[:, :20] > 128).any()
    assert (strip[:, -20:] > 128).any()


@pytest.mark.parametrize(("task", "unit"), [("{task: push}", " m"), (MEASURED, "")])
def test_a_distance_has_the_unit_of_its_task(tmp_path, capsys, task, unit):
    short = ["protocol.planned_steps=0", "protocol.final_episodes=1", "dynamics.hidden=[8]"]
    smoke = ["preset=smoke", "method=finetune", "device=cpu", *short]
    main(["train", *smoke, f"env.tasks=[{task}]", f"run_dir={tmp_path / 'run'}"])
    capsys.readouterr()
    main(["play", f"run={tmp_path / 'run'}", "episodes=1"])
    assert re.search(rf", 0\.\d+{unit} from the goal$", capsys.readouterr().out.strip())


def test_in_realtime_a_second_takes_a_second_and_changes_nothing(run, capsys):
    main(["play", f"run={run}", "episodes=1", "task=2"])
    (plain,) = capsys.readouterr().out.splitlines()
    started = time.perf_counter()
    main(["play", f"run={run}", "episodes=1", "task=2", "realtime=true"])
    assert time.perf_counter() - started > 0.98
    outcome, latencies = capsys.readouterr().out.splitlines()
    assert outcome == plain
    assert re.search(r"deadlines met by 50 plans: 10 Hz \d+ \(\d+%\)", latencies)


def test_pictures_of_odd_sizes_are_whole(tmp_path, caplog, capfd):
    frame = np.full((65, 67, 3), 200, np.uint8)
    with VideoWriter(tmp_path / "odd.mp4", 10) as writer:
        writer.add(frame)
    (read,) = imageio.imiter(tmp_path / "odd.mp4", plugin="FFMPEG")
    assert read.shape == (66, 68, 3)
    assert np.abs(read.astype(int) - 200).max() < 4
    assert not caplog.records
    assert "resizing" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3), (20, 4, 5)]
)
def test_tiles_are_a_row_or_about_a_square(count, rows, columns):
    frames = [np.full((2, 4, 3), index + 1, np.uint8) for index in range(count)]
    tiled = tile(frames)
    assert tiled.shape == (2 * rows, 4 * columns, 3)
    shown = tiled[::2, ::4, 0].ravel()
    assert shown.tolist() == [*range(1, count + 1), *[0] * (rows * columns - count)]


def test_letters_of_a_long_caption_stay_as_large_as_those_of_a_short_one():
    frame = np.zeros((480, 160, 3), np.uint8)

    def heights(text: str) -> list[int]:
        """Of its lines, in pixels."""
        ink = caption(frame, text, "").max(axis=(1, 2)) > 128
        edges = np.flatnonzero(np.diff(np.concatenate([[0], ink, [0]])))
        return (edges[1::2] - edges[::2]).tolist()

    short = heights("Task, by")
    long = heights(" ".join(["Task, by"] * 10))
    assert (len(short), len(long) > 2) == (1, True)
    assert set(long) == set(short)


def test_a_caption_that_would_hide_the_picture_gives_way_to_the_short_one():
    frame = np.full((64, 64, 3), 90, np.uint8)
    long = caption(frame, "Task, by and by " * 10, "7")
    np.testing.assert_array_equal(long, caption(frame, "7", "7"))
    np.testing.assert_array_equal(long[24:], frame[24:])


def test_a_video_that_cannot_be_written_whole_is_not_left(run, tmp_path):
    """A file grows to 1000 bytes, as on a disk that is full: ffmpeg says so by its exit code."""
    words = f"run={run}", "task=2", "episodes=1", "size=64", f"video={tmp_path / 'out.mp4'}"
    code, said = ended(play_with_little_room, 1000, words)
    assert code == 2
    assert "out.mp4 could not be written whole, and nothing is left of it" in said
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_brought_to_the_size_and_what_it_raises_is_one_message(
    run, tmp_path, capsys, monkeypatch
):
    sizes = itertools.cycle([(30, 40), (50, 20)])
    monkeypatch.setattr(CheetahTask, "render", lambda _: np.ones((*next(sizes), 3), np.uint8))
    video = tmp_path / "out.mp4"
    main(["play", f"run={run}", f"video={video}", "episodes=1", "size=64", "task=1"])
    assert imageio.immeta(video, plugin="FFMPEG")["size"] == (64, 64)
    capsys.readouterr()

    def fails(_: CheetahTask) -> None:
        raise KeyError("lamp")

    monkeypatch.setattr(CheetahTask, "render", fails)
    with pytest.raises(SystemExit, match="2"):
        main(["play", f"run={run}", f"video={tmp_path / '2.mp4'}", "episodes=1", "size=64"])
    assert "cheetah, render raised KeyError: 'lamp'" in capsys.readouterr().err
    assert not (tmp_path / "2.mp4").exists()


class Unlit(LinearWorld):
    """Nobody can look at it: it knows no render_mode."""

    def __init__(self):
        super().__init__()


gymnasium.register("Unlit-v0", Unlit, max_episode_steps=10)
gymnasium.register("Undrawn-v0", LinearWorld, max_episode_steps=10)  # its render is not written


@pytest.fixture(scope="module")
def dark(tmp_path_factory):
    """Two environments without pictures."""
    path = tmp_path_factory.mktemp("runs") / "dark"
    tasks = ", ".join(f"{{task: gym, id: {name}-v0}}" for name in ("Unlit", "Undrawn"))
    main(["train", *FEW_STEPS, "method=finetune", f"env.tasks=[{tasks}]", f"run_dir={path}"])
    return path


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (1, "Unlit-v0 cannot be made with render_mode='rgb_array': it raised TypeError: "),
        (2, "Undrawn-v0, render raised NotImplementedError"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render.mode")
def test_what_cannot_be_drawn_is_said_before_it_is_played_and_how_to_play_it(
    dark, tmp_path, capsys, task, says
):
    words = "play", f"run={dark}", f"task={task}", "episodes=1"
    with pytest.raises(SystemExit) as end:
        main([*words, f"video={tmp_path / 'nosuch/dir/x.mp4'}"])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert "episode" not in printed.out
    (line,) = [each for each in printed.err.splitlines() if each.startswith("hypercrl:")]
    assert line.startswith(f"hypercrl: no video was written: {says}")
    assert line.endswith(". To play without pictures: video=null")
    assert not list(tmp_path.iterdir())
    main([*words, "video=null"])
    assert "episode 1: return " in capsys.readouterr().out


def test_a_program_is_told_that_a_task_cannot_be_made_to_draw(dark):
    agent = load(dark, task=1)
    assert agent.make_env().reset(seed=0)[0].shape == (agent.observation_size,)
    with pytest.raises(UserError, match="Unlit-v0 cannot be made with render_mode='rgb_array'"):
        agent.make_env("rgb_array")


def test_no_picture_is_said_at_once(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(CheetahTask, "render", lambda _: None)
    monkeypatch.setattr(CheetahTask, "step", None)  # it does not come to that
    with pytest.raises(SystemExit, match="2"):
        main(["play", f"run={run}", "tiled=true", f"video={tmp_path / 'out.mp4'}"])
    said = capsys.readouterr().err
    assert "gave no picture: render returned NoneType, and is to return uint8 [height" in said
    assert "To play without pictures: video=null" in said


def test_a_folder_of_a_video_is_made_or_refused_at_once(run, tmp_path, capsys, monkeypatch):
    words = "play", f"run={run}", "episodes=1", "size=64", "task=2"
    main([*words, f"video={tmp_path / 'nosuch/dir/x.mp4'}"])
    assert imageio.immeta(tmp_path / "nosuch/dir/x.mp4", plugin="FFMPEG")["size"] == (64, 64)
    monkeypatch.setattr("hypercrl.commands.play.open_run", None)  # it does not come to that
    (tmp_path / "file").touch()
    for place in (tmp_path / "file/x.mp4", Path("/proc/nosuch/x.mp4")):
        with pytest.raises(SystemExit, match="2"):
            main([*words, f"video={place}"])
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"hypercrl: cannot write to {place}: ")
        assert "ame another one." in line or "Name a place that can be used." in line
