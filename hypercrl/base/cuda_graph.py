"""Run a function of tensors as one CUDA graph, or several calls of it."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor


class CaptureError(RuntimeError):
    """A function that cannot be captured, such as one that waits for the device."""


class CapturedFunction:
    """Calls `function(*inputs)` eagerly at first, then replays it as one CUDA graph.

    The first calls are ordinary ones on a side stream (they warm up libraries and create optimiser
    state), so capturing repeats no side effect. Shapes must stay the same; the results are
    overwritten by the next call.

    Args:
        function: from a fixed number of tensors to a tuple of tensors, with no host
            synchronisation.
        generators: CUDA generators that the function draws from.
        eager_calls: before the one that captures; none where all has been warmed up elsewhere.

    Raises:
        CaptureError: at the call that captures. The generators are as before it, and so where the
            device has no room for the graph, a torch.OutOfMemoryError.
    """

    EAGER_CALLS = 3

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        generators: Sequence[torch.Generator] = (),
        eager_calls: int = EAGER_CALLS,
    ) -> None:
        self.function = function
        self.generators = generators
        self._eager_calls = eager_calls
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()

    @property
    def captured(self) -> bool:
        """Whether the next call is nothing but a replay."""
        return self._graph is not None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self._graph is None:
            if self._calls < self._eager_calls:
                self._calls += 1
                return self._eager(inputs)
            self._capture(inputs)
        assert self._graph is not None
        for static, value in zip(self._inputs, inputs, strict=True):
            static.copy_(value)
        self._graph.replay()
        return self._outputs

    def _eager(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            outputs = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        return outputs

    def _capture(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = [value.clone() for value in inputs]
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        # A graph takes part in the device's own generator without being told to.
        involved = [*self.generators, torch.cuda.default_generators[torch.cuda.current_device()]]
        states = [generator.get_state() for generator in involved]
        torch.cuda.synchronize()
        try:
            with _no_garbage_collected(), torch.cuda.graph(graph):
                self._outputs = self.function(*self._inputs)
        except RuntimeError as error:
            for generator, state in zip(involved, states, strict=True):
                _restore(generator, state)
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise CaptureError(str(error)) from error
        self._graph = graph


class CapturedSteps:
    """Takes the steps of a loop that waits for nothing, `AT_ONCE` of them in one CUDA graph.

    To launch a graph takes the host as long as a short step takes the device; several steps in one
    are launched at once. They run in their order on the inputs that they would have alone, and what
    they draw comes in the same order, so that nothing depends on how many a graph holds. The first
    steps, and what is left of a loop, are graphs of one step.

    Args:
        step: of one row of the inputs, see `CapturedFunction`. What it leaves for others than the
            next step it writes in place: a tensor that it makes is of one of two graphs.
        generators: CUDA generators that it draws from.
    """

    AT_ONCE: int = 10

    def __init__(
        self,
        step: Callable[[Tensor], tuple[Tensor, ...]],
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._one = CapturedFunction(step, generators)
        self._several = CapturedFunction(partial(_in_turn, step), generators, eager_calls=0)

    def __call__(self, rows: Tensor) -> tuple[int, tuple[Tensor, ...]]:
        """Take the first steps of those that are left, one or more.

        Args:
            rows: [n, …], n > 0, inputs of the steps that are left.

        Returns:
            How many it took, and what the last one of them returned, until the next call.
        """
        if len(rows) < self.AT_ONCE or not self._one.captured:
            return 1, self._one(rows[0])
        return self.AT_ONCE, self._several(rows[: self.AT_ONCE])


def _in_turn(step: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor) -> tuple[Tensor, ...]:
    """What the last step returns."""
    *earlier, last = rows
    for row in earlier:
        step(row)
    return step(last)


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """The end of another graph, one in a cycle of references, would invalidate a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _restore(generator: torch.Generator, state: Tensor) -> None:
    """Give a generator whose capture failed a fresh state: its own still counts for the graph."""
    fresh = torch.Generator(generator.device)
    fresh.set_state(state)
    generator.graphsafe_set_state(fresh.graphsafe_get_state())
