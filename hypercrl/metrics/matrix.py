"""Measures of the matrix R, shape [N + 1, N] for N tasks.

R[i, j] is the result on task j after training on task i; row 0 is the untrained agent, and tasks
count from 1 in the equations below.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


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


def can_succeed(success: ArrayLike, distance: ArrayLike) -> Mask:
    """Tasks in which an episode can count as success, shape [N].

    Such a task says how far from done it is, or an episode of it has succeeded all the same. In
    any other success is 0 whatever an agent does, and has no part in a mean of success.

    Args:
        success: share of episodes that succeeded, shape [N + 1, N]; None stands for NaN, a failure.
        distance: of the goal at their end, shape [N + 1, N]; None or NaN where none is told.

    Raises:
        ValueError: a shape is not [N + 1, N] with N ≥ 1.

    Example:
        >>> can_succeed([[0, 0], [1, 0], [1, 0]], [[0.3, None], [0.0, None], [0.0, None]])
        array([ True, False])
    """
    success, silent = as_matrix(success), np.isnan(as_matrix(distance)).all(0)
    return ~(silent & (success == 0).any(0) & ~(success > 0).any(0))


def _mean(values: Array, counted: ArrayLike | None, tasks: slice = slice(None)) -> float:
    """Over those of `tasks` that count, of one value a task, shape [N]; NaN if none does."""
    chosen = np.ones(len(values), bool) if counted is None else np.asarray(counted, bool)
    if chosen.shape != values.shape:
        raise ValueError(f"counted has shape {chosen.shape}, and there are {len(values)} tasks")
    kept = values[tasks][chosen[tasks]]
    return float(kept.mean()) if len(kept) else math.nan


def just_trained(matrix: ArrayLike) -> Array:
    """R[j, j], the result on each task right after its own training, shape [N].

    Args:
        matrix: R, shape [N + 1, N].

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1.
    """
    return np.diagonal(as_matrix(matrix), offset=-1).copy()


def average_performance(matrix: ArrayLike, counted: ArrayLike | None = None) -> float:
    """Mean over all tasks at the very end, (1/N) Σ_j R[N, j].

    Args:
        matrix: R, shape [N + 1, N].
        counted: tasks that have a part in the mean, bool [N]; by default all of them.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1, or `counted` not [N].
    """
    return _mean(as_matrix(matrix)[-1], counted)


def forgetting(matrix: ArrayLike, counted: ArrayLike | None = None) -> float:
    """What later tasks took away, 1/(N−1) Σ_{j<N} (R[j, j] − R[N, j]); NaN for one task.

    The backward transfer of Lopez-Paz and Ranzato, "Gradient episodic memory for continual
    learning", NeurIPS 2017, with its sign changed.

    Args:
        matrix: R, shape [N + 1, N]; positive forgetting is a loss.
        counted: tasks that have a part in the mean, bool [N]; by default all of them.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1, or `counted` not [N].
    """
    matrix = as_matrix(matrix)
    return _mean(just_trained(matrix) - matrix[-1], counted, slice(-1))


def continual_world_forgetting(matrix: ArrayLike, counted: ArrayLike | None = None) -> float:
    """What later tasks took away, 1/N Σ_j (R[j, j] − R[N, j]), over all N tasks.

    Wołczyk et al., "Continual World: a robotic benchmark for continual reinforcement learning",
    NeurIPS 2021, section 3. The last task, which nothing comes after, counts as one that forgot
    nothing, so that it is (N − 1)/N of `forgetting`.

    Args:
        matrix: R, shape [N + 1, N]; positive forgetting is a loss.
        counted: tasks that have a part in the mean, bool [N]; by default all of them.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1, or `counted` not [N].
    """
    matrix = as_matrix(matrix)
    return _mean(just_trained(matrix) - matrix[-1], counted)


def chaudhry_forgetting(matrix: ArrayLike, counted: ArrayLike | None = None) -> float:
    """What was lost of the best so far, 1/(N−1) Σ_{j<N} (max_{1≤i<N} R[i, j] − R[N, j]).

    Chaudhry et al., "Riemannian walk for incremental learning", ECCV 2018, equation 3, at the end.
    The untrained agent's row has no part. NaN for one task.

    Args:
        matrix: R, shape [N + 1, N]; positive forgetting is a loss.
        counted: tasks that have a part in the mean, bool [N]; by default all of them.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1, or `counted` not [N].
    """
    matrix = as_matrix(matrix)
    if matrix.shape[1] == 1:
        return math.nan
    return _mean(matrix[1:-1].max(0) - matrix[-1], counted, slice(-1))


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


def zero_shot_forward_transfer(matrix: ArrayLike, counted: ArrayLike | None = None) -> float:
    """Gain on tasks not yet trained, 1/(N−1) Σ_{j≥2} (R[j−1, j] − R[0, j]); NaN for one task.

    The forward transfer of Lopez-Paz and Ranzato 2017.

    Args:
        matrix: R, shape [N + 1, N].
        counted: tasks that have a part in the mean, bool [N]; by default all of them.

    Raises:
        ValueError: the shape is not [N + 1, N] with N ≥ 1, or `counted` not [N].
    """
    matrix = as_matrix(matrix)
    just_before = np.diagonal(matrix)  # with row 0 in front, this is R[j−1, j]
    return _mean(just_before - matrix[0], counted, slice(1, None))


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
