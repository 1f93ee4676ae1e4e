#!/usr/bin/env bash
# torch 2.13.0, torch.func.vmap(randomness="same", chunk_size=...)
#
# Guess: randomness="same" gives every element the same draws, as its documentation says, and chunk_size, which is there to save memory,
# does not change results.
# Seen: so it is with the global generator, whose state is put back before each chunk. A generator that is handed over by `generator=`
# is not put back: every chunk has draws of its own. Eight candidates that are to be compared under one noise (common random numbers) are
# compared under four noises with chunk_size=2, with another winner, and the generator's state afterwards depends on the chunk size, so that
# whatever is drawn from it next does as well. Nothing is said. Drawing the noise before vmap and handing it over with in_dims=None is right.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PY'
import torch

print("torch", torch.__version__.split("+")[0])


def noises(chunk_size, own):
    """How many different noises eight elements are given, and the number drawn after them."""
    generator = torch.Generator().manual_seed(0) if own else None
    torch.manual_seed(0)
    draw = torch.func.vmap(lambda x: x + torch.randn(3, generator=generator), randomness="same", chunk_size=chunk_size)
    given = draw(torch.zeros(8, 3))
    return len(given.unique(dim=0)), torch.randn(1, generator=generator).item()


seen = {(own, chunk): noises(chunk, own) for own in (False, True) for chunk in (None, 4, 2)}
for (own, chunk), (count, following) in seen.items():
    print("own generator:   " if own else "global generator:", f"chunk_size={chunk}: {count} noises, the next draw {following:.3f}")
assert [seen[False, chunk][0] for chunk in (None, 4, 2)] == [1, 1, 1], "it behaves otherwise now"
assert [seen[True, chunk][0] for chunk in (None, 4, 2)] == [1, 2, 4], "it behaves otherwise now"
assert len({seen[False, chunk][1] for chunk in (None, 4, 2)}) == 1, "it behaves otherwise now"
assert len({seen[True, chunk][1] for chunk in (None, 4, 2)}) == 3, "it behaves otherwise now"


def best(chunk_size):
    """Which of eight gains has the highest return, if each meets the same disturbance: the greatest or the least gain."""
    generator = torch.Generator().manual_seed(0)

    def value(gain):
        return gain * torch.randn((), generator=generator)

    return torch.func.vmap(value, randomness="same", chunk_size=chunk_size)(torch.linspace(0.6, 1.3, 8)).argmax().item()


winners = {chunk: best(chunk) for chunk in (None, 2)}
print("best of eight:", winners)
assert winners[None] == 7 and winners[2] != 7, "it behaves otherwise now"
PY
echo "as described"
