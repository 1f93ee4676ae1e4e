"""Whether a known task is back, by the episodes in which its model acts."""

import copy
import json
from functools import partial
from math import log, sqrt

import gymnasium
import numpy as np
import pytest
import torch
from killed_runs import assert_same, learned, outcome, saved_and_killed
from linear_world import LinearWorld
from tiny_runs import FEW_STEPS
from torch.distributions import MultivariateNormal

from hypercrl.agent.known_tasks import EVIDENCE
from hypercrl.agent.task_labels import Ended
from hypercrl.agent.trials import FEWEST, FLOOR, SHIFT, TOGETHER, USUAL, Episode, Trials, evidence
from hypercrl.cli import main

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


def test_evidence_is_the_ratio_of_two_normal_densities():
    """Of the logarithm of the error and of the return, with densities by torch."""
    world, trials = World(), Trials(6, 0.02, SIZE)
    usual = world.live(trials, 1.0, 7)

    def error(episode, by):
        covariance = np.mean([u.moment.double().numpy() for u in by], axis=0)
        covariance += 1e-3 * np.trace(covariance) / SIZE * np.eye(SIZE)
        return np.log(np.trace(np.linalg.inv(covariance) @ episode.moment.double().numpy()) / SIZE)

    def deviation(value, others):
        return (value - np.mean(others)) / np.std(others, ddof=1) / np.sqrt(1 + 1 / len(others))

    errors = [error(u, [o for o in usual if o is not u]) for u in usual]
    together = torch.tensor([[1, TOGETHER], [TOGETHER, 1]]).double()
    right, wrong = (
        MultivariateNormal(torch.full((2,), mean).double(), together) for mean in (0.0, SHIFT)
    )
    for factor in (0.5, 1.0, 1.5, 4.0):
        (episode,) = world.live(trials, factor)
        x = deviation(error(episode, usual), errors)
        y = -deviation(episode.paid, [u.paid for u in usual])
        at = torch.tensor([x, y]).double()
        wanted = float(wrong.log_prob(at) - right.log_prob(at))
        assert evidence(episode, usual) == pytest.approx(wanted)


def test_usual_episodes_that_are_all_alike_make_any_other_one_strange():
    same, other = (Episode(torch.eye(SIZE), paid) for paid in (1.0, 0.5))
    assert evidence(same, [same] * FEWEST) < 0
    assert np.isfinite(evidence(other, [same] * FEWEST))
    assert evidence(other, [same] * FEWEST) > 100
    still = Episode(torch.zeros(SIZE, SIZE), 1.0)  # nothing moved in it
    assert evidence(still, [still] * FEWEST) < 0
    assert np.isfinite(evidence(still, [same] * FEWEST))
    assert 100 < evidence(same, [still] * FEWEST) < np.inf


def test_better_than_what_was_always_alike_is_as_good_as_usual_and_hides_nothing():
    """Of sparse returns, one solved episode after unsolved ones; and of errors."""
    eye = torch.eye(SIZE)
    unsolved = [Episode(size * eye, 0.0) for size in (0.8, 1.0, 1.3)]
    for size in (0.5, 1.0, 9.0):
        solved, as_ever = (evidence(Episode(size * eye, paid), unsolved) for paid in (1.0, 0.0))
        assert solved == as_ever
    assert solved > log(0.98 / 0.02)  # nine times the usual error
    alike = [Episode(eye, paid) for paid in (0.8, 1.0, 1.2)]
    poor, poor_as_ever = (evidence(Episode(size * eye, -1.0), alike) for size in (0.5, 1.0))
    assert poor == pytest.approx(poor_as_ever)
    assert poor > log(0.98 / 0.02)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e9])
@pytest.mark.parametrize("size", [0.5, 1.0, 9.0])
def test_returns_that_vary_by_a_hair_are_alike_in_any_unit(unit, size):
    """Rounding is no spread to count deviations by: as where all are the same, to a hair."""
    episode, eye = partial(Episode, size * torch.eye(SIZE)), torch.eye(SIZE)
    errors, hairs = (0.8, 1.0, 1.3, 1.1), (0.0, 1e-9, -1e-9, 3e-9)
    for usual in (0.0, 5.0):  # nothing was ever paid; or always the same
        same = [Episode(e * eye, unit * usual) for e in errors]
        rounded = [
            Episode(e * eye, unit * (usual + hair)) for e, hair in zip(errors, hairs, strict=True)
        ]
        as_ever = evidence(episode(unit * usual), same)
        for paid in (usual + 1.0, usual + 1e-8) if usual else (1.0,):
            assert evidence(episode(unit * paid), rounded) == pytest.approx(as_ever, abs=0.01)
        strange = evidence(episode(unit * (usual - 1.0)), rounded)
        assert strange > 100
        if usual:
            alike = evidence(episode(unit * (usual - 1e-8)), rounded)
            assert alike == pytest.approx(as_ever, abs=0.01)


def test_returns_that_vary_little_but_truly_are_weighed_by_their_spread():
    """A thousandth of the return is what a careful robot pays for its motions, say."""
    eye, paid = torch.eye(SIZE), (5.0, 5.005, 4.995)
    usual = [Episode(eye, each) for each in paid]
    better, worse = (evidence(Episode(eye, each), usual) for each in (5.01, 4.99))
    deviation = 0.01 / (0.005 * sqrt(1 + 1 / 3))
    assert worse - better == pytest.approx(2 * 2 * deviation / 1.5)


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
    back, lengths = [], []
    for seed in range(100):
        world, trials = World(seed), Trials(6, 0.02, SIZE)
        known(world, trials)
        right, episodes = tried(world, trials, 1.0)
        back.append(right)
        lengths.append(episodes)
        trials.end()
        assert not tried(world, trials, 3.0)[0]
    # A share of .02 would be lost were the usual spread known exactly and not by ten episodes.
    assert np.mean(back) >= 0.95
    assert np.median(lengths) < 6  # it does not take all episodes
    assert min(lengths) == 2  # and one alone is not enough


def verdict(world, trials, factor):
    found = None
    while found is None:
        found = trials.judge(*world.live(trials, factor))
    return found


def test_the_least_bad_one_is_tried_again_before_a_new_task_begins():
    """A right model has two bad episodes now and then."""
    world, trials = World(), Trials(6, 0.05, SIZE)
    for _ in range(2):
        known(world, trials)
    assert trials.begin([1, 0])
    assert not verdict(world, trials, 2.0)
    assert trials.waiting == [0]
    assert not verdict(world, trials, 9.0)
    assert trials.waiting == [1]
    right, wrong = trials, copy.deepcopy(trials)
    assert verdict(world, right, 1.0)
    assert not verdict(world, wrong, 9.0)
    assert not wrong.open


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
    assert trials.results[1] >= log(0.98 / 0.02)
    assert trials.steps == len(verdicts) * LENGTH


def test_none_is_tried_of_which_too_little_is_known():
    trials = Trials(6, 0.02, SIZE)
    trials.begin_new()
    assert not trials.begin([0])
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
