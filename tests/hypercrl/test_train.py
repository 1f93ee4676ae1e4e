"""The whole program, as a user runs it, at its smallest preset."""

import json
import random
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from forked import ended, train_and_die

from hypercrl.cli import main
from hypercrl.config.compose import with_effect
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.training.result import git_revision
from hypercrl.training.trainer import Trainer
from hypercrl_envs.blocks import BlockTask

SMALL = (
    "preset=smoke",
    "device=cpu",
    "method.hidden=[8,8]",
    "dynamics.hidden=[16]",
    "protocol.checkpoint_every=20",
    "protocol.final_episodes=1",
)


EPISODE = 30
"""Steps of pushing: evaluation is most of a run, and two of them are in a task of 60 steps."""


@pytest.fixture(scope="module", autouse=True)
def episodes_of_30():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockTask, "max_episode_steps", EPISODE)
        yield


def train(path, *overrides, small=SMALL):
    main(["train", *small, *overrides, f"run_dir={path}"])
    return json.loads((path / "result.json").read_text())


def weights(path):
    tensors = safetensors.torch.load_file(path / "checkpoints/latest.safetensors")
    return {k: v for k, v in tensors.items() if v.dtype == torch.float32}


def records(path, kind):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


@pytest.fixture(scope="module")
def hnet_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "hnet"
    train(path)
    return path


def test_a_run_leaves_what_the_docs_promise(hnet_run):
    result = json.loads((hnet_run / "result.json").read_text())
    assert np.shape(result["scores"]) == np.shape(result["success"]) == (3, 2)
    assert np.shape(result["prediction_error"]) == (3, 2)
    assert np.isfinite(result["scores"]).all()
    assert result["env_steps"] == 2 * 120
    assert result["plans"] == 2 * 60
    # Per task: after the random steps, and after 30 and 60 planned ones.
    assert result["updates"] == 2 * 3 * 20
    assert result["average_performance"] == pytest.approx(np.mean(result["scores"][2]))
    for name in ("forgetting", "forward_transfer", "seconds", "git", "machine", "versions"):
        assert result[name] is not None
    names = sorted(p.stem for p in (hnet_run / "checkpoints").iterdir())
    assert names == ["after_task_1", "after_task_2", "latest", "previous"]
    last, latest = (hnet_run / f"checkpoints/{n}.safetensors" for n in ("after_task_2", "latest"))
    assert last.samefile(latest)
    assert list((hnet_run / "tensorboard").iterdir())
    assert "densities" in (hnet_run / "config.yaml").read_text()


def test_a_result_names_the_commit_that_the_run_began_with(tmp_path, monkeypatch):
    """A checkout that goes on to another one in the meantime does not change what was imported."""
    commits, finish = iter(["began", "later"]), Trainer.run
    now = [next(commits)]
    monkeypatch.setattr(
        "hypercrl.training.result.subprocess.run", lambda *_, **__: SimpleNamespace(stdout=now[0])
    )

    def run(self, *arguments):
        finish(self, *arguments)
        now[0] = next(commits)

    monkeypatch.setattr(Trainer, "run", run)
    git_revision.cache_clear()
    try:
        result = train(tmp_path / "run", "protocol.num_tasks=1", "protocol.planned_steps=4")
    finally:
        git_revision.cache_clear()
    assert result["git"] == "began"


def test_nothing_of_an_old_task_is_kept(hnet_run):
    """The replay is the same bytes after every task, and hnet adds only targets and embeddings."""
    result = json.loads((hnet_run / "result.json").read_text())
    first, second = result["memory_bytes"]
    main_net = (10 + 2) * 16 + 16 + 16 * 10 + 10
    assert second - first == 4 * (main_net + 10)
    saved = safetensors.torch.load_file(hnet_run / "checkpoints/after_task_2.safetensors")
    replay_like = [v for v in saved.values() if v.dim() == 2 and len(v) == 100]
    assert sorted(v.shape[1] for v in replay_like) == [2, 10, 10]


def test_nothing_is_kept_of_streams_that_nobody_draws_from_again(hnet_run):
    names = [
        set(load_checkpoint(hnet_run / f"checkpoints/after_task_{n}.safetensors")["streams"])
        for n in (1, 2)
    ]
    assert names[0] == names[1]


def test_learning_curves_cover_all_tasks_seen(hnet_run):
    evals = records(hnet_run, "eval")
    rows = {(r["env_steps"], r["on"]) for r in evals}
    assert {(60, 1), (60, 2), (120, 1), (120, 2), (240, 1), (240, 2)} <= rows
    assert all(r["prediction_error"] > 0 for r in evals)


def test_forgetting_is_logged_after_each_task(hnet_run):
    result = json.loads((hnet_run / "result.json").read_text())
    success, returns = records(hnet_run, "continual_success"), records(hnet_run, "continual_return")
    assert [r["task"] for r in success] == [1, 2]
    assert "forgetting" not in success[0]
    assert success[1]["forgetting"] == pytest.approx(result["success_forgetting"])
    assert returns[1]["forgetting"] == pytest.approx(result["forgetting"])
    assert returns[0]["average"] == pytest.approx(result["scores"][1][0])


def test_same_seed_same_run_other_seed_other_noise(hnet_run, tmp_path):
    again, other = train(tmp_path / "again"), train(tmp_path / "other", "seed=1")
    first = json.loads((hnet_run / "result.json").read_text())
    assert again["scores"] == first["scores"]
    assert other["scores"] != first["scores"]


def test_a_model_of_its_own_is_untouched_by_larger_tasks_to_come(tmp_path):
    """Dimensions that are padding for push get their scales from the door, after push."""
    tasks = "env.tasks=[{task: push}, {task: door, handle: pull}]"
    small = ("preset=smoke", "device=cpu", "method=single")
    result = train(tmp_path / "r", tasks, "env.pad=true", small=small)
    errors = [row[0] for row in result["prediction_error"]]
    assert errors[2] == errors[1] < 0.1


def test_exploration_differs_between_tasks(hnet_run):
    returns = [r["return"] for r in records(hnet_run, "episode") if r["random"]]
    assert len(set(returns)) == len(returns)


KILLED_IN_EVERY_TEST = ("hnet", "derpp", "ftl_task")
WITH_A_MEMORY = (
    ("memory=gru", "method=hnet", "context.into=hypernetwork"),
    ("memory=gru", "method=finetune", "context.into=film", "context.protect=distil"),
)
SHORT = (
    "protocol.random_steps=30",
    "protocol.planned_steps=30",
    "protocol.update_every=15",
    "protocol.updates=10",
    "protocol.checkpoint_every=12",
    "protocol.final_episodes=1",
)
A_SMALL_MEMORY = ("memory.width=8", "context.windows=4", "env=push_hidden")


@pytest.mark.parametrize(
    "settings",
    [
        *((f"method={m}",) for m in KILLED_IN_EVERY_TEST),
        *(
            pytest.param((f"method={m}",), marks=pytest.mark.slow)
            for m in METHODS
            if m not in KILLED_IN_EVERY_TEST
        ),
        (*WITH_A_MEMORY[0], *A_SMALL_MEMORY),
        pytest.param((*WITH_A_MEMORY[1], *A_SMALL_MEMORY), marks=pytest.mark.slow),
        ("env=walkers", "method=single"),
        ("planner=policy", "method=single"),
        ("planner.knots=3", "method=single", "planner.global_share=0.3"),
        pytest.param(
            (
                "planner=icem",
                "method=single",
                "planner.knots=3",
                "planner.interpolation=cubic",
                "planner.global_share=0.3",
            ),
            marks=pytest.mark.slow,
        ),
        *(
            pytest.param((f"memory={m}", "method=hnet", *A_SMALL_MEMORY), marks=pytest.mark.slow)
            for m in MEMORIES
            if m not in ("none", "gru")
        ),
        (
            "method=hnet",
            "task_id=inferred",
            "inference.settle=5",
            "inference.allowance=1",
            "inference.alarm=1",
        ),
    ],
    ids=lambda settings: "-".join(word.partition("=")[2] for word in settings[:2]),
)
def test_killed_at_a_random_step_and_resumed_ends_the_same(settings, tmp_path):
    small = SMALL[:4] if "hnet" in "".join(settings) else (*SMALL[:2], SMALL[3])
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    settings = (*SHORT, *settings, "seed=3")
    words = with_effect("train", [*small, *settings])
    wanted = train(straight, *words, small=())
    step = random.SystemRandom().randrange(1, 120)
    words = (*words, f"run_dir={killed}")
    code, _ = ended(train_and_die, signal.SIGKILL, step, words, EPISODE)
    assert code == -signal.SIGKILL
    assert not (killed / "result.json").exists()
    main(["train", f"resume={killed}"])
    got = json.loads((killed / "result.json").read_text())
    for key in ("scores", "success", "prediction_error", "memory_bytes", "updates", "plans"):
        assert got[key] == wanted[key], (key, step)
    for name, value in weights(straight).items():
        if value.dim() > 1 or value.numel() > 1:
            assert torch.equal(value, weights(killed)[name]), (name, step)

    def without_times(path):
        return [
            {k: v for k, v in json.loads(line).items() if k != "milliseconds"}
            for line in (path / "metrics.jsonl").read_text().splitlines()
        ]

    assert without_times(killed) == without_times(straight)
    main(["play", f"run={killed}", "task=2", "episodes=1"])


def test_plans_are_sampled_from_a_probabilistic_model(tmp_path):
    settings = ("dynamics.probabilistic=true", "protocol.num_tasks=1")
    mean = train(tmp_path / "mean", *settings)
    sampled = train(tmp_path / "sampled", *settings, "planner.sampled=true")
    assert sampled["plans"] == mean["plans"]
    assert sampled["scores"] != mean["scores"]
    assert sampled["prediction_error"][0] == mean["prediction_error"][0]  # of the mean in both
    assert (
        train(tmp_path / "again", *settings, "planner.sampled=true")["scores"]
        == (sampled["scores"])
    )


def fails(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("hypercrl: ")
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "sede=1"], "Did you mean 'seed'"),
        (["train", "planner.sampels=5"], "Did you mean 'planner.samples'"),
        (["train", "env=pusch"], "Did you mean 'push'"),
        (["train", "method=hnett"], "Did you mean 'hnet'"),
        (["train", "preset=quik"], "Did you mean 'quick'"),
        (["train", "seed=abc"], "seed"),
        (["train", "seed=[1"], "seed"),
        (["train", "device=tpu"], "cpu, cuda or auto"),
        (["train", "planner.elites=9999"], "planner.elites"),
        (["train", "planner.sampled=true"], "needs dynamics.probabilistic=true"),
        (["train", "planner.sampled=true", "planner.dynamics=simulator"], "has no variance"),
        (["train", "planner.sampled=true", "task_id=inferred"], "needs task_id=given"),
        (["train", "resume=nowhere"], "no run at nowhere"),
        (["train", "method.hidden=x"], "method.hidden"),
        (["train", "method.hidden=[8,0]"], "method.hidden must be at least 1, not 0"),
        (["train", "method.activation=tanh"], "method.activation is one of elu, relu"),
        (["train", "planner.execute=worst"], "planner.execute is one of mean, best"),
        (["train", "protocol.update_every=0"], "protocol.update_every must be at least 1"),
        (["train", "protocol.num_tasks=99"], "num_tasks=99, but the sequence push has 5 tasks"),
        (
            ["train", "protocol.num_tasks=2", "protocol.order=[3]"],
            "num_tasks=2, but protocol.order names 1 task;",
        ),
        (["train", "protocol={num_tasks: 99}"], "num_tasks=99, but the sequence push has 5 tasks"),
        (["train", "+note=first"], "there is no setting 'note'"),
        (["train", "+method.bets=1"], "Did you mean 'method.beta'"),
        (["train", "++planner.sampels=5"], "Did you mean 'planner.samples'"),
        (["train", "~seed"], "seed cannot be taken away"),
        (
            ["train", "method=coreset", "method.per_task=x"],
            "method.per_task is a whole number or null, such as method.per_task=100, not 'x'.",
        ),
        (["train", "run_dir=lr=0.1"], """in quotes: 'run_dir="lr=0.1"'"""),
        (["train", "run_dir=jörg"], """in quotes: 'run_dir="jörg"'"""),
        (["train", "run_dir=a,b"], """in quotes: 'run_dir="a,b"'"""),
        (["train", "run_dir=null"], "run_dir= is a folder"),
        (["play", "run=nowhere", "+note=first"], "there is no setting 'note'"),
        (["recall", "run_dir=x", "+note=first"], "there is no setting 'note'"),
        (["train", "protocol.num_tasks=0"], "protocol.num_tasks must be at least 1"),
        (["train", "exploration.correlation=1"], "exploration.correlation must be at most 0.999"),
        (["train", "seed=-1"], "seed must be at least 0"),
        (["train", "memory=gur"], "Did you mean 'gru'"),
        (["train", "memory=gru", "context.into=output"], "context.into is one of input, film"),
        (["train", "memory=gru", "method=multitask"], "method=multitask takes no memory"),
        (
            ["train", "memory=gru", "context.burn_in=60"],
            f"an episode of push 500 | 500 kg/m³ only {EPISODE}",
        ),
        (
            ["train", "memory=gru", "protocol.random_steps=20"],
            "30 transitions; give protocol.random_steps",
        ),
        (
            ["train", "memory=gru", "protocol.replay_capacity=50"],
            "30 transitions; give protocol.replay_capacity",
        ),
        (["train", "env.tasks=[{task: push, densities: [1, 2]}]"], "densities"),
        (["play", "run=nowhere"], "no run at nowhere"),
        (["play"], "run=DIR"),
        (["report", "nowhere"], "nowhere"),
        (["report"], "at least one"),
        (["tasks", "nothing"], "push"),
    ],
)
def test_mistakes_get_one_message(capsys, tmp_path, monkeypatch, words, wanted):
    monkeypatch.chdir(tmp_path)
    message = fails(capsys, *words)
    assert wanted in message
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys, tmp_path):
    assert "no GPU" in fails(capsys, "train", "device=cuda", f"run_dir={tmp_path / 'r'}")
    assert not (tmp_path / "r").exists()


def test_an_existing_folder_is_left_as_it_is(capsys, hnet_run):
    before = {p: p.stat().st_mtime_ns for p in hnet_run.rglob("*")}
    message = fails(capsys, "train", *SMALL, f"run_dir={hnet_run}")
    assert message.strip().endswith("Name another run_dir.")  # it has ended
    assert {p: p.stat().st_mtime_ns for p in hnet_run.rglob("*")} == before


def test_a_finished_run_is_not_resumed(capsys, hnet_run):
    assert "has ended" in fails(capsys, "train", f"resume={hnet_run}")


def test_nor_where_nothing_can_be_written(capsys, hnet_run, tmp_path):
    """As on a disk that is read only; it was "cannot write to", which is no matter then. Whoever
    runs tests may write anywhere, so a folder stands in the place of the file to be locked."""
    ended = shutil.copytree(hnet_run, tmp_path / "ended")
    (ended / ".lock").unlink()
    (ended / ".lock").mkdir()
    assert f"{ended} has ended; see it with" in fails(capsys, "train", f"resume={ended}")
    (ended / "result.json").unlink()
    assert f"cannot write to {ended}" in fails(capsys, "train", f"resume={ended}")


def test_a_checkpoint_of_another_run_is_refused(capsys, hnet_run, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(hnet_run, copied)
    (copied / "result.json").unlink()
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("- 16", "- 24"))
    for words in (["play", f"run={copied}"], ["train", f"resume={copied}"]):
        assert "does not belong to this run" in fails(capsys, *words)


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("task=3", "tasks 1 to 2"),
        ("checkpoint=none", "after_task_1, after_task_2, latest, previous"),
        ("camera=back video=film.mp4", "front, side, top"),
        ("video=film.avi", ".mp4"),
        ("episodes=0", "episodes must be at least 1"),
        ("size=0", "size must be at least 64"),
    ],
)
def test_mistakes_in_play(capsys, hnet_run, setting, wanted):
    assert wanted in fails(capsys, "play", f"run={hnet_run}", *setting.split())


def test_resume_takes_no_other_settings(capsys, hnet_run):
    assert "seed=4" in fails(capsys, "train", f"resume={hnet_run}", "seed=4")


def test_divergence_names_step_and_checkpoint(capsys, tmp_path):
    path = tmp_path / "r"
    message = fails(
        capsys,
        "train",
        "preset=smoke",
        "device=cpu",
        "method=finetune",
        "method.learning_rate=1e38",
        "method.clip_norm=1e38",
        f"run_dir={path}",
    )
    assert "diverged" in message
    assert "step 60" in message
    assert f"Last good checkpoint: {path / 'checkpoints/latest.safetensors'}" in message


def test_a_memory_is_kept_and_costs_what_the_result_says(tmp_path, hnet_run):
    path = tmp_path / "r"
    result = train(path, "memory=gru", "memory.width=8", "env=push_hidden", "context.windows=4")
    assert result["memory"] == "gru"
    assert result["memory_state_bytes"] == 4 * (32 + 2 * 8)
    assert result["memory_step_milliseconds"] > 0
    without = json.loads((hnet_run / "result.json").read_text())
    assert without["memory"] == "none"
    assert without["memory_state_bytes"] == 0
    assert without["memory_step_milliseconds"] is None
    main(["play", f"run={path}", "task=2", "episodes=1"])
