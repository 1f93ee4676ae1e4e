"""Named random generators, all derived from one seed, all part of a checkpoint."""

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypercrl.base.saved import same_kind

CUDA_STATE_BYTES = 16
"""Of a CUDA generator's state: seed and offset. A CPU's has thousands."""


def derive_seed(seed: int, *keys: int | str) -> int:
    """A 32-bit seed that depends on `seed` and on every key, for draws that need no memory.

    Strings enter by their CRC-32, so the value is the same in every process and version. NumPy
    fills up with zeros what it hashes: a last key of 0 is as none, so give a purpose's draws as
    many keys each.
    """
    words = [zlib.crc32(k.encode()) if isinstance(k, str) else k for k in keys]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])


class RandomStreams:
    """One torch generator per purpose, so that adding a draw to one never shifts another.

    Args:
        seed: the run's seed, ≥ 0.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def get(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """The stream of that name; made, and seeded by seed and name, when first asked for."""
        if name not in self._generators:
            generator = torch.Generator(device)
            generator.manual_seed(derive_seed(self.seed, name))
            self._generators[name] = generator
        return self._generators[name]

    def drop(self, name: str) -> None:
        """Forget a stream that nobody draws from again; every checkpoint would hold it."""
        del self._generators[name]

    def state(self) -> dict[str, Tensor]:
        """Name → generator state, uint8."""
        return {name: g.get_state() for name, g in self._generators.items()}

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state` returned.

        A state from another kind of device cannot be set, so that stream keeps its seed's start.

        Raises:
            RuntimeError, ValueError: one that is no state of a generator.
        """
        of_cpu = torch.Generator().get_state()
        of_cuda = of_cpu.new_zeros(CUDA_STATE_BYTES)
        for name, value in state.items():
            on_cuda = isinstance(value, Tensor) and value.shape == of_cuda.shape
            same_kind(f"random state {name!r}", value, of_cuda if on_cuda else of_cpu)
            if not on_cuda or device.type == "cuda":
                self.get(name, device if on_cuda else "cpu").set_state(value)
