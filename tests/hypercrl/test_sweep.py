"""Hydra's Optuna sweeper over `hypercrl train`, by the score that training returns."""

import json
import os
import signal
from copy import deepcopy
from importlib.metadata import version
from math import nan
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from tiny_runs import FEW_STEPS

from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.commands import train as train_command
from hypercrl.config.search import maximise
from hypercrl.training.result import of_matrices, score
from hypercrl.training.trainer import Trainer

TINY = (
    "preset=smoke",
    "device=cpu",
    "method=finetune",
    "dynamics.hidden=[8]",
    "protocol.num_tasks=1",
    "protocol.final_episodes=1",
)


def test_training_returns_the_mean_of_its_last_row_of_success(tmp_path, monkeypatch):
    from hypercrl.commands import train

    scores = []
    original = train.train
    monkeypatch.setattr(train, "train", lambda config: scores.append(original(config)))
    main(["train", *TINY, "seed=0", f"run_dir={tmp_path / 'run'}"])
    (last,) = json.loads((tmp_path / "run/result.json").read_text())["success"][-1]
    assert scores == [last]


def test_where_nothing_counts_as_success_the_return_is_the_score(tmp_path, monkeypatch):
    """Success is 0 whatever an agent does, and a sweep would find that all settings are alike."""
    from hypercrl.commands import train

    scores = []
    original = train.train
    monkeypatch.setattr(train, "train", lambda config: scores.append(original(config)))
    env = ["env=inverted_pendulum", "protocol.prediction_horizon=2", f"run_dir={tmp_path / 'run'}"]
    main(["train", *TINY, *env])
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["goal_distance"][-1] == [None]
    assert result["success"][-1] == [0.0]
    assert scores == [result["scores"][-1][0]]
    assert scores[0] > 0


def test_the_score_is_the_success_of_tasks_that_have_such_a_thing():
    """By hand, of three tasks whose second has no distance: (0.5 + 1) / 2, and not two thirds."""
    success = [[0.0, 0.0, 0.2], [0.8, 0.0, 0.4], [0.6, 0.0, 0.5], [0.5, 0.0, 1.0]]
    matrices = {
        "success": success,
        "goal_distance": [[0.3, nan, 0.3]] * 4,
        "episode_return": [[1.0, 2.0, 3.0]] * 4,
        "prediction_error": [[0.1] * 3] * 4,
    }
    result = of_matrices(matrices)
    assert score(result) == result["success_average_performance"] == 0.75
    assert result["success_forgetting"] == pytest.approx(0.3)
    assert result["average_performance"] == 2.0


@pytest.mark.extra("hydra-optuna-sweeper")
def test_two_trials_are_searched_by_score(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweeper = ["hydra/sweeper=optuna"]
    sweeper += ["hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=0"]
    main(
        [
            "train",
            "-m",
            *TINY,
            *sweeper,
            "method.learning_rate=interval(0.0001,0.01)",
            "run_dir=sweep",
        ]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["sweep"]
    found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    rates, scores = [], []
    for trial in ("0", "1"):
        folder = tmp_path / "sweep" / trial
        rates.append(
            yaml.safe_load((folder / "config.yaml").read_text())["method"]["learning_rate"]
        )
        result = json.loads((folder / "result.json").read_text())
        scores.append(result["success_average_performance"])
    assert rates[0] != rates[1]
    assert found["best_value"] == max(scores)
    assert found["best_params"]["method.learning_rate"] == rates[scores.index(max(scores))]


@pytest.mark.extra("hydra-optuna-sweeper")
def test_a_trial_with_a_mistake_is_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "seed=range(-3,-2)"]
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *TINY, *words, "run_dir=sweep"])
    assert ended.value.code == 2
    assert "hypercrl: job 0: seed must be at least 0, not -" in capsys.readouterr().err


@pytest.mark.extra("hydra-optuna-sweeper")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=range(0,3)", "hydra.sweeper.storage=sqlite:///s.db"], "hydra.sweeper.storage=sql"),
        (["seed=range(0,3)", "sead=1,2"], "there is no setting 'sead'"),
        (["seed=range(5,1)"], "seed=range(5,1): Optuna takes a range from a number to a larger"),
        (["seed=range(1,5,-1)"], "seed=range(1,5,-1): Optuna takes a range"),
        (
            ["method.learning_rate=interval(1,0.1)"],
            "method.learning_rate=interval(1,0.1): an interval is from a number to a larger one",
        ),
        (
            ["method.learning_rate=tag(log,interval(0,1))"],
            "method.learning_rate=tag(log,interval(0,1)): with tag(log, …) an interval begins",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_one_message_and_leaves_nothing(
    words, said, tmp_path, monkeypatch, capsys
):
    if "storage" in said and version("sqlalchemy").startswith("1."):
        pytest.skip("SQLAlchemy 1 keeps a study")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *TINY, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", *words])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]  # Optuna's notice before it
    assert last.startswith(f"hypercrl: {said}")
    assert ("storage" not in said) or 'pip install "sqlalchemy<2" "alembic<1.20"' in last
    assert not list(tmp_path.iterdir())


SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0", "run_dir=sweep")


def _scored(monkeypatch, *scores):
    """A training that leaves a run's folder and has the scores, in order; counts its jobs."""
    from hypercrl.commands import train

    left = list(scores)

    def scored(config):
        folder = train._run_dir(config)
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        score = left.pop(0)
        if isinstance(score, BaseException):
            raise score
        return score

    monkeypatch.setattr(train, "train", scored)
    monkeypatch.setattr(train, "try_out", lambda config: None)
    return left


@pytest.mark.extra("hydra-optuna-sweeper")
def test_a_sweep_maximises_and_says_what_was_best(tmp_path, monkeypatch, capsys):
    """The score is success or the return; Optuna's own default looks for the least."""
    monkeypatch.chdir(tmp_path)
    _scored(monkeypatch, 0.25, 0.75, 0.5)
    main(["train", "-m", *TINY, *SEARCH, "hydra.sweeper.n_trials=3", "seed=range(0,9)"])
    found = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert found["best_value"] == 0.75
    last = capsys.readouterr().out.splitlines()[-1]
    seed = found["best_params"]["seed"]
    assert last == f"best: seed={seed}, score 0.75: sweep/optimization_results.yaml"


@pytest.mark.extra("hydra-optuna-sweeper")
@pytest.mark.parametrize("direction", ["minimize", "[maximize,minimize]"])
def test_a_sweep_for_the_worst_is_refused(direction, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    left = _scored(monkeypatch, 0.25)
    with pytest.raises(SystemExit):
        main(
            [
                "train",
                "-m",
                *TINY,
                *SEARCH,
                "seed=range(0,9)",
                f"hydra.sweeper.direction={direction}",
            ]
        )
    assert "of which more is better. Leave the direction out" in capsys.readouterr().err
    assert left == [0.25]
    assert not list(tmp_path.iterdir())


def _of_ax(minimize):
    switch = {"minimize": minimize}
    return {"ax_config": {"max_trials": 10, "early_stop": switch, "experiment": switch}}


def _of_nevergrad(maximize):
    return {"optim": {"optimizer": "NGOpt", "noisy": False, "maximize": maximize}}


@pytest.mark.parametrize(
    ("name", "given", "give"),
    [
        (
            "of_ax",
            _of_ax(True),
            "hydra.sweeper.ax_config.early_stop.minimize=false "
            "hydra.sweeper.ax_config.experiment.minimize=false",
        ),
        ("of_nevergrad", _of_nevergrad(False), "hydra.sweeper.optim.maximize=true"),
    ],
)
def test_a_sweeper_whose_switch_is_set_to_the_least_is_refused(
    name, given, give, tmp_path, capsys, monkeypatch
):
    """Their settings as they are in version 1.2, which cannot be imported since Python 3.11."""
    monkeypatch.chdir(tmp_path)
    left = _scored(monkeypatch, 0.25)
    store = ConfigStore.instance()
    monkeypatch.setattr(store, "repo", deepcopy(store.repo))
    store.store(group="hydra/sweeper", name=name, node={"_target_": "theirs.Sweeper", **given})
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *TINY, f"hydra/sweeper={name}", "seed=1,2", "run_dir=sweep"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "hypercrl: the sweeper looks for the least score, and a run has one score, success or the "
        f"return, of which more is better. Give {give}"
    )
    assert left == [0.25]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [_of_ax(False), _of_nevergrad(True), {"anything": 1}])
def test_a_sweeper_that_looks_for_the_most_or_does_not_say_is_taken(given):
    config = OmegaConf.create({"hydra": {"sweeper": given}})
    maximise(config)
    assert config == {"hydra": {"sweeper": given}}


@pytest.mark.extra("hydra-optuna-sweeper")
def test_a_trial_with_a_mistake_ends_the_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    left = _scored(monkeypatch, 0.5, UserError("the model diverged"), 0.5, 0.5)
    words = [*TINY, *SEARCH, "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=4"]
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *words, "seed=range(0,9)"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "hypercrl: job 1: the model diverged"
    assert left == [0.5, 0.5]


STEPS = 30
"""Of a run of FEW_STEPS and one task."""


def _interrupt(patch, job):
    """SIGINT comes as job `job` of a multirun, from 0, takes its 20th environment step."""
    steps, act = iter(range(STEPS * job + 20)), Trainer._act

    def counted(self, planned):
        act(self, planned)
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr(Trainer, "_act", counted)


def _interrupted(words, job):
    with pytest.MonkeyPatch.context() as patch:
        _interrupt(patch, job)
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert ended.value.code == 130


def _result(run):
    """Of a run, but for what differs each time: seconds and such."""
    result = json.loads((run / "result.json").read_text())
    return {key: result[key] for key in ("scores", "success", "prediction_error", "env_steps")}


MULTIRUN = ["train", "-m", *FEW_STEPS, "method=finetune", "protocol.num_tasks=1"]


def test_an_interrupted_multirun_goes_on_by_the_same_command(
    tmp_path, monkeypatch, capsys, short_episodes
):
    monkeypatch.chdir(tmp_path)
    words = [*MULTIRUN, "seed=0,1,2", "run_dir=runs"]
    _interrupted(words, job=1)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(
        "resume=runs/1; that is one job; the multirun goes on with all of them by the same command"
    )
    first = Path("runs/0/result.json").read_bytes()
    assert Path("runs/1/checkpoints/latest.safetensors").exists()
    assert not Path("runs/2").exists()
    scores, original = [], train_command.train
    monkeypatch.setattr(train_command, "train", lambda c: scores.append(original(c)) or scores[-1])
    main(words)
    assert "runs/0 has ended already, with score " in capsys.readouterr().out
    assert Path("runs/0/result.json").read_bytes() == first
    main(["train", *MULTIRUN[2:], "seed=1", "run_dir=alone"])
    assert _result(Path("runs/1")) == _result(Path("alone"))
    assert scores == [
        json.loads(Path(run, "result.json").read_text())["success_average_performance"]
        for run in ("runs/0", "runs/1", "runs/2", "alone")
    ]


def test_a_multirun_of_other_settings_begins_none_where_jobs_are(
    tmp_path, monkeypatch, capsys, short_episodes
):
    monkeypatch.chdir(tmp_path)
    main([*MULTIRUN, "seed=0", "run_dir=runs"])
    before = {p: p.stat().st_mtime_ns for p in Path("runs").rglob("*")}
    for words, told in {
        ("seed=1,0",): "seed=1: runs/0 holds a run of other settings, and is left as it is: seed "
        "is 0 there, 1 here. Name another run_dir, or give the settings that it was begun with.",
        ("seed=0,1", "protocol.updates=5"): "protocol.updates is 6 there, 5 here. Name",
        ("method=single,finetune",): "method=single: runs/0 holds a run of other settings, and is "
        "left as it is: method is finetune there, single here",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main([*MULTIRUN, *words, "run_dir=runs"])
        assert ended.value.code == 2
        assert told in capsys.readouterr().err
        assert {p: p.stat().st_mtime_ns for p in Path("runs").rglob("*")} == before


def test_a_job_that_knows_its_settings_late_refuses_those_of_another(
    tmp_path, monkeypatch, capsys, short_episodes
):
    """Jobs of a pattern are not looked at before the first one starts."""
    monkeypatch.chdir(tmp_path)
    main([*MULTIRUN, "method=finetune", "run_dir=runs"])
    with pytest.raises(SystemExit) as ended:
        main([*MULTIRUN, "method=glob(singl*)", "run_dir=runs"])
    assert ended.value.code == 2
    assert "hypercrl: job 0: runs/0 holds a run of other" in capsys.readouterr().err


def test_jobs_that_extend_a_run_go_on_by_the_same_command(
    tmp_path, monkeypatch, capsys, short_episodes
):
    monkeypatch.chdir(tmp_path)
    main([*MULTIRUN[:1], *MULTIRUN[2:], "seed=1", "run_dir=one"])
    words = ["train", "-m", "extend=one", "protocol.num_tasks=2", "run_dir=longer", "device=cpu"]
    _interrupted(words, job=0)
    main(words)
    main(words)
    assert "longer/0 has ended already" in capsys.readouterr().out
    assert len(json.loads(Path("longer/0/result.json").read_text())["tasks"]) == 2


@pytest.mark.extra("hydra-optuna-sweeper")
def test_an_interrupted_search_goes_on_to_what_it_would_have_found(
    tmp_path, monkeypatch, capsys, short_episodes
):
    """In an environment without success, so that the score that is read back is a return, and not
    one of few values."""
    monkeypatch.chdir(tmp_path)
    words = [*MULTIRUN, "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0"]
    words += ["hydra.sweeper.n_trials=4", "env=inverted_pendulum", "seed=range(0,9)"]
    words += ["hydra.sweeper.sampler.n_startup_trials=1"]  # the others by the scores before them
    main([*words, "run_dir=straight"])
    _interrupted([*words, "run_dir=sweep"], job=2)
    assert "the multirun goes on with all of them by the" in capsys.readouterr().err
    main([*words, "run_dir=sweep"])
    assert capsys.readouterr().out.count("has ended already") == 2
    for job in "0123":
        assert _result(Path("sweep", job)) == _result(Path("straight", job))
    name = "optimization_results.yaml"
    assert Path("sweep", name).read_text() == Path("straight", name).read_text()


@pytest.mark.extra("hydra-optuna-sweeper")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "without hydra.sweeper.sampler.seed=N the trials are others each time"),
        (
            ["hydra.sweeper.storage=redis://here", "hydra.sweeper.study_name=mine"],
            "what they came to is in the study 'mine' already, and would count twice",
        ),
    ],
)
def test_a_search_that_cannot_go_on_is_refused_where_jobs_are(
    words, told, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    left = _scored(monkeypatch, 0.5, 0.25)
    search = ["train", "-m", *TINY, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1"]
    search += ["seed=range(0,9)", "run_dir=sweep"]
    main(search)
    with pytest.raises(SystemExit) as ended:
        main([*search, *words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "hypercrl: sweep has 1 job of an earlier sweep, and is left as it is: " in said
    assert told in said
    assert left == [0.25]
