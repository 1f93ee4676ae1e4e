"""What a run goes on from when its last checkpoint is gone, damaged or another run's."""

import json
import os
import shutil

import pytest
import torch
from forked import ended as process_ended
from forked import train_with_little_room
from tiny_runs import FEW_STEPS

from hypercrl.base.random_streams import RandomStreams
from hypercrl.cli import main
from hypercrl.runs.checkpoint import load_checkpoint, save_checkpoint
from hypercrl.runs.position import Position
from hypercrl.runs.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("short_episodes_throughout")
SMALL = (*FEW_STEPS, "method=coreset", "protocol.checkpoint_every=10")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    main(["train", *SMALL, f"run_dir={path}"])
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, train_and_stop):
    path = tmp_path_factory.mktemp("runs") / "run"
    train_and_stop(*SMALL, f"run_dir={path}", after=57)
    return path


@pytest.fixture
def run(stopped, tmp_path):
    """Killed in its second task: latest after 30 + 20 steps, previous 30 + 10, which are random."""
    return shutil.copytree(stopped, tmp_path / "run")


def resumes(run, *words):
    main(["train", f"resume={run}", *words])
    return json.loads((run / "result.json").read_text())["scores"]


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *words])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("hypercrl: ")
    assert "Traceback" not in said
    return said


def file(run, name):
    return run / "checkpoints" / f"{name}.safetensors"


def steps(run, name):
    return load_checkpoint(file(run, name))["position"]["env_steps"]


def test_the_last_two_are_kept_and_one_is_written_in_the_random_steps(run):
    assert steps(run, "latest") == 50
    assert steps(run, "previous") == 40
    assert sorted(p.stem for p in (run / "checkpoints").iterdir()) == [
        "after_task_1",
        "latest",
        "previous",
    ]


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("lost", [("latest",), ("latest", "previous")])
@pytest.mark.parametrize("lose", [os.unlink, damage])
def test_without_the_latest_it_goes_on_from_the_newest_sound_one(lost, lose, run, ended, capsys):
    for name in lost:
        lose(file(run, name))
    scores = resumes(run)
    said = capsys.readouterr().err
    assert "There is no checkpoint" in said or "its checksum does not fit its contents" in said
    left = ("previous", 40) if lost == ("latest",) else ("after_task_1", 30)
    assert "Going on from {!r}, after {} environment steps.".format(*left) in said
    assert scores == json.loads((ended / "result.json").read_text())["scores"]
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len((ended / "metrics.jsonl").read_text().splitlines())


def test_with_none_left_nothing_is_begun_anew(run, capsys):
    records = (run / "metrics.jsonl").read_bytes()
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.unlink()
    said = refused(capsys, f"resume={run}")
    assert "No other one is sound" in said
    assert (run / "metrics.jsonl").read_bytes() == records


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("method=pnn",),
        ("method=hnet", "env=push_hidden", "memory=gru", "context={burn_in: 4, horizon: 2}"),
    ],
)
def test_killed_before_the_first_step_is_saved_it_goes_on_from_the_beginning(
    settings, tmp_path, train_and_stop
):
    run = tmp_path / "run"
    few = ("protocol.num_tasks=1", "protocol.random_steps=32", f"run_dir={run}")
    train_and_stop(*SMALL, *settings, *few, after=3)
    assert steps(run, "latest") == 0
    resumes(run)


def test_killed_before_anything_was_done_it_begins(run, ended):
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.unlink()
    (run / "metrics.jsonl").write_bytes(b"")
    assert resumes(run) == json.loads((ended / "result.json").read_text())["scores"]


def test_another_one_may_be_named_and_becomes_the_latest(run, ended, train_and_stop, capsys):
    train_and_stop(f"resume={run}", "checkpoint=after_task_1", after=3)
    assert steps(run, "latest") == 30
    # What is of a future that was given up is not taken for the newest one.
    tree = load_checkpoint(file(run, "latest"))
    later = {**tree, "log_bytes": 10**12, "position": {**tree["position"], "env_steps": 10**6}}
    save_checkpoint(file(run, "previous"), later)
    damage(file(run, "latest"))
    assert resumes(run) == json.loads((ended / "result.json").read_text())["scores"]
    assert "Going on from 'after_task_1'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("checkpoint=after_task_1",), ("checkpoint=none", "seed=3")])
def test_a_checkpoint_is_named_beside_resume(words, run, tmp_path, capsys):
    assert "give resume beside it" in refused(
        capsys, f"run_dir={tmp_path / 'new'}", "checkpoint=latest"
    )
    assert "there are: after_task_1, latest" in refused(capsys, f"resume={run}", "checkpoint=x")


def test_the_message_about_a_damaged_one_names_the_command(run, capsys):
    damage(file(run, "latest"))
    said = refused(capsys, f"resume={run}", "checkpoint=latest")
    assert f"hypercrl train resume={run} checkpoint=previous" in said


def test_what_killed_processes_left_is_swept_away(run):
    for left in (run / ".config.yaml.1.partial", run / "checkpoints/.latest.safetensors.1.partial"):
        left.write_bytes(b"0" * 1000)
    resumes(run)
    assert not list(run.rglob("*.partial"))


def test_a_folder_with_nothing_but_a_partial_file_is_free(tmp_path):
    """Of a process that was killed as it began the run."""
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.yaml.1.partial").touch()
    main(["train", *SMALL, f"run_dir={run}"])
    assert not list(run.rglob("*.partial"))


@pytest.mark.parametrize("last", ["config.yaml", "metrics.jsonl", "checkpoints/latest.safetensors"])
def test_a_disk_that_fills_up_gets_one_message_and_keeps_what_is_there(last, tmp_path, ended):
    """No file may become as large as `last` did: writing it fails as on a full disk."""
    run = tmp_path / "run"
    words = (*SMALL, f"run_dir={run}")
    room = (ended / last).stat().st_size - 100
    code, said = process_ended(train_with_little_room, room, words)
    assert code == 2
    assert "Traceback" not in said
    assert f"hypercrl: {run} cannot be written to: File too large." in said
    assert not list(run.rglob("*.partial"))
    for checkpoint in (run / "checkpoints").glob("*"):
        load_checkpoint(checkpoint)
    if last == "config.yaml":
        assert not (run / last).exists()  # the folder is free
    else:
        words = (f"resume={run}",)
    main(["train", *words])
    result = json.loads((run / "result.json").read_text())
    assert result["scores"] == json.loads((ended / "result.json").read_text())["scores"]


def changed(place, value):
    """The state with something else at `place`, a path of keys."""

    def change(tree):
        *path, last = place
        for key in path:
            tree = tree[key]
        tree[last] = value(tree[last])

    return change


def tensors_of(kind):
    """All tensors of an optimiser's moments, or of the method."""

    def change(tree):
        places = (
            [moments for o in tree["method"]["optimisers"] for moments in o.values()]
            if kind == "moments"
            else [tree["method"]["tensors"]]
        )
        for place in places:
            for name, value in place.items():
                if value.dim() and value.numel():
                    place[name] = value.double() if kind == "dtype" else value[:1]

    return change


FOREIGN = {
    "a random state of ten bytes": changed(
        ("streams", "planner"), lambda _: torch.zeros(10, dtype=torch.uint8)
    ),
    "a random state of floats": changed(("streams", "planner"), lambda s: s.float()),
    "a random state of zeros": changed(("streams", "planner"), torch.zeros_like),
    "step -5": changed(("position", "step"), lambda _: -5),
    "a step beyond": changed(("position", "env_steps"), lambda n: n + 1),
    "half a step": changed(("position", "step"), lambda n: n + 0.5),
    "a stage beyond": changed(("position", "stage"), lambda _: 99),
    "tasks that are not": changed(("method", "tasks"), lambda _: 10**9),
    "tensors of another type": tensors_of("dtype"),
    "moments of another shape": tensors_of("moments"),
    "tensors of another shape": tensors_of("shape"),
    "a replay that is wider": changed(("learner", "replay", "obs"), lambda t: torch.cat([t, t], 1)),
    "a replay that counts wrong": changed(("learner", "replay", "added"), lambda n: n + 1),
    "a replay of bytes": changed(("learner", "replay", "obs"), lambda t: t.byte()),
    "an older age": changed(("learner", "observed"), lambda _: 10**6),
    "slots that are not there": changed(
        ("learner", "round"), lambda _: torch.full((3, 100), 10**6)
    ),
    "slots that are no tensor": changed(("learner", "round"), lambda _: []),
    "an observation of one number": changed(("actor", "obs"), lambda t: t[:, :1]),
    "noise of one number": changed(("actor", "noise", "value"), lambda t: t[:, :1]),
    "a plan of one step": changed(("actor", "plan_start"), lambda t: t[:, :, :1]),
    "a plan that is no number": changed(("actor", "plan_start"), lambda t: t * torch.nan),
    "a place that is no number": changed(("actor", "obs"), lambda t: t * torch.nan),
    "a world of another size": changed(("actor", "robots", 0, "physics"), lambda p: p[:-1]),
    "a world after its end": changed(("actor", "robots", 0, "elapsed_steps"), lambda _: 10**6),
    "a world's generator": changed(("actor", "robots", 0, "np_random"), lambda _: {}),
    "no belief to plan with": lambda tree: tree["actor"].pop("belief"),
    "a robot too many": changed(("actor", "robots"), lambda robots: robots * 2),
    "a return of text": changed(("actor", "returns"), lambda _: ["much"]),
    "a matrix of text": changed(("tallies", "matrix", "success"), lambda _: [["x"]]),
    "a length that is none": changed(("log_bytes",), lambda _: "many"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_state_that_no_such_run_has_is_refused(what, run, capsys):
    """With a checksum that fits: written by another program, or another version of this one."""
    tree = load_checkpoint(file(run, "latest"))
    FOREIGN[what](tree)
    save_checkpoint(file(run, "latest"), tree)
    before = (run / "metrics.jsonl").read_bytes()
    said = refused(capsys, f"resume={run}")
    assert "does not belong to this run" in said
    assert "checkpoint=previous" in said
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("length", [-2, -1, 10**400], ids=["-2", "-1", "of 401 digits"])
def test_a_length_that_no_file_has(length, run, capsys):
    tree = load_checkpoint(file(run, "latest"))
    save_checkpoint(file(run, "latest"), tree | {"log_bytes": length})
    before = (run / "metrics.jsonl").read_bytes()
    said = refused(capsys, f"resume={run}")
    assert "metrics.jsonl does not belong to the latest checkpoint" in said
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("cuda", [False, True])
def test_a_random_state_of_the_other_device_leaves_the_stream_at_its_beginning(cuda):
    streams = RandomStreams(0)
    states = {"planner": torch.zeros(16, dtype=torch.uint8)} if cuda else streams.state()
    streams.load_state(states, torch.device("cpu"))
    fresh = RandomStreams(0).get("planner").get_state()
    assert torch.equal(streams.get("planner").get_state(), fresh)


def test_positions():
    Position.of({**Position().__dict__}, 2, 30, 7)
    Position.of({**Position(2, 0, 0, 60).__dict__}, 2, 30, 7)
    Position.of({**Position(1, 30, 6, 60).__dict__}, 2, 30, 7)
    for wrong in (Position(3, 0, 0, 90), Position(2, 1, 0, 61), Position(0, 0, 1), Position(1, 31)):
        with pytest.raises(ValueError, match="no run comes to"):
            Position.of(wrong.__dict__, 2, 30, 7)


def test_reading_a_run_sweeps_nothing(run):
    (run / ".x.partial").touch()
    RunFolder.open(run)
    assert (run / ".x.partial").exists()
