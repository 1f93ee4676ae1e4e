"""What a continual learner is judged by: pure functions of the matrix R.

R has shape [N + 1, N] for N tasks. R[i, j] is the result on task j after training on task i; row 0
is the untrained agent, and tasks count from 1 in the equations below. A cell that failed is NaN.
It makes every number that depends on it NaN as well: a mean over the cells that happened to
survive would flatter a method that crashes.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def average_performance(matrix: ArrayLike) -> float:
    """Mean over all tasks at the very end, (1/N) Σ_j R[N, j].

    Args:
        matrix: R, shape [N + 1, N].

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    return float(as_matrix(matrix)[-1].mean())


def forgetting(matrix: ArrayLike) -> float:
    """What later tasks took away, 1/(N−1) Σ_{j<N} (R[j, j] − R[N, j]); NaN for one task.

    The backward transfer of Lopez-Paz and Ranzato, "Gradient episodic memory for continual
    learning", NeurIPS 2017, with its sign changed.

    Args:
        matrix: R, shape [N + 1, N]; positive forgetting is a loss.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    matrix = as_matrix(matrix)
    if matrix.shape[1] == 1:
        return math.nan
    return float((just_trained(matrix) - matrix[-1])[:-1].mean())


def continual_world_forgetting(matrix: ArrayLike) -> float:
    """What later tasks took away, 1/N Σ_j (R[j, j] − R[N, j]), over all N tasks.

    Wołczyk et al., "Continual World: a robotic benchmark for continual reinforcement learning",
    NeurIPS 2021, section 3. The last task, which nothing comes after, counts as one that forgot
    nothing, so that it is (N − 1)/N of `forgetting`.

    Args:
        matrix: R, shape [N + 1, N]; positive forgetting is a loss.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    matrix = as_matrix(matrix)
    return float((just_trained(matrix) - matrix[-1]).mean())


def chaudhry_forgetting(matrix: ArrayLike) -> float:
    """What was lost of the best so far, 1/(N−1) Σ_{j<N} (max_{1≤i<N} R[i, j] − R[N, j]).

    Chaudhry et al., "Riemannian walk for incremental learning", ECCV 2018, equation 3, at the end.
    The untrained agent's row has no part. NaN for one task.

    Args:
        matrix: R, shape [N + 1, N]; positive forgetting is a loss.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    matrix = as_matrix(matrix)
    if matrix.shape[1] == 1:
        return math.nan
    return float((matrix[1:-1].max(0) - matrix[-1])[:-1].mean())


def backward_transfer(matrix: ArrayLike) -> float:
    """What later tasks gave to earlier ones: `forgetting` with its sign changed.

    Args:
        matrix: R, shape [N + 1, N].

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    return -forgetting(matrix)


def model_forgetting(errors: ArrayLike) -> float:
    """Growth of the k-step prediction error, 1/(N−1) Σ_{j<N} (E[N, j] − E[j, j]).

    Prediction errors fall where scores rise: this is what later tasks added to them. NaN for one
    task, and where a prediction diverged both before and after.

    Args:
        errors: E, shape [N + 1, N], on held-out data of each task; positive forgetting is a loss.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    with np.errstate(invalid="ignore"):
        return -forgetting(errors)


def error_growth(errors: ArrayLike) -> float:
    """What one later task adds to a prediction error, mean_{j<N} (E[N, j] − E[j, j]) / (N − j).

    `model_forgetting` grows with the number of tasks; this does not where each of them adds alike.
    NaN for one task.

    Args:
        errors: E, shape [N + 1, N], on held-out data of each task; positive is a loss.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    errors = as_matrix(errors)
    tasks = errors.shape[1]
    if tasks == 1:
        return math.nan
    with np.errstate(invalid="ignore"):
        added = (errors[-1] - just_trained(errors))[:-1]
    return float((added / np.arange(tasks - 1, 0, -1)).mean())


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


def zero_shot_forward_transfer(matrix: ArrayLike) -> float:
    """Gain on tasks not yet trained, 1/(N−1) Σ_{j≥2} (R[j−1, j] − R[0, j]); NaN for one task.

    The forward transfer of Lopez-Paz and Ranzato 2017.

    Args:
        matrix: R, shape [N + 1, N].

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    matrix = as_matrix(matrix)
    if matrix.shape[1] == 1:
        return math.nan
    just_before = np.diagonal(matrix)  # with row 0 in front, this is R[j−1, j]
    return float((just_before - matrix[0])[1:].mean())


def retention(matrix: ArrayLike) -> Array:
    """Share of each task's result that is left at the end, R[N, j] / R[j, j], shape [N].

    A share of something that is zero or negative has no meaning: such entries are NaN, and so are
    those below 1e-8. Use `normalise` first where rewards can be negative.

    Args:
        matrix: R, shape [N + 1, N].

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    matrix = as_matrix(matrix)
    trained = just_trained(matrix)
    return matrix[-1] / np.where(trained > 1e-8, trained, math.nan)


def normalise(scores: ArrayLike, random: ArrayLike, single: ArrayLike) -> Array:
    """Scores on a scale where 0 is the untrained agent and 1 an agent made for that task alone.

    s = (r − random_j) / (single_j − random_j)

    Args:
        scores: mean returns, shape [..., N]; a whole matrix R will do.
        random: returns of the untrained agent, shape [N].
        single: returns of the agent trained on task j alone, shape [N].

    Raises:
        ValueError: shapes disagree, or on some task `single` is no better than `random` (to one
            part in a million), so that there is no scale to speak of.
    """
    scores, random, single = (np.asarray(x, np.float64) for x in (scores, random, single))
    if random.ndim != 1 or random.shape != single.shape or scores.shape[-1:] != random.shape:
        raise ValueError(
            "normalise needs scores [..., N], random [N] and single [N], "
            f"got {scores.shape}, {random.shape} and {single.shape}"
        )
    scale = single - random
    # Written so that NaN passes through: a failed reference is a failed result, not a bad call.
    without_scale = scale <= 1e-6 * np.maximum(1.0, np.maximum(np.abs(single), np.abs(random)))
    if without_scale.any():
        task = int(np.argmax(without_scale))
        raise ValueError(
            f"task {task + 1} cannot be normalised: the single-task agent scores {single[task]:g} "
            f"and the untrained one {random[task]:g}"
        )
    return (scores - random) / scale


def auc_forward_transfer(curve: ArrayLike, single_curve: ArrayLike) -> float:
    """How much sooner a task is learnt after others, (AUC − AUC_single) / (1 − AUC_single).

    AUC is the trapezoidal mean of a success curve; 1 is a task that was solved from the start. NaN
    when the single-task agent itself has AUC 1 and leaves nothing to gain.

    Args:
        curve: success rate on the task at evenly spaced times of its training, shape [T].
        single_curve: the same for the agent trained on that task alone, at the same times, [T].

    Raises:
        ValueError: shapes differ, T < 2, or a value lies outside [0, 1] and so is no success rate.
    """
    curves = _success_curves(curve, single_curve)
    return _share_of_room(*((c[1:] + c[:-1]).mean() / 2 for c in curves))


def continual_world_forward_transfer(curve: ArrayLike, single_curve: ArrayLike) -> float:
    """`auc_forward_transfer` as Continual World has it: AUC is the plain mean of the evaluations.

    Wołczyk et al. 2021, section 3; theirs is the mean over all tasks, the first one included.

    Args:
        curve, single_curve: as of `auc_forward_transfer`.

    Raises:
        ValueError: as `auc_forward_transfer`.
    """
    return _share_of_room(*(c.mean() for c in _success_curves(curve, single_curve)))


def _success_curves(curve: ArrayLike, single_curve: ArrayLike) -> tuple[Array, Array]:
    curve, single_curve = np.asarray(curve, np.float64), np.asarray(single_curve, np.float64)
    if curve.ndim != 1 or curve.shape != single_curve.shape or curve.size < 2:
        raise ValueError(
            "both success curves need the same shape [T] with T ≥ 2, "
            f"got {curve.shape} and {single_curve.shape}"
        )
    if any(((c < 0) | (c > 1)).any() for c in (curve, single_curve)):
        raise ValueError("a success curve lies in [0, 1]; the AUC of returns is not comparable")
    return curve, single_curve


def _share_of_room(area: float, single_area: float) -> float:
    room = 1 - single_area
    return float((area - single_area) / room) if room > 1e-8 else math.nan


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


def as_matrix(matrix: ArrayLike) -> Array:
    """R as float64 with its shape checked.

    Args:
        matrix: R, shape [N + 1, N]; None stands for NaN.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    array = np.asarray(matrix, np.float64)
    if array.ndim != 2 or array.shape[1] == 0 or array.shape[0] != array.shape[1] + 1:
        raise ValueError(
            "a result matrix has one row per training stage and one column per task, [N + 1, N] "
            f"with the untrained agent in row 0; got shape {array.shape}"
        )
    return array


def just_trained(matrix: ArrayLike) -> Array:
    """R[j, j], the result on each task right after its own training, shape [N].

    Args:
        matrix: R, shape [N + 1, N].

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    return np.diagonal(as_matrix(matrix), offset=-1).copy()


def _middle_half_mean(values: Array) -> Array:
    """Mean without the lowest and the highest quarter along the last axis, [..., n] → [...]."""
    cut = values.shape[-1] // 4
    middle = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(-1)
    # Sorting puts NaN last, where the cut would hide it.
    return np.where(np.isnan(values).any(-1), math.nan, middle)
