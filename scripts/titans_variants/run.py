"""Variants of the MLP memory's kernels: each against float64, then all timed."""

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "kernels"), str(Path(__file__).parents[2])]
import torch

START = time.time()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def kernels():
    import b1
    import v5
    from hypercrl_kernels.memory.mlp_memory.backward_triton import mlp_walk_back_kernel
    from hypercrl_kernels.memory.mlp_memory.forward_triton import mlp_walk_kernel
    return {"new": mlp_walk_kernel, "v5": v5.fwd5, "b1": b1.bwd1, "new back": mlp_walk_back_kernel}


def constants(C, F, D, block, gates, shared, rest, H):
    pad = lambda n: max(16, 1 << (n - 1).bit_length())
    return dict(HEADS=H, KEYS=D, WIDTH=pad(D), VALUES=D, OUT=pad(D), HIDDEN=F, BLOCK=block, CHUNK=C, DECAY=gates, STRENGTH=True, MOMENTUM=gates, SILU=False, SHARED=shared, VARLEN=False, DOT="tf32", REST=rest)


def make(B, T, H, D, F, dtype, device, rest, gates=True):
    g = torch.Generator().manual_seed(1)
    r = lambda *s: torch.randn(*s, generator=g)
    n = lambda x: torch.nn.functional.normalize(x, dim=-1)
    x = dict(q=n(r(B, T, H, D)), k=n(r(B, T, H, D)), v=r(B, T, H, D))
    x = {a: b.to(dtype) for a, b in x.items()}
    x |= dict(log_decay=-0.02 * r(B, T, H).abs(), beta=0.1 * r(B, T, H).sigmoid(), log_momentum=-0.3 - r(B, T, H).abs())
    w = dict(w1=r(H, D, F) / D**0.5, w2=r(H, F, D) / F**0.5, s1=0.01 * r(H, D, F), s2=0.01 * r(H, F, D))
    if rest:
        w["s1"].zero_(); w["s2"].zero_()
    return {a: b.to(device) for a, b in x.items()}, {a: b.to(device) for a, b in w.items()}


def UNIT_OF(kernel):
    return {"UNIT": False} if "UNIT" in kernel.arg_names else {}


def forward(kernel, x, w, C, block, warps, rest, save):
    B, T, H, D = x["q"].shape
    F = w["w1"].shape[-1]
    dev, dt = x["q"].device, x["q"].dtype
    e = lambda *s, t=torch.float32: torch.full(s, float("nan"), device=dev, dtype=t) if POISON else torch.empty(s, device=dev, dtype=t)
    slots = B * -(-T // C)
    final = [e(B, *w[n].shape) for n in ("w1", "w2", "s1", "s2")]
    saved = [e(slots, *w[n].shape, t=dt) for n in ("w1", "w2", "s1", "s2")] if save else [None] * 4
    o, errors, squares = e(*x["v"].shape, t=dt), e(*x["v"].shape, t=dt), e(slots, H, 2, C, C, t=dt)
    s = (None, None) if rest else (w["s1"], w["s2"])
    def launch():
        kernel[(B * H,)](x["q"], x["k"], x["v"], x["log_decay"], x["beta"], x["log_momentum"], None, w["w1"], w["w2"], *s, o, *final, *saved, errors, squares,
            *((None, None) if UNIT_OF(kernel) else ()), length=T, **constants(C, F, D, block, True, True, rest, H), **UNIT_OF(kernel), SAVE=save, num_warps=warps, num_stages=1)
    launch()
    return launch, o, final, saved, errors, squares


def backward(name, kernel, x, w, made, C, block, warps, rest, d_o, fades, d_final=None):
    launch_, o, final, saved, errors, squares = made
    B, T, H, D = x["q"].shape
    F = w["w1"].shape[-1]
    dev, dt = x["q"].device, x["q"].dtype
    e = lambda *s, t=torch.float32: torch.full(s, float("nan"), device=dev, dtype=t) if POISON else torch.empty(s, device=dev, dtype=t)
    starts = [w["w1"], w["w2"], *((None, None) if rest else (w["s1"], w["s2"]))] if saved[0] is None else saved
    if fades:
        d_w = [torch.zeros(B, *w[n].shape, device=dev) for n in ("w1", "w2", "s1", "s2")]
    else:
        d_w = [e(B, *w["w1"].shape), e(B, *w["w2"].shape), None, None]
    d = [e(*x[n].shape, t=dt) for n in "qkv"] + [e(B, T, H) for _ in range(3)]
    scratch = [None, None, e(B * H, 2 * C * F + C * C, t=dt)] if name == "new back" else []
    if name == "new back" and not fades:
        d_w[2:] = [e(0), e(0)]
    sq = squares
    if name == "b1":
        sq = squares[:, :, 1].contiguous()
    def launch():
        kernel[(B * H,)](x["q"], x["k"], errors, sq, x["log_decay"], x["beta"], x["log_momentum"], None, *starts, d_o, *d_w, *d, *scratch,
            length=T, **constants(C, F, D, block, True, saved[0] is None, rest, H), **UNIT_OF(kernel), FADES=fades, MOMENTA=fades, num_warps=warps, num_stages=1)
    launch()
    return launch, d_w, d


def away(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def check(fname, bname, block, bblock, warps, rest, dtype, T, C=64, sizes=(3, 4, 64, 256)):
    from hypercrl_kernels.memory.mlp_memory.naive import MLPState
    from hypercrl_kernels.memory.mlp_memory.chunked import mlp_memory_chunks
    K = kernels()
    B, H, D, F = sizes
    x, w = make(B, T, H, D, F, dtype, DEVICE, rest)
    multi = T > C
    made = forward(K[fname], x, w, C, block, warps, rest, multi)
    g = torch.Generator().manual_seed(2)
    d_o = torch.randn(x["v"].shape, generator=g).to(dtype).to(DEVICE)
    _, d_w, d = backward(bname, K[bname], x, w, made, C, bblock, warps, rest, d_o, multi)
    leaves = {n: t.double().requires_grad_() for n, t in x.items()} | {n: t.double().requires_grad_() for n, t in w.items()}
    state = MLPState(*(leaves[n].expand(B, *leaves[n].shape) for n in ("w1", "w2", "s1", "s2")))
    o, final = mlp_memory_chunks(*(leaves[n] for n in "qkv"), state, **{n: leaves[n] for n in ("log_decay", "beta", "log_momentum")}, chunk=C)
    names = [*"qkv", "log_decay", "beta", "log_momentum", "w1", "w2", *([] if not multi else ["s1", "s2"])]
    exact = torch.autograd.grad(o, [leaves[n] for n in names], d_o.double())
    got = [*d, *(t.sum(0) for t in d_w[: len(names) - 6])]
    o = o.detach()
    final = [t.detach() for t in final]
    fwd = [away(made[1], o), *(away(a, b) for a, b in zip(made[2], final, strict=True))]
    return max(fwd), {n: away(a, b) for n, a, b in zip(names, got, exact, strict=True)}


FORWARD = [("new", 32), ("new", 64), ("v5", 32)]
BACKWARD = [("new back", 32), ("new back", 32), ("b1", 32)]
POISON = True


def job(j):
    pair, rest, T = j
    if DEVICE == "cpu":
        (f, fb), (b, bb) = pair
        fwd, back = check(f, b, fb, bb, 4, rest, torch.float32, T, 16, (2, 1, 16, 128 if T < 17 else 64))
        return f"{f} {b} rest {int(rest)} T{T} fwd {fwd:.1e} {({n: float(f'{v:.1e}') for n, v in back.items()})}"
    (f, fb), (b, bb) = pair
    try:
        fwd, back = check(f, b, fb, bb, 4, rest, torch.bfloat16, T)
        worst = max(back, key=lambda n: back[n])
        return f"{f} {fb} {b} {bb} rest {int(rest)} T{T}: fwd {fwd:.1e} back {back[worst]:.1e} ({worst})"
    except Exception as error:
        return f"{f} {fb} {b} {bb} rest {int(rest)} T{T}: {type(error).__name__} {str(error)[:90]}"


def public(j):
    """The operation itself; shares of half_precision's eight roundings are what the GPU tests look at."""
    dtype, T, unit, momenta = j
    import hypercrl_kernels as ops
    from hypercrl_kernels.memory.mlp_memory.chunked import mlp_memory_chunks
    from hypercrl_kernels.memory.mlp_memory.naive import MLPState
    B, H, D, F, C = (3, 4, 64, 256, 64) if DEVICE == "cuda" else (2, 1, 16, 32, 16)
    x, w = make(B, T, H, D, F, dtype, DEVICE, not momenta)
    if unit:
        x["q"], x["k"] = 2 * x["q"], 3 * x["k"]
    gates = ("log_decay", "beta", "log_momentum")
    def loss(x, w, exact):
        names = list(w) if momenta else ["w1", "w2"]
        leaves = {n: t.detach().clone().requires_grad_() for n, t in (x | {n: w[n] for n in names}).items()}
        state = MLPState(*(leaves[n].expand(B, *leaves[n].shape) for n in names))
        q, k = leaves["q"], leaves["k"]
        if exact:
            n = torch.nn.functional.normalize
            q, k = (n(q, dim=-1), n(k, dim=-1)) if unit else (q, k)
            o, final = mlp_memory_chunks(q, k, leaves["v"], state, **{n: leaves[n] for n in gates}, chunk=C)
        else:
            o, final = ops.chunk_mlp_memory(q, k, leaves["v"], initial_state=state, **{n: leaves[n] for n in gates}, chunk=C, unit_keys=unit)
        g = torch.Generator().manual_seed(2)
        d_o = torch.randn(o.shape, generator=g).to(o)
        d = torch.autograd.grad(o, [*leaves.values()], d_o)
        return {"o": o, "w1'": final[0], "w2'": final[1], "s1'": final[2], "s2'": final[3]} | dict(zip(leaves, d, strict=True))
    try:
        got = {n: t.detach() for n, t in loss(x, w, False).items()}
        wanted = loss({n: t.double() for n, t in x.items()}, {n: t.double() for n, t in w.items()}, True)
        far = {n: away(t, wanted[n].detach()) for n, t in got.items()}
        worst = sorted(far, key=lambda n: -far[n])[:3]
        return f"operation {str(dtype)[6:]} T{T} unit {int(unit)} momenta {int(momenta)}: " + ", ".join(f"{n} {far[n]:.1e}" for n in worst)
    except Exception as error:
        return f"operation {j}: {type(error).__name__} {str(error)[:90]}"


def warm(j):
    import bench_kernels as bk
    op = next(o for o in bk.OPERATIONS if o.name.startswith("Titans, MLP"))
    bk.warm_one((op.name, bk.Shape(256, 64), "hypercrl"))
    old()
    return "bench and old: compiled"


def old():
    """Forward and backward pass as they were, at the shape of the target."""
    import old_backward
    import old_forward
    x, w = make(256, 64, 4, 64, 256, torch.bfloat16, "cuda", True)
    x |= {n: x[n].bfloat16() for n in ("log_decay", "beta", "log_momentum")}
    new = lambda *s: torch.empty(256, 4, *s, device="cuda")
    final = [new(64, 256), new(256, 64), new(64, 256), new(256, 64)]
    d_w = [new(64, 256), new(256, 64), new(0), new(0)]
    o, d_o = torch.empty_like(x["v"]), torch.randn_like(x["v"])
    d = [torch.empty_like(x[n], dtype=t) for n, t in zip(("q", "k", "v", "beta", "beta", "beta"), [None] * 3 + [torch.float32] * 3, strict=True)]
    own = constants(64, 256, 64, 32, True, True, False, 4)
    own.pop("REST")
    s = [*(x[n] for n in ("q", "k", "v", "log_decay", "beta", "log_momentum")), None, *(w[n] for n in ("w1", "w2", "s1", "s2"))]
    f = lambda: old_forward.mlp_walk_kernel[(1024,)](*s, o, *final, *[None] * 4, length=64, **own, SAVE=False, num_warps=4, num_stages=1)
    b = lambda: old_backward.mlp_walk_back_kernel[(1024,)](*s, d_o, *d_w, *d, length=64, **own, FADES=False, MOMENTA=False, num_warps=4, num_stages=1)
    f(), b()
    return f, b


def graph_time(call, repeats=12, calls=4):
    torch.cuda.synchronize()
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        call()
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g, stream=s):
            for _ in range(calls):
                call()
        times = []
        for _ in range(repeats):
            a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            a.record(s); g.replay(); b.record(s)
            b.synchronize()
            times.append(a.elapsed_time(b) * 1000 / calls)
    return sorted(times)[len(times) // 2]


def main():
    global POISON
    half, single = torch.bfloat16, torch.float32
    if DEVICE == "cpu":
        for j in ((single, 16, True, False), (single, 20, True, False), (single, 20, False, True), (single, 9, False, True)):
            print(public(j))
        for pair in (("new", "new back"), ("v5", "b1")):
            for rest, T in ((True, 16), (False, 20)):
                print(job((tuple((n, 32) for n in pair), rest, T)))
        return
    jobs = [(public, (half, 64, True, False)), (public, (half, 100, False, True)), (public, (torch.float16, 64, True, False))]
    jobs += [(public, (single, 64, True, False)), (public, (half, 64, False, True)), (public, (single, 100, False, True)), (warm, 0)]
    pairs = list(zip(FORWARD, BACKWARD, strict=True))
    jobs += [(job, (p, rest, 64)) for p in pairs for rest in (True, False)]
    with multiprocessing.get_context("spawn").Pool(13) as pool:
        running = [pool.apply_async(*(lambda f, j: (f, (j,)))(*j)) for j in jobs]
        for r, j in zip(running, jobs, strict=True):
            try:
                print(r.get(max(1, 95 - (time.time() - START))), flush=True)
            except multiprocessing.TimeoutError:
                print("not in time:", j[1], flush=True)
        pool.terminate()
    POISON = False
    K = kernels()
    x, w = make(256, 64, 4, 64, 256, half, "cuda", True)
    d_o = torch.randn_like(x["v"])
    f, b = old()
    print(f"kernel alone, us: old {graph_time(f):.0f} + {graph_time(b):.0f}", flush=True)
    for rest in (True, False):
        line, made = f"rest {int(rest)}:", None
        for f, fb in FORWARD:
            if time.time() - START > 125:
                break
            made = forward(K[f], x, w, 64, fb, 4, rest, False)
            line += f"  {f} {fb} {graph_time(made[0]):.0f}"
        for b, bb in dict.fromkeys(BACKWARD):
            if time.time() - START > 125:
                break
            line += f"  {b} {bb} {graph_time(backward(b, K[b], x, w, made, 64, bb, 4, rest, d_o, False)[0]):.0f}"
        print(line, flush=True)
    try:
        around()
    except Exception as error:
        print(f"around: {type(error).__name__} {str(error)[:90]}")
    print(f"{time.time() - START:.0f} s")


def around():
    import bench_kernels as bk
    shape = bk.Shape(256, 64)
    op = next(o for o in bk.OPERATIONS if o.name.startswith("Titans, MLP"))
    x = bk.make(op.inputs, shape, torch.device("cuda"))
    from bench_timing import Clock
    clock = Clock(torch.device("cuda"))
    for part, call in (("forward", bk.forward_only(op.ours, x)), ("both", bk.with_backward(op.ours, x))):
        wall, host = clock.eager(call).median, clock.eager(call, wait=False).median
        print(f"bench, {part}: kernels {clock.graph(call, 4, 12).median:.0f}, wall {wall:.0f}, host {host:.0f} us", flush=True)
    from torch.profiler import ProfilerActivity, profile
    for part, call in (("forward", bk.forward_only(op.ours, x)), ("both", bk.with_backward(op.ours, x))):
        for _ in range(3): call()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as p:
            for _ in range(5): call()
            torch.cuda.synchronize()
        rows = sorted(((e.self_device_time_total / 5, e.count // 5, e.key) for e in p.key_averages()), reverse=True)
        rows = [r for r in rows if "mlp_walk" not in r[2]]
        print(f"around, {part}: {sum(r[0] for r in rows):.0f} us in {sum(r[1] for r in rows)}:", " | ".join(f"{t:.0f} {c}x {k[:10] + '~' + k[-60:-20]}" for t, c, k in rows[:7]), flush=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
