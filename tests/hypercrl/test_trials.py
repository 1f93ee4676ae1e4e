"""Whether a known task is back, by the episodes in which its model acts."""

import copy
import json
from itertools import combinations
from typing import cast

import gymnasium
import numpy as np
import pytest
import torch
from killed_runs import assert_same, learned, outcome, saved_and_killed
from linear_world import LinearWorld
from omegaconf import OmegaConf
from test_command_line import message
from tiny_runs import FEW_STEPS

from hypercrl.agent.known_tasks import EVIDENCE
from hypercrl.agent.task_labels import Ended
from hypercrl.agent.trials import FLOOR, USUAL, Episode, Trials, worse
from hypercrl.cli import main
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.config.together import check_together

LENGTH, SIZE = 20, 3


class World:
    """Errors of a model, of a covariance that is drawn, and a return that they cost."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.mixing = torch.randn(SIZE, SIZE, generator=self.generator)

    def live(self, trials, factor, episodes=1, length=LENGTH):
        """Whole episodes, with errors so many times as large; those that were whole for it."""
        found = []
        for _ in range(episodes):
            errors = factor * torch.randn(length, SIZE, generator=self.generator) @ self.mixing
            paid = float(-errors.square().mean())
            for step, error in enumerate(errors):
                last = step == length - 1
                ended = Ended(0, paid, success=True, terminated=False, length=length)
                found.append(trials.step(error, ended if last else None))
        return [episode for episode in found if episode is not None]


def known(world, trials, episodes=USUAL):
    """One task more, of which that many usual episodes are kept."""
    trials.begin_new()
    trials.doubted += world.live(trials, 1.0, episodes)
    trials.keep(len(trials.usual) - 1)


def tried(world, trials, factor):
    """What comes of a trial of task 1, and after how many episodes."""
    assert trials.begin([0])
    world.live(trials, factor)  # of another model in its beginning, as far as anyone knows
    for episode in range(1, 100):
        (lived,) = world.live(trials, factor)
        if (back := trials.judge(lived)) is not None:
            return back, episode
    raise AssertionError


def test_worse_is_the_share_of_pairs_by_error_and_by_return():
    world, trials = World(), Trials(6, 0.02, SIZE)
    usual, trial = world.live(trials, 1.0, 7), world.live(trials, 1.5, 4)

    def error(episode, by):
        covariance = np.mean([u.moment.double().numpy() for u in by], axis=0)
        covariance += 1e-3 * np.trace(covariance) / SIZE * np.eye(SIZE)
        return np.trace(np.linalg.inv(covariance) @ episode.moment.double().numpy()) / SIZE

    wanted = []
    for episode in trial:
        errs = [error(episode, usual) > error(u, [o for o in usual if o is not u]) for u in usual]
        paid = [episode.paid < u.paid for u in usual]
        wanted.append((np.mean(errs) + np.mean(paid)) / 2)
    assert worse(trial, usual) == pytest.approx(wanted)


def test_ties_count_half():
    same = Episode(torch.eye(SIZE), 1.0)
    assert worse([same], [same] * 3) == [0.5]


@pytest.mark.parametrize(("trial", "usual"), [(2, 5), (3, 4)])
def test_the_variance_of_the_share_is_that_of_all_orders(trial, usual):
    """W of n and U values that are all alike, over every way to deal them out."""
    shares = []
    for mine in combinations(range(trial + usual), trial):
        others = [rank for rank in range(trial + usual) if rank not in mine]
        shares.append(np.mean([m > o for m in mine for o in others]))
    assert np.mean(shares) == pytest.approx(0.5)
    assert np.var(shares) == pytest.approx((trial + usual + 1) / (12 * trial * usual))


def test_usual_errors_are_a_task_s_own_and_a_little_of_all():
    """By hand; a task of which nothing is kept has what is usual of the others."""
    world, trials = World(), Trials(0, 0.05, SIZE)
    for episodes in (3, 0, 1):
        known(world, trials, episodes)
        assert len(trials.usual[-1]) == episodes
    one, _, three = ([e.moment.double().numpy() for e in usual] for usual in trials.usual)
    shared = (np.mean(one, axis=0) + three[0]) / 2
    own = [(sum(one) + shared) / 4, shared, (three[0] + shared) / 2]
    wanted = [(1 - FLOOR) * s + FLOOR * np.trace(s) / SIZE * np.eye(SIZE) for s in own]
    found = trials.covariances([0, 1, 2], 9.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert torch.equal(trials.covariances([2, 1, 0], 9.0), found.flip(0))
    nothing = trials.covariances([1, 1], 9.0)
    width = 9 * SIZE * EVIDENCE / 0.25  # a quarter of the mean of squares, as before there were any
    np.testing.assert_allclose(nothing, np.stack(2 * [width * np.eye(SIZE)]), rtol=1e-6)


def test_usual_errors_come_to_be_the_covariance_that_errors_are_drawn_from():
    world, trials = World(3), Trials(0, 0.05, SIZE)
    trials.begin_new()
    trials.usual[0] = world.live(trials, 2.0, 2000)
    (found,) = trials.covariances([0], 1.0)
    drawn = 4 * world.mixing.T @ world.mixing
    wanted = (1 - FLOOR) * drawn + FLOOR * drawn.trace() / SIZE * torch.eye(SIZE)
    assert (found - wanted).abs().max() < 0.03 * wanted.diagonal().max()


def test_a_right_model_is_known_again_and_a_wrong_one_is_not():
    back = []
    for seed in range(100):
        world, trials = World(seed), Trials(6, 0.02, SIZE)
        known(world, trials)
        right, episodes = tried(world, trials, 1.0)
        assert episodes == 6 or not right
        back.append(right)
        trials.end()
        assert not tried(world, trials, 3.0)[0]
    # At six looks of a chance of .02 each at most .12 are lost, were they independent.
    assert np.mean(back) >= 0.88


def test_what_a_trial_that_came_out_well_has_shown_is_usual_as_well():
    world, trials = World(), Trials(3, 0.02, SIZE)
    known(world, trials)
    before = list(trials.usual[0])
    assert tried(world, trials, 1.0)[0]
    assert len(trials.usual[0]) == USUAL
    assert [a is b for a, b in zip(trials.usual[0], before[3:], strict=False)] == [True] * 7


def test_the_next_is_tried_where_one_is_not_back_and_a_broken_episode_counts_for_none():
    world, trials = World(), Trials(3, 0.02, SIZE)
    for _ in range(2):
        known(world, trials)
    assert trials.begin([1, 0])
    trials.step(torch.ones(SIZE), None)
    trials.begin([1, 0])  # again, in the midst of an episode
    ended = Ended(0, 0.0, success=True, terminated=False, length=LENGTH)
    assert trials.step(torch.ones(SIZE), ended) is None
    trials.begin([1, 0])
    verdicts = []
    while trials.waiting[0] == 1:
        verdicts.append(trials.judge(*world.live(trials, 5.0)))
    assert verdicts[-1] is False
    assert verdicts[:-1] == [None] * (len(verdicts) - 1)
    assert trials.waiting == [0]
    assert trials.results[1] == 1.0
    assert trials.steps == len(verdicts) * LENGTH


def test_none_is_tried_of_which_too_little_is_known():
    trials = Trials(6, 0.02, SIZE)
    trials.begin_new()
    assert not trials.begin([0])
    assert not trials.open


def test_none_is_tried_whose_trial_could_not_fail():
    """Of two usual episodes and two others even the worst order, of six, is no surprise at 0.05; of
    five and two it is, of 21."""
    world, trials = World(), Trials(2, 0.05, SIZE)
    known(world, trials, 2)
    known(world, trials, 5)
    assert trials.begin([0, 1])
    assert trials.waiting == [1]
    trials.judge(*world.live(trials, 9.0))
    assert trials.judge(*world.live(trials, 9.0)) is False
    assert not trials.open


def test_without_trials_none_begins():
    off = Trials(0, 0.02, SIZE)
    known(World(), off)
    assert len(off.usual[0]) == USUAL  # evaluated episodes go by them
    assert not off.begin([0])


def test_trials_go_on_from_their_state():
    world, trials = World(), Trials(6, 0.02, SIZE)
    for _ in range(2):
        known(world, trials)
    trials.begin([1, 0])
    trials.judge(*world.live(trials, 1.0))
    trials.step(torch.ones(SIZE), None)
    again = Trials(6, 0.02, SIZE)
    again.load_state(copy.deepcopy(trials.state()))
    other = copy.deepcopy(world)
    ends = [(w.live(t, 1.0, 1, LENGTH - 1)) for w, t in ((world, trials), (other, again))]
    for one, both in zip(*ends, strict=True):
        torch.testing.assert_close((one.moment, one.paid), (both.moment, both.paid))
    torch.testing.assert_close(again.state(), trials.state())


@pytest.mark.parametrize(
    "wrong", [{"waiting": [7]}, {"results": [[3, 0.5]]}, {"sum": torch.zeros(2, 2)}]
)
def test_a_state_of_other_trials_is_refused(wrong):
    trials = Trials(6, 0.02, SIZE)
    known(World(), trials)
    with pytest.raises(ValueError, match=r"tasks|wanted"):
        Trials(6, 0.02, SIZE).load_state({**trials.state(), **wrong})


# --- whole runs ---

gymnasium.register("TriedWorlds-v0", LinearWorld, max_episode_steps=5)
TASKS = ", ".join(
    f"{{task: gym, id: TriedWorlds-v0, options: {{sign: {sign}}}}}" for sign in (1, -1)
)
DOUBTING = ("settle=20", "alarm=1", "allowance=1", "patience=2", "familiar=0", "trial=3")
TRYING = (
    *(*FEW_STEPS, "method=single", f"env.tasks=[{TASKS}]", "protocol.num_tasks=2"),
    *("protocol.planned_steps=90", "protocol.prediction_horizon=3", "protocol.updates=20"),
    *("task_id=inferred", "inference.trial_error=0.2", *(f"inference.{x}" for x in DOUBTING)),
)


def test_saved_at_every_pause_and_killed_in_trials_it_ends_the_same(tmp_path, monkeypatch):
    main(["train", *TRYING, f"run_dir={tmp_path / 'straight'}"])
    within = saved_and_killed(
        tmp_path / "run",
        TRYING,
        (1, 30),
        monkeypatch,
        lambda tree: tree["labels"]["trials"]["steps"],
    )
    assert len(within) > 30
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")
    assert_same(learned(tmp_path / "run"), learned(tmp_path / "straight"))
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    logged = [record for record in map(json.loads, lines) if record["kind"] == "trial"]
    assert logged
    assert not any(record["new"] for record in logged)


@pytest.mark.parametrize(("trial", "error", "enough"), [(1, 0.05, 2), (5, 1e-3, 6), (33, 1e-6, 34)])
def test_trials_that_cannot_fail_are_refused(trial, error, enough, tmp_path, capsys):
    run = tmp_path / "run"
    words = ("preset=smoke", "task_id=inferred", f"inference.trial_error={error:g}")
    said = message(capsys, "train", *words, f"inference.trial={trial}", f"run_dir={run}")
    assert f"Give inference.trial={enough} or more" in said
    assert not run.exists()
    config = OmegaConf.to_object(composed("train", [*words, f"inference.trial={enough}"]))
    check_together(cast(TrainConfig, config))
