import pytest
import torch

from hypercrl.replay import SELECTIONS, Coreset, StreamStore
from hypercrl.replay.transitions import Batch, MixedBatch, random_rows


def numbered(start, count):
    """Transitions that carry their number in every part."""
    n = torch.arange(start, start + count, dtype=torch.float32)[:, None]
    return Batch(n.expand(-1, 2), n, n.expand(-1, 2) + 0.5)


def filled_stream(policy, capacity, total, parts=(7, 1, 20), seed=0):
    store = StreamStore(capacity, 2, 1, 3, policy, torch.Generator().manual_seed(seed))
    start = 0
    while start < total:
        count = min(parts[start % len(parts)], total - start)
        batch = numbered(start, count)
        store.add(batch, start % 3, batch.action.expand(-1, 3) * 10)
        start += count
    return store


@pytest.mark.parametrize("policy", ["reservoir", "fifo"])
def test_a_stream_store_is_capped_and_its_rows_stay_whole(policy):
    store = filled_stream(policy, capacity=16, total=200)
    assert len(store) == 16
    assert store.obs.shape == (16, 2)
    assert torch.equal(store.obs, store.action.expand(-1, 2))
    assert torch.equal(store.next_obs, store.obs + 0.5)
    assert torch.equal(store.extra, 10 * store.action.expand(-1, 3))
    assert len(set(store.action.flatten().tolist())) == 16


def test_fifo_holds_the_latest():
    store = filled_stream("fifo", capacity=16, total=200)
    assert sorted(store.action.flatten().tolist()) == list(range(184, 200))


def test_a_reservoir_holds_every_transition_with_the_same_probability():
    held = torch.zeros(50)
    for seed in range(2000):
        store = filled_stream("reservoir", capacity=10, total=50, seed=seed)
        held[store.action.flatten().long()] += 1
    # Binomial: 400 of 2000 each, standard deviation 18.
    assert held.min() > 400 - 4.5 * 18
    assert held.max() < 400 + 4.5 * 18


def test_draws_come_from_what_is_held():
    store = StreamStore(8, 2, 1, 0, "reservoir", torch.Generator().manual_seed(0))
    batch, _, weight = store.draw(5)
    assert float(weight) == 0
    assert not batch.obs.any()
    store.add(numbered(1, 3), 4, torch.zeros(3, 0))
    batch, _, weight = store.draw(200)
    assert float(weight) == 1
    assert sorted(set(batch.action.flatten().tolist())) == [1, 2, 3]
    assert set(batch.task.tolist()) == {4}


def test_random_rows_with_a_count_per_row():
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([1, 3, 0]).repeat_interleave(300)
    rows = random_rows(counts, 900, generator).view(3, 300)
    assert [sorted(set(r.tolist())) for r in rows] == [[0], [0, 1, 2], [0]]


def of_task(task, count):
    batch = numbered(100 * task, count)
    label = torch.full((count,), task)
    return MixedBatch(batch.obs, batch.action, batch.next_obs, label)


def test_a_coreset_shrinks_all_tasks_alike_and_keeps_the_first():
    coreset = Coreset(per_task=6, capacity=12, obs_size=2, action_size=1)
    for task, room in enumerate([6, 6, 4]):
        assert coreset.room(task + 1) == room
        coreset.add(of_task(task, room))
    held = coreset.all()
    assert held.action.flatten().tolist() == [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203]
    assert held.task.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert torch.equal(held.next_obs, held.obs + 0.5)
    each = coreset.draw_from_each(50, torch.Generator().manual_seed(0))
    assert each.task.tolist() == [0] * 50 + [1] * 50 + [2] * 50
    assert torch.equal((each.action.flatten() / 100).long(), each.task)
    assert len(set(each.action.flatten().tolist())) == 12


def test_tasks_of_unequal_size():
    coreset = Coreset(None, None, 2, 1)
    coreset.add(of_task(0, 2))
    coreset.add(of_task(1, 5))
    assert coreset.counts.tolist() == [2, 5]
    each = coreset.draw_from_each(80, torch.Generator().manual_seed(0)).action.flatten()
    assert sorted(set(each[:80].tolist())) == [0, 1]
    assert sorted(set(each[80:].tolist())) == [100, 101, 102, 103, 104]


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_selection_takes_each_row_once_and_a_prefix_is_the_smaller_selection(name):
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    large, small = (
        SELECTIONS[name](features, count, torch.Generator().manual_seed(0)) for count in (40, 7)
    )
    assert sorted(large.tolist()) == list(range(40))
    assert torch.equal(large[:7], small)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e25, torch.inf, torch.nan])
@pytest.mark.parametrize("name", SELECTIONS)
def test_a_selection_takes_no_row_twice_though_rows_are_alike_or_overflow(name, scale):
    """Fifty rows, three different ones, whose squared distances are 0, finite, ∞ or no number."""
    features = torch.zeros(50, 3)
    features[10:, 0] = 1.0
    features[40:] = scale * torch.tensor([0.0, 1.0, 1.0])
    for count in (0, 1, 20, 50):
        chosen = SELECTIONS[name](features, count, torch.Generator().manual_seed(0))
        assert len(set(chosen.tolist())) == len(chosen) == count


def test_k_centre_takes_all_that_differ_before_any_that_are_alike():
    features = torch.zeros(50, 3)
    features[10:, 0] = 1.0
    features[40:] = torch.tensor([0.0, 1.0, 0.0])
    for seed in range(10):
        chosen = SELECTIONS["k_centre"](features, 20, torch.Generator().manual_seed(seed))
        assert len(features[chosen[:3]].unique(dim=0)) == 3


def test_k_centre_goes_to_the_far_ends():
    features = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [-7.0]])
    chosen = SELECTIONS["k_centre"](features, 3, torch.Generator().manual_seed(0))
    groups = {0: "middle", 1: "middle", 2: "middle", 3: "right", 4: "right", 5: "left"}
    assert {groups[i] for i in chosen.tolist()} == {"left", "middle", "right"}


def test_herding_matches_the_mean_better_than_chance():
    features = torch.randn(500, 4, generator=torch.Generator().manual_seed(2))
    distance = {
        name: float((features[select(features, 20, torch.Generator().manual_seed(0))].mean(0)
                     - features.mean(0)).norm())
        for name, select in SELECTIONS.items()
    }  # fmt: skip
    assert distance["herding"] < 0.1 * distance["random"]
    # The first is the row nearest to the mean.
    nearest = (features - features.mean(0)).norm(dim=-1).argmin()
    assert SELECTIONS["herding"](features, 1, torch.Generator())[0] == nearest
