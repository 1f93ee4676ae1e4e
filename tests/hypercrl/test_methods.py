import copy
from functools import cache

import pytest
import torch
from batches import linear_system
from torch.func import functional_call

from hypercrl.base.errors import UserError
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import METHODS, Batch, make_method
from hypercrl.methods.fisher import fisher_diagonal

CHUNKS = {"hidden": [32, 32], "activation": "relu", "chunk_size": 50, "chunk_embedding_size": 6}
SETTINGS = {
    "hnet": {"hidden": [16, 16], "beta": 1.0},
    "hnet_si": {"hidden": [16, 16], "beta": 1.0},
    "hnet_fisher": {"hidden": [16, 16], "beta": 1.0},
    "hnet_replay": {"hidden": [16, 16], "beta": 0.05, "per_task": 50},
    "chunked_hnet": {**CHUNKS, "beta": 10.0},
    "coreset": {"per_task": 50},
    "coreset_bytes": {"equal_bytes": True},
    "agem": {"per_task": 200},
    "packnet": {"retrain_updates": 100},
    "ftl": {"features": 20, "ridge": 1e-3},
    "ftl_task": {"features": 200, "ridge": 1e-3, "embedding_size": 10},
    "ewc": {"strength": 100.0},
    "online_ewc": {"strength": 100.0},
    "si": {"strength": 3.0},
}
FORGET_NOTHING = ("single", "lora", "pnn", "packnet")
ONE_MODEL_FOR_ALL = ("ftl",)
NO_LOG_VARIANCE = ("ftl", "ftl_task")


def make(name, probabilistic=False, seed=0, **settings):
    config = METHODS[name][1](name, 2e-3, 5.0)
    for key, value in (SETTINGS.get(name, {}) | settings).items():
        assert hasattr(config, key)
        setattr(config, key, value)
    if "hnet" in name:
        config.embedding_size = 4
    model = DynamicsModel(2, 2, [24], probabilistic)
    model.fit_normalisers(linear_system(0, 500))
    generators = (torch.Generator().manual_seed(seed + i) for i in range(2))
    return make_method(model, config, *generators)


def train(method, task, steps=200, end=True):
    """A whole task as the trainer goes through it: half of the data, training, the other half."""
    method.begin_task()
    data = linear_system(task, 400, seed=7)
    half = len(data) // 2
    for part in range(2):
        for step in range(steps // 2):
            method.training_step(linear_system(task, seed=part * 1000 + step))
        method.observe(data.at(torch.arange(part * half, (part + 1) * half)))
    if end:
        method.end_task(data)


@torch.no_grad()
def error(method, task):
    """RMS error of the predicted change, which is ±a of RMS 1."""
    b = linear_system(task, 256, seed=12345)
    model = method.model
    outputs = method.layout(task).apply(method.weights(task), model.inputs(b.obs, b.action))
    mean, _ = model.distribution(outputs)
    return float((mean - model.target_normaliser(b.next_obs - b.obs)).square().mean().sqrt())


@cache
def errors_after_two_tasks(name, probabilistic=False):
    """Errors on task 1 after it, and on tasks 1 and 2 after both."""
    method = make(name, probabilistic)
    steps = 350 if name == "chunked_hnet" else 250
    train(method, 0, steps)
    first = error(method, 0)
    train(method, 1, steps)
    return first, error(method, 0), error(method, 1)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ONE_MODEL_FOR_ALL])
def test_two_conflicting_tasks(name):
    """Past the boundary all learn task 2, and only what protects nothing loses task 1."""
    first, kept, second = errors_after_two_tasks(name)
    assert first < 0.25
    assert second < 0.25
    unprotected = errors_after_two_tasks("finetune")[1]
    # The old head is kept, so the moved trunk blurs the old task but does not turn it round.
    assert unprotected > 0.25
    if name in FORGET_NOTHING:
        assert kept == first
    elif name != "finetune":
        assert kept < 0.6 * unprotected


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("ftl")])
def test_a_network_without_a_hidden_layer_is_learned_past_a_boundary(name):
    """There is no trunk to protect then: heads, networks and embeddings are all that there is."""
    config = METHODS[name][1](name, 2e-3, 5.0)
    for key, value in SETTINGS.get(name, {}).items():
        setattr(config, key, value)
    model = DynamicsModel(2, 2, [], probabilistic=False)
    model.fit_normalisers(linear_system(0, 500))
    generators = (torch.Generator().manual_seed(i) for i in range(2))
    method = make_method(model, config, *generators)
    for task in range(2):
        train(method, task, 20)
    for task in range(2):
        assert method.weights(task).isfinite().all()
        assert method.weights(task).shape == (method.layout(task).numel,)


def test_methods_come_in_the_known_order():
    """No forgetting by construction; then rehearsal of everything; then finetune; and last the one
    model that cannot know which task it is in: the best fit to s ± a is s, of error 1."""
    lost = {}
    for name in ("single", "multitask", "agem", "finetune", "ftl"):
        first, kept, _ = errors_after_two_tasks(name)
        lost[name] = kept - first
    assert lost["single"] == 0
    assert lost["multitask"] < 0.02 < lost["agem"] < lost["finetune"] < lost["ftl"]
    _, first, second = errors_after_two_tasks("ftl")
    assert first == pytest.approx(1, abs=0.1)
    assert second == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["hnet", "chunked_hnet", "finetune", "single", "ewc", "derpp"])
def test_two_conflicting_tasks_with_a_log_variance(name):
    first, kept, second = errors_after_two_tasks(name, probabilistic=True)
    assert first < 0.12
    assert second < 0.25
    if name == "finetune":
        assert kept > 0.25
    else:
        assert kept < 0.25


@pytest.mark.parametrize("name", NO_LOG_VARIANCE)
def test_a_log_variance_that_nobody_predicts_is_refused(name):
    with pytest.raises(UserError, match="predicts no log-variance"):
        make(name, probabilistic=True)


def test_a_random_subset_of_old_tasks_is_regularised_and_its_mean_is_the_whole():
    g = torch.Generator().manual_seed(1)
    reports = {}
    for count in (None, 1, 3, 9):
        method = make("hnet", regularised_tasks=count, learning_rate=0.0)  # θ stays where it is
        for _ in range(5):
            method.begin_task()
        method.targets.add_(0.1 * torch.randn(method.targets.shape, generator=g.manual_seed(2)))
        reports[count] = [
            float(method.training_step(linear_system(0))["regulariser"]) for _ in range(60)
        ]
    (whole,) = {round(value, 4) for value in reports[None]}
    alone = {round(value, 4) for value in reports[1]}
    assert len(alone) == 4
    assert sum(alone) / 4 == pytest.approx(whole, rel=1e-4)
    left_out = [4 * whole - 3 * value for value in {round(v, 4) for v in reports[3]}]
    assert sorted(left_out) == pytest.approx(sorted(alone), rel=1e-2)
    assert reports[9] == pytest.approx(reports[None])


def test_targets_are_what_is_written_now_or_what_was_when_a_task_ended():
    for targets in ("renewed", "kept"):
        method = make("hnet", beta=1e-4, targets=targets)  # held too weakly to stay
        ended = []
        for task in range(3):
            train(method, task % 2, steps=20)
            ended.append(method.weights(task).detach().clone())
        now = torch.stack([method.weights(task).detach() for task in range(3)])
        method.begin_task()
        held = torch.stack(ended) if targets == "kept" else now
        assert not torch.allclose(now[:2], torch.stack(ended[:2]), atol=1e-4)
        torch.testing.assert_close(method.targets, held, rtol=0, atol=1e-6)


def test_more_tasks_than_a_hypernetwork_holds_are_cautioned_against():
    """As measured: half as many as it is wide, and with kept targets and a firm hold as many."""
    narrow = make("hnet", hidden=[50, 8], beta=0.05)
    assert narrow.caution(4) is None
    assert "forgets some of 5 tasks. Give method.targets=kept method.beta=0.5 for" in (
        narrow.caution(5) or ""
    )
    assert "method.hidden=[9,9] method.targets=kept method.beta=0.5" in (narrow.caution(9) or "")
    held = make("hnet", hidden=[50, 8], targets="kept", beta=0.5)
    assert held.caution(8) is None
    assert "Give method.hidden=[9,9] for" in (held.caution(9) or "")
    weak = make("hnet", hidden=[50, 8], beta=0.05, targets="kept")
    assert "Give method.beta=0.5 for" in (weak.caution(8) or "")
    assert make("chunked_hnet").caution(1000) is None
    assert make("single").caution(1000) is None


def test_without_its_regulariser_a_hypernetwork_forgets():
    errors = []
    for beta in (0.0, 1.0):
        method = make("hnet", beta=beta)
        train(method, 0)
        train(method, 1)
        errors.append(error(method, 0))
    assert errors[0] > 3 * errors[1]


def reference_step(net, embeddings, targets, model, batch, config, moments, step):
    """One update of hnet, from the equations, one old task at a time, in plain autograd."""
    theta = dict(net.named_parameters())
    old, new = embeddings[:-1], embeddings[-1]
    weights = functional_call(net, theta, (new[None],))[0]
    loss = model.loss(weights, batch)
    gradients = torch.autograd.grad(loss, [*theta.values(), new])
    task_gradient = dict(zip(theta, gradients[:-1], strict=True))

    def adam(name, gradient):
        mean, square = moments.get(name, (torch.zeros_like(gradient),) * 2)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        return -config.learning_rate * corrected[0] / (corrected[1].sqrt() + 1e-8), (mean, square)

    def clipped(gradients):
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        scale = torch.clamp(config.clip_norm / (norm + 1e-6), max=1.0)
        return [g * scale for g in gradients]

    ahead = {k: (p + adam(k, task_gradient[k])[0]).detach() for k, p in theta.items()}
    ahead = {k: v.requires_grad_() for k, v in ahead.items()}
    regulariser = 0
    for target, e in zip(targets, old, strict=True):
        written = functional_call(net, ahead, (e.detach()[None],))[0]
        regulariser = regulariser + (target - written).square().sum() / len(old)
    extra = torch.autograd.grad(config.beta * len(batch) * regulariser, list(ahead.values()))
    total = clipped([task_gradient[k] + x for k, x in zip(theta, extra, strict=True)])
    after = {}
    for name, gradient in zip(theta, total, strict=True):
        change, moments[name] = adam(name, gradient)
        after[name] = (theta[name] + change).detach()
    change, moments["embedding"] = adam("embedding", clipped([gradients[-1]])[0])
    return after, (new + change).detach(), regulariser.detach()


@pytest.mark.parametrize("fused", [True, False])
def test_hnet_training_step_is_the_papers(fused, monkeypatch):
    method = make("hnet", beta=0.7).double()
    monkeypatch.setattr(type(method), "own_terms", None if fused else "as if there were some")
    assert (method.why_not_fused() is None) == fused
    train_batches = [
        Batch(b.obs.double(), b.action.double(), b.next_obs.double())
        for b in (linear_system(t, seed=s) for t in range(3) for s in range(4))
    ]
    for batch in train_batches[:2]:
        method.begin_task()
        method.training_step(batch)
    method.begin_task()
    config, model, moments = method.config, method.model, {}
    for step, batch in enumerate(train_batches[4:9], start=1):
        net = copy.deepcopy(method.hypernetwork)
        embeddings = [e.detach().clone().requires_grad_() for e in method.embeddings]
        theta, embedding, regulariser = reference_step(
            net, embeddings, method.targets, model, batch, config, moments, step
        )
        report = method.training_step(batch)
        torch.testing.assert_close(report["regulariser"], regulariser, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(method.embeddings[-1].data, embedding, rtol=1e-9, atol=1e-12)
        for name, parameter in method.hypernetwork.named_parameters():
            torch.testing.assert_close(parameter.data, theta[name], rtol=1e-8, atol=1e-11)
        for kept, before in zip(method.embeddings[:-1], embeddings[:-1], strict=True):
            assert torch.equal(kept, before)


@pytest.mark.parametrize(
    "settings", [{}, {"l1": 1e-3}, {"regularised_tasks": 2}, {"activation": "relu", "hidden": [7]}]
)
@pytest.mark.parametrize("probabilistic", [False, True])
def test_the_step_by_hand_has_the_gradients_of_autograd(monkeypatch, settings, probabilistic):
    """Here with the operations of a CPU, in float64; the operations have tests of their own."""

    def prepared():
        method = make("hnet", probabilistic, beta=0.3, clip_norm=0.5, **settings).double()
        for task in range(4):
            method.begin_task()
            for step in range(3 if task else 0):
                method.training_step(double(linear_system(task, seed=step)))
        noise = torch.randn(method.targets.shape, generator=torch.Generator().manual_seed(5))
        method.targets.add_(0.1 * noise)
        return method

    def double(batch):
        return Batch(batch.obs.double(), batch.action.double(), batch.next_obs.double())

    plain, fused = prepared(), prepared()
    monkeypatch.setattr(plain, "why_not_fused", lambda: "compared with")
    assert fused.why_not_fused() is None
    batch = double(linear_system(3, seed=9))
    for _ in range(2):  # with the moments of the first step too
        reports = [method.training_step(batch) for method in (plain, fused)]
        for name, value in reports[0].items():
            torch.testing.assert_close(reports[1][name], value, rtol=1e-10, atol=0)
        for (name, mine), theirs in zip(fused.named_parameters(), plain.parameters(), strict=True):
            assert (mine.grad is None) == (theirs.grad is None), name
            if mine.grad is not None:
                clipped = mine.grad  # which stays as it is, where there is one pass over it
                if mine is fused.hypernetwork.theta:
                    clipped = clipped * min(1.0, 0.5 / float(reports[0]["gradient_norm"]))
                elif mine is fused.embeddings[-1]:
                    clipped = clipped * min(1.0, 0.5 / float(clipped.norm()))
                torch.testing.assert_close(clipped, theirs.grad, rtol=1e-5, atol=1e-12)
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
        assert reports[0]["gradient_norm"] > 0.5  # so that it is clipped


@pytest.mark.parametrize(
    ("name", "settings", "tasks", "reason"),
    [
        ("hnet", {}, 2, None),
        ("hnet", {"regularised_tasks": 1, "l1": 1e-3}, 3, None),
        ("hnet", {}, 1, None),
        ("hnet", {}, 101, None),
        ("hnet", {"hidden": []}, 2, "no trunk"),
        ("chunked_hnet", {}, 2, "chunked"),
        ("hnet_replay", {}, 2, "rehearsed"),
        ("hnet_si", {}, 2, "importance"),
        ("hnet_fisher", {}, 2, "importance"),
    ],
)
def test_why_a_step_is_not_fused(name, settings, tasks, reason):
    method = make(name, **settings)
    for _ in range(tasks):
        method.begin_task()
    why = method.why_not_fused()
    assert (why is None) if reason is None else (reason in why)


def test_l1_adds_lambda_times_the_norm_of_all_written_weights():
    gradients = []
    for l1 in (0.0, 0.01):
        method = make("hnet", l1=l1, clip_norm=1e9)
        method.begin_task()
        method.training_step(linear_system(0))
        gradients.append([p.grad.clone() for p in method.hypernetwork.parameters()])
    method = make("hnet")
    method.begin_task()
    (0.01 * 64 * method.weights(0).abs().sum()).backward()
    for without, added, parameter in zip(*gradients, method.hypernetwork.parameters(), strict=True):
        torch.testing.assert_close(added - without, parameter.grad, rtol=1e-3, atol=1e-4)


LEARNS_VARIANCE = [name for name in METHODS if name not in NO_LOG_VARIANCE]
REHEARSES = ("hnet_replay", "multitask", "coreset", "coreset_bytes", "reservoir", "derpp")


@pytest.mark.parametrize("name", LEARNS_VARIANCE)
def test_old_tasks_keep_the_bounds_of_their_log_variance(name):
    """Trained networks put out a variance by way of them: where nothing else moves, it stays."""
    method = make(name, probabilistic=True)
    train(method, 0, 6)
    before = method.planner_layers(0)(None)
    train(method, 1, 6, end=False)
    after, latest = (method.planner_layers(task)(None) for task in range(2))
    present = torch.stack([method.model.min_logvar.exp(), (-method.model.max_logvar).exp()])
    assert torch.equal(latest.bounds[:2], present)
    assert not torch.equal(before.bounds, latest.bounds)
    assert torch.equal(after.bounds, latest.bounds if name in REHEARSES else before.bounds)
    if name in FORGET_NOTHING:
        for old, own in zip([*before.mean, before.head], [*after.mean, after.head], strict=True):
            assert torch.equal(old[0], own[0])
            assert torch.equal(old[1], own[1])


@pytest.mark.parametrize("name", ["hnet", "single", "coreset"])
def test_kept_bounds_are_saved_and_counted(name):
    method, plain = make(name, probabilistic=True), make(name, probabilistic=True)
    for task in range(3):
        train(method, task, 4)
    plain.load_state(copy.deepcopy(method.state()))
    for task in range(3):
        bounds = [one.planner_layers(task)(None).bounds for one in (method, plain)]
        assert torch.equal(*bounds)
    kept = 0 if name in REHEARSES else 2 * 2 * 2
    assert method.model.old_bounds.numel() == kept
    without = copy.deepcopy(method)
    without.model.old_bounds = torch.empty(0, 2, 2)
    assert method.memory_bytes() - without.memory_bytes() == 4 * kept


@pytest.mark.parametrize("name", ["single", "coreset"])
def test_what_was_saved_before_bounds_were_kept_goes_on(name):
    method, resumed = make(name, probabilistic=True), make(name, probabilistic=True)
    for task in range(3):
        train(method, task, 4)
    state = copy.deepcopy(method.state())
    del state["tensors"]["model.old_bounds"]
    resumed.load_state(state)
    latest = method.planner_layers(2)(None).bounds
    for task in range(3):
        assert torch.equal(resumed.planner_layers(task)(None).bounds, latest)
    train(resumed, 3, 4)
    assert torch.equal(resumed.planner_layers(2)(None).bounds, latest) == (name == "single")


def test_log_variance_bounds_are_trained():
    method = make("hnet", probabilistic=True)
    before = method.model.max_logvar.detach().clone()
    train(method, 0, 5)
    assert (method.model.max_logvar != before).all()


@pytest.mark.parametrize(("name", "members"), [*((name, 1) for name in METHODS), ("hnet", 3)])
def test_activations_are_what_the_last_layer_reads(name, members):
    method = make(name, members=members)
    method.begin_task()
    batch = linear_system(0, 30)
    found = method.activations(0, batch)
    inputs = method.model.inputs(batch.obs, batch.action).expand(members, 30, 4)
    weight, bias = method.layers(0)[-1]
    outputs = method.layout(0).apply(method.weights(0).view(members, -1), inputs)
    hidden = found["network"][-1].view(members, 30, -1)
    weight, bias = weight.view(members, *weight.shape[-2:]), bias.view(members, 1, -1)
    torch.testing.assert_close(hidden @ weight.mT + bias, outputs)
    assert ("hypernetwork" in found) == ("hnet" in name)
    assert all(
        layer.shape[0] == members for layer in found.get("hypernetwork", []) if name == "hnet"
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_task_to_come_is_met_with_the_latest_weights(name):
    method = make(name)
    train(method, 0, 3)
    assert torch.equal(method.weights(4), method.weights(0))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("boundary", [False, True])
def test_state_goes_on_bit_for_bit(name, boundary):
    straight = make(name)
    train(straight, 0, 6)
    train(straight, 1, 4, end=boundary)
    resumed = make(name, seed=77)
    resumed.load_state(copy.deepcopy(straight.state()))
    for old, new in zip(generators(straight), generators(resumed), strict=True):
        new.set_state(old.get_state())
    for method in (straight, resumed):
        if boundary:
            train(method, 2, 4, end=False)
        for step in range(4):
            method.training_step(linear_system(1, seed=50 + step))
            method.observe(linear_system(1, 5, seed=60 + step))
    assert straight.memory_bytes() == resumed.memory_bytes()
    for a, b in zip(straight.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])


def generators(method):
    return method.generator, method.sampler


def bytes_after_tasks(name, tasks=3, **settings):
    method = make(name, **settings)
    found = []
    for task in range(tasks):
        train(method, task, 2)
        found.append(method.memory_bytes())
    return method, found


MAIN = 4 * 24 + 24 + 24 * 2 + 2
HEAD = 24 * 2 + 2
ROW = 2 + 2 + 2 + 1  # a stored transition and its task


def test_memory_in_bytes():
    hnet, found = bytes_after_tasks("hnet")
    theta = sum(p.numel() for p in hnet.hypernetwork.parameters())
    assert found == [4 * (theta + t * 4 + (t - 1) * MAIN) for t in (1, 2, 3)]
    assert bytes_after_tasks("single")[1] == [4 * t * MAIN for t in (1, 2, 3)]
    change = 2 * (4 + 24) + 24 + 2 * (24 + 2) + 2  # A, B and a shift of both layers
    assert bytes_after_tasks("lora", rank=2)[1] == [4 * (MAIN + t * change) for t in (0, 1, 2)]
    heads = [4 * (4 * 24 + 24 + t * HEAD) for t in (1, 2, 3)]
    assert bytes_after_tasks("finetune")[1] == heads
    with_rows = [b + t * 50 * 4 * ROW + 8 * t for t, b in enumerate(heads, 1)]
    assert bytes_after_tasks("coreset")[1] == with_rows
    with_rows = [b + t * 400 * 4 * ROW + 8 * t for t, b in enumerate(heads, 1)]
    assert bytes_after_tasks("multitask")[1] == with_rows
    trunk = 4 * 24 + 24
    assert bytes_after_tasks("ewc")[1] == [b + 4 * 2 * trunk for b in heads]
    # Links from the one hidden layer of each older column to the outputs, each with its α.
    columns = [4 * (t * MAIN + t * (t - 1) // 2 * (24 * 2 + 1)) for t in (1, 2, 3)]
    assert bytes_after_tasks("pnn")[1] == columns


@pytest.mark.parametrize("targets", ["renewed", "kept"])
def test_targets_are_counted_though_only_kept_ones_are_needed_between_tasks(targets):
    """docs/metrics.md: acting needs neither, and the next task writes renewed ones anew."""
    method, found = bytes_after_tasks("hnet", targets=targets)
    assert found[-1] == 4 * (sum(p.numel() for p in method.parameters()) + 2 * MAIN)
    without = copy.deepcopy(method)
    without.targets.zero_()
    for task in range(3):
        assert torch.equal(without.weights(task), method.weights(task))
    for one in (method, without):
        one.begin_task()
    assert torch.equal(without.targets, method.targets) == (targets == "renewed")


@pytest.mark.parametrize("name", ["coreset_bytes", "reservoir", "derpp"])
def test_equal_bytes_means_no_more_than_hnet(name):
    config = METHODS["hnet"][1]("hnet", 1e-3, 5.0)
    model = DynamicsModel(2, 2, [24], False)
    generator = torch.Generator().manual_seed(0)
    hnet = make_method(model, config, generator, generator)
    hnet.begin_task()
    method = make(name)
    rows = method.memory.coreset.capacity if name == "coreset_bytes" else method.store.capacity
    extra = 2 if name == "derpp" else 0
    network = sum(p.numel() for p in method.network.parameters())
    spare = hnet.memory_bytes() - 4 * 10 - 4 * network - rows * 4 * (ROW + extra)
    assert 0 <= spare < 4 * (ROW + extra)


def test_lora_changes_the_first_network_by_matrices_of_its_rank():
    method = make("lora", rank=1)
    train(method, 0, 20)
    first = method.weights(0).detach().clone()
    method.begin_task()
    assert torch.equal(method.weights(1), first), "a task begins with the first one's network"
    method.end_task(linear_system(1, 4))
    train(method, 2, 20)
    assert torch.equal(method.weights(0), first)
    split = method.model.layout.split
    pairs = zip(split(first), split(method.weights(2).detach()), strict=True)
    for number, ((w, b), (changed, shifted)) in enumerate(pairs):
        values = torch.linalg.svdvals((changed - w).double())
        assert values[0] > 1e-3
        assert values[1] < 1e-6 * values[0]
        change = method.changes[1]
        wanted = w + torch.outer(change.up[number][:, 0], change.down[number][0])
        torch.testing.assert_close(changed, wanted)
        torch.testing.assert_close(shifted, b + change.shift[number])
        assert not torch.equal(b, shifted)


def test_pnn_is_the_papers_recurrence():
    method = make("pnn", seed=3)
    method.model.layout = type(method.model.layout)([4, 24, 16, 2])
    for _ in range(3):
        method.begin_task()
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    below = [[x] * 3]
    for i in range(3):
        layer = []
        for k, column in enumerate(method.columns):
            weight, bias = method.model.layout.split(column.own)[i]
            h = below[-1][k] @ weight.T + bias
            for j in range(k if i else 0):
                h = h + column.alpha[i - 1, j] * (below[-1][j] @ column.links[i - 1][j].T)
            layer.append(torch.relu(h) if i < 2 else h)
        below.append(layer)
    for task in range(3):
        got = method.layout(task).apply(method.weights(task), x)
        torch.testing.assert_close(got, below[-1][task], rtol=1e-5, atol=1e-6)


def test_packnet_prunes_each_tensor_and_freezes_what_is_kept():
    method = make("packnet", keep=0.25, retrain_updates=5)
    train(method, 0, 10)
    owner = method.owner.clone()
    for part in owner.split(method.model.layout.lengths[:-2]):
        assert int((part == 0).sum()) == round(0.25 * len(part))
    assert method.extra_updates == 5
    kept = method.weights(0).clone()
    assert int((kept[: len(owner)] == 0).sum()) >= int((owner == 1).sum())
    train(method, 1, 10)
    assert torch.equal(method.weights(0), kept)
    assert int((method.owner == 1).sum()) == pytest.approx(0.25 * 0.75 * len(owner), abs=2)
    assert not torch.equal(method.weights(1)[: len(owner)], kept[: len(owner)])


def test_agem_projects_only_a_gradient_that_would_hurt():
    method = make("agem")
    train(method, 0)
    method.begin_task()
    trunk, rows = method.network.trunk, method.memory.coreset.all()
    method.memory.coreset.draw = lambda count, generator: rows
    (reference,) = torch.autograd.grad(method._mixed_losses(rows).sum(), trunk)
    for gradient in (reference + 1e-3 * torch.randn_like(trunk), -reference + 0.1):
        trunk.grad = gradient.clone()
        method._protect(64)
        dot = float(gradient @ reference)
        if dot >= 0:
            assert torch.equal(trunk.grad, gradient)
        else:
            assert abs(float(trunk.grad @ reference)) < 1e-4 * abs(dot)
            wanted = gradient - dot / (reference @ reference) * reference
            torch.testing.assert_close(trunk.grad, wanted)


def test_fisher_of_a_linear_network_is_known():
    """y = W x with unit variance: F of W_oi is E[x_i²] for every output o, whatever W is."""
    model = DynamicsModel(2, 2, [24], False)
    batch = linear_system(0, 3000)
    weight = torch.randn(2, 4)
    fisher = fisher_diagonal(
        lambda flat, x: flat.view(2, 4) @ x,
        weight.flatten(),
        model,
        batch,
        6000,
        torch.Generator().manual_seed(0),
    )
    moments = torch.cat([batch.obs, batch.action], -1).square().mean(0)
    torch.testing.assert_close(fisher.view(2, 4), moments.expand(2, 4), rtol=0.1, atol=0)


def test_ewc_keeps_the_sum_of_its_quadratics():
    method = make("ewc", strength=2.0)
    fishers, anchors = torch.rand(2, 3, 120), torch.randn(2, 3, 120)
    method.begin_task()
    for fisher, anchor in zip(fishers[0], anchors[0], strict=True):
        method._consolidate(fisher, anchor)
    trunk = method.network.trunk
    trunk.grad = torch.zeros_like(trunk)
    method._protect(size=5)
    wanted = 2 * 2.0 * 5 / 2 * (fishers[0] * (trunk.detach() - anchors[0])).sum(0)
    torch.testing.assert_close(trunk.grad, wanted, rtol=1e-4, atol=1e-4)


def test_si_pays_out_the_whole_loss_along_a_small_path():
    """Summed over the weights, the path integral is what the loss went down by."""
    method = make("si", learning_rate=1e-5)
    method.begin_task()
    batch = linear_system(0)
    heads_too = 0.0
    losses = []
    for _ in range(40):
        head = method.network.heads[0].detach().clone()
        losses.append(float(method.training_step(batch)["loss"]))
        norm = method.optimisers[0].param_groups[0]["params"]
        gradient = norm[1].grad
        moved = method.network.heads[0].detach() - head
        scale = float(method.gradient.norm() / norm[0].grad.norm())
        heads_too -= float((gradient * scale * moved).sum())
    went_down = losses[0] - float(method.training_step(batch)["loss"])
    assert float(method.path.sum()) + heads_too == pytest.approx(went_down, rel=0.05)


@pytest.mark.parametrize("name", ["ftl", "ftl_task"])
def test_ftl_is_ridge_regression_on_everything_seen(name):
    method = make(name)
    train(method, 0, 2)
    train(method, 1, 2)
    model, rows, targets = method.model, [], []
    for task in range(2):
        data = linear_system(task, 400, seed=7)
        weight, bias = method._first_layer(task)
        features = torch.relu(model.inputs(data.obs, data.action) @ weight.T + bias)
        rows.append(torch.cat([features, torch.ones(400, 1)], 1).double())
        targets.append(model.target_normaliser(data.next_obs - data.obs).double())
    x, y = torch.cat(rows), torch.cat(targets)
    root = method.config.ridge**0.5 * torch.eye(x.shape[1], dtype=torch.float64)
    stacked = torch.cat([x, root]), torch.cat([y, torch.zeros(x.shape[1], 2).double()])
    wanted = torch.linalg.lstsq(*stacked).solution.T
    torch.testing.assert_close(method.solution.double(), wanted, rtol=1e-3, atol=1e-3)
    active = (rows[0][:, 8:-1] > 0).double().mean()
    assert 0.04 < active < 0.2


def test_derpp_stores_what_the_network_said_then():
    method = make("derpp")
    train(method, 0, 20)
    batch = linear_system(0, 6, seed=3)
    said = method.layout(0).apply(method.weights(0), method.model.inputs(batch.obs, batch.action))
    at = int(method.store.seen)
    method.observe(batch)
    torch.testing.assert_close(method.store.extra[at : at + 6], said.detach())


def test_ftl_follows_where_more_is_new_than_the_replay_holds():
    """All that it holds is new then, and nothing of it has been summed."""
    method = make("ftl")
    method.begin_task()
    held = linear_system(0, 50)
    method.observe(held)
    moments, scale = method.moments.clone(), method.model.target_normaliser.scale
    products = scale * method.products
    method.follow(Batch(held.obs, held.action, held.obs + 100 * (held.next_obs - held.obs)), 80)
    assert torch.equal(method.moments, moments)
    torch.testing.assert_close(scale * method.products, products)


def test_hnet_replay_goes_on_with_the_tasks_that_there_was_room_for():
    """Of 2 transitions in all the first two tasks have one each, and the third has none."""
    method = make("hnet_replay", per_task=None, capacity=2)
    for task in range(3):
        train(method, task, 2)
    train(method, 3, 2, end=False)
    assert method.memory.coreset.counts.tolist() == [1, 1]
    wanted = torch.zeros(())
    rows = method.memory.coreset.all()
    for task in range(2):
        row = Batch(rows.obs[[task]], rows.action[[task]], rows.next_obs[[task]])
        wanted = wanted + 5 * method.model.loss(method.weights(task), row)
    torch.testing.assert_close(method._rehearse(5), wanted)
