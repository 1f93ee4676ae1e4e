"""Kernels launched past Triton's binder give what Triton's own launch gives: run with -m gpu.

The kernels are deterministic, so that both are equal bit for bit.
"""

import pytest
import torch
from memory_cases import CASES, SEQUENCES, by_name, gradients, make

pytestmark = pytest.mark.gpu

NAMES = ["linear attention", "gated DeltaNet", "Titans", "GLA", "KDA", "HGRN", "BASED"]
NAMES += ["MLP, all gates"]


@pytest.fixture
def launches(monkeypatch):
    """The kernels that Triton launches itself."""
    from hypercrl_kernels.memory.prepared import PreparedKernel

    plain, seen = PreparedKernel.plain, []

    def noted(self, *arguments):
        seen.append(self)
        return plain(self, *arguments)

    monkeypatch.setattr(PreparedKernel, "plain", noted)
    return seen


def misaligned(x):
    """The same numbers at an address that is no multiple of 16 bytes."""
    moved = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)[1:].view_as(x)
    assert moved.data_ptr() % 16
    return moved.copy_(x)


def inputs(name, length=40, heads=2, width=32, dtype=torch.bfloat16, device="cuda"):
    x, state = make(CASES[name], 2, length, heads, width, width)
    x = {n: t.to(dtype) if n in SEQUENCES else t.float() for n, t in x.items()}
    return {n: t.to(device) for n, t in x.items()}, [s.float().to(device) for s in state]


def run(name, x, state, layout=lambda x: x):
    """Outputs and gradients. `gradients` copies what it is given, so the layout comes inside."""

    def function(x, state, cu_seqlens):
        x = {n: layout(t) for n, t in x.items()}
        return CASES[name].fast(x, state and [layout(s) for s in state], cu_seqlens)

    return by_name(gradients(function, x, state))


def by_triton(name, x, state, layout=lambda x: x):
    from hypercrl_kernels.memory.prepared import PreparedKernel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreparedKernel, "__call__", PreparedKernel.plain)
        return run(name, x, state, layout)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", NAMES)
def test_kept_kernels_are_those_of_triton(name, launches):
    """Each problem comes thrice, in turn with others of the same kernels."""
    problems = [
        inputs(name),
        inputs(name, dtype=torch.float16),
        inputs(name, dtype=torch.float32),
        inputs(name, length=100),
        inputs(name, heads=1, width=16),
    ]
    if "log_decay" in problems[0][0]:
        x, state = inputs(name)
        problems.append((x | {"log_decay": x["log_decay"].bfloat16()}, state))
    if "MLP" not in name:
        problems += [(x, None) for x, _ in problems[:2]]
    wanted = [by_triton(name, *problem) for problem in problems]
    for _ in range(2):
        assert all(same(run(name, *p), w) for p, w in zip(problems, wanted, strict=True))
    launches.clear()
    assert all(same(run(name, *p), w) for p, w in zip(problems, wanted, strict=True))
    assert launches == []


@pytest.mark.parametrize("name", NAMES)
def test_misaligned_tensors_are_left_to_triton(name, launches):
    x, state = inputs(name)
    aligned = run(name, x, state)
    wanted = by_triton(name, x, state, misaligned)
    run(name, x, state)
    launches.clear()
    assert same(run(name, x, state, misaligned), wanted)
    assert launches != []
    launches.clear()
    assert same(run(name, x, state), aligned)
    assert launches == []


def test_a_tensor_of_the_cpu_is_refused_by_name():
    """Its address would be read on the GPU, where kernels are launched by addresses."""
    x, state = inputs("gated DeltaNet", length=40)
    x, offsets = {n: t[:1] for n, t in x.items()}, torch.tensor([0, 17, 40])
    fast = CASES["gated DeltaNet"].fast
    o, _ = fast(x, state, offsets.cuda())
    with pytest.raises(ValueError, match="cpu tensor"):
        fast(x, state, offsets)
    assert torch.equal(fast(x, state, offsets.cuda())[0], o)


def test_on_the_stream_of_the_caller():
    x, state = inputs("gated DeltaNet", length=300)
    wanted = run("gated DeltaNet", x, state)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # what is launched elsewhere comes before the inputs
        late = {n: t.clone() for n, t in x.items()}
        got = run("gated DeltaNet", late, state)
    stream.synchronize()
    assert same(got, wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_on_each_device():
    for _ in range(2):
        found = []
        for index in (0, 1):
            with torch.cuda.device(index):
                found.append(
                    run("gated DeltaNet", *inputs("gated DeltaNet", device=f"cuda:{index}"))
                )
        assert same(
            {n: t.cpu() for n, t in found[0].items()}, {n: t.cpu() for n, t in found[1].items()}
        )
