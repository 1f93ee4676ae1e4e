"""What only a CUDA device can show: run with -m gpu on a machine that has one."""

import copy
import gc
import json
import time

import pytest
import torch

from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Ensemble, Told
from hypercrl.agent.known_tasks import TaskPosterior
from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.cli import main
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import METHODS, Batch, HnetConfig, make_method
from hypercrl.planning import PLANNERS, make_planner
from hypercrl.planning.disagreement import Disagreement
from hypercrl.training.result import repeatable

TS1 = ("dynamics.probabilistic=true", "planner.sampled=true", "planner.propagation=ts1")
DISAGREEMENT = ("exploration.kind=disagreement", "exploration.burst_share=0.5")
pytestmark = pytest.mark.gpu


def reward(obs, action, next_obs):
    return -(next_obs[..., :2] - 1).square().sum(-1) - 0.1 * action.square().sum(-1)


@torch.no_grad()
def make_layers(scale=1.0, probabilistic=False):
    model = DynamicsModel(10, 2, [64, 64], probabilistic).cuda()
    weights = scale * model.layout.initial(torch.Generator().manual_seed(1)).cuda()
    return model.planning_layers(model.layout.split(weights), task=0)


def make_agent(reward=reward, robots=3, seed=0, sampled=False, watch=False, name="cem", **settings):
    ones = torch.ones(2, device="cuda")
    settings = {"samples": 128, "horizon": 10, "iterations": 3, "elites": 16} | settings
    planner = make_planner(PLANNERS[name][1](sampled=sampled, **settings), -ones, ones)
    planner.standardise(torch.zeros(10, device="cuda"), torch.ones(10, device="cuda"))
    generator = torch.Generator("cuda").manual_seed(seed)
    agent = Agent(planner, reward, robots, generator, watch=watch)
    agent.set_layers(make_layers(probabilistic=sampled))
    return agent


KNOTS = {"knots": 4, "interpolation": "cubic", "global_share": 0.2}


@pytest.mark.parametrize(
    "search",
    [{}, {"name": "policy"}, KNOTS, {"name": "icem", **KNOTS}, {"name": "mppi", **KNOTS}],
    ids=lambda search: "-".join(str(value) for value in search.values()) or "cem",
)
@pytest.mark.parametrize("sampled", [False, True])
def test_a_captured_plan_is_the_eager_plan(sampled, search):
    settings = {"sampled": sampled, **search}
    graph, eager = make_agent(**settings), make_agent(**settings)
    eager._plan = eager._plan_eagerly
    g = torch.Generator().manual_seed(2)
    for step in range(10):
        obs = torch.randn(3, 10, generator=g)
        if step == 6:  # new weights go into the graph in place
            graph.set_layers(make_layers(1.1, sampled))
            eager.set_layers(make_layers(1.1, sampled))
        if step == 8:  # and so does a new seed
            graph.generator.manual_seed(9)
            eager.generator.manual_seed(9)
        torch.testing.assert_close(graph.act(obs), eager.act(obs), rtol=1e-4, atol=1e-5)
    assert graph._plan._graph is not None


def test_a_traced_reward_gives_the_plan_of_its_operations():
    goal = torch.ones(2, device="cuda")

    def to_the_goal(obs, action, next_obs):
        return -(next_obs[..., :2] - goal).square().sum(-1) - 0.1 * action.square().sum(-1)

    traced, plain = make_agent(to_the_goal), make_agent(to_the_goal)
    assert traced._returns is not None
    plain._returns = None
    g = torch.Generator().manual_seed(2)
    for step in range(8):
        if step == 6:
            goal.neg_()  # in place: both graphs read it
        obs = torch.randn(3, 10, generator=g)
        torch.testing.assert_close(traced.act(obs), plain.act(obs), rtol=1e-3, atol=1e-3)
    assert traced._plan._graph is not None
    assert plain._plan._graph is not None


def test_a_reward_that_cannot_be_traced_is_captured_all_the_same():
    def sorted_first(obs, action, next_obs):
        return reward(obs, action, next_obs.sort(-1).values)

    agent, eager = make_agent(sorted_first), make_agent(sorted_first)
    assert agent._returns is None
    eager._plan = eager._plan_eagerly
    g = torch.Generator().manual_seed(2)
    for _ in range(CapturedFunction.EAGER_CALLS + 3):
        obs = torch.randn(3, 10, generator=g)
        torch.testing.assert_close(agent.act(obs), eager.act(obs), rtol=1e-4, atol=1e-5)
    assert agent._plan._graph is not None


def test_a_watched_plan_is_captured_too():
    graph, eager, plain = make_agent(watch=True), make_agent(watch=True), make_agent()
    eager._plan = eager._plan_eagerly
    g = torch.Generator().manual_seed(2)
    for _ in range(8):
        obs = torch.randn(3, 10, generator=g)
        action = graph.act(obs)
        torch.testing.assert_close(action, eager.act(obs), rtol=1e-4, atol=1e-5)
        assert torch.equal(action, plain.act(obs))
    assert graph._plan._graph is not None
    assert len(graph.searches) == 8
    for seen, wanted in zip(graph.searches, eager.searches, strict=True):
        assert seen.shape == (3, 4, 3)
        torch.testing.assert_close(seen, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name][0].learns_variance])
def test_a_captured_plan_samples_from_every_method(name):
    """The methods' own layers, those of a second task, as they move."""
    model = DynamicsModel(10, 2, [64, 64], probabilistic=True)
    config = METHODS[name][1](name, 1e-3, 5.0)
    generators = (torch.Generator().manual_seed(0), torch.Generator("cuda").manual_seed(1))
    method = make_method(model, config, *generators)
    g = torch.Generator().manual_seed(3)
    parts = [t.cuda() for t in (torch.randn(50, 10, generator=g), torch.randn(50, 2, generator=g))]
    batch = Batch(*parts, parts[0] + 0.1)
    for _ in range(2):
        method.begin_task()
        method.training_step(batch)
        method.observe(batch)
        method.end_task(batch)
    method.begin_task()
    graph, eager = make_agent(sampled=True), make_agent(sampled=True)
    for _ in range(CapturedFunction.EAGER_CALLS + 3):
        method.training_step(batch)
        for agent in (graph, eager):
            agent.set_layers(method.planner_layers(1)(None))
        eager._plan = eager._plan_eagerly  # a network of another size has a graph of its own
        obs = torch.randn(3, 10, generator=g)
        torch.testing.assert_close(graph.act(obs), eager.act(obs), rtol=1e-4, atol=1e-5)
    assert graph._plan._graph is not None


def test_a_captured_plan_for_several_hypotheses_is_the_eager_plan():
    """The posterior is brought up to date between plans, and goes into the graph with them."""
    graph, eager = make_agent(), make_agent()
    for agent in (graph, eager):
        known = [Told(make_layers(scale)) for scale in (1.0, 1.1, 0.9)]
        usual = 0.01 * torch.eye(10).expand(3, -1, -1)
        agent.believe(TaskPosterior(known, torch.ones(10, device="cuda"), 3, usual))
    eager._plan = eager._plan_eagerly
    g = torch.Generator().manual_seed(2)
    for _ in range(10):
        obs, after = torch.randn(3, 10, generator=g), torch.randn(3, 10, generator=g)
        action = graph.act(obs)
        torch.testing.assert_close(action, eager.act(obs), rtol=1e-4, atol=1e-5)
        for agent in (graph, eager):
            agent.observe(obs, action, obs + 0.01 * after)
    assert graph._plan._graph is not None


def three_members():
    members = [make_layers(scale) for scale in (1.0, 1.1, 0.9)]
    layers = [
        (torch.stack(weights), torch.stack(biases))
        for weights, biases in (zip(*layer, strict=True) for layer in zip(*members, strict=True))
    ]
    return Ensemble(layers, 3)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_captured_plan_for_disagreement_is_the_eager_plan(name):
    """The scale of a dimension is read from where it is: a model's may come to move in a task."""
    scale = torch.ones(10, device="cuda")
    graph, eager = (make_agent(Disagreement(scale, 3), name=name) for _ in range(2))
    for agent in (graph, eager):
        agent.believe(three_members())
    assert graph._returns is None
    eager._plan = eager._plan_eagerly
    g = torch.Generator().manual_seed(2)
    for step in range(8):
        if step == 6:
            scale[:5] = torch.inf
        obs = torch.randn(3, 10, generator=g)
        torch.testing.assert_close(graph.act(obs), eager.act(obs), rtol=1e-4, atol=1e-5)
    assert graph._plan._graph is not None


@pytest.mark.parametrize(("risk", "propagation"), [("cvar", "tsinf"), ("penalty", "ts1")])
def test_a_captured_plan_of_an_ensemble_is_the_eager_plan(risk, propagation):
    graph, eager = (make_agent(risk=risk, propagation=propagation) for _ in range(2))
    for agent in (graph, eager):
        agent.believe(three_members())
    eager._plan = eager._plan_eagerly
    g = torch.Generator().manual_seed(2)
    for _ in range(10):
        obs = torch.randn(3, 10, generator=g)
        torch.testing.assert_close(graph.act(obs), eager.act(obs), rtol=1e-4, atol=1e-5)
    assert graph._plan._graph is not None


def test_warming_up_leaves_no_trace():
    warm, cold = make_agent(), make_agent()
    g = torch.Generator().manual_seed(2)
    warm.warm_up(torch.randn(3, 10, generator=g))
    assert warm._plan._graph is not None
    assert not warm.plan_seconds
    for _ in range(3):
        obs = torch.randn(3, 10, generator=g)
        torch.testing.assert_close(warm.act(obs), cold.act(obs), rtol=1e-4, atol=1e-5)


def test_plans_of_several_agents_are_under_way_at_the_same_time():
    """Beginning one waits for nothing that the device does, and its end for nothing begun later."""
    g = torch.Generator().manual_seed(2)
    obs = torch.randn(3, 10, generator=g)
    together, alone = ([make_agent(seed=seed) for seed in range(3)] for _ in range(2))
    for agent in (*together, *alone):
        agent.warm_up(obs)
    for step in range(4):
        torch.cuda._sleep(500_000_000)  # a fifth of a second at least
        busy = torch.cuda.Event()
        busy.record()
        where = obs.clone()
        finish = [agent.begin_act(where) for agent in together]
        assert not busy.query() or not step  # pinned memory is new at first, for which it may wait
        where.fill_(torch.nan)
        torch.cuda._sleep(500_000_000)
        later = torch.cuda.Event()
        later.record()
        found = [end() for end in finish]
        assert busy.query()
        assert not later.query()
        for action, agent in zip(found, alone, strict=True):
            assert torch.equal(action, agent.act(obs))
        obs = torch.randn(3, 10, generator=g)


def test_a_plan_with_a_deadline_is_the_graph_where_that_is_quick_enough():
    g = torch.Generator().manual_seed(2)
    obs = torch.randn(3, 10, generator=g)
    bounded, free = make_agent(), make_agent()
    for agent in (bounded, free):
        agent.warm_up(obs)
    for _ in range(3):
        assert torch.equal(bounded.act(obs, time.perf_counter() + 60), free.act(obs))
        assert bounded.iterations == 3
    assert bounded.act(obs, time.perf_counter()).isfinite().all()
    assert bounded.iterations == 1  # there is no looking into a graph
    bounded.act(obs, time.perf_counter() + 60)
    assert bounded.iterations == 3


def test_without_time_for_a_graph_a_search_is_stopped_between_iterations():
    obs = torch.randn(3, 10, generator=torch.Generator().manual_seed(2))
    late, short = make_agent(), make_agent()
    drawn = late.planner.noise(3, torch.Generator("cuda").manual_seed(0))
    short.planner.noise = lambda *_: drawn[:1]
    short._plan = short._plan_eagerly
    torch.testing.assert_close(late.act(obs, time.perf_counter()), short.act(obs))
    assert late.iterations == 1


def test_a_graph_that_dies_leaves_the_capture_of_another_alone():
    """It dies in a cycle of references, as those of beliefs do, whenever garbage is collected."""
    x = torch.ones(3, device="cuda")
    forgotten = CapturedFunction(lambda y: (y + 1,))
    for _ in range(CapturedFunction.EAGER_CALLS + 1):
        forgotten(x)
    forgotten.itself = forgotten  # type: ignore[attr-defined]
    thresholds = gc.get_threshold()
    captured = CapturedFunction(lambda y: (torch.stack([z for [z] in [[y], [y]]]).sum(0),))
    for _ in range(CapturedFunction.EAGER_CALLS):
        captured(x)
    try:
        gc.set_threshold(1)
        del forgotten
        (y,) = captured(x)
    finally:
        gc.set_threshold(*thresholds)
    assert torch.equal(y, 2 * x)


def test_a_reward_that_cannot_be_captured_is_planned_with_all_the_same():
    def waiting(obs, action, next_obs):
        scale = 1.0 if obs.mean().item() > 1e9 else 2.0  # waits for the device
        return scale * reward(obs, action, next_obs)

    agent, eager = make_agent(waiting), make_agent(waiting)
    eager._plan = eager._plan_eagerly
    g = torch.Generator().manual_seed(2)
    for step in range(CapturedFunction.EAGER_CALLS + 3):
        obs = torch.randn(3, 10, generator=g)
        wanted = eager.act(obs)
        if step == CapturedFunction.EAGER_CALLS:
            with pytest.warns(UserWarning, match="without a CUDA graph"):
                got = agent.act(obs)
        else:
            got = agent.act(obs)
        torch.testing.assert_close(got, wanted)
    # The device and the generator still serve a graph afterwards.
    captured = CapturedFunction(lambda x: (x + torch.rand_like(x),))
    for _ in range(CapturedFunction.EAGER_CALLS + 2):
        (y,) = captured(torch.zeros(4, device="cuda"))
    assert captured._graph is not None
    assert (y > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_captured_training_steps_are_the_eager_ones(name):
    model = DynamicsModel(4, 2, [32, 32], METHODS[name][0].learns_variance)
    config = METHODS[name][1](name, 1e-3, 5.0)
    if isinstance(config, HnetConfig) and name == "chunked_hnet":
        config.chunk_size = 200
    if name == "hnet":
        config.regularised_tasks = 1
    eager, graph = (
        make_method(
            copy.deepcopy(model),
            config,
            torch.Generator().manual_seed(0),
            torch.Generator("cuda").manual_seed(1),
        )
        for _ in range(2)
    )
    g = torch.Generator().manual_seed(3)
    for _ in range(3):
        eager.begin_task()
        graph.begin_task()

        def step(obs, action, next_obs):
            return tuple(graph.training_step(Batch(obs, action, next_obs)).values())

        captured = CapturedFunction(step, [graph.sampler])
        batch = Batch(*(torch.empty(0) for _ in range(3)))
        for _ in range(8):
            obs, action = torch.randn(50, 4, generator=g), torch.randn(50, 2, generator=g)
            parts = [t.cuda() for t in (obs, action, obs + 0.1 * action.repeat(1, 2))]
            batch = Batch(*parts)
            wanted = list(eager.training_step(batch).values())
            for a, b in zip(captured(*parts), wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-5)
            eager.observe(batch)
            graph.observe(batch)
        assert captured._graph is not None
        eager.end_task(batch)
        graph.end_task(batch)
    for a, b in zip(eager.parameters(), graph.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


PUSH = (10, 2, [200, 200], False)
"""Widths of observation and action, hidden layers, and whether the variance is predicted."""


def three_ways(monkeypatch, old_tasks, sizes=PUSH, **settings):
    """The fused step, autograd in float32 and autograd in float64, in the middle of a task."""
    ways = []
    for way in range(3):
        method = make_method(
            DynamicsModel(*sizes),
            HnetConfig("hnet", 1e-4, **{"clip_norm": 5.0, **settings}),
            torch.Generator().manual_seed(0),
            torch.Generator("cuda").manual_seed(1),
        )
        for _ in range(old_tasks + 1):
            method.begin_task()
        noise = torch.randn(method.targets.shape, generator=torch.Generator().manual_seed(2))
        method.targets.add_(0.01 * noise.cuda())
        if way == 2:
            method.double()
            method.optimisers = method._new_optimisers()
        if way > 0:
            monkeypatch.setattr(method, "_on_gpu", lambda: False)
            monkeypatch.setattr(method, "why_not_fused", lambda: "compared with")
        assert (method.why_not_fused() is None) == (way == 0)
        ways.append(method)
    return ways


@torch.no_grad()
def go_where(exact, method):
    """Give a method the parameters and the moments of another one."""
    for own, other in zip(method.parameters(), exact.parameters(), strict=True):
        own.copy_(other)
    for own_adam, adam in zip(method.optimisers, exact.optimisers, strict=True):
        pairs = zip(own_adam.param_groups, adam.param_groups, strict=True)
        for own_group, group in pairs:
            for own, other in zip(own_group["params"], group["params"], strict=True):
                for name, moment in own_adam.state[own].items():
                    moment.copy_(adam.state[other][name])


def random_batches(count, rows=100, observed=10, acted=2, members=1):
    g = torch.Generator().manual_seed(3)
    shape = (rows,) if members == 1 else (members, rows)
    for _ in range(count):
        obs = torch.randn(*shape, observed, generator=g)
        action = torch.rand(*shape, acted, generator=g)
        change = 0.1 * torch.cat(observed * [action], -1)[..., :observed]
        yield Batch(obs.cuda(), action.cuda(), (obs + change).cuda())


def double(batch):
    return Batch(batch.obs.double(), batch.action.double(), batch.next_obs.double())


ODD = {"hidden": [33], "activation": "relu", "embedding_size": 7}


@pytest.mark.parametrize(
    ("old_tasks", "sizes", "settings"),
    [
        *((tasks, PUSH, {}) for tasks in (0, 1, 2, 19, 64, 65, 100)),
        (19, PUSH, {"regularised_tasks": 3}),
        (19, PUSH, {"l1": 1e-4}),
        (5, (7, 3, [50, 31, 80], False), {**ODD, "l1": 1e-4}),
        (3, (7, 3, [300], False), {**ODD, "hidden": [20, 90, 20]}),
        (3, (7, 3, [40, 40], True), {"hidden": [150, 150]}),
    ],
)
def test_the_fused_step_of_hnet_has_autograds_gradients(old_tasks, sizes, settings, monkeypatch):
    """In float64, to 1e-5, or to twice what autograd in float32 misses it by, where that is more.

    It is for the lower bound of the log-variance, whose gradient is a small difference of large
    numbers (up to 5e-5). All three take each step from the same point: Adam divides a gradient
    near zero by itself, so that its sign, a matter of rounding, is a whole step apart.
    """
    fused, plain, exact = three_ways(
        monkeypatch, old_tasks, sizes, **{"clip_norm": 1e9, **settings}
    )
    rows = 100 if sizes == PUSH else 37
    for batch in random_batches(3, rows, *sizes[:2]):
        mine, theirs = fused.training_step(batch), exact.training_step(double(batch))
        plain.training_step(batch)
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name].double(), value.double(), rtol=1e-5, atol=1e-9)
        for name, parameter in exact.named_parameters():
            found = [method.get_parameter(name).grad for method in (fused, plain)]
            assert (found[0] is None) == (parameter.grad is None)
            if parameter.grad is not None:
                size = parameter.grad.norm().clamp_min(1e-12)
                mine, theirs = ((grad - parameter.grad).norm() / size for grad in found)
                assert mine < max(1e-5, 2 * theirs), name
        for method in (fused, plain):
            go_where(exact, method)


@pytest.mark.parametrize(("old_tasks", "members"), [(2, 1), (19, 1), (100, 1), (0, 5), (19, 5)])
def test_fifty_fused_steps_lead_where_autograd_does(old_tasks, members, monkeypatch):
    """No farther from float64 than autograd in float32 is; and the same steps to the last bit."""
    fused, plain, exact = three_ways(monkeypatch, old_tasks, members=members)
    again, *_ = three_ways(monkeypatch, old_tasks, members=members)
    start = fused.hypernetwork.theta.detach().double()
    for batch in random_batches(50, members=members):
        for method in (fused, plain, again):
            method.training_step(batch)
        exact.training_step(double(batch))
    ends = [method.hypernetwork.theta.detach() for method in (fused, plain, exact)]
    assert torch.equal(ends[0], again.hypernetwork.theta)
    moved = (ends[2] - start).norm()
    mine, theirs = ((end.double() - ends[2]).norm() / moved for end in ends[:2])
    assert mine < max(2 * theirs, 1e-4)
    torch.testing.assert_close(
        fused.embeddings[-1].double(), exact.embeddings[-1], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "words",
    [
        ("method=hnet",),
        ("method=coreset",),
        ("method=hnet", "memory=gated_deltanet"),
        ("method=hnet", "method.members=3", "planner.risk=cvar"),
        ("method=coreset", "method.members=3", *TS1),
        ("method=hnet", "method.members=3", *DISAGREEMENT),
    ],
)
def test_the_same_settings_come_to_the_same_result_on_the_gpu(words, tmp_path):
    """With training steps and plans as graphs; on one GPU, as on a CPU."""
    results = []
    for name in ("first", "second"):
        run = tmp_path / name
        main(["train", "preset=smoke", "device=cuda", "seed=5", *words, f"run_dir={run}"])
        results.append(repeatable(json.loads((run / "result.json").read_text())))
    first, second = results
    assert first["updates"] == 2 * 3 * 20
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_on_the_gpu_ends_and_plays_on_the_cpu(method, tmp_path):
    run = tmp_path / "run"
    main(["train", "preset=smoke", "device=cuda", f"method={method}", f"run_dir={run}"])
    result = json.loads((run / "result.json").read_text())
    assert result["device"] == "cuda"
    main(["play", f"run={run}", "task=1", "episodes=1", "device=cpu"])
