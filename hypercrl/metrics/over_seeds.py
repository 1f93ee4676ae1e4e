"""What results of several seeds say of a method, with bootstrap intervals.

The interquartile mean is that of Agarwal et al., "Deep reinforcement learning at the edge of the
statistical precipice", NeurIPS 2021.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hypercrl.metrics.matrix import Array


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half: of n values, the ⌊n/4⌋ lowest and as many highest are left out.

    Args:
        values: results of seeds × tasks, any shape. One NaN makes the answer NaN.

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, np.float64).ravel()
    if values.size == 0:
        raise ValueError("the interquartile mean of no values is undefined")
    return float(_middle_half_mean(values))


def interquartile_mean_interval(
    values: ArrayLike,
    generator: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the interquartile mean, stratified by task.

    Every resample draws, for each task on its own, as many seeds as there are, with replacement.

    Args:
        values: one result per seed and task, shape [S, N]. One NaN makes both bounds NaN.
        generator: where the draws come from.
        confidence: probability mass between the bounds.
        resamples: number of bootstrap draws.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: `values` is not a non-empty [S, N].
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"the bootstrap needs values [seeds, tasks], got shape {values.shape}")
    seeds, tasks = values.shape
    drawn = values[generator.integers(seeds, size=(resamples, seeds, tasks)), np.arange(tasks)]
    return _percentiles(_middle_half_mean(drawn.reshape(resamples, -1)), values, confidence)


def mean_interval(
    values: ArrayLike,
    generator: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of one value per seed, shape [S].

    Args:
        values: results of the seeds. One NaN makes both bounds NaN.
        generator: where the draws come from.
        confidence: probability mass between the bounds.
        resamples: number of bootstrap draws.

    Raises:
        ValueError: `values` is not a non-empty [S].
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"the bootstrap needs values [seeds], got shape {values.shape}")
    means = generator.choice(values, (resamples, values.size)).mean(-1)
    return _percentiles(means, values, confidence)


def mean_over_strata_interval(
    strata: Sequence[ArrayLike],
    generator: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of means of several benchmarks.

    Every resample draws, for each benchmark on its own, as many seeds as it has, with replacement,
    and every benchmark counts alike: stratified by benchmark, as the aggregates of Agarwal et al.,
    "Deep reinforcement learning at the edge of the statistical precipice", 2021.

    Args:
        strata: of each benchmark one value per seed, shape [S]; S may differ. One NaN makes both
            bounds NaN.
        generator: where the draws come from.
        confidence: probability mass between the bounds.
        resamples: number of bootstrap draws.

    Raises:
        ValueError: there is no benchmark, or one is not a non-empty [S].

    Example:
        >>> mean_over_strata_interval([[1.0, 1.0], [0.5]], np.random.default_rng(0))
        (0.75, 0.75)
    """
    arrays = [np.asarray(values, np.float64) for values in strata]
    if not arrays or any(values.ndim != 1 or values.size == 0 for values in arrays):
        shapes = [values.shape for values in arrays]
        raise ValueError(f"the bootstrap needs values [seeds] of each, got shapes {shapes}")
    means = [generator.choice(values, (resamples, values.size)).mean(-1) for values in arrays]
    return _percentiles(np.mean(means, axis=0), np.concatenate(arrays), confidence)


def probability_of_improvement(one: ArrayLike, other: ArrayLike) -> float:
    """How likely a run of one method is to beat a run of another on the same task, mean over tasks.

    A tie counts half. Agarwal et al., "Deep reinforcement learning at the edge of the statistical
    precipice", NeurIPS 2021, section 4.3.

    Args:
        one: results of seeds × tasks, [S, N]. One NaN in either makes the answer NaN.
        other: those of the other method, [S', N].

    Raises:
        ValueError: they are not non-empty, or of another number of tasks.
    """
    return float(_probability(*_two_methods(one, other)))


def probability_of_improvement_interval(
    one: ArrayLike,
    other: ArrayLike,
    generator: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of it: seeds of both methods drawn anew, task by task.

    Args:
        one, other: as of `probability_of_improvement`.
        generator: where the draws come from.
        confidence: probability mass between the bounds.
        resamples: number of bootstrap draws.

    Raises:
        ValueError: as there.
    """
    one, other = _two_methods(one, other)
    drawn = [
        values[generator.integers(len(values), size=(resamples, *values.shape)), np.arange(tasks)]
        for values, tasks in ((one, one.shape[1]), (other, other.shape[1]))
    ]
    return _percentiles(_probability(*drawn), np.append(one, other), confidence)


def _two_methods(one: ArrayLike, other: ArrayLike) -> tuple[Array, Array]:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if (
        one.ndim != 2
        or other.ndim != 2
        or one.shape[1] != other.shape[1]
        or not one.size * other.size
    ):
        raise ValueError(
            "both methods need values [seeds, tasks] of the same tasks, "
            f"got {one.shape} and {other.shape}"
        )
    return one, other


def _probability(one: Array, other: Array) -> Array:
    """[..., S, N] and [..., S', N] → [...]."""
    first, second = one[..., :, None, :], other[..., None, :, :]
    wins = (first > second) + 0.5 * (first == second)
    unknown = np.isnan(first) | np.isnan(second)
    return np.where(unknown, np.nan, wins).mean((-3, -2, -1))


def _percentiles(means: Array, values: Array, confidence: float) -> tuple[float, float]:
    """Bounds that hold `confidence` of the resampled means of `values`."""
    # A resample may miss the failed seed; the interval must not.
    if np.isnan(values).any():
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _middle_half_mean(values: Array) -> Array:
    """Mean without the lowest and the highest quarter along the last axis, [..., n] → [...]."""
    cut = values.shape[-1] // 4
    middle = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(-1)
    # Sorting puts NaN last, where the cut would hide it.
    return np.where(np.isnan(values).any(-1), math.nan, middle)
