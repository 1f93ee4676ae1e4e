"""What the protocol's counts come to, step by step."""

from dataclasses import replace

from hypercrl.config.schema import ProtocolConfig
from hypercrl.training.schedule import Schedule

PROTOCOL = ProtocolConfig(
    random_steps=4,
    planned_steps=6,
    update_every=2,
    updates=10,
    first_updates=30,
    eval_every=3,
    checkpoint_every=5,
)


def test_a_task_step_by_step():
    schedule = Schedule(PROTOCOL)
    steps = range(1, schedule.steps + 1)
    assert schedule.steps == 10
    assert [s for s in steps if schedule.plans(s - 1)] == [5, 6, 7, 8, 9, 10]
    assert [s for s in steps if schedule.ends_random_steps(s)] == [4]
    assert {s: n for s in steps if (n := schedule.updates(s))} == {4: 30, 6: 10, 8: 10, 10: 10}
    # The end of a task has an evaluation and a checkpoint of its own.
    assert [s for s in steps if schedule.evaluates(s)] == [7]
    assert [s for s in steps if schedule.checkpoints(s)] == [5]


def test_the_first_round_of_updates_is_as_long_as_the_others_unless_said_otherwise():
    assert Schedule(replace(PROTOCOL, first_updates=None)).updates(4) == 10


def test_what_is_due_within_a_round_of_several_robots_is_due_after_it():
    protocol = replace(PROTOCOL, robots=4, random_steps=8, planned_steps=16, update_every=5)
    schedule = Schedule(protocol)
    steps = range(4, schedule.steps + 1, 4)
    assert {s: n for s in steps if (n := schedule.updates(s))} == {8: 30, 16: 10, 20: 10, 24: 10}
    assert [s for s in steps if schedule.evaluates(s)] == [12, 16, 20]
    assert [s for s in steps if schedule.checkpoints(s)] == [8, 12, 16, 20]
    # As many training steps, where several rounds of them fall into one of robots.
    often = Schedule(replace(protocol, update_every=2))
    assert {s: n for s in steps if (n := often.updates(s))} == {
        8: 30, **dict.fromkeys((12, 16, 20, 24), 20)
    }  # fmt: skip


def test_a_sample_of_old_tasks_is_evaluated_beside_the_present_and_the_next_one():
    assert Schedule(PROTOCOL).evaluated(3, 9, seed=0) == list(range(9))
    schedule = Schedule(replace(PROTOCOL, eval_tasks=2))
    samples = [schedule.evaluated(6, 9, seed=seed) for seed in range(200)]
    assert all(sample[-2:] == [6, 7] for sample in samples)
    assert all(sample == sorted(set(sample)) and len(sample) == 4 for sample in samples)
    assert {task for sample in samples for task in sample} == set(range(8))
    assert samples[5] == schedule.evaluated(6, 9, seed=5)
    assert schedule.evaluated(1, 9, seed=0) == [0, 1, 2]  # there are no more
    assert schedule.evaluated(6, 7, seed=0)[2:] == [6]  # within a task, or at the last one


def test_the_task_before_lingers_over_the_blur_and_there_is_none_before_the_first():
    schedule = Schedule(replace(PROTOCOL, blur=4))
    assert [schedule.lingering(1, step) for step in (0, 1, 3, 4, 6)] == [1, 0.75, 0.25, 0, 0]
    assert schedule.lingering(0, 0) == 0
    assert Schedule(PROTOCOL).lingering(1, 0) == 0
