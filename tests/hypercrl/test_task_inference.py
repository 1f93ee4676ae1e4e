"""Tasks identified, and new ones begun, without a label: the rule, the belief, and whole runs."""

import copy
import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from batches import linear_system
from linear_world import LinearWorld
from torch.distributions import MultivariateNormal

from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Told
from hypercrl.agent.known_tasks import EVIDENCE, TaskPosterior, Watched
from hypercrl.agent.task_inference import (
    BURSTS,
    Change,
    InferenceConfig,
    TaskInference,
)
from hypercrl.agent.trials import Episode, Trials
from hypercrl.cli import main
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import METHODS, Batch, make_method
from hypercrl.metrics import Decision, score_decisions
from hypercrl.planning import CEM, CEMConfig
from hypercrl_kernels import mean_layers

RULE = InferenceConfig(max_tasks=3, window=50, alarm=40.0, patience=5, settle=100)


class Stream:
    """Errors of known models in a world whose task changes: 1 of the right one, 5 of others.

    Where a wrong one acts even the right one errs, `misled` times as much.
    """

    misled = 1.0

    def __init__(self, config=RULE, seed=0):
        self.rule = TaskInference(config)
        self.rule.begin_new()
        self.width = 0.1
        self.owner = [0]  # true task for which each known one was made
        self.generator = torch.Generator().manual_seed(seed)
        self.now = 0

    def run(self, task, steps, spikes=()):
        """Live through some steps of a task; steps and choices of all decisions."""
        taken = []
        for step in range(steps):
            self.now += 1
            noise = 0.5 + torch.rand(len(self.owner), generator=self.generator)
            right = 1.0 if self.owner[self.rule.current] == task else self.misled
            wrong = torch.tensor([right if owner == task else 5.0 for owner in self.owner])
            errors = self.width * noise * wrong
            if step in spikes:
                errors = 4 * errors
            change = self.rule.step(errors.square().tolist())
            if change is None:
                continue
            taken.append((step, change.task))
            if change.task == self.rule.known:
                self.rule.begin_new()
                self.owner.append(task)
            else:
                self.rule.go_back(change.task)
        return taken


def test_a_new_task_is_noticed_once_and_an_old_one_is_known_again():
    stream = Stream()
    assert stream.run(0, 400) == []
    for task, known in ((1, 1), (0, 0), (1, 1)):
        ((delay, chosen),) = stream.run(task, 400)
        assert chosen == known
        # Squared errors of 25 times their level fill the sum in two steps or three.
        assert RULE.patience < delay + 1 < RULE.patience + 5
    assert stream.owner == [0, 1]
    stream.misled = 4.0  # as much as a wrong one, and is taken for one
    ((_, chosen),) = stream.run(0, 90)
    assert chosen == 2


def test_whoever_errs_less_is_familiar_with_a_share_of_one_but_never_the_present_task():
    stream = Stream(replace(RULE, familiar=1.0))
    stream.run(0, 400)
    ((_, chosen),) = stream.run(1, 400)  # the only other one would be itself
    assert chosen == 1
    ((_, chosen),) = stream.run(0, 400)
    assert chosen == 0


@pytest.mark.parametrize("wrong", [{"current": 1}, {"current": -1}, {"doubted": [0.1, 0.2]}])
def test_a_state_of_other_tasks_is_refused(wrong):
    stream = Stream()
    stream.run(0, 150)
    again = TaskInference(RULE)
    with pytest.raises(ValueError, match="not of 1 tasks"):
        again.load_state({**stream.rule.state(), **wrong})


@pytest.mark.parametrize("wrong", [{"levels": ["a"]}, {"learned": 1.5}, {"sum": "a"}])
def test_a_state_of_other_types_is_refused(wrong):
    stream = Stream()
    again = TaskInference(RULE)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        again.load_state({**stream.rule.state(), **wrong})


def test_the_least_wrong_one_stays_where_no_more_may_be_made():
    config = InferenceConfig(max_tasks=2, alarm=40.0, patience=5, settle=100)
    for errors, last in (([300.0, 200.0], 1), ([200.0, 250.0], 1), ([100.0, 350.0], 0)):
        rule = TaskInference(config)
        for _ in range(2):
            rule.begin_new()
            for _ in range(config.settle):
                rule.step([1.0] * rule.known)
        changes = [rule.step(errors) for _ in range(config.patience + 1)]
        wanted = None if last == 1 else Change(0, config.patience + 1)
        assert changes == [None] * config.patience + [wanted]
        assert rule.suspicious == (wanted is not None)  # until it is gone back to
        rule.go_back(last)
        assert rule.levels[1] == (1 if last == 0 else errors[1])  # to expect of one that stays
        assert not rule.suspicious


def test_single_surprises_change_nothing():
    stream = Stream()
    assert stream.run(0, 600, spikes=range(150, 600, 40)) == []


def test_errors_within_the_allowance_are_never_held_against_a_model():
    stream = Stream()
    stream.run(0, 300)
    stream.width *= 1.5
    assert stream.run(0, 20 * int(RULE.alarm)) == []


def test_touches_that_were_learned_with_the_level_raise_no_alarm():
    stream = Stream()
    assert stream.run(0, 1500, spikes=range(0, 1500, 12)) == []


def steps_until_alarm(rule: TaskInference, error: float) -> int:
    """So many steps of such an error."""
    steps = 0
    while not rule.suspicious:
        steps += 1
        assert rule.step([error]) is None
    return steps


def test_errors_that_last_raise_an_alarm_that_their_sum_does_not():
    """A level of 0.06 that remembers how the model erred while it learned is four times as large as
    the errors of 0.01 are now. Ones of 0.3 are 5 levels then, a surplus of 1 a step, and their
    logarithm is 3 above the mean of the others, a surplus of 1.5."""
    rules = [
        TaskInference(InferenceConfig(settle=100, window=100, steady=steady))
        for steady in (120.0, 1e9)
    ]
    for rule in rules:
        rule.begin_new()
        for _ in range(100):
            rule.step([0.5])
        while rule.levels[0] > 0.06:
            rule.step([0.01])
    lasting, summed = (steps_until_alarm(rule, 0.3) for rule in rules)
    assert 70 < lasting < 90
    assert 550 < summed < 650


def test_a_burst_is_no_alarm_however_large():
    rule = TaskInference(InferenceConfig(settle=100, alarm=1e12))
    rule.begin_new()
    for step in range(2000):
        rule.step([1e3 if step % 200 > 176 else 0.01])
        assert not rule.suspicious


def test_no_more_tasks_than_allowed():
    stream = Stream()
    for task in range(5):
        stream.run(task, 400)
    assert stream.rule.known == RULE.max_tasks
    # In a world that no model fits it stays with one, instead of jumping about.
    assert len(stream.run(9, 400)) <= 3


def test_a_model_that_is_still_learning_is_not_doubted():
    stream = Stream()
    assert stream.run(5, RULE.settle - 1) == []  # a task of which it knows nothing
    assert stream.rule.levels[0] > (3 * stream.width) ** 2


def test_the_rule_goes_on_from_its_state():
    stream = Stream()
    stream.run(0, 300)
    again = Stream()
    again.rule = TaskInference(RULE)
    again.rule.load_state(copy.deepcopy(stream.rule.state()))
    again.generator.set_state(stream.generator.get_state())
    assert again.run(1, 200) == stream.run(1, 200) != []
    assert again.rule.state() == stream.rule.state()


@pytest.mark.parametrize("steps", [2, RULE.patience])
def test_the_rule_goes_on_from_its_state_in_doubt(steps):
    stream = Stream()
    for task in (0, 1):
        stream.run(task, 400)
    assert stream.run(0, steps) == []
    again = Stream()
    again.owner = [0, 1]
    again.rule.load_state(copy.deepcopy(stream.rule.state()))
    again.generator.set_state(stream.generator.get_state())
    again.now = stream.now
    assert again.run(0, 200) == stream.run(0, 200) != []
    assert again.rule.state() == stream.rule.state()


def test_the_error_to_expect_is_that_of_a_right_and_learned_model():
    """Squares of 1 and 9 in turn have the mean 5; the next task's do not count, nor do those of a
    model that is still learning, and one ill learned task does not spoil the median."""
    rule = TaskInference(RULE)
    rule.begin_new()
    assert rule.settled == [0]
    for step in range(RULE.settle):
        rule.step([1.0 + 8 * (step % 2)])
    assert rule.expected_error == pytest.approx(5 * BURSTS, rel=0.05)
    for _ in range(40):
        rule.step([4.0])
    before = rule.expected_error
    assert 4 < before / BURSTS < 4.7
    taken = [rule.step([400.0]) for _ in range(RULE.patience + 1)]
    assert taken == [None] * RULE.patience + [Change(1, RULE.patience + 1)]
    assert rule.expected_error == before
    for level in (7.0, 100.0):
        rule.begin_new()
        for _ in range(RULE.settle):
            assert rule.settled == list(range(rule.known - 1))
            rule.step([level] * rule.known)
    assert rule.settled == [0, 1, 2]
    assert rule.expected_error == pytest.approx(7 * BURSTS)


def test_a_doubt_that_its_further_steps_do_not_confirm_is_given_up():
    """A burst raises an alarm; with what follows it the mean is within the allowance."""
    config = InferenceConfig(alarm=40.0, patience=30, settle=100)
    rule = TaskInference(config)
    rule.begin_new()
    for _ in range(config.settle):
        rule.step([1.0])
    assert [rule.step([45.0])] + [rule.step([1.0]) for _ in range(29)] == [None] * 30
    assert rule.suspicious
    assert rule.step([1.0]) is None
    assert not rule.suspicious
    assert rule.levels == [pytest.approx((45 + 30) / 31)]  # what to expect of it now
    taken = [rule.step([110.0]) for _ in range(31)]
    assert taken == [None] * 30 + [Change(1, 31)]


def test_errors_that_last_are_not_got_used_to():
    """Six times the level is two beyond the allowance at every step, until the alarm."""
    rule = TaskInference(InferenceConfig())
    rule.begin_new()
    for _ in range(rule.config.settle):
        rule.step([1.0])
    taken = [rule.step([6.0]) for _ in range(301 + 60)]
    assert taken == [None] * 360 + [Change(1, 361)]
    assert rule.levels == [pytest.approx(1)]


@pytest.fixture(scope="module", params=[False, True], ids=["mean", "with a variance"])
def method(request):
    """An hnet that has learned both systems."""
    model = DynamicsModel(2, 2, [24], probabilistic=request.param)
    model.fit_normalisers(linear_system(0, 500))
    config = METHODS["hnet"][1]("hnet", 2e-3, 5.0)
    config.hidden, config.beta, config.embedding_size = [16, 16], 1.0, 4
    hnet = make_method(model, config, *(torch.Generator().manual_seed(i) for i in range(2)))
    for task in range(2):
        hnet.begin_task()
        for step in range(250):
            hnet.training_step(linear_system(task, seed=step))
    return hnet


def told(method):
    return [Told(method.planner_layers(task)(None)) for task in range(2)]


def posterior(method, robots, error=0.2):
    scale = method.model.target_normaliser.scale
    return TaskPosterior(told(method), scale, robots, error**2 * torch.eye(2).expand(2, -1, -1))


def test_each_robot_finds_its_own_task(method):
    belief = posterior(method, robots=4)
    tasks = [0, 1, 1, 0]
    assert torch.equal(belief.probabilities(), torch.full((4, 2), 0.5))
    for step in range(3):
        seen = [linear_system(task, 1, seed=10 * step + i) for i, task in enumerate(tasks)]
        parts = ((batch.obs, batch.action, batch.next_obs) for batch in seen)
        belief.observe(*map(torch.cat, zip(*parts, strict=True)))
    found = belief.probabilities()
    assert found.argmax(1).tolist() == tasks
    assert (found.amax(1) > 0.99).all()
    for robot in range(4):
        for task in range(2):
            for (w, b), (w_task, b_task) in zip(
                belief.layers(), mean_layers(method.planner_layers(task)(None)), strict=True
            ):
                assert torch.equal(w[2 * robot + task], w_task)
                assert torch.equal(b[2 * robot + task], b_task)
    belief.reset()
    assert torch.equal(belief.probabilities(), torch.full((4, 2), 0.5))


def one_way(slope):
    """s' = s + slope · a, of one dimension."""
    return Told([(torch.tensor([[0.0, slope]]), torch.zeros(1))])


def alike(square, tasks=2):
    """Usual errors of so many models of one dimension."""
    return torch.full((tasks, 1, 1), square)


def test_probabilities_by_hand():
    """Bayes' rule: p ∝ Π exp(−½ κ (e / scale)² / C), e being a, 0.5 a and 0 off."""
    scale = torch.tensor([0.5])
    belief = TaskPosterior([one_way(s) for s in (1.0, 0.5, 0.0)], scale, 2, alike(0.16, 3))
    obs = torch.tensor([[3.0], [-1.0]])
    for actions in ([0.3, -0.1], [-0.2, 0.4]):
        action = torch.tensor(actions)[:, None]
        belief.observe(obs, action, obs)
    moved = torch.tensor([[0.13], [0.17]])  # Σ a² of either robot
    off = moved * torch.tensor([1.0, 0.25, 0.0]) / 0.5**2
    weights = (-0.5 * EVIDENCE * off / 0.16).exp()
    torch.testing.assert_close(belief.probabilities(), weights / weights.sum(1, keepdim=True))
    # The states of an open loop are their mean.
    states = belief.predict(obs, torch.ones(2, 2, 1))
    slope = belief.probabilities() @ torch.tensor([[1.0], [0.5], [0.0]])
    wanted = torch.stack([obs, obs + slope, obs + 2 * slope], 1)
    torch.testing.assert_close(states, wanted)
    # A robot that begins a new episode knows nothing, and the other one what it knew.
    before = belief.probabilities()[0].clone()
    belief.reset([1])
    torch.testing.assert_close(belief.probabilities(), torch.stack([before, torch.ones(3) / 3]))


@pytest.mark.parametrize("truth", range(3))
def test_odds_are_those_of_systems_whose_noise_is_known(truth):
    """Linear systems with correlated noise of their own: the exact likelihood, by torch's."""
    draw, scale = np.random.default_rng(truth), np.array([0.5, 2.0, 1.0])
    gains = draw.normal(size=(3, 3, 2))
    mixing = draw.normal(size=(3, 3, 3)) + np.eye(3)
    noise = mixing @ mixing.transpose(0, 2, 1)
    zeros, float32 = torch.zeros(3), torch.float32
    systems = [
        Told([(torch.cat([torch.zeros(3, 3), torch.tensor(gain, dtype=float32)], 1), zeros)])
        for gain in gains
    ]
    in_scales = torch.tensor(noise / scale[:, None] / scale)
    belief = TaskPosterior(systems, torch.tensor(scale, dtype=float32), 1, in_scales)
    odds = np.zeros(3)
    for _ in range(200):
        state, action = draw.normal(size=3), draw.normal(size=2)
        expected = state + gains @ action
        after = draw.multivariate_normal(expected[truth], noise[truth])
        belief.observe(*(torch.tensor(x[None], dtype=float32) for x in (state, action, after)))
        odds += [
            MultivariateNormal(torch.tensor(mean), torch.tensor(covariance))
            .log_prob(torch.tensor(after))
            .item()
            for mean, covariance in zip(expected, noise, strict=True)
        ]
    found = belief.evidence[0].double().numpy() / EVIDENCE
    np.testing.assert_allclose(found - found[truth], odds - odds[truth], rtol=1e-4, atol=1e-2)
    assert belief.probabilities()[0, truth] > 0.99


def test_several_dimensions_are_one_observation():
    """Two dimensions that always say the same say it once."""
    one, two = (
        TaskPosterior(
            [Told([(torch.cat([torch.zeros(o, o), s * torch.ones(o, 1)], 1), torch.zeros(o))])
             for s in (1.0, 0.0)],
            torch.ones(o), 1, (torch.ones(o, o) + 1e-6 * torch.eye(o)).expand(2, -1, -1),
        )
        for o in (1, 2)
    )  # fmt: skip
    for belief, o in ((one, 1), (two, 2)):
        belief.observe(torch.zeros(1, o), torch.full((1, 1), 4.0), torch.zeros(1, o))
    torch.testing.assert_close(one.probabilities(), two.probabilities(), rtol=1e-4, atol=0)
    assert one.probabilities()[0, 1] > 0.6


def test_a_small_error_that_is_never_made_says_more_than_a_large_one_that_is():
    """By one width for all dimensions it would be the other way round."""
    still, moved = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    sideways = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]])
    systems = [Told([(weight, torch.zeros(2))]) for weight in (moved, still + sideways)]
    usual = torch.diag(torch.tensor([1.0, 1e-4])).expand(2, -1, -1)
    belief = TaskPosterior(systems, torch.ones(2), 1, usual)
    belief.observe(torch.zeros(1, 2), torch.ones(1, 1), torch.zeros(1, 2))
    assert belief.probabilities()[0, 0] > 0.98


def test_small_errors_that_last_while_nothing_moves_decide_nothing():
    """Two coordinates err together; the right model lets them part a little, and always so."""
    trials = Trials(0, 0.05, 2)
    for _ in range(2):
        trials.begin_new()
        trials.usual[-1] = 10 * [Episode(torch.ones(2, 2), 0.0)]
    still, moved = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
    systems = [Told([(moved, torch.tensor([0.05, -0.05]))]), Told([(still, torch.zeros(2))])]
    belief = TaskPosterior(systems, torch.ones(2), 1, trials.covariances([0, 1], 1.0))
    for _ in range(60):
        belief.observe(torch.zeros(1, 2), torch.zeros(1, 1), torch.zeros(1, 2))
    assert 0.3 < belief.probabilities()[0, 0] < 0.5
    for _ in range(8):
        belief.observe(torch.zeros(1, 2), torch.ones(1, 1), torch.full((1, 2), 2.0))
    assert belief.probabilities()[0, 0] > 0.6


def test_a_known_episode_is_gone_through_again():
    made = [
        TaskPosterior([one_way(1.0), one_way(-1.0)], torch.ones(1), 1, alike(1.0)) for _ in range(3)
    ]
    g = torch.Generator().manual_seed(0)
    episode = Batch(*(torch.randn(5, 1, generator=g) for _ in range(3)))
    for step in range(5):
        made[0].observe(*(part[step : step + 1] for part in vars(episode).values()))
    made[1].observe(torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1, 1))  # to be forgotten
    made[1].recall([episode])
    made[2].load_state(copy.deepcopy(made[0].state()))
    for other in made[1:]:
        assert torch.equal(other.probabilities(), made[0].probabilities())


def test_an_agent_acts_for_both_hypotheses_until_it_knows():
    """Not knowing whether it goes to a or to −a it stays; then it goes to the middle at once.

    It is the same plan whether hypotheses are one batch, or robots, or both.
    """
    config = CEMConfig(samples=300, horizon=1, iterations=8, min_std=0.01)
    ones = torch.ones(1)
    agent = Agent(
        CEM(config, -ones, ones),
        lambda obs, action, next_obs: -next_obs.square().sum(-1),
        2,
        torch.Generator().manual_seed(0),
    )
    belief = TaskPosterior([one_way(1.0), one_way(-1.0)], torch.ones(1), 2, alike(0.03**2))
    agent.believe(belief)
    agent.reset()
    obs = torch.tensor([[0.5], [0.5]])
    assert agent.act(obs).abs().max() < 0.06
    agent.observe(obs, torch.full((2, 1), 0.3), torch.tensor([[0.8], [0.2]]))
    assert (belief.probabilities().amax(1) > 0.99).all()
    torch.testing.assert_close(agent.act(obs), torch.tensor([[-0.5], [0.5]]), rtol=0, atol=0.06)
    # Fewer hypotheses are another network: a place of its own, and no probabilities.
    agent.believe(one_way(1.0))
    torch.testing.assert_close(agent.act(obs), -obs, rtol=0, atol=0.06)


def test_a_watched_task_is_believed_in_whatever_the_errors(method):
    belief = Watched(told(method), method.model.target_normaliser.scale, 1, believed=1)
    for step in range(30):
        batch = linear_system(0, 1, seed=step)
        belief.observe(batch.obs, batch.action, batch.next_obs)
        right, wrong = belief.errors[0].square().mean(-1).sqrt()
        wanted = (2 * batch.action[0] / method.model.target_normaliser.scale).square().mean().sqrt()
        torch.testing.assert_close(wrong, wanted, rtol=0, atol=0.5)
        assert right < 0.5
    for (w, b), (w_task, b_task) in zip(
        belief.layers(), mean_layers(method.planner_layers(1)(None)), strict=True
    ):
        assert torch.equal(w, w_task)
        assert torch.equal(b, b_task)


def test_precision_recall_and_delay_by_hand():
    decisions = [
        Decision(50, 0, 1, True),  # nothing had changed
        Decision(130, 1, 2, True),  # right, 30 late
        Decision(170, 1, 0, False),
        Decision(220, 2, 1, False),  # a new task taken for a known one
        Decision(350, 3, 3, True),  # right, 50 late
        Decision(410, 4, 2, False),  # right, 10 late: the second task is back
        Decision(560, 5, 2, False),  # the first task is taken for the second
    ]
    boundaries = [100, 200, 300, 400, 500]
    assert score_decisions(decisions, boundaries, [0, 1, 2, 3, 1, 0]) == {
        "decisions": 7,
        "precision": 3 / 7,
        "recall": 3 / 5,
        "delay": 30.0,
    }
    assert score_decisions([], [], [0]) == {
        "decisions": 0,
        "precision": None,
        "recall": None,
        "delay": None,
    }


def test_where_a_task_follows_itself_there_is_nothing_to_notice():
    """As in a control for false alarms."""
    boundaries, identities = [100, 200, 300, 400], [0, 0, 1, 1, 0]
    assert score_decisions([], boundaries, identities)["recall"] == 0.0
    assert score_decisions([], boundaries[:1], identities[:2])["recall"] is None
    late = Decision(310, 3, 1, True)  # the second task was noticed after the boundary with itself
    back = Decision(430, 4, 0, False)
    assert score_decisions([late, back], boundaries, identities) == {
        "decisions": 2,
        "precision": 1.0,
        "recall": 1.0,
        "delay": (110 + 30) / 2,
    }
    false_alarm = Decision(150, 1, 1, True)
    assert score_decisions([false_alarm], boundaries[:1], identities[:2]) == {
        "decisions": 1,
        "precision": 0.0,
        "recall": None,
        "delay": None,
    }


gymnasium.register(
    "TwoLinearWorlds-v0",
    LinearWorld,
    max_episode_steps=30,
    kwargs={"keep": 0.9, "gain": 0.5},
)
LINEAR = ", ".join(
    f"{{task: gym, id: TwoLinearWorlds-v0, options: {{sign: {sign}}}}}" for sign in (1, -1, 1)
)
INFERRING = (
    "preset=smoke",
    "device=cpu",
    f"env.tasks=[{LINEAR}]",
    "protocol.num_tasks=3",
    "task_id=inferred",
    "protocol.random_steps=90",
    "protocol.planned_steps=210",
    "protocol.first_updates=200",
    "protocol.replay_capacity=300",
    "protocol.eval_every=500",
    "protocol.final_episodes=1",
    "dynamics.hidden=[32]",
    "inference.settle=60",
    "inference.window=50",
    "inference.patience=20",
    "inference.allowance=4",
    "inference.alarm=200",
)


@pytest.mark.parametrize(
    "method",
    [
        (
            "method=hnet",
            "method.hidden=[16]",
            "method.learning_rate=0.003",
            "method.beta=1",
            "inference.familiar=1",  # so that five seeds do, whatever a processor rounds
            "inference.alarm=600",
        ),
        pytest.param(
            (
                "method=single",
                "method.learning_rate=0.003",
                "memory=gru",
                "memory.width=8",
                "context.burn_in=10",
                "inference.familiar=0.6",
                "inference.alarm=1500",  # far from where it learned, a memory says anything
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["hnet", "single-gru"],
)
def test_a_whole_run_in_conflicting_worlds_finds_their_boundaries(tmp_path, method):
    """A new task is begun where the sign turns, and the old one gone back to where it turns back;
    both are identified in evaluations, which have no label."""
    main(["train", *INFERRING, *method, f"run_dir={tmp_path / 'r'}"])
    result = json.loads((tmp_path / "r/result.json").read_text())
    assert result["task_id"] == "inferred"
    assert [(d["task"], d["chosen"], d["new"]) for d in result["decisions"]] == [
        (1, 1, True),
        (2, 0, False),
    ]
    found = result["task_inference"]
    assert (found["precision"], found["recall"]) == (1, 1)
    delays = [d["env_step"] - 300 * d["task"] for d in result["decisions"]]
    assert all(20 <= delay <= 50 for delay in delays)
    assert found["delay"] == sum(delays) / 2
    # With the wrong world's model the return is below −100.
    assert min(result["scores"][3]) > -20
    main(["play", f"run={tmp_path / 'r'}", "task=2", "episodes=1"])


def test_only_so_many_tasks_are_told_apart(tmp_path):
    run = tmp_path / "r"
    words = ("method=single", "method.learning_rate=0.003", "inference.max_tasks=1")
    words += ("protocol.num_tasks=2", "protocol.planned_steps=60")
    main(["train", *INFERRING, *words, f"run_dir={run}"])
    result = json.loads((run / "result.json").read_text())
    assert result["decisions"] == []


def test_pushing_runs_without_a_label(tmp_path, short_episodes):
    """What is decided is in the log, and the true tasks are scored all the same."""
    run = tmp_path / "r"
    words = ("preset=smoke", "device=cpu", "env=push_frame", "method=single", "task_id=inferred")
    doubting = (
        "inference.settle=5",
        "inference.allowance=1",
        "inference.alarm=1",
        "inference.patience=3",
    )
    main(["train", *words, *doubting, f"run_dir={run}"])
    result = json.loads((run / "result.json").read_text())
    assert np.isfinite(result["scores"]).all()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    logged = [r for r in map(json.loads, lines) if r["kind"] == "decision"]
    assert [(r["env_steps"], r["chosen"] - 1) for r in logged] == [
        (d["env_step"], d["chosen"]) for d in result["decisions"]
    ]
    assert logged


def test_methods_of_growing_networks_are_refused(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["train", "method=pnn", "task_id=inferred", f"run_dir={tmp_path / 'r'}"])
    assert "task_id=given" in capsys.readouterr().err


def test_states_are_copies():
    rule = TaskInference(RULE)
    rule.begin_new()
    state = rule.state()
    kept = copy.deepcopy(state)
    rule.step([1.0])
    torch.testing.assert_close(state, kept)


@pytest.mark.parametrize("steps", [15, 22])
def test_what_was_saved_before_there_were_logarithms_goes_on(steps):
    """Before a doubt and amid one, in which its first errors had been counted as 1."""
    errors = [0.01] * 20 + [0.1] * 2 + [0.01] * 20
    rules = [TaskInference(InferenceConfig(settle=10, alarm=10, patience=5)) for _ in range(2)]
    whole, begun = rules
    for rule in rules:
        rule.begin_new()
        for error in errors[:steps]:
            assert rule.step([error]) is None
    saved = begun.state()
    for name in ("typical", "lasting", "logarithms"):
        del saved[name]
    begun.load_state(saved)
    assert begun.suspicious == (steps == 22)
    for rule in rules:
        for error in errors[steps:]:
            assert rule.step([error]) is None
        assert not rule.suspicious
    assert begun.typical == pytest.approx(whole.typical, rel=1e-3)
    for name, wrong in (("levels", ["a"]), ("doubt", 3), ("current", 4)):
        with pytest.raises((LookupError, ValueError)):
            begun.load_state({**saved, "doubted": [], **{name: wrong}})
