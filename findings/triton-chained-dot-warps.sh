#!/usr/bin/env bash
# triton 3.9.0 for sm_90: two products in a row, 64 rows, eight warps
#
# Guess: eight warps share a product as four do, so that all warp groups together multiply what the product needs:
# of a tile of 64 rows, which one warp group's instruction spans, each of the two takes half of the columns.
# Seen: so it is for a product alone (warpsPerCTA [4, 2]). Where its result is an operand of the next product, the first is laid out with all
# warps along the rows (warpsPerCTA [8, 1]), though 64 rows have room for four: both warp groups compute the whole tile, twice the work of that
# product, 1.5 times that of both. Nothing is said, and results are right. With 128 rows, or with four warps, the sum is what is needed.
# So attention-like kernels with blocks of 64 rows gain nothing from eight warps on Hopper. The same with 3.6.0.
# Read from the compiled PTX; no GPU takes part.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet triton==3.9.0
cat > products.py <<'PY'
import re

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def products(a, b, c, ROWS: tl.constexpr, SIZE: tl.constexpr, CHAIN: tl.constexpr):
    i, j = tl.arange(0, ROWS), tl.arange(0, SIZE)
    x = tl.load(a + i[:, None] * SIZE + j[None, :])
    y = tl.load(b + j[:, None] * SIZE + j[None, :])
    z = tl.dot(x, y)
    if CHAIN:
        z = tl.dot(z.to(tl.bfloat16), tl.trans(y))
    tl.store(c + i[:, None] * SIZE + j[None, :], z)


def work(rows, warps, chain):
    """Multiply-adds of all warp groups over those that are needed, and the layouts' warps."""
    signature = {"a": "*bf16", "b": "*bf16", "c": "*fp32"}
    source = ASTSource(products, signature, {"ROWS": rows, "SIZE": 64, "CHAIN": chain})
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    columns = re.findall(r"wgmma\.mma_async\S*\.m64n(\d+)k16", built.asm["ptx"])
    done = sum(64 * int(n) * 16 for n in columns) * warps // 4
    layouts = re.findall(r"nvidia_mma<.*?warpsPerCTA = (\[.*?\])", built.asm["ttgir"])
    return done / (rows * 64 * 64 * (1 + chain)), sorted(set(layouts))


seen = {(r, w, c): work(r, w, c) for r in (64, 128) for w in (4, 8) for c in (0, 1)}
for (rows, warps, chain), (times, layouts) in seen.items():
    print(f"{rows} rows, {warps} warps, {1 + chain} products: {times} of what is needed, warps {', '.join(layouts)}")
assert seen[64, 8, 0] == (1.0, ["[4, 2]"]), seen
assert seen[64, 8, 1] == (1.5, ["[4, 2]", "[8, 1]"]), seen
assert all(times == 1.0 for key, (times, _) in seen.items() if key != (64, 8, 1)), seen
PY
venv/bin/python products.py
