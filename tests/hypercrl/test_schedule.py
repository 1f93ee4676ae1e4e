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
