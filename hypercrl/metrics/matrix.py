"""Measures of the matrix R, shape [N + 1, N] for N tasks.

R[i, j] is the result on task j after training on task i; row 0 is the untrained agent, and tasks
count from 1 in the equations below.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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
