import math

import numpy as np
import pytest

from hypercrl.metrics import (
    auc_forward_transfer,
    average_performance,
    backward_transfer,
    can_succeed,
    chaudhry_forgetting,
    continual_world_forgetting,
    continual_world_forward_transfer,
    dormant_share,
    effective_rank,
    error_growth,
    forgetting,
    interquartile_mean,
    interquartile_mean_interval,
    just_trained,
    mean_interval,
    mean_over_strata_interval,
    model_forgetting,
    normalise,
    probability_of_improvement,
    probability_of_improvement_interval,
    retention,
    zero_shot_forward_transfer,
)

NAN = math.nan
# Rows: untrained, after task 1, 2, 3. Columns: task 1, 2, 3.
KNOWN = [
    [0.0, 0.1, 0.2],
    [0.8, 0.3, 0.2],
    [0.6, 1.0, 0.5],
    [0.4, 0.9, 0.8],
]


def test_known_matrix():
    assert average_performance(KNOWN) == pytest.approx((0.4 + 0.9 + 0.8) / 3)
    assert forgetting(KNOWN) == pytest.approx(((0.8 - 0.4) + (1.0 - 0.9)) / 2)
    assert backward_transfer(KNOWN) == pytest.approx(-0.25)
    assert zero_shot_forward_transfer(KNOWN) == pytest.approx(((0.3 - 0.1) + (0.5 - 0.2)) / 2)
    np.testing.assert_allclose(just_trained(KNOWN), [0.8, 1.0, 0.8])
    np.testing.assert_allclose(retention(KNOWN), [0.5, 0.9, 1.0])


def test_means_are_over_the_tasks_that_count():
    """By hand, of KNOWN without its second task, whose numbers are of no account."""
    matrix = np.array(KNOWN)
    matrix[:, 1] = NAN
    counted = [True, False, True]
    assert average_performance(matrix, counted) == pytest.approx((0.4 + 0.8) / 2)
    assert forgetting(matrix, counted) == pytest.approx(0.8 - 0.4)
    assert continual_world_forgetting(matrix, counted) == pytest.approx((0.8 - 0.4) / 2)
    assert chaudhry_forgetting(matrix, counted) == pytest.approx(0.8 - 0.4)
    assert zero_shot_forward_transfer(matrix, counted) == pytest.approx(0.5 - 0.2)
    last = [False, False, True]  # which nothing comes after
    assert math.isnan(forgetting(matrix, last))
    assert average_performance(matrix, last) == 0.8
    assert math.isnan(average_performance(KNOWN, [False] * 3))
    with pytest.raises(ValueError, match="counted has shape"):
        average_performance(KNOWN, [True])


def test_a_task_that_says_no_distance_can_succeed_where_one_has():
    distance = [[NAN, 0.1, None]] * 4
    assert can_succeed(np.zeros((4, 3)), distance).tolist() == [False, True, False]
    success = [[0.0] * 3, [0.0] * 3, [0.25, 0.0, 0.0], [0.0] * 3]
    assert can_succeed(success, distance).tolist() == [True, True, False]
    # What failed is NaN throughout, and stays in every mean.
    assert can_succeed([[NAN] * 3] * 4, [[NAN] * 3] * 4).all()


def test_forgetting_as_others_define_it():
    """By hand: task 1 was best after its own training, task 2 fell by .1, task 3 cannot have."""
    assert continual_world_forgetting(KNOWN) == pytest.approx(((0.8 - 0.4) + (1.0 - 0.9) + 0) / 3)
    assert chaudhry_forgetting(KNOWN) == pytest.approx(forgetting(KNOWN))
    # Task 1 got better after task 2; the untrained agent's .9 on task 2 is nobody's best.
    better_later = [[0.0, 0.9, 0.0], [0.5, 0.1, 0.0], [0.7, 0.6, 0.0], [0.4, 0.6, 1.0]]
    assert forgetting(better_later) == pytest.approx((0.1 + 0.0) / 2)
    assert continual_world_forgetting(better_later) == pytest.approx(0.1 / 3)
    assert chaudhry_forgetting(better_later) == pytest.approx((0.3 + 0.0) / 2)


def test_others_definitions_of_zeros_losses_one_task_and_failures():
    for metric in (continual_world_forgetting, chaudhry_forgetting):
        assert metric(np.zeros((4, 3))) == 0
        assert math.isnan(metric([[0, 0], [1, 0], [None, 1]]))
    negative = [[-100.0, -80.0], [-20.0, -90.0], [-50.0, -10.0]]
    assert continual_world_forgetting(negative) == 15
    assert chaudhry_forgetting(negative) == 30
    assert continual_world_forgetting([[0.1], [0.7]]) == 0
    assert math.isnan(chaudhry_forgetting([[0.1], [0.7]]))


def test_forward_transfer_of_continual_world_is_of_plain_means():
    curve, single = [0, 0.5, 1, 1], [0, 0, 0, 1]
    assert continual_world_forward_transfer(curve, single) == pytest.approx(
        (2.5 / 4 - 1 / 4) / (1 - 1 / 4)
    )
    assert auc_forward_transfer(curve, single) == pytest.approx((2 / 3 - 1 / 6) / (5 / 6))
    assert math.isnan(continual_world_forward_transfer([0.5, 1], [1, 1]))
    with pytest.raises(ValueError, match="success curve lies in"):
        continual_world_forward_transfer([0, 5], [0, 1])


def test_the_arguments_are_left_as_they_were():
    matrix = np.array(KNOWN)
    for metric in (
        average_performance,
        forgetting,
        continual_world_forgetting,
        chaudhry_forgetting,
        zero_shot_forward_transfer,
        retention,
    ):
        metric(matrix)
    np.testing.assert_array_equal(matrix, KNOWN)


def test_zero_success_is_a_result_and_not_a_gap():
    zeros = np.zeros((4, 3))
    assert average_performance(zeros) == 0
    assert forgetting(zeros) == 0
    assert zero_shot_forward_transfer(zeros) == 0
    assert np.isnan(retention(zeros)).all()


def test_negative_rewards():
    matrix = [[-100.0, -80.0], [-20.0, -90.0], [-50.0, -10.0]]
    assert average_performance(matrix) == -30
    assert forgetting(matrix) == 30
    assert zero_shot_forward_transfer(matrix) == -10
    assert np.isnan(retention(matrix)).all()
    np.testing.assert_allclose(
        normalise(matrix, random=[-100, -80], single=[-20, -10]),
        [[0, 0], [1, -1 / 7], [0.625, 1]],
    )


def test_one_task_has_nothing_to_forget():
    matrix = [[0.1], [0.7]]
    assert average_performance(matrix) == 0.7
    assert math.isnan(forgetting(matrix))
    assert math.isnan(backward_transfer(matrix))
    assert math.isnan(zero_shot_forward_transfer(matrix))
    np.testing.assert_allclose(retention(matrix), [1.0])


def test_a_failed_cell_stays_visible():
    matrix = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [None, 1, 1]]
    assert math.isnan(average_performance(matrix))
    assert math.isnan(forgetting(matrix))
    np.testing.assert_array_equal(retention(matrix), [NAN, 1, 1])
    assert zero_shot_forward_transfer(matrix) == 0, "it does not depend on the failed cell"
    np.testing.assert_array_equal(normalise([NAN, 2.0], [0, 0], [1, 1]), [NAN, 2])
    np.testing.assert_array_equal(normalise([1.0, 2.0], [0, 0], [NAN, 1]), [NAN, 2])


@pytest.mark.parametrize(
    "matrix", [np.zeros((3, 3)), np.zeros((3, 4)), np.zeros(4), np.zeros((1, 0)), np.zeros((2, 3))]
)
@pytest.mark.parametrize(
    "metric", [average_performance, forgetting, zero_shot_forward_transfer, retention, just_trained]
)
def test_wrong_shapes_are_named(metric, matrix):
    with pytest.raises(ValueError, match=r"\[N \+ 1, N\].*got shape"):
        metric(matrix)


@pytest.mark.parametrize("single", [5.0, 5.0 + 1e-9, 4.0])
def test_normalise_refuses_where_there_is_no_scale(single):
    with pytest.raises(ValueError, match="task 2 cannot be normalised"):
        normalise([1.0, 1.0], random=[0, 5], single=[1, single])


def test_normalise_checks_shapes():
    with pytest.raises(ValueError, match="got"):
        normalise(np.zeros((4, 3)), np.zeros(2), np.ones(2))


def test_auc_forward_transfer():
    # AUCs: (0.25 + 0.75) / 2 = 0.5 and (0 + 0.5) / 2 = 0.25.
    assert auc_forward_transfer([0, 0.5, 1], [0, 0, 1]) == pytest.approx((0.5 - 0.25) / 0.75)
    assert auc_forward_transfer([0, 0, 1], [0, 0, 1]) == 0
    assert auc_forward_transfer([0, 0], [0.5, 0.5]) == -1
    assert math.isnan(auc_forward_transfer([0.5, 1], [1, 1]))
    assert math.isnan(auc_forward_transfer([NAN, 1], [0, 1]))


@pytest.mark.parametrize(
    ("curve", "single", "message"),
    [
        ([-20.0, -10.0], [0, 1], "lies in"),
        ([0, 1], [0, 1, 1], "same shape"),
        ([1], [1], "T ≥ 2"),
    ],
)
def test_auc_forward_transfer_is_for_success_alone(curve, single, message):
    with pytest.raises(ValueError, match=message):
        auc_forward_transfer(curve, single)


def test_interquartile_mean():
    assert interquartile_mean([100, 1, 2, 3, -100, 4, 5, 6]) == 3.5
    assert interquartile_mean([[1.0, 2.0], [3.0, 4.0]]) == 2.5
    assert interquartile_mean([7.0]) == 7
    assert math.isnan(interquartile_mean([0, 0, 0, 0, 0, 0, 0, NAN]))
    with pytest.raises(ValueError, match="no values"):
        interquartile_mean([])


def test_bootstrap_interval_is_stratified_by_task():
    # Seeds agree within each task, so that resampling seeds alone changes nothing.
    values = np.tile([0.0, 0.5, 1.0, 0.2], (5, 1))
    low, high = interquartile_mean_interval(values, np.random.default_rng(0))
    assert low == high == pytest.approx(interquartile_mean(values))


def test_bootstrap_interval():
    values = np.random.default_rng(1).normal(0.7, 0.1, size=(10, 5))
    low, high = interquartile_mean_interval(values, np.random.default_rng(0))
    assert low < interquartile_mean(values) < high
    # About ± 1.96 standard errors of a middle-half mean of 50 normal values.
    assert 0.03 < high - low < 0.09
    assert (low, high) == interquartile_mean_interval(values, np.random.default_rng(0))
    narrow = interquartile_mean_interval(values, np.random.default_rng(0), confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_model_forgetting_is_the_growth_of_the_error():
    errors = [[0.5, 0.6, 0.7], [0.1, 0.5, 0.6], [0.2, 0.1, 0.5], [0.4, 0.15, 0.1]]
    assert model_forgetting(errors) == pytest.approx(((0.4 - 0.1) + (0.15 - 0.1)) / 2)
    assert math.isnan(model_forgetting([[0.5], [0.1]]))


def test_a_diverged_seed():
    """An error of infinity stays one, and a seed that ended in NaN is never averaged away."""
    diverged = [[0.5, 0.5], [0.1, 0.5], [math.inf, 0.1]]
    assert model_forgetting(diverged) == math.inf
    assert average_performance(diverged) == math.inf
    assert math.isnan(model_forgetting([[0.5, 0.5], [math.inf, 0.5], [math.inf, 0.1]]))
    seeds = np.array([[0.9, 0.8], [NAN, NAN], [0.7, 0.9], [0.8, 0.8]])
    assert math.isnan(interquartile_mean(seeds))
    assert all(map(math.isnan, interquartile_mean_interval(seeds, np.random.default_rng(0))))


def test_interval_of_a_mean():
    values = np.random.default_rng(1).normal(0.5, 0.2, size=40)
    low, high = mean_interval(values, np.random.default_rng(0))
    # 1.96 standard errors either way.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 40**0.5, rel=0.15)
    assert mean_interval([0.3, 0.3, 0.3], np.random.default_rng(0)) == pytest.approx((0.3, 0.3))
    assert all(map(math.isnan, mean_interval([0.1, NAN, 0.2], np.random.default_rng(0))))
    with pytest.raises(ValueError, match=r"\[seeds\]"):
        mean_interval([], np.random.default_rng(0))


def test_benchmarks_are_drawn_apart_and_count_alike():
    interval = mean_over_strata_interval
    # Nothing varies within a benchmark: drawn from one heap, it would.
    assert interval([[0.0] * 3, [1.0] * 3], np.random.default_rng(0)) == (0.5, 0.5)
    # Two seeds, 0 and 1: each resample's mean is 0, 0.5, 1 with 1/4, 1/2, 1/4. The other benchmark
    # is always 1 and has many more seeds, which do not make it count more.
    strata = [[0.0, 1.0], [1.0] * 50]
    assert interval(strata, np.random.default_rng(0), confidence=0.8) == (0.5, 1.0)
    assert interval(strata, np.random.default_rng(0), confidence=0.4) == (0.75, 0.75)
    assert interval([[0.2, 0.9, 0.4]], np.random.default_rng(0), resamples=1000) == mean_interval(
        [0.2, 0.9, 0.4], np.random.default_rng(0)
    )
    assert all(map(math.isnan, interval([[1.0], [NAN, 0.2]], np.random.default_rng(0))))
    for wrong in ([], [[1.0], []], [[[1.0]]]):
        with pytest.raises(ValueError, match="seeds"):
            interval(wrong, np.random.default_rng(0))


def test_bootstrap_interval_of_a_failed_seed():
    values = np.ones((20, 2))
    values[3, 1] = NAN
    assert all(map(math.isnan, interquartile_mean_interval(values, np.random.default_rng(0))))
    with pytest.raises(ValueError, match="seeds, tasks"):
        interquartile_mean_interval(np.ones(3), np.random.default_rng(0))


def test_probability_of_improvement_counts_pairs_task_by_task():
    one, other = [[1.0, 0.5], [0.0, 0.5]], [[0.5, 0.5], [0.0, 0.0], [1.0, 1.0]]
    by_hand = []
    for task in range(2):
        pairs = [(a[task], b[task]) for a in one for b in other]
        by_hand.append(sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs))
    assert probability_of_improvement(one, other) == pytest.approx(np.mean(by_hand))
    assert probability_of_improvement(other, one) == pytest.approx(1 - np.mean(by_hand))
    assert np.isnan(probability_of_improvement([[np.nan, 1.0]], other))
    with pytest.raises(ValueError, match="same tasks"):
        probability_of_improvement(one, [[1.0]])


def test_interval_of_a_probability_of_improvement_is_where_it_has_to_be():
    generator = np.random.default_rng(0)
    interval = probability_of_improvement_interval
    assert interval(np.ones((5, 3)), np.zeros((4, 3)), generator) == (1.0, 1.0)
    draws = generator.normal(size=(2, 8, 6))
    low, high = interval(draws[0], draws[1], generator)
    assert low < probability_of_improvement(draws[0], draws[1]) < high
    assert 0.1 < high - low < 0.6


def test_what_a_later_task_adds_to_an_error():
    """By hand: task 1 got worse by .6 over two tasks, task 2 by .1 over one."""
    errors = [[9.0, 9.0, 9.0], [0.2, 9.0, 9.0], [0.5, 0.3, 9.0], [0.8, 0.4, 0.1]]
    assert error_growth(errors) == pytest.approx((0.6 / 2 + 0.1 / 1) / 2)
    hundred = np.zeros((101, 100))
    hundred[-1] = 0.01 * np.arange(99, -1, -1)  # each later task adds .01 to every earlier one
    assert error_growth(hundred) == pytest.approx(0.01)
    assert math.isnan(error_growth([[1.0], [0.5]]))
    assert math.isnan(error_growth([[1.0, 1.0], [0.5, 1.0], [None, 0.5]]))


def test_dormant_units_are_those_far_below_the_mean():
    # Mean activities 2, 1, 0.04 and 0: their mean is 0.76, of which 2.5 % are 0.019.
    activations = [[3.0, -1.0, 0.05, 0.0], [-1.0, 1.0, 0.03, 0.0]]
    assert dormant_share(activations) == 0.25
    assert dormant_share(activations, threshold=0.06) == 0.5  # 0.0456
    assert dormant_share(np.zeros((3, 5))) == 1.0
    assert dormant_share(np.ones((3, 5))) == 0.0
    assert math.isnan(dormant_share([[1.0, NAN]]))


def test_effective_rank_of_known_singular_values():
    assert effective_rank(np.eye(4)) == pytest.approx(4.0)
    assert effective_rank(np.ones((7, 3))) == pytest.approx(1.0)
    assert effective_rank(np.zeros((7, 3))) == 0.0
    assert math.isnan(effective_rank([[1.0, math.inf]]))
    # Shares 3/4 and 1/4 in turned axes: entropy ln 4 − (3/4) ln 3.
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    rank = effective_rank(turn @ np.diag([3.0, 1.0]) @ turn.T)
    assert rank == pytest.approx(4 / 3**0.75)


@pytest.mark.parametrize("wrong", [[], [1.0, 2.0], np.zeros((2, 0))])
def test_activations_are_inputs_times_units(wrong):
    for metric in (dormant_share, effective_rank):
        with pytest.raises(ValueError, match=r"\[inputs, units\]"):
            metric(wrong)
