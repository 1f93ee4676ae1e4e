"""From returns and the sampled actions to the next distribution: the update of CEM."""

import torch
from torch import Tensor

from hypercrl_kernels.planning.elites_reference import Elites, elite_statistics_reference
from hypercrl_kernels.planning.sampling import sample_actions

MAX_SAMPLES = 16384  # the kernel holds all samples' returns in one program's registers


@torch.no_grad()
def elite_statistics(returns: Tensor, actions: Tensor, elites: int, min_std: Tensor) -> Elites:
    """Mean and population standard deviation of the `elites` sequences with the largest returns.

    One Triton kernel on CUDA, torch operations elsewhere. Of equal returns the first samples are
    taken; one that is not a number counts as −inf. Always exactly `elites` are taken.

    Args:
        returns: [B, K], one per sampled sequence.
        actions: [B, K, H, A], the sequences.
        elites: how many to take, from 1 to K.
        min_std: [A], the least standard deviation returned.

    Raises:
        ValueError: shapes that do not fit together, or more elites than samples.
    """
    _check_shapes(returns, actions, elites, min_std)
    samples = returns.shape[1]
    exact = actions.dtype == returns.dtype == torch.float32
    if actions.device.type == "cuda" and exact and samples <= MAX_SAMPLES:
        from hypercrl_kernels.planning.update_launch import launch_elites

        return launch_elites(returns, actions, elites, min_std)
    return elite_statistics_reference(returns, actions, elites, min_std)


@torch.no_grad()
def refit_and_sample(
    returns: Tensor,
    actions: Tensor,
    elites: int,
    min_std: Tensor,
    noise: Tensor,
    low: Tensor,
    high: Tensor,
) -> tuple[Elites, Tensor]:
    """`elite_statistics`, and `sample_actions` of their mean and std: an iteration of CEM's update.

    One Triton kernel on CUDA, torch operations elsewhere.

    Args:
        returns, actions, elites, min_std: see `elite_statistics`.
        noise: [B, K, H, A], standard normal, of the next samples.
        low, high: [A] bounds.

    Returns:
        The statistics, and the next samples clip(mean + std · noise) [B, K, H, A].

    Raises:
        ValueError: shapes that do not fit together, or more elites than samples.
    """
    _check_shapes(returns, actions, elites, min_std)
    alike = noise.shape == actions.shape and low.shape == high.shape == min_std.shape
    tensors = (returns, actions, min_std, noise, low, high)
    exact = all(x.dtype == torch.float32 for x in tensors)
    if alike and exact and actions.device.type == "cuda" and returns.shape[1] <= MAX_SAMPLES:
        from hypercrl_kernels.planning.update_launch import launch_refit

        return launch_refit(returns, actions, elites, min_std, noise, low, high)
    fitted = elite_statistics(returns, actions, elites, min_std)
    return fitted, sample_actions(fitted.mean, fitted.std, noise, low, high)


def _check_shapes(returns: Tensor, actions: Tensor, elites: int, min_std: Tensor) -> None:
    if returns.dim() != 2 or actions.dim() != 4 or returns.shape != actions.shape[:2]:
        raise ValueError(
            f"elite_statistics needs returns [B, K] and actions [B, K, H, A] with one B and K; "
            f"got {tuple(returns.shape)} and {tuple(actions.shape)}"
        )
    if not 1 <= elites <= returns.shape[1]:
        raise ValueError(f"elite_statistics takes 1 to K={returns.shape[1]} elites, not {elites}")
    if min_std.shape != actions.shape[3:]:
        raise ValueError(
            f"elite_statistics needs min_std [A], here [{actions.shape[3]}]; "
            f"got {tuple(min_std.shape)}"
        )
