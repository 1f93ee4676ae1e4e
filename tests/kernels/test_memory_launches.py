"""What a call does beside its kernels: nothing but getting memory for what they write.

On a GPU a short memory waits for the host, and each operation of torch is another launch.
"""

from importlib import import_module

import pytest
import torch
from memory_cases import CASES, SEQUENCES, make
from test_memory_properties import MODULES
from torch.utils._python_dispatch import TorchDispatchMode

from hypercrl_kernels import MLPState, chunk_mlp_memory
from hypercrl_kernels.memory.arguments import Layout, once_for_each

NAMES = ["linear attention", "DeltaNet", "gated DeltaNet", "Titans", "GLA", "KDA", "HGRN"]
NAMES += ["RetNet", "BASED", "MLP, all gates"]
FREE = {"detach", "empty", "empty_like", "empty_strided", "new_empty", "view"}


class Operations(TorchDispatchMode):
    """Names of the operations that launch something on a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen += [] if name in FREE else [name]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def launched(device, monkeypatch):
    """The kernels that are launched, which do nothing. Triton refuses constants not theirs."""
    from hypercrl_kernels.memory.prepared import PreparedKernel

    seen = []

    def launch(self, tensors):
        named = set(self._named) - {"num_warps", "num_stages", "maxnreg"}
        assert named <= set(self._kernel.arg_names)
        assert len(tensors) + len(named) == len(self._kernel.arg_names)
        seen.append(self)

    monkeypatch.setattr(PreparedKernel, "__call__", launch)
    for name in MODULES:
        module = import_module(f"hypercrl_kernels.memory.{name}.api")
        monkeypatch.setattr(module, "runs_as_kernel", lambda *_, **__: True)
        monkeypatch.setattr(module, "check_log_gates", lambda *_, **__: None, raising=False)
    return seen


@pytest.mark.parametrize("length", [16, 300])
@pytest.mark.parametrize("name", NAMES)
def test_both_passes_are_kernels_alone(name, length, launched, device):
    """In half precision, gates of every key too."""
    x, state = make(CASES[name], 2, length, keys=64, values=64)
    x = {n: t.half() if n in SEQUENCES else t.float() for n, t in x.items()}
    x = {n: t.to(device).requires_grad_() for n, t in x.items()}
    state = [s.float().to(device).requires_grad_() for s in state] if "MLP" in name else None
    with Operations() as forward:
        o, _ = CASES[name].fast(x, state, None)
    kernels = 2 if name == "BASED" or ("DeltaNet" in name and length > 64) else 1
    assert len(launched) == kernels
    with Operations() as backward:
        torch.autograd.grad(o, [*x.values()], torch.empty_like(o))
    assert len(launched) == 2 * kernels
    others = {"RetNet": ["sum"]}  # one decay for a head
    if length > 64:
        others["MLP, all gates"] = ["new_zeros"] * 4  # the gradients of the final weights
    assert (forward.seen, backward.seen) == ([], others.get(name, []))


def test_a_fresh_mlp_memory_is_two_kernels_alone(launched, device):
    """Its momenta are nowhere written, and its keys are brought to length 1 on the way."""
    x, state = make(CASES["MLP, all gates"], 2, 16, keys=64, values=64)
    x = {n: t.half() if n in SEQUENCES else t.float() for n, t in x.items()}
    x = {n: t.to(device).requires_grad_() for n, t in x.items()}
    w1, w2 = (w[0].float().to(device) for w in state[:2])
    gates = {n: t for n, t in x.items() if n not in "qkv"}
    with Operations() as seen:
        start = MLPState.fresh(w1, w2, 2)
        o, _ = chunk_mlp_memory(
            x["q"], x["k"], x["v"], initial_state=start, **gates, chunk=16, unit_keys=True
        )
        torch.autograd.grad(o, [*x.values()], torch.empty_like(o))
    assert len(launched) == 2
    assert set(seen.seen) <= {"expand"}


def test_a_check_is_made_once_for_each_layout():
    seen = []

    @once_for_each
    def check(x: Layout | None, most: int) -> int:
        seen.append(x)
        if x is not None and x.shape[0] > most:
            raise ValueError(f"more than {most}")
        return 0 if x is None else x.shape[0]

    for _ in range(2):
        for x in (torch.ones(2), torch.zeros(2), torch.ones(3), torch.ones(3).half(), None):
            assert check([x], 3) == (0 if x is None else len(x))
        with pytest.raises(ValueError, match="more than 2"):
            check([torch.ones(3)], 2)
    assert len(seen) == 4 + 2  # what is refused is looked at again


@pytest.mark.parametrize("decays", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", ["GLA", "KDA"])
def test_gradients_of_decays_are_written_in_their_dtype(name, decays, device):
    from hypercrl_kernels.memory.chunk_gla.op import gla_backward_op, gla_op

    x, _ = make(CASES[name], 1, 20, heads=1, keys=16, values=16)
    x = {n: (t.half() if n in "qkv" else t.float()).to(device) for n, t in x.items()}
    x["key_decay"] = x["key_decay"].to(decays)
    given = (*(x.get(n) for n in ("q", "k", "v", "key_decay", "beta")), None, None, 0.25)
    o, _, *kept = gla_op(*given, True)
    _, _, _, d_decay, *_ = gla_backward_op(*given, torch.ones_like(o), None, *kept)
    assert d_decay.dtype == decays
    assert d_decay.shape == x["key_decay"].shape
    assert d_decay.isfinite().all()
