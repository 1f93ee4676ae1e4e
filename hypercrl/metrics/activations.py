"""How much of a network is in use, measured by the activations of a layer."""

import math

import numpy as np
from numpy.typing import ArrayLike

from hypercrl.metrics.matrix import Array


def dormant_share(activations: ArrayLike, threshold: float = 0.025) -> float:
    """Share of a layer's units that are hardly active, mean |h_i| ≤ τ · mean_k mean |h_k|.

    Sokar et al., "The dormant neuron phenomenon in deep reinforcement learning", ICML 2023,
    definition 3.1. All are dormant in a layer that is silent; NaN where one is not finite.

    Args:
        activations: of B inputs in a layer of H units, shape [B, H].
        threshold: τ.

    Raises:
        ValueError: `activations` is not a non-empty [B, H].
    """
    active = np.abs(_layer(activations)).mean(0)
    if not np.isfinite(active).all():
        return math.nan
    return float((active <= threshold * active.mean()).mean())


def effective_rank(activations: ArrayLike) -> float:
    """How many directions a layer uses, exp(− Σ p_k log p_k) with p_k = σ_k / Σ σ of its SVD.

    From 1 to min(B, H); 0 where all is 0, NaN where something is not finite. Roy and Vetterli, "The
    effective rank: a measure of effective dimensionality", EUSIPCO 2007.

    Args:
        activations: of B inputs in a layer of H units, shape [B, H]; not centred.

    Raises:
        ValueError: `activations` is not a non-empty [B, H].
    """
    layer = _layer(activations)
    if not np.isfinite(layer).all():
        return math.nan
    singular = np.linalg.svd(layer, compute_uv=False)
    if not singular.sum() > 0:
        return 0.0
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _layer(activations: ArrayLike) -> Array:
    values = np.asarray(activations, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"activations are [inputs, units], got shape {values.shape}")
    return values
