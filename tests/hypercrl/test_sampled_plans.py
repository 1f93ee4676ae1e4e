"""Every method planned with through samples of its probabilistic model, or refused."""

import json

import pytest
import torch

from hypercrl.cli import main
from hypercrl.config.compose import with_effect
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import METHODS, Batch, make_method
from hypercrl_kernels import rollout

WITHOUT_VARIANCE = ("ftl", "ftl_task")
WITH_VARIANCE = [name for name in METHODS if name not in WITHOUT_VARIANCE]
TINY = (
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[16]",
    "dynamics.probabilistic=true",
    "planner={samples: 8, horizon: 3, iterations: 1, elites: 3}",
    "planner.sampled=true",
    "protocol.random_steps=24",
    "protocol.planned_steps=16",
    "protocol.update_every=8",
    "protocol.updates=5",
    "protocol.final_episodes=1",
    "protocol.checkpoint_every=8",
)
SETTINGS = {
    "packnet": ("method.retrain_updates=10",),
    **{name: ("method.hidden=[8,8]",) for name in METHODS if "hnet" in name},
}
WINDOWS = ("memory=gru", "memory.width=8", "context={windows: 4, burn_in: 5, horizon: 5}")
MEMORIES = [(into, *WINDOWS, f"context.into={into}") for into in ("input", "film", "hypernetwork")]


def batch(task, n=64):
    g = torch.Generator().manual_seed(task)
    obs, action = torch.randn(n, 3, generator=g), torch.randn(n, 2, generator=g)
    change = (-1) ** task * action.repeat(1, 2)[:, :3]
    return Batch(obs, action, obs + change * (1 + 0.5 * torch.randn(n, 3, generator=g)))


OFTEN = ("hnet", "single", "lora", "packnet", "agem", "derpp", "coreset")
"""One of each way to keep what was learned."""


@pytest.mark.parametrize("name", WITH_VARIANCE)
def test_a_plan_samples_from_the_distribution_that_the_method_learned(name):
    """Of each of two tasks, the first an old one, with the variance that `distribution` says."""
    config = METHODS[name][1](name, 3e-2, 100.0)
    model = DynamicsModel(3, 2, [16, 16], probabilistic=True)
    model.fit_normalisers(batch(0))
    method = make_method(model, config, *(torch.Generator().manual_seed(i) for i in range(2)))
    for task in range(2):
        method.begin_task()
        for _ in range(20):
            method.training_step(batch(task))
            method.observe(batch(task))
        method.end_task(batch(task))
    told = []
    for task in range(2):
        data, noise = batch(task), torch.randn(64, 1, 1, 3, generator=method.sampler)
        layers = method.planner_layers(task)(None)
        reached = rollout(layers, data.obs, data.action[:, None, None], noise=noise)[:, 0, 1]
        with torch.no_grad():
            x = model.inputs(data.obs, data.action)
            outputs = method.layout(task).apply(method.weights(task), x)
            mean, logvar = model.distribution(outputs, task)
        told.append((logvar / 2).exp())
        change = mean + told[-1] * noise[:, 0, 0]
        scales = model.target_normaliser
        wanted = data.obs + scales.mean + scales.scale * change
        torch.testing.assert_close(reached, wanted, rtol=1e-4, atol=1e-4)
    assert (told[0] / told[1] - 1).abs().max() > 1e-3  # the two tasks differ in it


@pytest.mark.parametrize(
    "settings",
    [
        *(
            pytest.param((name, f"method={name}"), marks=() if name in OFTEN else pytest.mark.slow)
            for name in WITH_VARIANCE
        ),
        *MEMORIES,
    ],
    ids=lambda settings: settings[0],
)
def test_samples_are_planned_with_from_start_to_resumption_to_play(
    settings, tmp_path, train_and_stop, short_episodes
):
    name, *settings = settings
    settings = [*TINY, *settings, *SETTINGS.get(name, ())]
    main(["train", *settings, f"run_dir={tmp_path / 'straight'}"])
    train_and_stop(*settings, f"run_dir={tmp_path / 'stopped'}", after=2 * 40 - 3)
    main(["train", f"resume={tmp_path / 'stopped'}"])
    straight, resumed = (
        json.loads((tmp_path / run / "result.json").read_text()) for run in ("straight", "stopped")
    )
    assert straight["plans"] == 2 * 16
    assert torch.tensor(straight["scores"]).isfinite().all()
    assert resumed["scores"] == straight["scores"]
    main(["play", f"run={tmp_path / 'stopped'}", "task=1", "episodes=1", "device=cpu"])


@pytest.mark.parametrize("name", WITHOUT_VARIANCE)
@pytest.mark.parametrize("probabilistic", ["true", "false"])
def test_what_has_no_variance_is_not_sampled_from(name, probabilistic, capsys, tmp_path):
    run = tmp_path / "run"
    settings = (f"method={name}", f"dynamics.probabilistic={probabilistic}", f"run_dir={run}")
    plain = [word for word in TINY if word != "planner.sampled=true"]
    words = with_effect("train", [*plain, *settings])
    with pytest.raises(SystemExit) as exit_:
        main(["train", *words, "planner.sampled=true"])
    assert exit_.value.code == 2
    assert f"method={name} predicts none; use planner.sampled=false" in capsys.readouterr().err
    assert not run.exists()
