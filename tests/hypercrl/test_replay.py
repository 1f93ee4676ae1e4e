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
    assert replay.bytes == 5 * (4 * (2 + 1 + 2) + 1) == filled(5, 0).bytes


def test_parts_of_a_transition_stay_together():
    batch = filled(4, 7).gather(torch.tensor([0, 3, 3]))
    assert torch.equal(batch.obs[:, :1], batch.action)
    assert torch.equal(batch.next_obs, batch.obs + 0.5)


@pytest.mark.parametrize(("held", "wanted"), [(3, [1, 2]), (7, [5, 6]), (1, [0])])
def test_the_latest_come_in_order(held, wanted):
    assert filled(4, held).latest(2).action.flatten().tolist() == wanted
    assert filled(4, 9).latest(100).action.flatten().tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("held", [3, 4, 9])
def test_the_latest_can_be_forgotten_and_the_rest_goes_on(held):
    replay = filled(4, held)
    kept = replay.latest(4).action.flatten().tolist()[:-2]
    replay.forget_latest(2)
    assert replay.latest(4).action.flatten().tolist() == kept
    assert [len(episode) for episode in replay.episodes()] == [len(kept)]
    assert not len(replay.present_episodes()[0]), "what comes next follows from nothing"
    for value in range(50, 55):
        part = torch.full((2,), float(value))
        replay.add(part, part[:1], part)
        kept = [*kept, value][-4:]
        assert replay.latest(4).action.flatten().tolist() == kept
        assert [len(episode) for episode in replay.episodes()] == [
            n for n in (sum(v < 50 for v in kept), sum(v >= 50 for v in kept)) if n
        ]
    replay.forget_latest(9)
    assert len(replay) == 0


def test_the_latest_come_by_episode():
    replay = Replay(8, 1, 1, torch.device("cpu"))
    for number in range(11):
        if number % 4 == 0:
            replay.begin_episode()
        replay.add(*torch.full((3, 1, 1), float(number)))
    found = [episode.action.flatten().tolist() for episode in replay.latest_episodes(6)]
    assert found == [[5, 6, 7], [8, 9, 10]]
    assert replay.latest_episodes(0) == []
    assert sum(map(len, replay.latest_episodes(100))) == 8


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


def in_episodes(capacity, lengths):
    """Actions count on within an episode and jump by 100 between them."""
    replay = Replay(capacity, 2, 1, torch.device("cpu"))
    for number, length in enumerate(lengths):
        replay.begin_episode()
        for step in range(length):
            value = torch.tensor([100.0 * number + step])
            replay.add(value.repeat(2), value, value.repeat(2) + 1)
    return replay


@pytest.mark.parametrize("capacity", [40, 17])
def test_windows_cross_neither_a_reset_nor_the_seam(capacity):
    """Drawn often enough to see each of the windows that a reader would list by hand."""
    replay = in_episodes(capacity, [6, 3, 7, 5, 2])
    held = [100 * n + s for n, length in enumerate([6, 3, 7, 5, 2]) for s in range(length)]
    held = held[-capacity:]
    wanted = {v for v in held if {v + i for i in range(4)} <= set(held)}
    slots = replay.windows(torch.Generator().manual_seed(0), 400, 4)
    windows = replay.gather(slots)
    assert windows.obs.shape == (400, 4, 2)
    starts = windows.action[:, :1]
    assert torch.equal(windows.action, starts + torch.arange(4.0)[None, :, None])
    assert torch.equal(windows.obs[:, 1:], windows.next_obs[:, :-1])
    assert set(starts.flatten().tolist()) == wanted
    counts = torch.unique(starts, return_counts=True)[1]
    assert counts.min() > 0.5 * 400 / len(wanted)


def test_no_window_where_no_episode_is_long_enough():
    replay = in_episodes(20, [3, 5, 5])
    with pytest.raises(ValueError, match="has 6 transitions"):
        replay.windows(torch.Generator(), 4, 6)
    with pytest.raises(ValueError, match="has 1 transitions"):
        in_episodes(5, []).windows(torch.Generator(), 4, 1)


def test_the_present_episode():
    for capacity, lengths, wanted in [
        (20, [6, 3], [100, 101, 102]),
        (4, [2, 9], [105, 106, 107, 108]),
    ]:
        (present,) = in_episodes(capacity, lengths).present_episodes()
        assert present.action.flatten().tolist() == wanted
    replay = in_episodes(20, [6])
    replay.begin_episode()
    assert len(replay.present_episodes()[0]) == 0


def test_state_keeps_the_episodes():
    replay, again = in_episodes(9, [6, 3, 4]), Replay(9, 2, 1, torch.device("cpu"))
    replay.begin_episode()
    again.load_state(replay.state())
    assert len(again.present_episodes()[0]) == 0
    for r in (replay, again):
        r.add(torch.zeros(2), torch.full((1,), 99.0), torch.zeros(2))
    drawn = [r.gather(r.windows(torch.Generator().manual_seed(1), 30, 3)) for r in (replay, again)]
    assert torch.equal(drawn[0].action, drawn[1].action)


def of_three_robots(capacity, lengths):
    """Each with episodes of its own lengths; actions are 1000 a robot, 100 an episode and 1 a
    step."""
    replay = Replay(capacity, 2, 1, torch.device("cpu"), robots=3)
    told = [
        [1000.0 * robot + 100 * number + step for number, n in enumerate(own) for step in range(n)]
        for robot, own in enumerate(lengths)
    ]
    for values in zip(*told, strict=True):
        for robot, value in enumerate(values):
            if value % 100 == 0:
                replay.begin_episode(robot)
        actions = torch.tensor(values)[:, None]
        replay.add(actions.repeat(1, 2), actions, actions.repeat(1, 2) + 1)
    return replay


def test_windows_of_several_robots_are_each_of_one_of_them():
    lengths = [[4, 6], [7, 3], [10]]
    replay = of_three_robots(3 * 8 + 2, lengths)
    assert (replay.capacity, len(replay)) == (24, 24)
    held = [
        [1000 * r + 100 * n + s for n, length in enumerate(own) for s in range(length)][-8:]
        for r, own in enumerate(lengths)
    ]
    wanted = {v for own in held for v in own if {v + i for i in range(3)} <= set(own)}
    windows = replay.gather(replay.windows(torch.Generator().manual_seed(0), 600, 3))
    starts = windows.action[:, :1]
    assert torch.equal(windows.action, starts + torch.arange(3.0)[None, :, None])
    assert set(starts.flatten().tolist()) == wanted
    assert torch.unique(starts, return_counts=True)[1].min() > 0.5 * 600 / len(wanted)


def test_episodes_of_several_robots():
    replay = of_three_robots(24, [[4, 6], [7, 3], [10]])
    present = [part.action.flatten().tolist() for part in replay.present_episodes()]
    assert present == [
        [100, 101, 102, 103, 104, 105],
        [1100, 1101, 1102],
        [2002, 2003, 2004, 2005, 2006, 2007, 2008, 2009],
    ]
    assert [len(part) for part in replay.episodes()] == [2, 6, 5, 3, 8]
    assert replay.latest(4).action.flatten().tolist() == [2008, 105, 1102, 2009]
    replay.begin_episode(1)
    assert [len(part) for part in replay.present_episodes()] == [6, 0, 8]
    again = Replay(24, 2, 1, torch.device("cpu"), robots=3)
    again.load_state(replay.state())
    assert [len(part) for part in again.present_episodes()] == [6, 0, 8]
    with pytest.raises(ValueError, match="of 3 robots, not of 2"):
        Replay(24, 2, 1, torch.device("cpu"), robots=2).load_state(replay.state())
