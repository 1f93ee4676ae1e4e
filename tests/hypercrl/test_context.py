"""A memory's context in the dynamics: what it does to the model, the loss, training and acting."""

import copy
import itertools
from functools import cache

import pytest
import torch
from batches import flat

from hypercrl.agent.belief import EpisodeMemory, Told
from hypercrl.base.errors import UserError
from hypercrl.config.compose import composed
from hypercrl.dynamics.conditioning import CONDITIONINGS, make_conditioning
from hypercrl.dynamics.context_model import ContextConfig, ContextModel
from hypercrl.memory import MEMORIES, make_memory
from hypercrl.methods import METHODS, Batch, make_method
from hypercrl.training.evaluation import open_loop_errors
from hypercrl.training.run import built
from hypercrl_kernels import rollout

HORIZON, BURN_IN = 4, 6
LENGTH = HORIZON + BURN_IN


def make_model(into="input", memory="gru", probabilistic=False, **settings):
    config = ContextConfig(into=into, burn_in=BURN_IN, horizon=HORIZON, **settings)
    sizes = {"width": 16, "layers": 1, "context": 5}
    g = torch.Generator().manual_seed(3)
    encoder = make_memory(MEMORIES[memory][1](name=memory, **sizes), 6, g)
    conditioning = make_conditioning(into, encoder.context_size, [12, 12])
    model = ContextModel(2, 2, [12, 12], probabilistic, encoder, conditioning, config)
    for parameter in conditioning.parameters():  # FiLM starts at zero
        torch.nn.init.normal_(parameter, 0, 0.3, generator=g)
    model.fit_normalisers(flat(windows(0, 50)))
    return model


def windows(seed, count, length=LENGTH, task=0):
    """Episodes of s' = s + z a, with z = ±1 of the episode: nothing in a transition's start says z.

    In task 1 it is s' = s − z a.
    """
    g = torch.Generator().manual_seed(seed)
    sign = 2.0 * torch.randint(2, (count, 1, 1), generator=g) - 1
    actions = torch.randn(count, length, 2, generator=g)
    sign = (-1) ** task * sign
    start = torch.randn(count, 1, 2, generator=g)
    states = torch.cat([start, start + (sign * actions).cumsum(1)], 1)
    return Batch(states[:, :-1], actions, states[:, 1:])


def make(name, model, **settings):
    config = METHODS[name][1](name, 3e-3, 5.0)
    for key, value in settings.items():
        setattr(config, key, value)
    return make_method(model, config, *(torch.Generator().manual_seed(i) for i in range(2)))


PAIRS = [
    ("finetune", "input"),
    ("finetune", "film"),
    ("single", "film"),
    ("lora", "film"),
    ("si", "input"),
    ("pnn", "input"),
    ("hnet", "input"),
    ("hnet", "film"),
    ("hnet", "hypernetwork"),
    ("chunked_hnet", "hypernetwork"),
    ("hnet_si", "input"),
]
SETTINGS = {
    "hnet": {"hidden": [16], "embedding_size": 4, "beta": 1.0},
    "hnet_si": {"hidden": [16], "embedding_size": 4, "beta": 1.0},
    "chunked_hnet": {"hidden": [16], "embedding_size": 4, "chunk_size": 60, "beta": 1.0},
}


def test_every_method_that_says_so_is_tried():
    able = {name for name, (kind, _) in METHODS.items() if kind.conditionings}
    assert {name for name, _ in PAIRS} == able
    assert {into for _, into in PAIRS} == set(CONDITIONINGS)


@torch.no_grad()
def by_hand(model, method, task, context, obs, actions):
    """The rollout of one robot from the unfolded network, step by step: [H + 1, O]."""
    states = [obs]
    for action in actions:
        x = model.inputs(states[-1], action)
        if model.context_config.into == "hypernetwork":
            embedding = method.embeddings[min(task, method.tasks - 1)]
            weights = method.hypernetwork(torch.cat([embedding, context])[None])[0]
        else:
            weights = method.weights(task)
        if model.context_config.into == "input":
            x = torch.cat([x, context])
        *hidden, (last, offset) = method.layout(task).split(weights)
        gamma, beta = torch.zeros(24), torch.zeros(24)
        if model.context_config.into == "film":
            gamma, beta = (model.conditioning.weight @ context).chunk(2)
        for i, (w, b) in enumerate(hidden):
            unit = w @ x + b
            if model.context_config.into == "film":
                part = slice(12 * i, 12 * (i + 1))
                unit = (1 + gamma[part]) * unit + beta[part]
            x = unit.relu()
        change = (last @ x + offset)[:2]
        scale = model.target_normaliser.scale
        states.append(states[-1] + scale * change + model.target_normaliser.mean)
    return torch.stack(states)


@pytest.mark.parametrize(("name", "into"), PAIRS)
def test_folded_layers_plan_as_the_network_predicts(name, into):
    model = make_model(into)
    method = make(name, model, **SETTINGS.get(name, {}))
    for _ in range(2):
        method.begin_task()
    g = torch.Generator().manual_seed(0)
    context, obs = torch.randn(3, 5, generator=g), torch.randn(3, 2, generator=g)
    actions = torch.randn(3, 2, 4, 2, generator=g)
    for task in range(2):
        planner = method.planner_layers(task)
        got = rollout(planner(context), obs, actions)
        for b in range(3):
            alone = rollout(planner(context[b : b + 1]), obs[b : b + 1], actions[b : b + 1])
            for k in range(2):
                wanted = by_hand(model, method, task, context[b], obs[b], actions[b, k])
                torch.testing.assert_close(got[b, k], wanted, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(alone[0, k], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("probabilistic", "weight"), [(False, 0.0), (True, 0.0), (True, 0.5)])
@pytest.mark.parametrize(("stride", "starts"), [(7, [6]), (4, [2, 6]), (3, [0, 3, 6])])
@pytest.mark.parametrize("into", ["input", "film"])
def test_the_loss_from_its_definition(into, stride, starts, probabilistic, weight):
    """One window, one transition at a time, in float64."""
    model = make_model(into, probabilistic=probabilistic, stride=stride)
    model.variance_weight = weight
    method = make("finetune", model).double()
    method.begin_task()
    method.double()
    batch = windows(1, 3)
    obs, action, next_obs = (part.double() for part in (batch.obs, batch.action, batch.next_obs))
    weights = method.weights(0)
    got = model.loss(weights, Batch(obs, action, next_obs))

    def network(state, act, context):
        x = model.inputs(state, act)[None, None]
        net = model.conditioning.network(model.layout.split(weights), context[None, None])
        mean, logvar = model.distribution(net(x)[0, 0])
        return mean, logvar if probabilistic else None

    def penalty(error, variance):
        """Mean over the dimensions; without variances, squares alone."""
        if variance is None:
            return error.square().mean()
        return (variance**weight * (error.square() / variance + variance.log())).mean()

    scale = model.target_normaliser.scale
    total = model.spread()
    for n in range(3):
        state = model.encoder.initial(1)
        contexts = [model.encoder.read(state)[0].clone()]
        for t in range(LENGTH):
            token = model.tokens(obs[n, t], action[n, t], next_obs[n, t])[None]
            state = model.encoder.step(state, token)
            contexts.append(model.encoder.read(state)[0].clone())
        for t in range(LENGTH):
            mean, logvar = network(obs[n, t], action[n, t], contexts[t])
            error = model.target_normaliser(next_obs[n, t] - obs[n, t]) - mean
            variance = None if logvar is None else logvar.exp()
            total = total + penalty(error, variance) / LENGTH
        for begin, step in itertools.product(starts, range(HORIZON)):
            if step == 0:
                here, spread = obs[n, begin], 0
            t = begin + step
            mean, logvar = network(here, action[n, t], contexts[begin])
            here = here + scale * mean + model.target_normaliser.mean
            spread = spread + (1.0 if logvar is None else logvar.exp())
            error = (next_obs[n, t] - here) / scale
            if logvar is None:
                total = total + penalty(error, None) / spread / HORIZON / len(starts)
            else:
                total = total + penalty(error, spread) / HORIZON / len(starts)
    torch.testing.assert_close(got, total, rtol=1e-6, atol=1e-6)


def train(method, task=0, updates=300):
    method.begin_task()
    for step in range(updates):
        method.training_step(windows(1000 * task + step, 32, task=task))
    method.end_task(flat(windows(7, 10, task=task)))


def remembering(method, robots, task=0):
    assert isinstance(method.model, ContextModel)
    return EpisodeMemory(method.model, robots, method.planner_layers(task))


@torch.no_grad()
def error(method, task=0, seen=BURN_IN):
    """RMS error of the predicted change, of RMS 1, once `seen` transitions were observed."""
    batch = windows(12345, 64, task=task)
    belief = remembering(method, 64, task)
    for t in range(seen):
        belief.observe(batch.obs[:, t], batch.action[:, t], batch.next_obs[:, t])
    predicted = rollout(belief.layers(), batch.obs[:, seen], batch.action[:, None, seen : seen + 1])
    return float((predicted[:, 0, 1] - batch.next_obs[:, seen]).square().mean().sqrt())


@cache
def trained(name, into, memory="gru"):
    method = make(name, make_model(into, memory, protect="freeze"), **SETTINGS.get(name, {}))
    train(method, updates=400 if name == "chunked_hnet" else 300)
    return method, error(method)


FIRST_AS = {"lora": "single", "si": "finetune", "hnet_si": "hnet"}
"""Methods that differ from these from the second task on."""


@pytest.mark.parametrize(("name", "into"), [pair for pair in PAIRS if pair[0] in FIRST_AS])
def test_what_protects_old_tasks_alone_learns_the_first_as_what_has_none(name, into):
    """Bit for bit: what is hidden is found out as the test below sees it of the other."""
    found = []
    for each in (name, FIRST_AS[name]):
        method = make(each, make_model(into), **SETTINGS.get(each, {}))
        train(method, updates=20)
        found.append((error(method), error(method, seen=0)))
    assert (FIRST_AS[name], into) in PAIRS
    assert found[0] == found[1]


@pytest.mark.parametrize(("name", "into"), [pair for pair in PAIRS if pair[0] not in FIRST_AS])
def test_what_is_hidden_is_found_out(name, into):
    """Before it has seen anything nobody can know the sign; afterwards a memory does."""
    method, found = trained(name, into)
    assert found < 0.35
    assert error(method, seen=0) > 0.9


def test_without_a_memory_it_stays_hidden():
    """The same windows and the same loss: the best that can be predicted is no motion."""
    _, found = trained("finetune", "input", memory="none")
    assert found == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("name", "into"), [("single", "film"), ("hnet", "input"), ("hnet", "hypernetwork")]
)
def test_a_second_task_reads_the_frozen_memory_and_the_first_is_kept(name, into):
    learned, first = trained(name, into)
    method = copy.deepcopy(learned)
    train(method, 1)
    kept, second = error(method, 0), error(method, 1)
    assert second < 0.6
    if name == "single":
        assert kept == first  # nothing of it has moved
    else:
        assert kept < first + 0.25


def test_what_differs_from_window_to_window_cannot_be_kept():
    with pytest.raises(UserError, match="targets=renewed"):
        make("hnet", make_model("hypernetwork"), targets="kept")


def test_frozen_is_frozen_and_free_is_free():
    for protect in ("freeze", "none"):
        method = make("single", make_model("film", protect=protect))
        train(method, 0, updates=3)
        before = [p.detach().clone() for p in method.model.memory_parameters()]
        kept = error(method, 0)
        train(method, 1, updates=3)
        same = [
            torch.equal(a, b) for a, b in zip(before, method.model.memory_parameters(), strict=True)
        ]
        assert all(same) if protect == "freeze" else not any(same)
        assert (error(method, 0) == kept) == (protect == "freeze")


@pytest.mark.parametrize("name", ["single", "hnet"])
def test_a_memory_learns_at_a_rate_of_its_own(name):
    """Adam's first step is as long as its rate wherever there is a gradient."""
    model = make_model("film", learning_rate=7e-3)
    method = make(name, model, **SETTINGS.get(name, {}))
    method.begin_task()
    before = [p.detach().clone() for p in model.memory_parameters()]
    method.training_step(windows(1, 8))
    pairs = zip(model.memory_parameters(), before, strict=True)
    moved = max(float((p - b).detach().abs().max()) for p, b in pairs)
    assert moved == pytest.approx(7e-3, rel=1e-3)


def test_a_memorys_gradient_is_clipped_on_its_own():
    model = make_model("film")
    method = make("single", model, clip_norm=1e-3)
    method.begin_task()
    method.training_step(windows(1, 8))
    memory = set(model.memory_parameters())
    (adam,) = method.optimisers
    trained = [p for group in adam.param_groups for p in group["params"]]
    for part in ([p for p in trained if p in memory], [p for p in trained if p not in memory]):
        norm = torch.stack([p.grad.norm() for p in part if p.grad is not None]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("protect", ["freeze", "distil"])
def test_what_protects_a_memory_is_there_when_loaded(protect):
    method, again = (make("hnet", make_model(protect=protect), **SETTINGS["hnet"]) for _ in "12")
    train(method, 0, updates=3)
    train(method, 1, updates=3)
    # A copy, as of a checkpoint: an optimiser takes over the tensors that it is given.
    again.load_state(copy.deepcopy(method.state()))
    batch = windows(99, 8, task=1)
    for m in (method, again):
        m.training_step(batch)
    for (key, a), b in zip(method.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("into", ["input", "film"])
def test_what_is_distilled_from_its_definition(into):
    """Of two old networks, one transition at a time, with the memory of before and of now."""
    model = make_model(into, protect="distil", distil=3.0)
    method = make("single", model).double()
    for _ in range(3):
        method.begin_task()
    method.double()
    before = copy.deepcopy(model)
    g = torch.Generator().manual_seed(5)
    for parameter in model.memory_parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=g)
    batch = windows(1, 3)
    batch = Batch(batch.obs.double(), batch.action.double(), batch.next_obs.double())
    total = 0.0
    for n, old in itertools.product(range(3), range(2)):
        states = [m.encoder.initial(1) for m in (before, model)]
        for t in range(LENGTH):
            obs, action, next_obs = (p[n, t] for p in (batch.obs, batch.action, batch.next_obs))
            x = model.inputs(obs, action)[None, None]
            was, now = (
                m.conditioning.network(method.layers(old), m.encoder.read(s)[None])(x)
                for m, s in zip((before, model), states, strict=True)
            )
            total += (was - now).square().mean().item() / LENGTH / 2
            token = model.tokens(obs, action, next_obs)[None]
            states = [
                m.encoder.step(s, token) for m, s in zip((before, model), states, strict=True)
            ]
    own = model.loss(method.weights(2), batch)
    with_old = method._task_loss(method.weights(2), batch)
    assert total > 1e-3
    assert (with_old - own).item() == pytest.approx(3 * total, rel=1e-6)


def test_a_distilled_memory_learns_on_and_old_networks_predict_as_before():
    """As far from forgetting as a frozen one, and unlike that one it moves."""
    learned, first = trained("single", "film")
    kept, second, moved = {}, {}, {}
    for protect in ("distil", "none"):
        method = make("single", make_model("film", protect=protect))
        state = copy.deepcopy(learned.state())
        state["tensors"] = {**method.state_dict(), **state["tensors"]}
        method.load_state(state)
        train(method, 1, updates=120)
        kept[protect], second[protect] = error(method, 0), error(method, 1)
        pairs = zip(
            learned.model.memory_parameters(), method.model.memory_parameters(), strict=True
        )
        moved[protect] = max(float((a - b).abs().max()) for a, b in pairs)
    assert kept["none"] > first + 0.2
    assert kept["distil"] < first + 0.05
    assert second["distil"] < 0.4
    assert moved["distil"] > 0.01


def test_networks_written_for_a_window_have_nothing_to_be_distilled():
    with pytest.raises(UserError, match=r"context\.into=hypernetwork .* context\.protect=freeze"):
        make("hnet", make_model("hypernetwork", protect="distil"))


def test_networks_written_for_a_window_take_no_memory_of_targets():
    method = make("hnet", make_model("hypernetwork"), **SETTINGS["hnet"])
    for _ in range(4):
        method.begin_task()
    assert len(method.targets) == 3
    assert method.targets.untyped_storage().nbytes() == 0


def test_without_its_regulariser_a_hypernetwork_of_contexts_forgets():
    learned, _ = trained("hnet", "hypernetwork")  # in the first task nothing is regularised
    lost = []
    for beta in (0.0, 1.0):
        method = copy.deepcopy(learned)
        method.config.beta = beta
        train(method, 1)
        lost.append(error(method, 0))
    assert lost[0] > 2 * lost[1]


@pytest.mark.parametrize(
    ("into", "reason"),
    [("input", "a memory"), ("film", "a memory"), ("hypernetwork", "for every window")],
)
def test_a_step_with_a_memory_is_not_fused(into, reason):
    method = make("hnet", make_model(into))
    for _ in range(2):
        method.begin_task()
    assert reason in method.why_not_fused()


def test_what_a_robot_remembers_is_its_own_episode():
    method, _ = trained("finetune", "input")
    batch = windows(5, 3)
    together = remembering(method, 3)
    for t in range(4):
        together.observe(batch.obs[:, t], batch.action[:, t], batch.next_obs[:, t])
    for n in range(3):
        alone = remembering(method, 1)
        alone.recall([Batch(batch.obs[n, :4], batch.action[n, :4], batch.next_obs[n, :4])])
        for (w, b), (w_all, b_all) in zip(alone.layers(), together.layers(), strict=True):
            torch.testing.assert_close(w, w_all[n], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(b, b_all[n], rtol=1e-4, atol=1e-5)
    together.reset()
    fresh = remembering(method, 3)
    for (_, b), (_, wanted) in zip(together.layers(), fresh.layers(), strict=True):
        assert torch.equal(b, wanted)


def test_errors_ahead_are_of_what_a_memory_has_seen_by_then():
    method, _ = trained("finetune", "input")
    batch = windows(6, 3)
    obs = torch.cat([batch.obs, batch.next_obs[:, -1:]], 1)
    found = open_loop_errors(remembering(method, 3), obs, batch.action, 2, first=1)
    assert len(found) == LENGTH - 2
    for t in (1, LENGTH - 2):
        belief = remembering(method, 3)
        seen = ((n, slice(0, t)) for n in range(3))
        belief.recall([Batch(batch.obs[p], batch.action[p], batch.next_obs[p]) for p in seen])
        wanted = belief.predict(obs[:, t], batch.action[:, t : t + 2])[:, -1] - obs[:, t + 2]
        torch.testing.assert_close(found[t - 1], wanted, rtol=1e-4, atol=1e-5)


def test_robots_begin_their_episodes_one_by_one():
    method, _ = trained("finetune", "input")
    batch = windows(5, 3)
    lengths = (4, 0, 2)  # of the present episode of each
    together, again = remembering(method, 3), remembering(method, 3)
    for t in range(4):
        together.reset([n for n, length in enumerate(lengths) if length == 4 - t])
        together.observe(batch.obs[:, t], batch.action[:, t], batch.next_obs[:, t])
    together.reset([1])
    again.observe(batch.obs[:, 5], batch.action[:, 5], batch.next_obs[:, 5])  # to be forgotten
    parts = [(n, slice(4 - length, 4)) for n, length in enumerate(lengths)]
    again.recall([Batch(batch.obs[p], batch.action[p], batch.next_obs[p]) for p in parts])
    for (w, b), (w_again, b_again) in zip(together.layers(), again.layers(), strict=True):
        torch.testing.assert_close(w, w_again, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(b, b_again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", [n for n in MEMORIES if n not in ("none", "hybrid")])
def test_what_is_remembered_has_no_history_of_gradients(memory):
    model = make_model(memory=memory)
    belief = EpisodeMemory(model, 2, lambda context: [])
    for happens in (belief.reset, lambda: belief.observe(*torch.zeros(3, 2, 2))):
        assert not any(value.requires_grad for value in belief.state().values())
        happens()
    assert not any(value.requires_grad for value in belief.state().values())


def test_what_is_told_does_not_change():
    layers = [(torch.ones(2, 4), torch.ones(2))]
    belief = Told(layers)
    belief.observe(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    belief.reset()
    assert belief.layers() is layers


@pytest.mark.parametrize("name", [name for name, (kind, _) in METHODS.items()])
def test_a_method_without_windows_is_refused(name):
    kind = METHODS[name][0]
    if kind.conditionings:
        pytest.skip("takes a memory")
    with pytest.raises(UserError, match=rf"method={name} takes no memory.*one of hnet"):
        make(name, make_model())


def test_a_way_that_a_method_does_not_know_is_refused():
    with pytest.raises(UserError, match=r"pnn takes no context\.into=film; use input"):
        make("pnn", make_model("film"))


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_run_builds_the_model_that_its_settings_say(memory):
    """With a memory no run could be begun: the weight of the variance stood in its place."""
    words = ["dynamics.probabilistic=true", "dynamics.variance_weight=0.5", f"memory={memory}"]
    words += ["preset=smoke", "device=cpu"]
    with built(composed("train", words)) as experiment:
        model = experiment.model
    assert model.probabilistic
    assert model.variance_weight == 0.5
    assert isinstance(model, ContextModel) == (memory != "none")
    if isinstance(model, ContextModel):
        assert model.encoder.context_size == composed("train", words).memory.context
