import copy

import pytest
import torch
from torch.func import functional_call

from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import Batch, HnetConfig, MethodConfig, make_method

CONFIGS = {
    "hnet": HnetConfig("hnet", 2e-3, 5.0, hidden=[16, 16], embedding_size=4),
    "chunked_hnet": HnetConfig(
        "chunked_hnet",
        2e-3,
        5.0,
        hidden=[32, 32],
        embedding_size=4,
        activation="relu",
        chunk_size=50,
        chunk_embedding_size=6,
    ),
    "finetune": MethodConfig("finetune", 2e-3, 5.0),
    "single": MethodConfig("single", 2e-3, 5.0),
}


def linear_system(task, n=64, seed=0):
    """Transitions of s' = s ± a: two tasks in outright conflict."""
    g = torch.Generator().manual_seed(seed + 1000 * task)
    obs, action = torch.randn(n, 2, generator=g), torch.randn(n, 2, generator=g)
    return Batch(obs, action, obs + (-1) ** task * action)


def make(name, probabilistic=False, seed=0, **settings):
    config = copy.deepcopy(CONFIGS[name])
    for key, value in settings.items():
        setattr(config, key, value)
    model = DynamicsModel(2, 2, [24], probabilistic)
    b = linear_system(0, 500)
    model.fit_normalisers(b.obs, b.action, b.next_obs)
    return make_method(model, config, torch.Generator().manual_seed(seed))


def train(method, task, steps=200):
    method.begin_task()
    for step in range(steps):
        method.training_step(linear_system(task, seed=step))


@torch.no_grad()
def error(method, task):
    b = linear_system(task, 256, seed=12345)
    mean, _ = method.model.predict(method.weights(task), b.obs, b.action)
    return float((mean - (b.next_obs - b.obs)).square().mean().sqrt())


@pytest.mark.parametrize("probabilistic", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_two_conflicting_tasks(name, probabilistic):
    """Past the boundary the protected methods keep task 1 and finetune loses it."""
    chunked = name == "chunked_hnet"
    strength = {"beta": 10.0 if chunked else 1.0} if "hnet" in name else {}
    method = make(name, probabilistic, **strength)
    steps = 700 if chunked else 250
    train(method, 0, steps)
    # What is to be predicted is ±a, of RMS 1.
    assert error(method, 0) < 0.12
    train(method, 1, steps)
    assert error(method, 1) < 0.12
    if name == "finetune":
        # The old head is kept, so the moved trunk blurs the old task but does not turn it round.
        assert error(method, 0) > 0.25
    else:
        assert error(method, 0) < 0.12


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
    loss = model.loss(weights, batch.obs, batch.action, batch.next_obs)
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


def test_hnet_training_step_is_the_papers():
    method = make("hnet", beta=0.7).double()
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


def test_log_variance_bounds_are_trained():
    method = make("hnet", probabilistic=True)
    before = method.model.max_logvar.detach().clone()
    train(method, 0, 5)
    assert (method.model.max_logvar != before).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_task_to_come_is_met_with_the_latest_weights(name):
    method = make(name)
    train(method, 0, 3)
    assert torch.equal(method.weights(4), method.weights(0))


@pytest.mark.parametrize("name", CONFIGS)
def test_state_goes_on_bit_for_bit(name):
    straight = make(name)
    train(straight, 0, 5)
    train(straight, 1, 3)
    saved = copy.deepcopy(straight.state())
    resumed = make(name, seed=77)
    resumed.load_state(saved)
    for method in (straight, resumed):
        for step in range(4):
            method.training_step(linear_system(1, seed=50 + step))
    for a, b in zip(straight.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])


def test_memory_in_bytes():
    hnet, single, finetune = make("hnet"), make("single"), make("finetune")
    main = hnet.model.layout.numel
    assert main == 4 * 24 + 24 + 24 * 2 + 2
    theta = sum(p.numel() for p in hnet.hypernetwork.parameters())
    for method in (hnet, single, finetune):
        for _ in range(3):
            method.begin_task()
    assert hnet.memory_bytes() == 4 * (theta + 3 * 4 + 2 * main)
    assert single.memory_bytes() == 4 * 3 * main
    assert finetune.memory_bytes() == 4 * (4 * 24 + 24 + 3 * (24 * 2 + 2))
