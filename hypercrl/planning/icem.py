"""The improved cross-entropy method: the same return from fewer samples.

Pinneri et al., "Sample-efficient cross-entropy method for real-time planning", CoRL 2020,
algorithm 1: coloured noise, elites that are kept and shifted, fewer samples in each iteration, the
mean among the last samples, and momentum.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.planning.planner import Planner, PlannerConfig
from hypercrl.planning.search import Search
from hypercrl_kernels import elite_statistics, sample_actions


@dataclass
class ICEMConfig(PlannerConfig):
    """Settings of iCEM beyond those of CEM.

    The paper tunes `noise_beta` to the task, from 0.25 to 3.5: colour pays where a horizon is short
    beside the time in which the system answers, and costs where it is not.
    """

    name: str = "icem"
    noise_beta: float = number(
        0.0, least=0, most=100, help="exponent β of the noise's power spectrum 1/f^β; 0 is white"
    )
    kept: float = number(
        0.3, least=0, most=1, help="share of the elites that joins the next samples"
    )
    decay: float = number(
        1.25,
        least=1,
        help="γ: iteration i draws samples · γ^−i, but at least twice the elites",
    )
    momentum: float = number(
        0.1, least=0, most=1, help="share of the old mean and deviation in the new ones"
    )


class ICEM(Planner):
    """CEM with memory: the start of a search is its mean and the elites kept from the last one."""

    config: ICEMConfig

    def __init__(self, config: ICEMConfig, low: Tensor, high: Tensor) -> None:
        super().__init__(config, low, high)
        self.kept = round(config.kept * config.elites)
        self.carried = 1 + self.kept
        self.colour = noise_colour(self.length, config.noise_beta).to(low)
        fewest = min(config.samples, 2 * config.elites)
        self.samples = [
            max(fewest, int(config.samples * config.decay**-i)) for i in range(config.iterations)
        ]

    def noise(self, robots: int, generator: torch.Generator) -> Iterator[Tensor]:
        for samples in self.samples:
            shape = (robots, samples, self.length, len(self.low))
            white = torch.randn(shape, device=self.low.device, generator=generator)
            yield torch.einsum("ht,bkta->bkha", self.colour, white).contiguous()

    def sample(self, search: Search, noise: Tensor) -> Tensor:
        actions = sample_actions(search.mean, search.std, noise, self.low, self.high)
        last = search.iteration == self.config.iterations - 1
        more = [search.kept, search.mean[:, None]] if last else [search.kept]
        return torch.cat([actions, *more], dim=1)

    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        config, kept = self.config, search.kept
        elites = elite_statistics(returns, actions, config.elites, self.min_std)
        if self.kept:
            index = returns.topk(self.kept, dim=1).indices[..., None, None]
            kept = actions.gather(1, index.expand(-1, -1, *actions.shape[2:]))
        return replace(
            search,
            mean=torch.lerp(elites.mean, search.mean, config.momentum),
            std=torch.lerp(elites.std, search.std, config.momentum),
            best=elites.best,
            kept=kept,
        )


def noise_colour(horizon: int, beta: float) -> Tensor:
    """[H, H] matrix that turns white noise of unit variance into noise of the spectrum 1/f^β.

    The noise has the period H, as that of Timmer and König, "On generating power law noise", 1995,
    made by a Fourier transform of length H. Scaled as the paper scales it: about its own mean over
    the horizon it has unit variance, and the mean, with the power of the lowest frequency, comes on
    top (variance 1.38 at β = 2.5); white noise is left as it is.
    """
    if beta == 0 or horizon == 1:
        return torch.eye(horizon, dtype=torch.float64)
    frequency = torch.fft.rfftfreq(horizon, dtype=torch.float64)
    frequency[0] = frequency[1]
    response = torch.fft.irfft(frequency ** (-beta / 2), n=horizon)
    response /= torch.linalg.vector_norm(response - response.mean())
    step = torch.arange(horizon)
    return response[(step[:, None] - step[None, :]) % horizon]
