"""Units are of no account, and what first moves in the middle of a task is learned in it."""

import copy
import json

import gymnasium
import numpy as np
import pytest
import torch
from batches import flat

from hypercrl.agent.belief import Told
from hypercrl.agent.known_tasks import Watched
from hypercrl.agent.task_inference import InferenceConfig, TaskInference
from hypercrl.cli import main
from hypercrl.config.compose import with_effect
from hypercrl.config.schema import TrainConfig
from hypercrl.dynamics import DynamicsModel
from hypercrl.dynamics.conditioning import make_conditioning
from hypercrl.dynamics.context_model import ContextConfig, ContextModel
from hypercrl.memory import MEMORIES, make_memory
from hypercrl.methods import METHODS, Batch, make_method
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.experiment import build
from hypercrl_envs import make_task
from hypercrl_kernels import mean_layers, rollout

UNITS = torch.tensor([1e-6, 1e3, 1.0, 1e6, 1e-3])
POWERS_OF_TWO = torch.tensor([2.0**-20, 2.0**10, 1.0, 2.0**20, 2.0**-10])
HIDDEN = [24, 24]
SETTINGS = {
    "packnet": {"retrain_updates": 4},
    "ftl": {"features": 20},
    "ftl_task": {"features": 20, "embedding_size": 4},
}


def generators(seed=0):
    return (torch.Generator().manual_seed(seed + i) for i in range(2))


def system(task, n, seed, length=1):
    """Four dimensions that move, the second about 5, and one that stands still: [n, length, …]."""
    g = torch.Generator().manual_seed(seed + 1000 * task)
    action = torch.rand(n, length, 2, generator=g) * 2 - 1
    states = [torch.rand(n, 5, generator=g) * 2 - 1 + torch.tensor([0.0, 5.0, 0.0, 0.0, 0.0])]
    states[0][:, 4] = 0.3
    for step in range(length):
        now, a = states[-1], action[:, step]
        pushed = torch.stack([a[:, 0], a[:, 1], now[:, 0] * a[:, 0], now[:, 3].sin()], 1)
        states.append(now.clone())
        states[-1][:, :4] += 0.1 * (-1) ** task * pushed
    states = torch.stack(states, 1)
    parts = states[:, :-1], action, states[:, 1:]
    return Batch(*(part[:, 0] if length == 1 else part for part in parts))


@pytest.fixture
def in_double():
    """Adam takes what rounding leaves of a gradient for a direction, which a float32 run shows."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def in_units(batch, units):
    return Batch(batch.obs * units, batch.action, batch.next_obs * units)


def dynamics(probabilistic=False, memory=False):
    if not memory:
        return DynamicsModel(5, 2, HIDDEN, probabilistic)
    config = ContextConfig(burn_in=4, horizon=3)
    sizes = {"width": 8, "layers": 1, "context": 4}
    encoder = make_memory(MEMORIES["gru"][1](name="gru", **sizes), 12, next(generators(3)))
    conditioning = make_conditioning("input", encoder.context_size, HIDDEN)
    return ContextModel(5, 2, HIDDEN, probabilistic, encoder, conditioning, config)


def make(name, model, **settings):
    config = METHODS[name][1](name, 2e-3, 5.0)
    if "hnet" in name:
        settings = {"hidden": [16, 16], "embedding_size": 4, **settings}
    for key, value in settings.items():
        setattr(config, key, value)
    return make_method(model, config, *generators())


def train(name, units, steps, probabilistic=False, memory=False):
    """Two tasks, as a trainer goes through them."""
    method = make(name, dynamics(probabilistic, memory), **SETTINGS.get(name, {}))
    length = method.model.context_config.length if memory else 1
    for task in range(2):
        method.begin_task()
        held = flat(in_units(system(task, 200, 7, length), units))
        method.model.fit_normalisers(held)
        for fresh in (len(held), 0):
            method.follow(held, fresh)
            for step in range(steps):
                method.training_step(in_units(system(task, 32, step, length), units))
            if fresh:
                method.observe(held)
        method.end_task(held)
    return method


@torch.no_grad()
def imagined(method, units):
    """Normalised motion of each task's model over three steps, through the planner's layers."""
    test = system(0, 100, 99)
    here = in_units(test, units)
    controls = here.action[:, None, None].expand(-1, 1, 3, -1)
    context = torch.zeros(1, 4) if isinstance(method.model, ContextModel) else None
    for task in range(2):
        layers = mean_layers(method.planner_layers(task)(context))
        states = rollout(layers, here.obs, controls)[:, 0]
        assert torch.equal(states[..., 4], here.obs[:, None, 4].expand(-1, 4))
        yield ((states - here.obs[:, None]) / method.model.target_normaliser.scale)[..., :4]


@pytest.mark.parametrize("name", METHODS)
def test_units_of_powers_of_two_change_no_bit(name):
    """They scale floats exactly: whatever differs looks at more than one dimension, or at units."""
    one, other = (train(name, units, 4) for units in (torch.ones(5), POWERS_OF_TWO))
    for a, b in zip(imagined(one, torch.ones(5)), imagined(other, POWERS_OF_TWO), strict=True):
        assert a.abs().max() > 0.01
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "probabilistic", "memory"),
    [
        ("hnet", False, False),
        ("single", False, False),
        ("single", True, False),
        ("single", False, True),
        ("hnet", True, True),
    ],
)
def test_a_run_in_other_units_learns_the_same(name, probabilistic, memory, in_double):
    ones = torch.ones(5)
    one, other = (train(name, units, 25, probabilistic, memory) for units in (ones, UNITS))
    for a, b in zip(imagined(one, ones), imagined(other, UNITS), strict=True):
        assert a.abs().max() > 0.1
        assert (a - b).abs().max() < 1e-10


@pytest.mark.parametrize("probabilistic", [False, True])
def test_padding_costs_the_model_nothing(probabilistic):
    """Sure of what never moves, a likelihood would care for nothing else."""
    errors = []
    for padding in (0, 8):
        model = DynamicsModel(5 + padding, 2, [48, 48], probabilistic)
        method = make("single", model)
        method.begin_task()
        held, test = (padded(system(0, n, n), padding) for n in (1000, 500))
        model.fit_normalisers(held)
        g = torch.Generator().manual_seed(0)
        for _ in range(300):
            method.training_step(held.at(torch.randint(len(held), (100,), generator=g)))
        mean, _ = model.predict(method.weights(0), test.obs, test.action)
        error = model.target_normaliser(test.obs + mean - test.next_obs)[:, :4]
        errors.append(error.square().mean().sqrt())
    assert errors[1] < 1.5 * errors[0]


def padded(batch, width):
    obs, next_obs = (torch.nn.functional.pad(p, (0, width)) for p in (batch.obs, batch.next_obs))
    return Batch(obs, batch.action, next_obs)


def latch(n, seed, free=0.0):
    """Transitions of s = (x, y), of which y moves only while |x| > 0.8: at most a share `free`."""
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, n, generator=g) * 2 - 1
    near = torch.arange(n) < free * n
    x = torch.where(near, x.sign() * (0.8 + 0.2 * x.abs()), 0.7 * x)
    obs = torch.stack([x, torch.where(near, y, 0.0)], 1)
    action = 2 * torch.rand(n, 2, generator=g) - 1
    next_x = (x + 0.1 * action[:, 0]).clamp(-1, 1)
    next_y = torch.where(next_x.abs() > 0.8, obs[:, 1] + 0.1 * action[:, 1], obs[:, 1])
    return Batch(obs, action, torch.stack([next_x, next_y], 1))


def joined(*batches):
    parts = zip(*((b.obs, b.action, b.next_obs) for b in batches), strict=True)
    return Batch(*map(torch.cat, parts))


def learn(method, sessions):
    """One task of the latch; y is free in the last four of five sessions."""
    g = torch.Generator().manual_seed(1)
    held = latch(300, seed=0)
    method.begin_task()
    method.model.fit_normalisers(held)
    fresh = len(held)
    for session in range(sessions):
        if session:
            new = latch(60, seed=session, free=0.3 * (session > 1))
            held, fresh = joined(held, new), len(new)
        method.follow(held, fresh)
        for _ in range(150):
            method.training_step(held.at(torch.randint(len(held), (100,), generator=g)))
        method.observe(held.at(torch.arange(len(held) - fresh, len(held))))
    return held


def shares_of_error(method, task=0):
    """Of each dimension's motion in states where y is free: 1 is what standing still would err."""
    test = latch(500, seed=99, free=1.0)
    layers = mean_layers(method.planner_layers(task)(None))
    predicted = rollout(layers, test.obs, test.action[:, None, None])[:, 0, 1]
    error, motion = predicted - test.next_obs, test.next_obs - test.obs
    return (error.square().mean(0) / motion.square().mean(0)).sqrt()


LATE = {
    "single": {},
    "hnet": {"hidden": [32, 32], "embedding_size": 10},
    "derpp": {"capacity": 300},
    "ftl": {"features": 300, "ridge": 1.0},
}


@pytest.mark.parametrize("name", LATE)
def test_what_first_moves_late_is_learned_and_the_rest_stays_learned(name):
    method = make(name, DynamicsModel(2, 2, [48, 48], False), **LATE[name])
    learn(method, sessions=7)
    assert method.model.target_normaliser.since.tolist() == [0, 0]
    x, y = shares_of_error(method)
    assert y < 0.6
    assert x < 0.35


def test_old_tasks_keep_every_bit_when_a_dimension_begins_to_move():
    """Its constant was not 0, so that its mean has a part in what is folded for the planner."""
    method = make("finetune", dynamics())
    held = []
    for task in range(2):
        method.begin_task()
        batch = system(task, 200, task)
        held.append(batch)
        method.model.fit_normalisers(batch)
        for _ in range(20):
            method.training_step(batch)
        if not task:
            method.end_task(batch)
    model, old = method.model, held[0]
    controls = old.action[:, None, None].expand(-1, 1, 4, -1)
    before = rollout(method.planner_layers(0)(None), old.obs, controls)
    loss = model.loss(method.weights(0), old)
    moved = held[1].next_obs.clone()
    moved[100:, 4] += 0.2 * held[1].action[100:, 0]
    method.follow(Batch(held[1].obs, held[1].action, moved), 0)
    assert model.target_normaliser.moving(1).all()
    assert torch.equal(rollout(method.planner_layers(0)(None), old.obs, controls), before)
    assert torch.equal(model.loss(method.weights(0), old), loss)
    new = rollout(method.planner_layers(1)(None), old.obs, controls)
    assert (new[..., 1:, 4] != 0.3).any()


def test_a_checkpoint_in_mid_task_follows_on_as_the_run_would_have():
    straight, resumed = (make("single", DynamicsModel(2, 2, [8], False)) for _ in range(2))
    held = learn(straight, sessions=4)
    resumed.load_state(copy.deepcopy(straight.state()))
    more = joined(held, latch(100, seed=77, free=1.0))
    before = straight.model.target_normaliser.scale.clone()
    for method in (straight, resumed):
        method.follow(more, 100)
    scales = [method.model.target_normaliser.scale for method in (straight, resumed)]
    assert torch.equal(*scales)
    assert scales[0][0] == before[0]
    assert scales[0][1] != before[1]


def test_ftl_sums_what_it_has_seen_in_the_present_scales():
    method = make("ftl", DynamicsModel(2, 2, [8], False), features=50, ridge=1.0)
    held = learn(method, sessions=5)
    again = make("ftl", method.model, features=50, ridge=1.0)
    again.begin_task()
    again.observe(held)
    for name in ("moments", "products", "solution"):
        wanted = getattr(again, name)
        torch.testing.assert_close(getattr(method, name), wanted, rtol=1e-5, atol=1e-5)


def test_what_derpp_stores_of_a_motion_stays_that_motion():
    method = make("derpp", DynamicsModel(2, 2, [16], False), capacity=100)
    held = learn(method, sessions=4)
    scale, said = method.model.target_normaliser.scale, method.store.extra
    before = scale * said
    changed = scale.clone()
    method.follow(joined(held, latch(200, seed=77, free=1.0)), 200)
    assert scale[1] != changed[1]
    torch.testing.assert_close(scale * said, before)


def test_what_derpp_stores_of_a_variance_stays_that_variance():
    model = DynamicsModel(2, 2, [16], True)
    with torch.no_grad():  # far from what is predicted, where they would bend it
        model.min_logvar.fill_(-40)
        model.max_logvar.fill_(40)
    method = make("derpp", model, capacity=100)
    held = learn(method, sessions=4)
    scale, said = model.target_normaliser.scale, method.store.extra

    def in_units():
        mean, logvar = model.distribution(said)
        return scale * mean, scale * (0.5 * logvar).exp()

    (mean, deviation), changed = in_units(), scale.clone()
    method.follow(joined(held, latch(200, seed=77, free=1.0)), 200)
    assert scale[1] != changed[1]
    torch.testing.assert_close(in_units(), (mean, deviation))


@pytest.mark.parametrize("name", ["ftl", "derpp"])
def test_what_only_trembled_keeps_its_size_where_a_later_task_moves_it(name):
    """By 10⁵ scales from its random steps on: what is held of the tremble is small beside it."""
    settings = {"features": 50, "ridge": 1.0} if name == "ftl" else {"capacity": 100}
    method = make(name, DynamicsModel(2, 2, [16], False), **settings)
    small = torch.tensor([1.0, 1e-7])
    moved = latch(200, seed=1, free=1.0)
    batch = Batch(small * moved.obs, moved.action, small * moved.next_obs)
    method.begin_task()
    method.fit_normalisers(batch)
    method.observe(batch)
    model = method.model
    scale = model.target_normaliser.scale.clone()
    kept = method.products if name == "ftl" else method.store.extra
    before = scale * kept
    assert before[:, 1].any()
    method.end_task(batch)
    method.begin_task()
    method.fit_normalisers(latch(200, seed=2, free=1.0))
    assert model.target_normaliser.scale[1] > 1e4 * scale[1]
    torch.testing.assert_close(model.target_normaliser.scale * kept, before)
    if name == "ftl":
        solution = method.solution.clone()
        method._solve()
        assert torch.equal(method.solution, solution)


def test_what_no_model_has_seen_move_is_no_evidence_for_a_task():
    model = DynamicsModel(2, 1, [4], False)
    obs, action = torch.zeros(50, 2), torch.linspace(-1, 1, 50)[:, None]
    moved = torch.cat([0.1 * action, torch.zeros(50, 1)], 1)
    model.fit_normalisers(Batch(obs, action, moved))
    layers = model.planning_layers(model.layout.split(torch.zeros(model.layout.numel)), 0)
    belief = Watched([Told(layers)], model.target_normaliser.scale, 1, believed=0)
    start = torch.zeros(1, 2)
    belief.observe(start, action[:1], torch.tensor([[0.0, 0.0]]))
    calm = belief.errors.clone()
    belief.observe(start, action[:1], torch.tensor([[0.0, 5.0]]))
    assert torch.equal(belief.errors, calm)


def test_a_task_is_not_doubted_while_its_model_learns_a_new_motion():
    inference = TaskInference(InferenceConfig(settle=10, patience=0, alarm=10.0))
    inference.begin_new()
    for _ in range(20):
        assert inference.step([0.01]) is None
    doubting = copy.deepcopy(inference)
    assert any(doubting.step([1.0]) is not None for _ in range(10))
    inference.learn_more()
    assert all(inference.step([1.0]) is None for _ in range(10))


def test_the_end_of_an_episode_is_a_target_from_its_first_time_on():
    """A flag that is 0 but at an end: never seen by a model, yet to be predicted."""
    method = make("single", DynamicsModel(2, 1, [32], False))
    g = torch.Generator().manual_seed(0)

    def steps(n, least):
        x = torch.rand(n, generator=g) * (1 - least) + least
        action = torch.rand(n, 1, generator=g) * 0.2 - 0.1
        reached = x + action[:, 0]
        obs = torch.stack([x, torch.zeros(n)], 1)
        return Batch(obs, action, torch.stack([reached, (reached > 0.9).float()], 1))

    method.begin_task()
    held = steps(100, -1.0)
    held = held.at((held.next_obs[:, 1] == 0).nonzero()[:, 0])
    method.model.fit_normalisers(held)
    assert method.model.target_normaliser.moving().tolist() == [True, False]
    held = joined(held, steps(100, 0.7))
    method.follow(held, 100)
    for _ in range(800):
        method.training_step(held)
    layers = mean_layers(method.planner_layers(0)(None))
    test = steps(200, 0.7)
    ended = rollout(layers, test.obs, test.action[:, None, None])[:, 0, 1, 1]
    assert ((ended > 0.5) == (test.next_obs[:, 1] > 0.5)).float().mean() > 0.9
    # What is imagined to have ended is an input that no model was trained on.
    over = test.obs + torch.tensor([0.0, 1.0])
    after = rollout(layers, over, test.action[:, None, None])[:, 0, 1]
    torch.testing.assert_close(after[:, 1] - 1, ended, rtol=0, atol=1e-5)


def test_all_of_a_humanoid_is_modelled():
    task = make_task("gym", id="Humanoid-v5")
    g = np.random.default_rng(0)
    rows, obs = [], task.reset(seed=0)[0]
    for _ in range(60):
        action = g.uniform(-1, 1, 17).astype(np.float32)
        next_obs, _, terminated, *_ = task.step(action)
        rows.append((obs, action, next_obs))
        obs = task.reset()[0] if terminated else next_obs
    data = [torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True)]
    model = DynamicsModel(len(obs), 17, [8], False)
    model.fit_normalisers(Batch(*data))
    varies = (data[2] - data[0]).std(0) > 0
    assert varies.sum() > 200
    assert torch.equal(model.target_normaliser.moving(0), varies)


class Latch(gymnasium.Env):
    """y moves only while |x| > 0.8, which random steps from the middle do not reach; x is paid."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, units=(1.0, 1.0), render_mode=None):
        self.units = np.array(units)

    def _seen(self):
        return (self.units * self.state).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.zeros(2)
        return self._seen(), {}

    def step(self, action):
        x, y = self.state
        x = np.clip(x + 0.1 * action[0], -1, 1)
        if abs(x) > 0.8:
            y = np.clip(y + 0.1 * action[1], -1, 1)
        self.state = np.array([x, y])
        return self._seen(), float(x), False, False, {}


gymnasium.register("StiffLatch-v0", Latch, max_episode_steps=30)
LATCH_RUN = (
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[32,32]",
    "exploration.random_std=0.1",
    "planner.horizon=6",
    "planner.samples=64",
    "protocol.num_tasks=1",
    "protocol.random_steps=60",
    "protocol.planned_steps=480",
    "protocol.update_every=60",
    "protocol.updates=200",
    "protocol.first_updates=500",
    "protocol.replay_capacity=600",
    "protocol.eval_every=600",
    "protocol.checkpoint_every=600",
)


def run_latch(path, *settings, units=(1.0, 1.0)):
    """The experiment with what it has learned at the end, and its result."""
    task = f"{{task: gym, id: StiffLatch-v0, options: {{units: {list(units)}}}}}"
    words = with_effect("train", [*LATCH_RUN, *settings, f"env.tasks=[{task}]"])
    main(["train", *words, f"run_dir={path}"])
    folder = RunFolder.open(path)
    experiment = build(folder.config(TrainConfig))
    experiment.load_agent(folder.load_checkpoint("latest"))
    return experiment, json.loads((path / "result.json").read_text())


@pytest.mark.parametrize("settings", [("method=single",), ("method=ftl", "method.ridge=1")])
def test_a_run_learns_in_the_first_task_what_first_moves_late(settings, tmp_path):
    experiment, _ = run_latch(tmp_path / "run", *settings)
    g = torch.Generator().manual_seed(5)
    x, y = 0.85 + 0.15 * torch.rand(300, generator=g), torch.rand(300, generator=g) - 0.5
    action = 2 * torch.rand(300, 2, generator=g) - 1
    action[:, 0] = action[:, 0].abs()
    obs = torch.zeros(300, experiment.model.obs_size)
    obs[:, :3] = torch.stack([x, y, x], 1)  # the third is what was paid
    layers = mean_layers(experiment.method.planner_layers(0)(None))
    error = rollout(layers, obs, action[:, None, None])[:, 0, 1, 1] - (y + 0.1 * action[:, 1])
    assert error.square().mean().sqrt() < 0.6 * (0.1 * action[:, 1]).square().mean().sqrt()


def test_a_whole_run_in_other_units_is_the_same_run(tmp_path):
    """Powers of two scale floats exactly, and the reward is paid in units of its own."""
    small = ("method=single", "protocol.planned_steps=120", "protocol.updates=20")
    scores = [
        run_latch(tmp_path / str(i), *small, units=units)[1]["scores"]
        for i, units in enumerate([(1.0, 1.0), (2.0**-15, 2.0**12)])
    ]
    assert scores[0] == scores[1]
