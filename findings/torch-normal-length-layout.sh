#!/usr/bin/env bash
# torch 2.13.0 on a CPU, torch.randn and Tensor.normal_ with a seeded generator
#
# Guess: as with torch.rand, the same seed gives the same stream of numbers: a longer draw begins with a shorter one, a draw of sixteen is two
# draws of eight, and a tensor is filled with the same numbers whatever its strides are. So the same seed with more samples, more robots or
# another layout of a buffer compares the first candidates under the same noise.
# Seen: normal numbers are made in blocks of sixteen where there are sixteen or more in memory that is contiguous, and one by one elsewhere, from
# another use of the generator. A draw of 15 and one of 16 have no number in common, two draws of eight are none of sixteen, and what is left
# over after the last whole block is drawn together with the end of that block once more: of a draw of 16, one of 24 repeats eight, one of 17 a
# single one, and one of 32 all. Into a view with strides normal_ writes none of the numbers that it writes into contiguous memory of that
# shape. uniform_ does all of this as guessed. Drawing contiguous multiples of sixteen, and slicing, makes prefixes equal.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PY'
import torch

print("torch", torch.__version__.split("+")[0])


def drawn(draw, *sizes):
    generator = torch.Generator().manual_seed(0)
    return torch.cat([draw(size, generator=generator) for size in sizes])


def common(draw, first, second):
    """How many numbers of the first draws stand at the same place in the second ones, and of how many."""
    first, second = drawn(draw, *first), drawn(draw, *second)
    length = min(len(first), len(second))
    return int((first[:length] == second[:length]).sum()), length


pairs = [((15,), (16,)), ((16,), (17,)), ((16,), (24,)), ((16,), (32,)), ((8, 8), (16,)), ((16, 16), (32,))]
normal = [common(torch.randn, *pair) for pair in pairs]
uniform = [common(torch.rand, *pair) for pair in pairs]
for pair, (of_normal, length), (of_uniform, _) in zip(pairs, normal, uniform, strict=True):
    print(f"draws of {pair[0]} and of {pair[1]}: of {length} numbers randn has {of_normal} in common, rand {of_uniform}")
assert [count for count, _ in normal] == [0, 1, 8, 16, 0, 32], "it behaves otherwise now"
assert all(count == length for count, length in uniform), "it behaves otherwise now"


def filled(tensor, fill):
    return getattr(tensor, fill)(generator=torch.Generator().manual_seed(0))


for fill, expected in (("normal_", 0), ("uniform_", 32)):
    plain, view = torch.empty(8, 4), torch.empty(8, 8)[:, :4]
    same = int((filled(plain, fill) == filled(view, fill)).sum())
    print(f"{fill} into [8, 4], contiguous or a slice of [8, 8]: {same} of 32 numbers in common")
    assert same == expected, "it behaves otherwise now"
PY
echo "as described"
