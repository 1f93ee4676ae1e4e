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
    import b1, b3, v4, v5
    return {"v4": v4.fwd4, "v5": v5.fwd5, "b1": b1.bwd1, "b3": b3.bwd3}


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
            length=T, **constants(C, F, D, block, True, True, rest, H), SAVE=save, num_warps=warps, num_stages=1)
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
    scratch = [e(B * H, 2 * C * F + C * C, t=dt)] if name == "b3" else []
    sq = squares
    if name == "b1":
        sq = squares[:, :, 1].contiguous()
    def launch():
        kernel[(B * H,)](x["q"], x["k"], errors, sq, x["log_decay"], x["beta"], x["log_momentum"], None, *starts, d_o, *d_w, *d, *scratch,
            length=T, **constants(C, F, D, block, True, saved[0] is None, rest, H), FADES=fades, MOMENTA=fades, num_warps=warps, num_stages=1)
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


FORWARD = [("v4", 32), ("v4", 64), ("v5", 32)]
BACKWARD = [("b1", 32), ("b3", 32), ("b3", 64)]
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


def warm(j):
    import bench_kernels as bk
    op = next(o for o in bk.OPERATIONS if o.name.startswith("Titans, MLP"))
    bk.warm_one((op.name, bk.Shape(256, 64), "hypercrl"))
    return "as it is: compiled"


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
    if DEVICE == "cpu":
        for pair in zip(FORWARD, BACKWARD, strict=True):
            for rest, T in ((True, 16), (False, 20)):
                print(job((pair, rest, T)))
        return
    pairs = list(zip(FORWARD, BACKWARD, strict=True))
    jobs = [(p, rest, T) for p in pairs for rest, T in ((True, 64), (False, 64), (False, 100))]
    with multiprocessing.get_context("spawn").Pool(10) as pool:
        running = [pool.apply_async(job, (j,)) for j in jobs] + [pool.apply_async(warm, (0,))]
        jobs = [*jobs, 0]
        for r, j in zip(running, jobs, strict=True):
            try:
                print(r.get(max(1, 85 - (time.time() - START))), flush=True)
            except multiprocessing.TimeoutError:
                print("not in time:", j, flush=True)
        pool.terminate()
    POISON = False
    K = kernels()
    from hypercrl_kernels.memory.mlp_memory import launch as L
    x, w = make(256, 64, 4, 64, 256, torch.bfloat16, "cuda", True)
    gates = {n: x[n].bfloat16() for n in ("log_decay", "beta", "log_momentum")}
    now = x | gates
    d_o = torch.randn_like(x["v"])
    ws = [w[n].expand(256, *w[n].shape) for n in ("w1", "w2", "s1", "s2")]
    tensors = [*(now[n] for n in ("q", "k", "v", "log_decay", "beta", "log_momentum")), None, *ws]
    print(f"now: forward {graph_time(lambda: L.launch_forward(*tensors, False, 64, True)):.0f}", end="; ")
    saved = [None] * 4
    print(f"backward {graph_time(lambda: L.launch_backward(*tensors, False, 64, d_o, [None] * 4, saved, False)):.0f} us", flush=True)
    for rest in (True, False):
        line = f"rest {int(rest)}:"
        made = None
        for f, fb in FORWARD:
            if time.time() - START > 125: break
            made = forward(K[f], x, w, 64, fb, 4, rest, False)
            line += f"  {f} {fb} {graph_time(made[0]):.0f}"
        for b, bb in BACKWARD:
            if time.time() - START > 125: break
            line += f"  {b} {bb} {graph_time(backward(b, K[b], x, w, made, 64, bb, 4, rest, d_o, False)[0]):.0f}"
        print(line, "us", flush=True)
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
