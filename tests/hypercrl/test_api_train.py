"""Training from Python: the command line's settings, and what comes back."""

import importlib
import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny_runs import SETTINGS

import hypercrl
from hypercrl import TrainingResult, UserError
from hypercrl.base.paths import configs_dir
from hypercrl.cli import main
from hypercrl.config.compose import composed
from hypercrl.config.overrides import setting
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("short_episodes")


class Stop(Exception):
    pass


def test_a_run_is_that_of_the_command_line_stopped_or_not(tmp_path, monkeypatch, capsys):
    words = [setting(key, value) for key, value in SETTINGS.items()]
    monkeypatch.setattr("hypercrl.commands.train.write_report", lambda *_: "")
    main(["train", *words, f"run_dir={tmp_path / 'words'}"])
    capsys.readouterr()
    steps, act = iter(range(40)), Trainer._act

    def act_or_stop(self, planned):
        if next(steps, None) is None:
            raise Stop
        act(self, planned)

    with monkeypatch.context() as patch, suppress(Stop):
        patch.setattr(Trainer, "_act", act_or_stop)
        hypercrl.train(**SETTINGS, run_dir=tmp_path / "python")
    with pytest.raises(UserError, match=r"has not ended; .*hypercrl\.train\(resume="):
        TrainingResult.read(tmp_path / "python")
    assert capsys.readouterr().out == ""
    result = hypercrl.train(resume=str(tmp_path / "python"), device="cpu", verbose=True)
    assert "task 2/2" in capsys.readouterr().out
    configs = [OmegaConf.load(tmp_path / name / "config.yaml") for name in ("words", "python")]
    for config in configs:
        del config["run_dir"]
    assert configs[0] == configs[1]
    states = [
        load_checkpoint(tmp_path / name / "checkpoints" / "after_task_2.safetensors")["method"]
        for name in ("words", "python")
    ]
    for name, tensor in states[0]["tensors"].items():
        assert tensor.equal(states[1]["tensors"][name]), name
    values = json.loads((tmp_path / "python" / "result.json").read_text())
    assert result.values == values
    assert result.run_dir == tmp_path / "python"
    assert result.tasks == tuple(values["tasks"])
    for matrix, name in [
        (result.success, "success"),
        (result.returns, "scores"),
        (result.prediction_error, "prediction_error"),
    ]:
        assert matrix.shape == (3, 2)
        assert matrix.tolist() == values[name]
    assert result.final_return == pytest.approx(np.mean(values["scores"][2]))
    assert result.final_success == pytest.approx(np.mean(values["success"][2]))
    assert result.agent(2).task == 2
    with pytest.raises(UserError, match="has ended"):
        hypercrl.train(resume=tmp_path / "python")
    with pytest.raises(UserError, match="leave out seed, method"):
        hypercrl.train(resume=tmp_path / "python", seed=1, overrides={"method": "ewc"})


def test_what_is_no_number_is_nan():
    rows = {
        "scores": [[None, 1.0]] * 3,
        "success": [[0.0, 1.0]] * 3,
        "goal_distance": [[0.1] * 2] * 3,
    }
    result = TrainingResult(Path(), rows)
    np.testing.assert_array_equal(result.returns, [[np.nan, 1.0]] * 3)
    assert result.final_success == 0.5


@pytest.mark.parametrize(("distance", "mean"), [([0.3, None], 1.0), ([None, None], 1.0)])
def test_final_success_is_of_tasks_in_which_anything_counts_as_that(distance, mean):
    rows = {
        "scores": [[1.0, 2.0]] * 3,
        "success": [[1.0, 0.0]] * 3,
        "goal_distance": [distance] * 3,
    }
    assert TrainingResult(Path(), rows).final_success == mean
    assert np.isnan(TrainingResult(Path(), rows | {"success": [[0.0] * 2] * 3}).final_success) == (
        distance[0] is None
    )


@pytest.fixture
def begun(monkeypatch):
    """Configurations that training would begin with."""
    configs = []

    def begin(config, path):
        configs.append(config)
        raise Stop

    monkeypatch.setattr("hypercrl.api.train.begun", begin)
    return configs


def test_settings_are_choices_mappings_or_dotted_keys(begun):
    with suppress(Stop):
        hypercrl.train(
            env={"name": "mine", "tasks": [{"task": "push", "densities": [100.0, 500]}]},
            planner="icem",
            memory="gru",
            dynamics={"hidden": [8, np.int64(9)], "probabilistic": True},
            overrides={"planner.samples": 50, "protocol.num_tasks": None, "seed": 3},
            seed=2,
            run_dir="a, b=c",
            **{"planner.std": 1e-3, "planner.samples": 40},
        )
    (config,) = begun
    assert config.env.name == "mine"
    assert config.env.tasks == [{"task": "push", "densities": [100.0, 500]}]
    assert (config.planner.name, config.memory.name) == ("icem", "gru")
    assert (config.planner.samples, config.planner.std) == (50, 1e-3)
    assert config.dynamics["hidden"] == [8, 9]
    assert config.dynamics["probabilistic"] is True
    assert config.protocol.num_tasks is None
    assert (config.seed, config.run_dir) == (3, "a, b=c")


def test_what_is_left_out_is_as_on_the_command_line(begun):
    with suppress(Stop):
        hypercrl.train(run_dir="x")
    assert begun == [composed("train", ["run_dir=x"])]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"planer": {"samples": 1}}, "there is no setting 'planer'. Did you mean 'planner'"),
        ({"planner.sample": 1}, "Did you mean 'planner.samples'"),
        ({"planner": {"sample": 1}}, "Did you mean 'planner.samples'"),
        ({"method": "hnett"}, "there is no method=hnett. Did you mean 'hnet'"),
        ({"planner.samples": "many"}, "planner.samples is a whole number, such as"),
        ({"planner.samples": 0}, "planner.samples must be at least 1, not 0"),
        ({"planner.samples": print}, "planner.samples takes text, numbers"),
        ({"protocol.num_tasks": 9}, "the sequence push has 5 tasks"),
        ({"run_dir": "${seed}"}, "reference to a setting"),
        ({"overrides": {"resume": "x"}}, "resume= as an argument"),
        ({"overrides": {"run_dir": None}}, "run_dir= is a folder"),
    ],
)
def test_mistakes_get_the_messages_of_the_command_line(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        hypercrl.train(**settings)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_used_is_left_as_it_is(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already and is left as it is"):
        hypercrl.train(**SETTINGS, run_dir=tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("words", [["seed=1"], ["sed=1"]])
def test_a_program_with_a_hydra_of_its_own_keeps_it(words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        theirs = GlobalHydra.instance().hydra
        with suppress(UserError):
            composed("train", words)
        assert GlobalHydra.instance().hydra is theirs
        assert compose("play").task == 1


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            False,
            0,
            -3,
            1e-5,
            1.5e300,
            float("inf"),
            "a",
            "null",
            "1",
            "",
            "a, b",
            'q"',
        ),
        *([], {}, [1, [2.5, None]], ["x: y", "[z]", "true", ""], {"a": {"b": [{"c": "d, e"}]}}),
        *({"a": "x=1", "b": "jörg"}, ["\\", "'"]),
    ],
)
def test_a_python_value_is_read_as_what_was_written(value):
    (read,) = OverridesParser.create().parse_overrides([setting("key", value)])
    assert read.value() == value
    assert type(read.value()) is type(value)


def test_the_package_is_imported_in_no_time():
    script = "import sys, hypercrl; print([m for m in sys.modules if m in %r])"
    heavy = ("torch", "numpy", "hydra", "mujoco", "gymnasium", "matplotlib", "rich")
    done = subprocess.run(
        [sys.executable, "-c", script % (heavy,)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_door_is_there():
    assert set(hypercrl.__all__) <= set(dir(hypercrl))
    for name in hypercrl.__all__:
        assert getattr(hypercrl, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hypercrl.nothing  # noqa: B018
    for package in ("hypercrl", "hypercrl_envs", "hypercrl_kernels"):
        path = importlib.import_module(package).__file__
        assert path is not None
        assert Path(path).with_name("py.typed").is_file(), package


def snippets(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)


def test_the_documents_code_runs_and_the_example_closes_its_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(snippets("docs/api.md"))
    assert code.count('preset="quick"') == 1
    names: dict = {}
    shorter = f'preset="smoke", protocol={SETTINGS["protocol"]}'
    exec(code.replace('preset="quick"', shorter), names)
    assert names["prediction"].states.shape == (11, 10)
    assert "PlanReport(seconds=" in capsys.readouterr().out
    (snippet,) = snippets("README.md")
    exec(snippet, names)
    assert names["action"].shape == (2,)
    assert names["states"].shape == (11, 10)
    called = [sys.executable, ROOT / "examples/closed_loop.py", "runs/mine", "2", "40"]
    done = subprocess.run(called, capture_output=True, text=True, check=True, timeout=120)
    line = r"40 steps at 20 Hz: (\d+) deadlines missed, return -?\d+\.\d\d\n"
    said = re.fullmatch(line, done.stdout)
    assert said, done
    assert int(said[1]) < 40
    # One who thinks for two ticks misses every other deadline at least.
    monkeypatch.syspath_prepend(ROOT / "examples")
    example, act = importlib.import_module("closed_loop"), hypercrl.TrainedAgent.act

    def slowly(self, obs, deadline=None):
        time.sleep(2 / example.RATE)
        return act(self, obs, deadline)

    monkeypatch.setattr(hypercrl.TrainedAgent, "act", slowly)
    assert example.control("runs/mine", 1, 20)["missed"] >= 10


def test_a_result_is_shown_by_its_folder():
    """Not by all that is in result.json."""
    shown = repr(hypercrl.TrainingResult(Path("mine"), {"tasks": ["one"]}))
    assert shown == f"TrainingResult(run_dir={Path('mine')!r})"
