"""Bursts of random actions in between planned ones."""

import pytest
import torch
from killed_runs import assert_same, learned, outcome, saved_and_killed
from tiny_runs import FEW_STEPS

from hypercrl.agent.exploration import Bursts, CorrelatedNoise, ExplorationConfig
from hypercrl.cli import main

PLANNED = 10.0
"""What no random action is near to."""


def acted(share, length, robots=50, steps=4000):
    """Steps [T, N] that were in a burst, and all actions [T, N, 1]."""
    generator = torch.Generator().manual_seed(0)
    bias = torch.ones(1)
    noise = CorrelatedNoise(robots, 1, 0.8, -bias, bias, generator)
    bursts = Bursts(ExplorationConfig(burst_share=share, burst_steps=length), noise)
    actions = []
    for _ in range(steps):
        noise.step()
        actions.append(bursts.act(torch.full((robots, 1), PLANNED)))
    actions = torch.stack(actions)
    return actions[..., 0] != PLANNED, actions


@pytest.mark.parametrize(("share", "length"), [(0.3, 10), (0.5, 1), (0.1, 25)])
def test_the_share_of_random_steps_is_the_one_asked_for(share, length):
    bursts, _ = acted(share, length)
    # Steps of a burst come together: as many independent ones as there are bursts.
    error = (share * (1 - share) / (bursts.numel() / (2 * length))) ** 0.5
    assert bursts.float().mean().item() == pytest.approx(share, abs=4 * error)


def test_a_burst_lasts_and_has_a_drift_of_its_own():
    bursts, actions = acted(0.2, 8)
    lengths, means = [], []
    for robot in range(bursts.shape[1]):
        # A planned step ends every burst, for it takes one to begin the next.
        edges = bursts[:, robot].long().diff().nonzero()[:, 0].tolist()
        for begin, end in zip(edges[::2], edges[1::2], strict=False):
            lengths.append(end - begin)
            means.append(actions[begin + 1 : end + 1, robot].mean())
    assert set(lengths) == {8}
    # The mean of 8 correlated x varies too; to it comes the bias, even in [-1, 1], of each burst.
    of_means = sum(0.8 ** abs(i - j) for i in range(8) for j in range(8)) / 64
    expected = ExplorationConfig.random_std**2 * of_means + 1 / 3
    assert torch.stack(means).var().item() == pytest.approx(expected, rel=0.1)


def test_without_bursts_nothing_is_drawn():
    bursts, _ = acted(0.0, 10, robots=3, steps=20)
    assert not bursts.any()
    generator = torch.Generator().manual_seed(0)
    noise = CorrelatedNoise(3, 1, 0.8, torch.zeros(1), torch.zeros(1), generator)
    before = generator.get_state()
    Bursts(ExplorationConfig(), noise).act(torch.zeros(3, 1))
    assert generator.get_state().equal(before)


def test_in_a_burst_others_may_say_what_to_do():
    noise = CorrelatedNoise(3, 1, 0.8, torch.zeros(1), torch.zeros(1), torch.Generator())
    bursts = Bursts(ExplorationConfig(burst_share=0.3, burst_steps=5), noise)
    bursts.left = torch.tensor([0, 5, 2])
    assert bursts.going.tolist() == [False, True, True]
    assert bursts.fresh.tolist() == [False, True, False]
    actions = bursts.act(torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [3.0]]))
    assert actions[:, 0].tolist() == [0.0, 2.0, 3.0]


RANDOM = ("method=single", "protocol.num_tasks=1")
PLANNED_FOR = (
    *(*RANDOM, "method.members=3", "exploration.kind=disagreement", "protocol.robots=2"),
    *("planner=icem", "planner.samples=8", "planner.elites=2", "planner.horizon=3"),
)


@pytest.mark.parametrize("words", [RANDOM, PLANNED_FOR], ids=["random", "disagreement"])
def test_a_run_goes_on_in_the_midst_of_a_burst(words, tmp_path, monkeypatch, short_episodes):
    starts = []

    def in_a_burst(tree):
        if tree["position"]["step"] <= 14 or not tree["actor"]["bursts"]["left"].any():
            return False
        starts.append(tree["actor"].get("explorer_start"))
        return True

    words = [*FEW_STEPS, *words, "exploration.burst_share=0.5", "exploration.burst_steps=4"]
    main(["train", *words, f"run_dir={tmp_path / 'whole'}"])
    saved = saved_and_killed(tmp_path / "parted", words, (1, 4), monkeypatch, in_a_burst)
    assert len(saved) > 4
    if "exploration.kind=disagreement" in words:
        assert any(start.any() for start in starts)  # there is a plan to go on with
    assert outcome(tmp_path / "parted") == outcome(tmp_path / "whole")
    assert_same(learned(tmp_path / "parted"), learned(tmp_path / "whole"))
