"""Writing a planner, and seeing what each iteration of a search came to."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from hypercrl.agent.agent import Agent
from hypercrl.cli import main
from hypercrl.planning import PLANNERS, Planner, PlannerConfig, make_planner
from hypercrl.planning.search import VALUES, medians

OF_SEQUENCES = [name for name, (kind, _) in PLANNERS.items() if not kind.follows]

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])
HALF = np.array([1.0, 2.0])
START = torch.tensor([[0.5, -0.3], [0.1, 0.2]])


class RandomShooting(Planner):
    """The best of uniform action sequences, of which none depends on those before."""

    def sample(self, search, noise):
        return self.low + (self.high - self.low) * torch.special.ndtr(noise)

    def fit(self, search, returns, actions):
        best = actions[torch.arange(len(actions), device=actions.device), returns.argmax(1)]
        return replace(search, mean=best, best=best)


def integrator(obs, actions):
    """s' = s + a, exactly."""
    start = obs[:, None, None].expand(-1, actions.shape[1], -1, -1)
    return torch.cat([start, start + actions.cumsum(2)], 2)


def far_from_one(obs, action, next_obs):
    return -(next_obs - 1).square().sum(-1)


def plan(planner, **more):
    """The plan and the start of the next, and of every iteration the samples and their returns."""
    sampled = []

    def rollout(obs, actions):
        states = integrator(obs, actions)
        rewards = far_from_one(None, None, states[:, :, 1:])
        sampled.append((actions.double().numpy(), rewards.sum(-1).double().numpy()))
        return states

    g = torch.Generator().manual_seed(3)
    found = planner.plan(rollout, far_from_one, START, planner.initial(len(START)), g, **more)
    return *found, sampled


def test_a_planner_is_sample_and_fit():
    settings = PlannerConfig("mine", samples=64, horizon=3, iterations=2, elites=4)
    action, start, sampled = plan(RandomShooting(settings, LOW, HIGH))
    assert [actions.shape for actions, _ in sampled] == [(2, 64, 3, 2)] * 2
    assert all((a >= LOW.numpy()).all() and (a <= HIGH.numpy()).all() for a, _ in sampled)
    # Uniform: a quarter of the samples in each quarter of the range, 768 of them
    shares = np.histogram(np.concatenate([a[..., 1] for a, _ in sampled]), 4, (0, 4))[0] / 768
    np.testing.assert_allclose(shares, 0.25, atol=0.06)
    actions, returns = sampled[-1]
    best = np.stack([actions[robot, returns[robot].argmax()] for robot in range(2)])
    np.testing.assert_allclose(action, best[:, 0])
    np.testing.assert_allclose(start[:, 0], best[:, [1, 2, 2]])


@pytest.mark.parametrize("execute", ["mean", "best"])
@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_who_watches_changes_nothing(name, execute):
    config = PLANNERS[name][1](samples=30, horizon=4, iterations=3, elites=6, execute=execute)
    planner = make_planner(config, LOW, HIGH)
    seen = []
    action, start, _ = plan(planner)
    watched, after, _ = plan(planner, watch=seen.append)
    assert torch.equal(watched, action)
    assert torch.equal(after, start)
    assert len(seen) == 3


@pytest.mark.parametrize("min_std", [0.01, 0.9])
def test_every_iteration_is_seen_with_its_numbers(min_std):
    """Of cem, from its samples and their returns, in NumPy."""
    config = PLANNERS["cem"][1](samples=30, horizon=4, iterations=3, elites=6, min_std=min_std)
    seen = []
    *_, sampled = plan(make_planner(config, LOW, HIGH), watch=seen.append)
    mean = np.broadcast_to([0.0, 2.0], (2, 4, 2))
    for iteration, (actions, returns) in zip(seen, sampled, strict=True):
        for robot in range(2):
            order = np.argsort(-returns[robot])[:6]
            elites = actions[robot, order]
            std = np.maximum(elites.std(0), min_std * HALF)
            shift = (elites.mean(0) - mean[robot]) / HALF
            wanted = {
                "elite_return": returns[robot, order].mean(),
                "best_return": returns[robot].max(),
                "spread": (std / HALF).mean(),
                "shift": np.sqrt((shift**2).mean()),
            }
            for name, value in wanted.items():
                assert float(getattr(iteration, name)[robot]) == pytest.approx(value, rel=1e-5)
        mean = np.stack([actions[r, np.argsort(-returns[r])[:6]].mean(0) for r in range(2)])


def test_medians_are_over_plans_and_robots():
    plans = [torch.tensor([[[1.0, 9.0]] * 4, [[5.0, 5.0]] * 4]), torch.full((2, 4, 1), 3.0)]
    plans[0][1, VALUES.index("shift"), 0] = torch.nan  # one that is no number is left out
    assert [list(row.values()) for row in medians(plans)] == [[3.0] * 4, [5.0, 5.0, 5.0, 3.0]]
    assert list(medians(plans)[0]) == list(VALUES)
    assert medians([]) == []


def test_an_agent_keeps_its_searches_if_asked():
    config = PLANNERS["icem"][1](samples=30, horizon=4, iterations=3, elites=6)
    planner = make_planner(config, LOW, HIGH)
    agents = [
        Agent(planner, far_from_one, 2, torch.Generator().manual_seed(0), integrator, watch=watch)
        for watch in (False, True)
    ]
    for _ in range(2):
        plain, watched = (agent.act(START) for agent in agents)
        assert torch.equal(plain, watched)
    assert agents[0].searches == []
    assert [tuple(search.shape) for search in agents[1].searches] == [(3, 4, 2)] * 2
    agents[1].warm_up(START)
    assert agents[1].searches == []


WATCHED = (
    "preset=smoke", "method=finetune", "device=cpu", "dynamics.hidden=[8]",
    "protocol.num_tasks=1", "protocol.random_steps=60", "protocol.planned_steps=40",
    "protocol.update_every=20", "protocol.updates=2", "protocol.eval_every=1000",
    "protocol.checkpoint_every=15", "protocol.heldout_episodes=1",
    "protocol.final_episodes=1", "protocol.eval_episodes=1",
    "planner={samples: 8, elites: 2, horizon: 2, iterations: 2, watch: true}",
)  # fmt: skip


def test_training_logs_its_searches_resumed_or_not_and_play_prints_them(
    tmp_path, capsys, train_and_stop, short_episodes
):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    main(["train", *WATCHED, f"run_dir={straight}"])
    # 10 plans after an update is a checkpoint
    train_and_stop(*WATCHED, f"run_dir={stopped}", after=95)
    main(["train", f"resume={stopped}"])

    def plans(run):
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [
            {k: v for k, v in line.items() if k != "milliseconds"}
            for line in lines
            if line["kind"] == "plan"
        ]

    assert len(plans(straight)) == 2
    assert all(set(VALUES) <= set(record) for record in plans(straight))
    assert all(0 < record["spread"] < 1 for record in plans(straight))
    assert plans(stopped) == plans(straight)

    capsys.readouterr()
    main(["play", f"run={straight}", "episodes=1"])
    plain = capsys.readouterr().out
    main(["play", f"run={straight}", "episodes=1", "watch=true"])
    watched = capsys.readouterr().out
    assert watched.startswith(plain)
    head, *lines = watched.removeprefix(plain).splitlines()
    assert "medians of 12 plans" in head
    number = r"-?[\d.e+-]+"
    for i, line in enumerate(lines, start=1):
        values = ", ".join(f"{name.replace('_', ' ')} {number}" for name in VALUES)
        assert re.fullmatch(f"  iteration {i}: {values}", line)
    assert len(lines) == 2
