#!/usr/bin/env bash
# triton 3.9.0, tl.sort and tl.topk with a NaN among the values
#
# Guess: a NaN stands at one end or somewhere in between, perhaps elsewhere than torch puts it, and the other values are all still there.
# Seen: the result is not a permutation. Where a NaN meets a number, `x > y` is false from both sides, so that one of the two takes its partner's
# value and the other keeps its own: one of them is lost, and the other is there twice. It goes on from there: of eight values with one NaN, sort
# gives eight NaN, or four of the values twice, by the place where the NaN stood; topk of four leaves out the greatest, or has it twice. So a single
# diverged rollout among a planner's returns throws away good ones, or makes an elite count double; with tl.where(x != x, -inf, x) before it all is well.
# Run in Triton's interpreter alone; compiled it was not tried.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/pip install --quiet triton==3.9.0 # another one than torch asks for
cat > nan.py <<'PY'
import torch
import triton
import triton.language as tl

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def ordered(values, out, SIZE: tl.constexpr, BEST: tl.constexpr, REPLACED: tl.constexpr):
    i = tl.arange(0, SIZE)
    x = tl.load(values + i)
    if REPLACED:
        x = tl.where(x != x, float("-inf"), x)
    tl.store(out + i, tl.sort(x))
    tl.store(out + SIZE + tl.arange(0, BEST), tl.topk(x, BEST))


def run(values, replaced=False):
    out = torch.empty(12, device=DEVICE)
    ordered[(1,)](torch.tensor(values, device=DEVICE), out, 8, 4, replaced)
    return out[:8].tolist(), out[8:].tolist()


NAN = float("nan")
FINITE = [1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 9.0]
print("triton", triton.__version__, "on", DEVICE)
seen = {}
for place, values in {
    "first": [NAN, 9.0, 3.0, 1.0, 4.0, 2.0, 8.0, 5.0],
    "second": [9.0, NAN, 3.0, 1.0, 4.0, 2.0, 8.0, 5.0],
    "last": [3.0, 1.0, 4.0, 2.0, 8.0, 5.0, 9.0, NAN],
}.items():
    seen[place] = run(values)
    print(f"NaN {place}: sorted {seen[place][0]}, best four {seen[place][1]}")
    assert sorted(x for x in seen[place][0] if x == x) != FINITE, "it behaves otherwise now"
    assert run(values, replaced=True) == ([float("-inf"), *FINITE], FINITE[:2:-1]), "not even without NaN"
assert str(seen["first"]) == str(([NAN] * 8, [8.0, 5.0, 4.0, 2.0])), "it behaves otherwise now"
assert seen["second"] == ([1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 9.0, 9.0], [9.0, 9.0, 8.0, 5.0]), "it behaves otherwise now"
assert seen["last"] == ([1.0, 2.0, 3.0, 4.0] * 2, [4.0, 3.0, 2.0, 1.0]), "it behaves otherwise now"
PY
TRITON_INTERPRET=1 venv/bin/python nan.py
echo "as described"
