"""Temporary: the head's kernel before and after, checked and timed."""
import argparse, functools, sys, time
import torch, triton
from hypercrl_kernels.training import AdamMoments, AdamSettings, launch
from hypercrl_kernels.training.regularised_head_reference import regularised_head_reference, HeadGradients
from hypercrl_kernels.training.head_before_triton import regularised_head_kernel as before_kernel
from hypercrl_kernels.training.launch import HeadCut, _constants
C = HeadCut
VARIANTS = {
    (2, 50): [C(16,16,4,264,1), C(16,16,4,264,2), C(16,16,4,396,1,168), C(16,16,4,396,2,168), C(16,16,4,528,1,128), C(16,16,4,528,2,128), C(16,32,8,264,1,128), C(16,32,8,264,2,128), C(16,32,4,264,2), C(16,16,8,264,2,128), C(16,16,4,396,3,168)],
    (19, 50): [C(32,16,4,264,1), C(32,16,4,264,2), C(32,16,4,396,1,168), C(32,16,4,396,2,168), C(32,16,4,528,1,128), C(32,16,4,528,2,128), C(32,32,8,264,1,128), C(32,32,8,264,2,128), C(32,32,4,264,2), C(32,16,8,264,2,128), C(32,16,4,396,3,168)],
    (64, 50): [C(64,16,4,264,1), C(64,16,4,264,2), C(64,16,4,396,1,168), C(64,16,4,396,2,168), C(64,16,8,264,1,128), C(64,16,8,264,2,128), C(64,32,8,264,1,128), C(64,32,8,264,2,128), C(64,32,8,132,2), C(64,16,4,528,2,128)],
    (100, 50): [C(128,16,8,132,1), C(128,16,8,132,2), C(128,16,8,132,3), C(128,16,8,264,1,128), C(128,16,8,264,2,128), C(128,32,8,132,1), C(128,32,8,132,2), C(128,32,8,264,1,128), C(128,32,8,264,2,128), C(64,16,4,396,2,168), C(128,16,4,264,2), C(64,16,8,264,2,128)],
    (100, 100): [C(128,16,8,132,1), C(128,16,8,132,2), C(64,16,4,264,2), C(64,16,8,132,2), C(64,16,8,264,1,128)],
    (19, 100): [C(32,16,4,264,1), C(32,16,4,264,2), C(32,16,8,264,2,128), C(32,16,4,396,1,168)],
}
def before(head, gradient, moments, settings, written_gradient, hidden, old, targets, tasks, strength):
    size, (count, width) = written_gradient.shape[-1], old.shape
    padded = max(16, triton.next_power_of_2(width))
    rows = max(16, min(triton.next_power_of_2(max(count, 1)), 64 * 64 // padded))
    block = max(16, min(16, 64 * 16 // padded))
    programs = min(264, triton.cdiv(size, block))
    found = HeadGradients(head.new_empty(programs), head.new_empty(programs), head.new_empty(programs, count, width))
    before_kernel[(programs,)](head, gradient, moments.mean, moments.square, moments.step, written_gradient, hidden, old, targets, targets, *found, size, count, 2 * strength / max(count, 1),
        WIDTH=width, PADDED=padded, MEMBERS=1, TASKS=rows, OLD=count > 0, CHOSEN=False, BLOCK=block, STAGES=2 if padded <= 64 else 1, **_constants(settings), num_warps=4)
    return found
@functools.cache
def problem(tasks, device, size=44810, width=50, spread=0.01):
    g = torch.Generator().manual_seed(tasks)
    n = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)
    head = torch.cat([0.1 * n(size * width), 0.1 * n(size)])
    old, slope, hidden = n(tasks, width), n(size), n(width)
    moments = AdamMoments(torch.tensor(300.0), 0.1 * n(size * width + size), 0.1 * n(size * width + size).square())
    targets = old @ head[: size * width].view(size, width).T + head[size * width :] + spread * n(tasks, size)
    to = lambda t: t.float().to(device)
    head, old, slope, hidden, targets = map(to, (head, old, slope, hidden, targets))
    moments = AdamMoments(to(moments.step), to(moments.mean), to(moments.square))
    return head, moments, slope, hidden, old, targets
@functools.cache
def exact_of(tasks, device, size=44810, width=50, spread=0.01):
    head, moments, slope, hidden, old, targets = problem(tasks, device, size, width, spread)
    d = lambda t: t.double()
    exact = torch.empty_like(d(head))
    m = AdamMoments(moments.step, d(moments.mean), d(moments.square))
    want = regularised_head_reference(d(head), exact, m, AdamSettings(1e-4), d(slope), d(hidden), d(old), d(targets), None, 5.0)
    return exact, want, (exact - torch.cat([torch.outer(d(slope), d(hidden)).flatten(), d(slope)])).norm()
def errors(f, tasks, device, size=44810, width=50, spread=0.01):
    head, moments, *rest = problem(tasks, device, size, width, spread)
    exact, want, of_r = exact_of(tasks, device, size, width, spread)
    mine = torch.full_like(head, float("nan"))
    got = f(head, mine, moments, AdamSettings(1e-4), *rest, None, 5.0)
    rel = lambda a, b: float((a.double() - b).norm() / b.norm())
    return dict(gradient=rel(mine, exact), of_r=float((mine.double() - exact).norm() / of_r), old=rel(got.old.sum(0), want.old.sum(0)), r=rel(got.regulariser.sum(0), want.regulariser.sum(0)), squares=rel(got.squares.sum(0), want.squares.sum(0)))
def with_cut(cut):
    def call(*a):
        launch.head_cut = lambda count, padded: cut
        return launch.launch_regularised_head(*a)
    return call
def timed(f, args, n=40):
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        f(*args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=s):
            for _ in range(n): f(*args)
        graph.replay(); s.synchronize()
        best = []
        for _ in range(5):
            a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            a.record(s); graph.replay(); b.record(s); s.synchronize()
            best.append(1e3 * a.elapsed_time(b) / n)
    return sorted(best)[2], min(best)
def main():
    p = argparse.ArgumentParser(); p.add_argument("--warm"); p.add_argument("--rounds", action="store_true"); a = p.parse_args()
    calls = [(t, "before" if c is None else str(tuple(c)), before if c is None else with_cut(c)) for t, cs in VARIANTS.items() for c in [None, *cs]]
    started, refused = time.perf_counter(), set()
    if a.warm:
        i, n = map(int, a.warm.split("/")); calls = calls[i::n]
    for t, name, f in calls:
        try:
            if a.warm:
                head, moments, *rest = problem(t[0], "cuda", 3000, t[1])
                f(head, torch.empty_like(head), moments, AdamSettings(1e-4), *rest, None, 5.0); torch.cuda.synchronize(); continue
            e = errors(f, t[0], "cuda", 44810, t[1], 0.01); torch.cuda.synchronize()
            e2 = errors(f, t[0], "cuda", 44810, t[1], 1e-4)
        except Exception as x:
            print(t, name, "refused:", str(x)[:150]); refused.add((t, name)); continue
        if not a.warm:
            print(f"{t!s:10} {name:32} " + " ".join(f"{k} {v:.1e}" for k, v in e.items()) + f"   targets at 1e-4: gradient {e2['gradient']:.1e} of_r {e2['of_r']:.1e} old {e2['old']:.1e}", flush=True)
    if a.warm: return
    print(f"checked after {time.perf_counter() - started:.0f} s")
    bests = {}
    for t in VARIANTS:
        head, moments, *rest = problem(t[0], "cuda", 44810, t[1], 0.01)
        args = (head, torch.empty_like(head), moments, AdamSettings(1e-4), *rest, None, 5.0)
        line = []
        for tt, name, f in calls:
            if tt == t and (t, name) not in refused:
                line.append((timed(f, args)[0], name)); print(f"{t!s:10} {name:32} {line[-1][0]:7.2f} µs", flush=True)
        bests[t[0], t[1]] = min((m, n) for m, n in line if n != "before")
        print("best", t, bests[t], flush=True)
    if a.rounds:
        cuts = {t[0]: C(*eval(n)) for t, (m, n) in bests.items() if t[1] == 50}
        def cut_of(count, padded):
            return cuts[min(k for k in cuts if k >= count)]
        launch.head_cut = cut_of
        import bench_training as b
        device, report = torch.device("cuda"), b.Report()
        b.A_GRAPH = (1, 10)
        for n in (2, 19, 100): print(b.bench_rounds(n, device, report), flush=True)
        launch.launch_regularised_head_new = launch.launch_regularised_head
        import hypercrl_kernels.training.launch as l
        l.launch_regularised_head = lambda *x: before(*x)
        print("before")
        for n in (2, 19, 100): print(b.bench_rounds(n, device, report), flush=True)
main() if __name__ == "__main__" else None
