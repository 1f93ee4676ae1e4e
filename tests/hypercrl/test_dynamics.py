import math

import pytest
import torch

from hypercrl.dynamics import ChunkedHypernetwork, DynamicsModel, Hypernetwork, Normaliser
from hypercrl.methods import Batch
from hypercrl_kernels import rollout


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fitted_model(probabilistic=False, n=500):
    model = DynamicsModel(4, 2, [16, 16], probabilistic)
    g = generator()
    obs = torch.randn(n, 4, generator=g) * torch.tensor([1.0, 0.1, 5.0, 1.0]) + 3
    action = torch.rand(n, 2, generator=g)
    next_obs = obs + 0.01 * torch.randn(n, 4, generator=g) + 0.02
    model.fit_normalisers(Batch(obs, action, next_obs))
    return model, obs, action, next_obs


def test_sizes_of_the_paper():
    push = DynamicsModel(10, 2, [200, 200], probabilistic=False).layout
    full = Hypernetwork(push, 10, [50, 50], "elu", generator())
    chunked = ChunkedHypernetwork(push, 10, [20, 20], "relu", 2000, 20, generator())
    assert push.numel == 44_810
    assert sum(p.numel() for p in full.parameters()) == 2_288_410
    assert sum(p.numel() for p in chunked.parameters()) == 43_500


def test_heads_start_xavier_uniform_with_their_own_fan_out():
    layout = DynamicsModel(10, 2, [200, 200], probabilistic=False).layout
    net = Hypernetwork(layout, 10, [50, 50], "elu", generator())
    weight, bias = net.layout.split(net.theta)[-1]
    for block, length in zip(weight.split(layout.lengths), layout.lengths, strict=True):
        bound = math.sqrt(6 / (50 + length))
        assert block.abs().max() <= bound
        assert block.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert not bias.any()


@pytest.mark.parametrize("chunked", [False, True])
def test_tasks_in_a_batch_are_independent(chunked):
    layout = DynamicsModel(3, 1, [8], probabilistic=False).layout
    net = (
        ChunkedHypernetwork(layout, 4, [6, 6], "relu", 10, 5, generator())
        if chunked
        else Hypernetwork(layout, 4, [6, 6], "elu", generator())
    )
    e = torch.randn(3, 4)
    written = net(e)
    assert written.shape == (3, layout.numel)
    for one, alone in zip(written, e, strict=True):
        torch.testing.assert_close(net(alone[None])[0], one)
    assert (written[0] - written[1]).abs().max() > 1e-3


def test_chunks_are_written_by_their_own_embedding():
    layout = DynamicsModel(3, 1, [8], probabilistic=False).layout
    net = ChunkedHypernetwork(layout, 4, [6, 6], "relu", 10, 5, generator())
    e = torch.randn(1, 4)
    before = net(e)[0]
    with torch.no_grad():
        net.theta[5:10] += 1.0  # the second chunk's embedding
    changed = (net(e)[0] != before).nonzero().flatten()
    assert changed.min() >= 10
    assert changed.max() < 20


def test_normaliser_freezes_what_moves_and_fits_later_what_stood_still():
    norm = Normaliser(4)
    x = torch.randn(1000, 4, generator=generator()) + 1
    first = x * torch.tensor([2.0, 1.0, 0.005, 0.0])
    norm.fit(first)
    assert norm(first)[:, :3].std(0).tolist() == pytest.approx([1, 1, 1], abs=0.01)
    before = norm(first)
    later = x * torch.tensor([20.0, 0.0, 7.0, 0.3])
    norm.fit(later)
    assert torch.equal(norm(first), before)
    assert norm(later)[:, 3].square().mean().item() == pytest.approx(1, abs=0.01)
    fitted = norm(later)
    norm.fit(first)
    assert torch.equal(norm(later), fitted)
    assert norm.since.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("units", [[1.0, 1.0], [1000.0, 0.5], [1e-6, 1e6]])
def test_no_dimension_is_left_out_because_another_moves_more(units):
    g = generator()
    obs, action = (torch.rand(500, 2, generator=g) * 2 - 1 for _ in range(2))
    units = torch.tensor(units)
    model = DynamicsModel(2, 2, [8], False)
    model.fit_normalisers(Batch(units * obs, action, units * (obs + 0.1 * action)))
    assert model.target_normaliser.moving(0).all()
    scaled = model.target_normaliser(units * 0.1 * action)
    assert scaled.std(0).tolist() == pytest.approx([1, 1], rel=1e-2)


def test_rounding_is_no_motion_and_what_float32_resolves_is():
    g = generator()
    u = torch.rand(1000, 5, generator=g, dtype=torch.float64) * 2 - 1
    middle = torch.tensor([1000.0, 1000.0, 0.02, 1e-3, 0.1], dtype=torch.float64)
    # Up and down at random; rounded to one of two neighbours; a box at rest; tiny; constant.
    reach = torch.tensor([1e-3, 3e-5, 1e-9, 1e-9, 0.0], dtype=torch.float64)
    obs = (middle + reach * u).float()
    norm = Normaliser(5)
    norm.fit(obs)
    assert norm.moving(0).tolist() == [True, False, False, True, False]
    assert not norm(obs)[:, [1, 2, 4]].any()
    model = DynamicsModel(5, 1, [8], False)
    model.fit_normalisers(Batch(obs[:-1], u[:-1, :1].float(), obs[1:]))
    assert model.target_normaliser.moving(0).tolist() == [True, False, False, True, False]
    # A constant is its own mean, although sums of it are rounded.
    assert norm.mean[4] == obs[0, 4]


def test_what_creeps_through_its_range_is_not_blown_up():
    g = generator()
    obs, action = torch.rand(1000, 2, generator=g), torch.rand(1000, 1, generator=g)
    creep = torch.tensor([1e-2, 1e-5]) * torch.randn(1000, 2, generator=g)
    model = DynamicsModel(2, 1, [8], False)
    model.fit_normalisers(Batch(obs, action, obs + creep))
    assert model.target_normaliser.moving(0).all()
    moves, creeps = model.target_normaliser(creep).square().mean(0).sqrt().tolist()
    assert moves == pytest.approx(1, abs=0.05)
    assert 0.01 < creeps < 0.05


def test_a_late_scale_is_the_size_of_the_motion_however_rare_it_is():
    norm = Normaliser(2)
    still = torch.randn(500, 2, generator=generator()) * torch.tensor([1.0, 0.0])
    norm.fit(still)
    first = norm.scale[0].item()
    for rare in (2, 20, 200):
        still[:rare, 1] = 0.3
        norm.follow(still)
        assert norm.scale.tolist() == pytest.approx([first, 0.3])
    assert norm.since.tolist() == [0, 0]
    still[:, 1] *= 10
    norm.fit(still)  # the next task: frozen
    norm.follow(10 * still)
    assert norm.scale.tolist() == pytest.approx([first, 0.3])


def test_what_only_trembled_is_fitted_again_when_it_moves_in_earnest():
    """A door's hinge shivers until it is unlatched; in a later task it keeps its scale."""
    norm = Normaliser(2)
    x = torch.randn(500, 2, generator=generator()) * torch.tensor([1.0, 1e-4])
    norm.fit(x)
    trembling = norm.scale.clone()
    norm.follow(x * torch.tensor([3.0, 3.0]))
    assert torch.equal(norm.scale, trembling)
    x[:50, 1] = 0.1
    norm.follow(x)
    assert norm.scale.tolist() == pytest.approx([trembling[0].item(), 0.1], rel=1e-2)
    norm.fit(x)
    frozen = norm.scale.clone()
    norm.follow(1000 * x)
    assert torch.equal(norm.scale, frozen)


@pytest.mark.parametrize(("motion", "refitted"), [(5.0, False), (20.0, True)])
def test_a_later_task_fits_what_only_trembled_before(motion, refitted):
    """From ten thousand times its scale on."""
    x = torch.tensor([[-1.0], [1.0]])
    normaliser = Normaliser(1)
    normaliser.fit(1e-3 * x)
    normaliser.fit(motion * x)
    assert normaliser.scale.item() == pytest.approx(motion if refitted else 1e-3)
    assert normaliser.since.item() == int(refitted)


@pytest.mark.parametrize("random", [False, True])
def test_what_rested_in_all_tasks_so_far_is_fitted_when_a_later_one_moves_it(random):
    """A puck at rest trembles by 1e-6 m/s, and is struck in the second task."""
    norm = Normaliser(2)
    x = torch.randn(500, 2, generator=generator()) * torch.tensor([1.0, 1e-6])
    norm.fit(x)
    first = norm.scale[0].item()
    struck = x.clone()
    struck[:5, 1] = 0.3
    norm.fit(struck if random else x)
    norm.follow(struck)
    assert norm.scale[0].item() == first
    assert norm(struck).abs().max() < 20
    assert norm.since.tolist() == [0, 1]
    assert norm.moving(0).tolist() == [True, False]  # the first task's models go on without it


def test_old_models_do_not_change_when_a_still_dimension_gets_its_scale():
    """A knob that only the second door has: the first door's inputs are the same bits."""
    model = DynamicsModel(3, 1, [16], probabilistic=False)
    g = generator()
    obs = torch.randn(500, 3, generator=g) * torch.tensor([1.0, 0.1, 0.0])
    action = torch.rand(500, 1, generator=g)
    model.fit_normalisers(Batch(obs, action, obs + 0.1 * obs))
    weights = model.layout.initial(generator(3))
    sequences = action[:, None, None].expand(-1, 1, 8, -1)

    def roll():
        return rollout(model.planning_layers(model.layout.split(weights), task=0), obs, sequences)

    before = roll()
    turned = obs + 0.4 * torch.randn(500, 3, generator=g)
    model.fit_normalisers(Batch(turned, action, turned + 0.1 * turned))
    assert torch.equal(roll(), before)
    assert not before[..., 2].any()
    knob = rollout(model.planning_layers(model.layout.split(weights), task=1), obs, sequences)[
        ..., 2
    ]
    assert knob.abs().max() > 0.01
    assert (turned / model.input_normaliser.scale[:3])[:, 2].abs().max() < 5
    assert (0.1 * turned / model.target_normaliser.scale)[:, 2].abs().max() < 5


def test_folded_layers_predict_what_the_model_predicts():
    for probabilistic in (False, True):
        model, obs, action, _ = fitted_model(probabilistic)
        weights = model.layout.initial(generator(3))
        mean, _ = model.predict(weights, obs[:20], action[:20])
        layers = model.planning_layers(model.layout.split(weights), task=0)
        states = rollout(layers, obs[:20], action[:20, None, None])
        torch.testing.assert_close(states[:, 0, 1] - obs[:20], mean, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_folded_layers_sample_with_the_variance_that_the_model_predicts(size):
    model, obs, action, _ = fitted_model(probabilistic=True)
    with torch.no_grad():  # bounds that both bite
        model.min_logvar.copy_(torch.tensor([-3.0, -2.0, -1.0, -4.0]))
        model.max_logvar.copy_(torch.tensor([-0.5, 0.5, 1.0, 0.0]))
    weights = size * model.layout.initial(generator(3))
    obs, action = obs[:20], action[:20]
    mean, logvar = model.predict(weights, obs, action)
    noise = torch.randn(20, 1, 1, 4, generator=generator(4))
    layers = model.planning_layers(model.layout.split(weights), task=0)
    states = rollout(layers, obs, action[:, None, None], noise=noise)
    wanted = obs + mean + (0.5 * logvar).exp() * noise[:, 0, 0]
    torch.testing.assert_close(states[:, 0, 1], wanted, rtol=1e-4, atol=1e-4)


def test_gaussian_loss_is_the_negative_log_likelihood_up_to_constants():
    model, obs, action, next_obs = fitted_model(probabilistic=True)
    weights = model.layout.initial(generator(3))
    mean, logvar = model.predict(weights, obs, action)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    nll = -normal.log_prob(next_obs - obs)
    scale = model.target_normaliser.scale
    constants = 0.5 * math.log(2 * math.pi) + scale.log()
    expected = 2 * (nll - constants).sum() / 4
    spread = 0.01 * (model.max_logvar - model.min_logvar).sum()
    got = model.loss(weights, Batch(obs, action, next_obs))
    torch.testing.assert_close(got, expected + spread, rtol=1e-4, atol=1e-3)


def slopes(loss, outputs):
    return torch.autograd.grad(loss, outputs)[0].chunk(2, -1)


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_errors_count_by_the_variance_to_the_power_of_beta_less_one(weight):
    model, obs, _, next_obs = fitted_model(probabilistic=True)
    model.variance_weight = weight
    outputs = torch.randn(len(obs), 8, generator=generator(4)).requires_grad_()
    target = model.target_normaliser(next_obs - obs)
    mean, logvar = model.distribution(outputs)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    likelihoods = -2 * normal.log_prob(target) - math.log(2 * math.pi)
    variance = logvar.exp().detach()
    wanted = (variance**weight * likelihoods).sum(-1) / 4
    got = model.row_losses(outputs, obs, next_obs)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    of_mean, of_variance = slopes(got.sum(), outputs)
    torch.testing.assert_close(of_mean, 2 / 4 * (mean - target) * variance ** (weight - 1))
    assert of_variance.abs().max() > 0


def test_weighted_by_the_whole_variance_a_mean_learns_as_without_one():
    plain, obs, action, next_obs = fitted_model()
    model, *_ = fitted_model(probabilistic=True)
    model.variance_weight = 1.0
    weights = model.layout.initial(generator(3))
    alone = weights.clone()[: plain.layout.numel]
    last_w, last_b = plain.layout.split(alone)[-1]
    wide_w, wide_b = model.layout.split(weights)[-1]
    last_w.copy_(wide_w[:4])
    last_b.copy_(wide_b[:4])
    batch = Batch(obs, action, next_obs)
    gradients = []
    for each, of in ((plain, alone), (model, weights)):
        of.requires_grad_()
        each.loss(of, batch).backward()
        gradients.append(each.layout.split(of.grad)[-1])
    (of_w, of_b), (of_wide_w, of_wide_b) = gradients
    torch.testing.assert_close(of_wide_w[:4], of_w, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_wide_b[:4], of_b, rtol=1e-4, atol=1e-4)


def test_a_rare_blow_does_not_drown_what_rests():
    """One transition in fifty is of a blow of random strength, the others of a slow decay."""
    g = generator()
    obs = torch.rand(2000, 1, generator=g) * 2 - 1
    action = torch.rand(2000, 1, generator=g) * 2 - 1
    blow = (action[:, 0] > 0.96) * 10 * torch.randn(2000, generator=g)
    batch = Batch(obs, action, obs - 0.05 * obs + blow[:, None])
    errors = []
    for probabilistic, weight in ((False, 0.0), (True, 0.5)):
        model = DynamicsModel(1, 1, [64, 64], probabilistic, weight)
        model.fit_normalisers(batch)
        weights = model.layout.initial(generator(1)).requires_grad_()
        adam = torch.optim.Adam([weights, *model.parameters()], 1e-3)
        for _ in range(1000):
            rows = torch.randint(2000, (100,), generator=g)
            adam.zero_grad()
            model.loss(weights, batch.at(rows)).backward()
            adam.step()
        still = action[:, 0] < 0.9
        mean, _ = model.predict(weights.detach(), obs[still], action[still])
        errors.append((mean + 0.05 * obs[still]).square().mean().sqrt().item())
    assert errors[1] < errors[0] / 2


def test_log_variance_stays_within_its_learned_bounds():
    model, obs, action, next_obs = fitted_model(probabilistic=True)
    weights = (100 * model.layout.initial(generator(3))).requires_grad_()
    _, logvar = model.predict(weights, obs, action)
    normalised = logvar - 2 * model.target_normaliser.scale.log()
    assert normalised.max() <= 0.5 + 1e-3
    assert normalised.min() >= -10 - 1e-3
    model.loss(weights, Batch(obs, action, next_obs)).backward()
    assert model.min_logvar.grad is not None
    assert model.max_logvar.grad is not None
