"""Seeds and streams of random numbers: every purpose has its own."""

from itertools import combinations, product

import numpy as np
import torch

from hypercrl.base.random_streams import RandomStreams, derive_seed


def test_a_seed_depends_on_every_key_and_on_their_order():
    words = ("a", "b", 0, 1)
    keys = [(seed, *three) for seed in (0, 1) for three in product(words, repeat=3)]
    assert len({derive_seed(*each) for each in keys}) == len(keys)


def test_a_seed_is_the_same_in_every_process_and_version():
    """By CRC-32 of the words, as zlib has it, and numpy's SeedSequence."""
    crc = 0xE8B7BE43  # of b"a"
    assert derive_seed(3, "a", 5) == np.random.SeedSequence([3, crc, 5]).generate_state(1)[0]


def test_streams_are_independent_of_one_another():
    names = ("memory", "planner", "batches")
    streams = RandomStreams(0)
    drawn = {name: torch.rand(4, generator=streams.get(name)) for name in names}
    for one, other in combinations(names, 2):
        assert not torch.equal(drawn[one], drawn[other])
    again = RandomStreams(0)
    for name in reversed(names):
        assert torch.equal(torch.rand(4, generator=again.get(name)), drawn[name])
    assert not torch.equal(torch.rand(4, generator=RandomStreams(1).get("memory")), drawn["memory"])


def test_streams_go_on_from_their_state():
    streams, again = RandomStreams(0), RandomStreams(0)
    torch.rand(3, generator=streams.get("planner"))
    again.load_state(streams.state(), torch.device("cpu"))
    for name in ("planner", "batches"):
        a, b = (torch.rand(4, generator=each.get(name)) for each in (streams, again))
        assert torch.equal(a, b)
