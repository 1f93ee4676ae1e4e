"""A finished run that learns further tasks: as one that had them from the start, bit for bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from tiny_runs import FEW_STEPS

import hypercrl
from hypercrl.cli import main
from hypercrl.config.compose import with_effect
from hypercrl.methods import METHODS
from hypercrl.runs.checkpoint import load_checkpoint, save_checkpoint
from hypercrl.runs.records import read_records

SMALL = (*FEW_STEPS, "threads=1", "protocol.eval_every=1000")
MATRICES = ("scores", "success", "prediction_error", "goal_distance")

pytestmark = pytest.mark.usefixtures("short_episodes_throughout")


def train(path: Path, *words: str) -> dict:
    main(["train", *words, f"run_dir={path}"])
    return json.loads((path / "result.json").read_text())


def weights(path: Path) -> dict[str, torch.Tensor]:
    tensors = safetensors.torch.load_file(path / "checkpoints/latest.safetensors")
    return {k: v for k, v in tensors.items() if v.dtype == torch.float32}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["train", *words])
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, short_episodes_throughout) -> Path:
    path = tmp_path_factory.mktemp("runs") / "two"
    train(path, *SMALL, "method=hnet", "protocol.num_tasks=2")
    return path


@pytest.mark.parametrize(
    "words",
    [
        *((f"method={name}",) for name in METHODS),
        ("method=hnet", "memory=gru", "context.burn_in=4", "context.horizon=2"),
        ("method=hnet", "value.kind=td"),
        ("method=hnet", "protocol.robots=2"),
        ("method=hnet", "task_id=inferred", "inference.settle=5", "inference.alarm=1"),
    ],
    ids="-".join,
)
def test_it_ends_as_one_that_had_all_tasks_from_the_start(words, tmp_path):
    words = with_effect("train", [*SMALL, *words])
    wanted = train(tmp_path / "three", *words, "protocol.num_tasks=3")
    train(tmp_path / "two", *words, "protocol.num_tasks=2")
    got = train(tmp_path / "longer", f"extend={tmp_path / 'two'}", "protocol.num_tasks=3")
    for key in MATRICES:
        mine, whole = np.array(got[key], float), np.array(wanted[key], float)
        assert np.array_equal(mine[-1], whole[-1], equal_nan=True), key
        assert np.array_equal(mine[:, :2], whole[:, :2], equal_nan=True), key
        assert np.isnan(mine[:3, 2]).all(), key  # nobody looked
    for key in ("memory_bytes", "updates", "plans", "env_steps", "tasks"):
        assert got[key] == wanted[key], key
    assert got.get("decisions") == wanted.get("decisions")
    for name, value in weights(tmp_path / "three").items():
        assert torch.equal(value, weights(tmp_path / "longer")[name]), name


def test_the_finished_run_stays_and_the_new_one_is_whole(finished, tmp_path, capsys):
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    longer = tmp_path / "longer"
    train(longer, f"extend={finished}", "protocol.num_tasks=3")
    assert before == {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    tasks = {record["task"] for record in read_records(longer / "metrics.jsonl")}
    assert tasks == {1, 2, 3}
    config = yaml.safe_load((longer / "config.yaml").read_text())
    assert (config["extend"], config["protocol"]["num_tasks"]) == (str(finished), 3)
    for number in (1, 2, 3):  # of each stage there is an agent
        main(["play", f"run={longer}", f"task={number}", f"checkpoint=after_task_{number}"])
    capsys.readouterr()
    main(["report", str(longer)])
    assert "seed 0 was extended" in " ".join(capsys.readouterr().out.split())
    assert np.isnan(hypercrl.TrainingResult.read(longer).success[0, 2])


def test_a_kill_on_the_way_is_gone_on_with_and_a_longer_sequence_extends_it(
    finished, tmp_path, monkeypatch
):
    wanted = train(tmp_path / "straight", f"extend={finished}", "protocol.num_tasks=3")
    monkeypatch.chdir(tmp_path)
    tasks = yaml.safe_load((finished / "config.yaml").read_text())["env"]["tasks"][:3]
    (tmp_path / "configs/env").mkdir(parents=True)
    (tmp_path / "configs/env/three.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    cut = tmp_path / "cut"
    train(cut, f"extend={finished}", "env=three", "protocol.num_tasks=3")
    # As a kill before the first step of the further task leaves it.
    (cut / "result.json").unlink()
    shutil.copyfile(
        cut / "checkpoints/after_task_2.safetensors", cut / "checkpoints/latest.safetensors"
    )
    main(["train", f"resume={cut}"])
    got = json.loads((cut / "result.json").read_text())
    assert all(got[key] == wanted[key] for key in MATRICES)


def test_python_extends_as_the_command_line_does(finished, tmp_path):
    by_command = train(tmp_path / "command", f"extend={finished}", "protocol.num_tasks=3")
    result = hypercrl.train(extend=finished, run_dir=tmp_path / "python", protocol={"num_tasks": 3})
    assert result.values["scores"] == by_command["scores"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "has learned 2 tasks already, and no further one is given: give protocol.num_tasks=3"),
        (("protocol.num_tasks=2",), "has learned 2 tasks already"),
        (("protocol.num_tasks=9",), "protocol.num_tasks=9, but the sequence push has 5 tasks"),
        (("protocol.num_tasks=3", "method.beta=1"), "leave out method.beta="),
        (("protocol.num_tasks=3", "preset=quick"), "leave out preset="),
        (("protocol.num_tasks=3", "protocol.order=[2,1,3]"), "has learned other tasks than"),
        (("protocol.num_tasks=3", "env=push_frame"), "has learned other tasks than the first 2"),
        (("protocol.num_tasks=3", "checkpoint=after_task_1"), "checkpoint has no effect"),
    ],
)
def test_what_is_no_extension_is_refused_and_makes_no_folder(
    words, said, finished, tmp_path, capsys
):
    path = tmp_path / "longer"
    assert said in refused(capsys, f"extend={finished}", f"run_dir={path}", *words)
    assert not path.exists()


def test_runs_that_cannot_be_extended_say_why(finished, tmp_path, capsys):
    more = ("protocol.num_tasks=3", f"run_dir={tmp_path / 'longer'}")
    assert "There is no run at" in refused(capsys, f"extend={tmp_path / 'none'}", *more)
    assert "holds an agent to play" in refused(capsys, "extend=push_demo", "protocol.num_tasks=4")
    open_end = tmp_path / "open"
    shutil.copytree(finished, open_end)
    (open_end / "result.json").unlink()
    assert "has not ended; go on with it first" in refused(capsys, f"extend={open_end}", *more)
    foreign = tmp_path / "foreign"
    shutil.copytree(finished, foreign)
    latest = foreign / "checkpoints/latest.safetensors"
    tree = load_checkpoint(latest)
    del tree["log_bytes"]
    save_checkpoint(latest, tree)
    assert "does not belong to this run" in refused(capsys, f"extend={foreign}", *more)
    assert not (tmp_path / "longer").exists()
    said = refused(capsys, f"resume={finished}")
    assert f"hypercrl train extend={finished} protocol.num_tasks=N" in said
    used = refused(capsys, f"extend={finished}", "protocol.num_tasks=3", f"run_dir={finished}")
    assert "exists already and is left as it is" in used
