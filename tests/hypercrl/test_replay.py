import pytest
import torch

from hypercrl.replay import Replay


def filled(capacity, count):
    replay = Replay(capacity, 2, 1, torch.device("cpu"))
    for i in range(count):
        value = float(i)
        replay.add(torch.full((2,), value), torch.full((1,), value), torch.full((2,), value + 0.5))
    return replay


def test_the_oldest_gives_way_and_nothing_grows():
    replay = filled(capacity=5, count=13)
    assert len(replay) == 5
    assert sorted(replay.contents().action.flatten().tolist()) == [8, 9, 10, 11, 12]
    assert replay.bytes == 4 * 5 * (2 + 1 + 2) == filled(5, 0).bytes


def test_parts_of_a_transition_stay_together():
    batch = filled(4, 7).gather(torch.tensor([0, 3, 3]))
    assert torch.equal(batch.obs[:, :1], batch.action)
    assert torch.equal(batch.next_obs, batch.obs + 0.5)


@pytest.mark.parametrize(("held", "wanted"), [(3, [1, 2]), (7, [5, 6]), (1, [0])])
def test_the_latest_come_in_order(held, wanted):
    assert filled(4, held).latest(2).action.flatten().tolist() == wanted
    assert filled(4, 9).latest(100).action.flatten().tolist() == [5, 6, 7, 8]


def test_clear_leaves_no_trace_of_the_old_task():
    replay = filled(4, 7)
    replay.clear()
    assert len(replay) == 0
    assert not replay.obs.any()
    assert not replay.next_obs.any()
    assert not replay.action.any()


@pytest.mark.parametrize("count", [3, 9])
def test_state_goes_on_in_the_same_slot(count):
    replay, again = filled(5, count), Replay(5, 2, 1, torch.device("cpu"))
    again.load_state(replay.state())
    for r in (replay, again):
        r.add(torch.zeros(2), torch.full((1,), 99.0), torch.zeros(2))
    assert torch.equal(replay.action, again.action)
    assert len(replay) == len(again)


def test_room_for_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Replay(0, 2, 1, torch.device("cpu"))
