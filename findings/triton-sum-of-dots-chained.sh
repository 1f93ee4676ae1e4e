#!/usr/bin/env bash
# triton 3.9.0 for sm_90: the sum of two products that do not depend on each other
#
# Guess: `tl.dot(a, b) + tl.dot(c, d)` starts both products at once and adds their results, so that a product whose inner dimension is
# taken in two halves takes half as long where a kernel waits for its products and not for their arithmetic.
# Seen: the compiler makes one chain of it. The second product is given the first one's result to add to, and begins when that has
# ended; the addition is gone. Nothing is said, and the result is right to rounding. It is so where a product begins from zero: of two sums of
# four products each both chains stay, and of two products too if their accumulators are not zero, as half of a bias given to each.
# So whoever splits a product in two to shorten its latency measures no gain, and may think that latency was not the limit.
# Read from Triton's own intermediate code; no GPU takes part.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet triton==3.9.0
cat > sums.py <<'PY'
import re

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def sums(a, out, COUNT: tl.constexpr, BEGUN: tl.constexpr):
    i, j = tl.arange(0, 64), tl.arange(0, 64)
    tile = i[:, None] * 64 + j[None, :]
    begun = tl.full([64, 64], 0.5, tl.float32) * tl.load(out + tile) if BEGUN else tl.zeros([64, 64], tl.float32)
    even = begun
    odd = begun
    for n in tl.static_range(COUNT):
        even = tl.dot(tl.load(a + 4 * n * 4096 + tile), tl.load(a + (4 * n + 1) * 4096 + tile), even)
        odd = tl.dot(tl.load(a + (4 * n + 2) * 4096 + tile), tl.load(a + (4 * n + 3) * 4096 + tile), odd)
    tl.store(out + tile, even + odd)


def longest(count, begun):
    """Products in the longest chain of those that wait for one another, and additions of tiles after them."""
    signature = {"a": "*bf16", "out": "*fp32"}
    source = ASTSource(sums, signature, {"COUNT": count, "BEGUN": begun})
    text = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ttir"]
    depth = {}
    for made, _, _, added in re.findall(r"(%\S+) = tt\.dot (%[^,]+), (%[^,]+), (%[^,\s]+)", text):
        depth[made] = 1 + depth.get(added, 0)
    assert len(depth) == 2 * count, text
    return max(depth.values()), len(re.findall(r"arith\.addf .*tensor<64x64xf32>", text))


for count in (1, 4):
    for begun in (False, True):
        waits, additions = longest(count, begun)
        what = "not zero" if begun else "zero"
        print(f"two sums of {count}, accumulators {what} at first: {waits} products wait for one another, {additions} additions")
        chained = count == 1 and not begun
        assert waits == (2 if chained else count), (count, begun, waits)
        assert additions == int(not chained), (count, begun, additions)
PY
venv/bin/python sums.py
