"""When a model counts as diverged."""

from math import inf, nan

import pytest

from hypercrl.training.learner import divergence


@pytest.mark.parametrize(
    ("first", "loss", "norm"),
    [(1e-6, 9e8, 1.0), (1e-6, -9e9, 1.0), (-100.0, 9e10, 1.0), (0.0, 0.0, 1e30)],
)
def test_a_loss_may_grow_far_from_its_start_and_from_that_of_a_model_without_motion(
    first, loss, norm
):
    assert divergence(first, loss, gradient_norm=norm) is None


@pytest.mark.parametrize(
    ("first", "loss", "norm"),
    [(1e-6, 2e9, 1.0), (100.0, 2e11, 1.0), (1.0, nan, 1.0), (1.0, inf, 1.0), (1.0, 0.5, nan)],
)
def test_beyond_that_it_has_diverged_and_so_has_one_with_a_gradient_that_is_no_number(
    first, loss, norm
):
    said = divergence(first, loss, gradient_norm=norm)
    assert said == f"loss {loss:g}, {first:g} at the start; gradient_norm {norm:g}"
