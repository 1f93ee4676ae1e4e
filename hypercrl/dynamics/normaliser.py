"""Fixed affine scaling of inputs and targets."""

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """Maps x to (x − mean) / scale with numbers that are fitted once and then never move.

    Chosen: fit on the random steps of the **first** task, freeze for the whole run, for every task.
    Why: trained weights are a function of scaled inputs, so refreshing the scale changes every old
    task's model although no weight moved; and a scale per task would leak the task's identity and
    make a model look as if it had forgotten when only its ruler changed. A second `fit` raises.

    A dimension that hardly moves in the random data gets a scale of at least 1 % of the largest
    one, so that noise is not blown up to unit size.
    """

    mean: Tensor
    scale: Tensor
    fitted: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def fit(self, x: Tensor) -> None:
        """Take mean and standard deviation of x [N, width].

        Raises:
            RuntimeError: already fitted; trained weights depend on the present numbers.
        """
        if self.fitted:
            raise RuntimeError("the normaliser is frozen: trained weights depend on its scale")
        std = x.std(0, correction=0)
        self.mean.copy_(x.mean(0))
        self.scale.copy_(std.clamp_min((0.01 * std.max()).clamp_min(1e-8)))
        self.fitted.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale
