"""A Gymnasium task without a reward function: the model learns what a step pays."""

import numpy as np
import pytest
import torch

from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import Batch, Method, MethodConfig, make_method
from hypercrl_envs import make_task
from hypercrl_envs.gym_rewards import reacher
from hypercrl_kernels import rollout


def random_data(steps: int, seed: int) -> Batch:
    task = make_task("gym", id="Reacher-v5", termination="hypercrl_envs.terminations:never")
    generator = np.random.default_rng(seed)
    obs, _ = task.reset(seed=seed)
    rows = []
    for _ in range(steps):
        action = generator.uniform(-1, 1, 2).astype(np.float32)
        next_obs, _, _, truncated, _ = task.step(action)
        rows.append((obs, action, next_obs))
        obs = task.reset()[0] if truncated else next_obs
    columns = zip(*rows, strict=True)
    return Batch(*(torch.from_numpy(np.stack(column)) for column in columns))


@pytest.fixture(scope="module")
def trained() -> Method:
    data = random_data(6000, seed=0)
    model = DynamicsModel(11, 2, [64, 64], probabilistic=False)
    model.fit_normalisers(data)
    generator = torch.Generator().manual_seed(0)
    config = MethodConfig("single", learning_rate=1e-3, clip_norm=5.0)
    method = make_method(model, config, generator, generator)
    method.begin_task()
    for _ in range(1500):
        rows = torch.randint(len(data), (100,), generator=generator)
        method.training_step(Batch(data.obs[rows], data.action[rows], data.next_obs[rows]))
    return method


@torch.no_grad()
def test_predicts_what_the_known_reward_pays_on_new_data(trained):
    data = random_data(500, seed=1)
    mean, _ = trained.model.predict(trained.weights(0), data.obs, data.action)
    predicted = (data.obs + mean)[:, -1]
    paid = reacher(data.obs[:, :10], data.action, data.next_obs[:, :10])
    assert (predicted - paid).square().mean() < 0.1 * paid.var()


@torch.no_grad()
def test_errors_of_the_reward_do_not_build_up_along_a_rollout(trained):
    """Its own last value enters the prediction: a wrong start is forgotten, not carried along."""
    data = random_data(40, seed=2)
    layers = trained.model.planning_layers(trained.layers(0), task=0)
    wrong = data.obs.clone()
    wrong[:, -1] -= 0.5
    actions = torch.zeros(40, 1, 10, 2)
    ends = [rollout(layers, start, actions)[:, 0, -1, -1] for start in (data.obs, wrong)]
    assert (ends[0] - ends[1]).abs().max() < 0.1
