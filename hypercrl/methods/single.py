"""One network per task: the reference that forgets nothing and transfers nothing."""

from torch import Tensor, nn

from hypercrl.methods.gradient import GradientMethod


class Single(GradientMethod):
    """A fresh network, or ensemble, for every task, the old ones frozen."""

    ensembles = True
    conditionings = ("input", "film")

    def _prepare(self) -> None:
        self.networks = nn.ParameterList()

    def _add_task(self) -> None:
        initial = self.model.layout.initial(self.generator, self.members)
        self.networks.append(nn.Parameter(initial.to(self.sampler.device)))

    def _weights(self, task: int) -> Tensor:
        return self.networks[task]

    def _trained(self) -> list[nn.Parameter]:
        return [self.networks[-1]]
