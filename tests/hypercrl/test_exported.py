"""Exported programs act as the agent does that they were made of."""

import importlib
import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from hypercrl.agent.agent import Agent
from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.training import exported
from hypercrl.training.open_run import open_run

TINY = [
    "train",
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[16, 16]",
    "protocol={num_tasks: 2, random_steps: 40, planned_steps: 10, update_every: 5, updates: 20}",
    "protocol={eval_every: 1000, eval_episodes: 1, final_episodes: 1, heldout_episodes: 1}",
    "protocol={prediction_horizon: 2}",
    # Not in bfloat16, which a processor may have: sums in another order differ by more there.
    "planner={samples: 30, elites: 5, horizon: 4, iterations: 3, precision: ieee}",
]
PENDULUM = (
    "{task: gym, id: InvertedPendulum-v5, reward: 'hypercrl_envs.gym_rewards:inverted_pendulum', "
    "termination: 'hypercrl_envs.terminations:inverted_pendulum'}"
)
RUNS = {
    "hnet": ["env=push", "method=hnet", "planner=mppi"],
    "probabilistic": [
        "env=cheetah",
        "method=finetune",
        "planner=icem",
        "dynamics.probabilistic=true",
        "planner.noise_beta=2",
    ],
    "knots": ["env=push", "method=single", "planner.knots=3", "planner.global_share=0.2"],
    "ending": ["method=pnn", f"env.tasks=[{PENDULUM}, {PENDULUM}]"],
}
PUSH = ["env=push", "method=finetune"]
FORMS = [
    ("torch_export", "pt2"),
    pytest.param("onnx", "onnx", marks=pytest.mark.extra("onnxruntime", "onnxscript")),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains with these words, once."""
    folder, count = tmp_path_factory.mktemp("runs"), itertools.count()

    @cache
    def train(*words: str) -> Path:
        path = folder / str(next(count))
        main([*TINY, *words, f"run_dir={path}"])
        return path

    return train


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, trained: Callable[..., Path]) -> Path:
    return trained(*RUNS[request.param])


def runs_a_file(path: Path):
    """What calls the program in a file with tensors, as a user of it would."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = importlib.import_module("onnxruntime").InferenceSession(str(path))

    def call(*tensors):
        flat = [t for x in tensors for t in (x if isinstance(x, tuple) else (x,))]
        names = [given.name for given in session.get_inputs()]
        feed = {name: t.numpy() for name, t in zip(names, flat, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return call


@pytest.mark.parametrize(("form", "suffix"), FORMS)
def test_acts_as_the_agent_does(run: Path, tmp_path: Path, form: str, suffix: str):
    """Step after step, from the same observation, start and noise."""
    out = tmp_path / f"act.{suffix}"
    main(["export", f"run={run}", f"format={form}", f"out={out}", "task=2"])
    program, experiment = runs_a_file(out), open_run(run, "cpu")
    planner, env = experiment.planner, experiment.sequence.make(1)
    generator, noise = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    agent = Agent(planner, env.reward, 1, generator, termination=env.termination)
    agent.believe(experiment.labels.belief(1, 1))
    obs, _ = env.reset(seed=5)
    for _ in range(6):
        seen = torch.from_numpy(obs)[None]
        start = agent.start
        expected = agent.act(seen)
        action, start = program(seen, start, tuple(x.clone() for x in planner.noise(1, noise)))
        torch.testing.assert_close(action, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(start, agent.start, rtol=0, atol=1e-5)
        obs = env.step(expected[0].numpy())[0]
    assert expected.abs().max() > 1e-3, "a plan that does something"
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(("form", "suffix"), FORMS)
def test_predicts_as_the_model_does(run: Path, tmp_path: Path, form: str, suffix: str):
    """Against `DynamicsModel.predict`, with the weights that the method has for the task."""
    out = tmp_path / f"model.{suffix}"
    main(["export", f"run={run}", f"format={form}", f"out={out}", "part=dynamics", "task=1"])
    experiment = open_run(run, "cpu")
    task = experiment.sequence.make(0)
    actions = task.action_space.shape[0]
    for robots in (1, 7):
        obs = torch.from_numpy(np.stack([task.reset(seed=seed)[0] for seed in range(robots)]))
        action = 2 * torch.rand(robots, actions) - 1
        got = runs_a_file(out)(obs, action)
        belief = experiment.labels.belief(0, 1)
        states = belief.predict(obs, action[:, None])
        torch.testing.assert_close(got[0], states[:, 1], rtol=1e-5, atol=1e-5)
        assert len(got) == 1 + experiment.model.probabilistic


def test_deviations_are_those_of_the_model(tmp_path: Path, trained: Callable[..., Path]):
    experiment = open_run(trained(*RUNS["probabilistic"]), "cpu")
    out = tmp_path / "model.pt2"
    exported.export_dynamics(experiment, 1, experiment.robot(1), out, "torch_export")
    obs, action = torch.randn(5, 20), torch.rand(5, 6)
    mean, std = runs_a_file(out)(obs, action)
    assert mean.shape == std.shape == (5, 20)
    change, logvar = experiment.model.predict(experiment.method.weights(1), obs, action)
    torch.testing.assert_close(mean, obs + change, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(std, (logvar / 2).exp(), rtol=1e-4, atol=1e-5)


def test_a_program_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Callable[..., Path]
):
    experiment = open_run(trained(*RUNS["hnet"]), "cpu")
    out = tmp_path / "out" / "act.pt2"
    experiment.config.planner.dynamics = "simulator"
    with pytest.raises(UserError, match="no model"):
        exported.export_act(experiment, 0, experiment.robot(0), out, "torch_export")
    experiment.config.planner.dynamics = "model"
    act = exported.Act.forward
    monkeypatch.setattr(
        exported.Act, "forward", lambda *given: tuple(x + 1e-4 for x in act(*given))
    )
    with pytest.raises(UserError, match=r"differs from the original by 1\.0e-04"):
        exported.export_act(experiment, 0, experiment.robot(0), out, "torch_export")
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "out", "message"),
    [
        ([*PUSH, "memory=gru", "context={burn_in: 4, horizon: 2}"], "act.pt2", "with a memory"),
        (
            [*PUSH, "planner.sampled=true", "dynamics.probabilistic=true"],
            "act.pt2",
            "part=dynamics",
        ),
        ([*PUSH, "planner=policy", "planner.horizon=8"], "act.pt2", "part=dynamics"),
        (RUNS["hnet"], "act.onnx", "must end in .pt2"),
    ],
)
def test_what_cannot_be_exported_is_said(
    tmp_path: Path, capsys, trained: Callable[..., Path], words, out, message
):
    run = trained(*words)
    with pytest.raises(SystemExit):
        main(["export", f"run={run}", "format=torch_export", f"out={tmp_path / out}"])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path):
    """Which the command says in a line; torch's own would be a RuntimeError."""
    program = exported._program(torch.nn.Identity(), (torch.zeros(1),), None)
    with pytest.raises(FileNotFoundError):
        exported._write(program, tmp_path / "nowhere" / "a.pt2", "torch_export", ["x"], ["y"])
