"""The grid of the evidence as data: which method learns which sequence, with which settings.

Cells of one sequence differ in the settings of their methods, and in their seeds, alone.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

FIRST = ("hnet", "multitask", "single", "coreset", "coreset_bytes", "finetune")
REST = ("lora", "hnet_replay", "chunked_hnet", "packnet", "ewc", "derpp", "reservoir", "ftl")
METHODS = (*FIRST, *REST)
INVERSION = ("hnet", "finetune")

COMMON = ("logger=[]", "protocol.final_episodes=10")
STANDARD = ("preset=standard", "protocol.eval_every=4000", "protocol.checkpoint_every=3000")
"""No evaluations within a task: tables are made of those between tasks."""
QUICK = ("preset=quick", "protocol.num_tasks=null")
SHORT = (*QUICK, "planner.execute=best", "protocol.eval_every=1200")
"""As `quick` is on push."""
SMALL = (
    *QUICK,
    "dynamics.hidden=[100,100]",
    "planner={samples: 200, horizon: 20, execute: best}",
)
INVERTED = (
    *SMALL,
    "device=cpu",
    "protocol={random_steps: 300, planned_steps: 600, update_every: 60, eval_every: 1200}",
)
"""900 steps a task, on smaller networks and plans, in about three minutes on a core."""
INVERTED_LONGER = (
    *SMALL,
    "protocol={random_steps: 600, planned_steps: 2400, update_every: 60, eval_every: 4000}",
)
"""More than three times as many, for what 900 do not teach."""
DRAWN = (
    *INVERTED,
    "protocol={random_steps: 1200, planned_steps: 2400, update_every: 120, eval_every: 4000}",
    "protocol={replay_capacity: 4000, heldout_from: 5}",
)
"""As many steps in one task as there in four."""
SELDOM = (
    "protocol.eval_tasks=1",
    "protocol.final_episodes=5",
    "protocol.checkpoint_every=18000",
)
WIDTHS = (5, 10, 25, 100)
"""Of both hidden layers of the hypernetwork, beside the shipped 50."""
ORDERS = 4
"""Permutations beside the sequence's own."""


@dataclass(frozen=True)
class Sequence:
    """One column of the evidence.

    Attributes:
        env: whose tasks are learned.
        words: settings of every cell beside its method's own.
        tasks: how many there are.
        methods, seeds: the cells.
        coreset: transitions a task that the original keeps there (Huang et al., ICRA 2021, and its
            code): 100 of a push, 600 of a door, 1000 of a cheetah; of the workbench as of a door.
        threads: cores of a cell. Of long runs fewer go side by side, so that each ends in time.
        seconds: a guess how long a cell takes among as many as there is room for, until some have
            ended.
        needs: a module without which it cannot run.
        of: the sequence that this one is a variant of, in whose section it is shown.
        said: what it has other than that one, in the words of figures; empty where methods are as
            they are there.
    """

    env: str
    words: tuple[str, ...]
    tasks: int = 5
    methods: tuple[str, ...] = METHODS
    seeds: int = 5
    coreset: int = 100
    threads: int = 1
    seconds: float = 150.0
    needs: str = "mujoco"
    of: str = ""
    said: str = ""

    def label(self, method: str) -> str:
        """What a method of it is called beside those of the sequence that it is a variant of."""
        return f"{method}, {self.said}" if self.said else method


SEQUENCES = {
    "door": Sequence("door", STANDARD, coreset=600),
    "push": Sequence("push", STANDARD),
    "push_frame": Sequence("push_frame", STANDARD),
    "door5": Sequence("door5", STANDARD, coreset=600),
    "slide": Sequence("slide", STANDARD),
    "cheetah_joints": Sequence(
        "cheetah_joints",
        (
            *QUICK,
            "protocol.robots=8",
            "protocol.eval_every=14000",
            "protocol.checkpoint_every=5000",
        ),
        coreset=1000,
        seconds=300.0,
    ),
    # Networks that are kept apart have nothing to keep apart here: what does that cost?
    "workbench": Sequence("workbench", STANDARD, tasks=6, coreset=600, seconds=90.0),
    "push20": Sequence(
        "push20",
        (*STANDARD, "protocol.eval_tasks=5"),
        tasks=20,
        seconds=400.0,
    ),
    "push100": Sequence(
        "push100",
        (*SHORT, "protocol.robots=4", "protocol.eval_tasks=5", "protocol.checkpoint_every=1800"),
        tasks=100,
        methods=("hnet", "coreset_bytes", "finetune", "reservoir"),
        seeds=3,
        threads=3,
        seconds=500.0,
    ),
    "push_engines": Sequence(
        "push_engines",
        SHORT,
        tasks=4,
        needs="pybullet",
    ),
    # Is `standard` as good as the paper's 2000 updates a session?
    "push_2000": Sequence(
        "push",
        (*STANDARD, "protocol.updates=2000"),
        methods=("hnet",),
        seeds=3,
        seconds=300.0,
        of="push",
        said="2000 updates a session",
    ),
    "door_2000": Sequence(
        "door",
        (*STANDARD, "protocol.updates=2000"),
        methods=("hnet",),
        seeds=3,
        seconds=300.0,
        of="door",
        said="2000 updates a session",
    ),
    # What do five networks out of one hypernetwork remember?
    **{
        f"{env}_members": Sequence(
            env,
            (*STANDARD, "method.members=5"),
            tasks=tasks,
            methods=("hnet",),
            seconds=200.0,
            of=env,
            said="5 members",
        )
        for env, tasks in (("push", 5), ("door", 5), ("workbench", 6))
    },
    # Of these is what comes with the package (`push_demo`), and so they are small.
    "push_small": Sequence(
        "push",
        ("preset=quick", "dynamics.hidden=[100,100]", "protocol.num_tasks=3"),
        tasks=3,
        methods=("hnet",),
        seeds=3,
        of="push",
        said="networks of 100, 100, three tasks",
    ),
    # Four inversions of the Actuator Inversion Benchmark, one after another.
    **{
        env: Sequence(env, INVERTED, tasks=4, methods=INVERSION, seconds=120.0)
        for env in ("double_integrator", "complex_ode", "cartpole")
    },
    "cartpole_3000": Sequence(
        "cartpole",
        INVERTED_LONGER,
        tasks=4,
        methods=("hnet", "single", "finetune"),
        seeds=3,
        seconds=150.0,
        of="cartpole",
        said="3000 steps",
    ),
    # The same inversions in one task, drawn for every episode: with a memory, and without.
    "double_integrator_hidden": Sequence(
        "double_integrator_hidden",
        (*DRAWN, "memory=gru"),
        tasks=1,
        methods=("hnet",),
        seconds=300.0,
    ),
    "double_integrator_blind": Sequence(
        "double_integrator_hidden",
        DRAWN,
        tasks=1,
        methods=("hnet",),
        seconds=120.0,
        of="double_integrator_hidden",
        said="no memory",
    ),
}


def _twenty(said: str, methods: tuple[str, ...], *words: str) -> dict[str, Sequence]:
    """`push20` with other settings."""
    base = SEQUENCES["push20"]
    words = (*base.words, *words)
    changed = replace(base, words=words, methods=methods, seeds=2, of="push20", said=said)
    return {f"push20_{said.replace(' ', '')}": changed}


def _hundred(said: str, *words: str, methods: tuple[str, ...] = ("hnet",)) -> Sequence:
    """`push100` with other settings, looked at less often on the way."""
    base = SEQUENCES["push100"]
    words = (*base.words, *SELDOM, *words)
    return replace(base, words=words, methods=methods, threads=2, of="push100", said=said)


def _changed(base: str, method: str, said: str, *words: str, seeds: int = 5) -> Sequence:
    """A sequence with another setting of one method."""
    column = SEQUENCES[base]
    words = (*column.words, *words)
    return replace(column, words=words, methods=(method,), seeds=seeds, of=base, said=said)


for number in range(1, ORDERS + 1):
    order = random.Random(number).sample(range(1, 21), 20)
    learned = f"protocol.order=[{','.join(map(str, order))}]"
    SEQUENCES |= _twenty(f"order {number}", ("hnet", "finetune"), learned)
for width in WIDTHS:
    SEQUENCES |= _twenty(f"width {width}", ("hnet",), f"method.hidden=[{width},{width}]")
KEPT, WIDE = "method.targets=kept", "method.hidden=[100,100]"
FIRM, FIRMER = "method.beta=0.5", "method.beta=5"
SEQUENCES |= {
    "push100_single": _hundred("", methods=("single",)),
    "push100_beta0.5": _hundred("β 0.5", FIRM),
    "push100_beta5": _hundred("β 5", FIRMER),
    "push100_kept": _hundred("targets kept", KEPT),
    "push100_kept_beta0.5": _hundred("targets kept, β 0.5", KEPT, FIRM),
    "push100_kept_beta5": _hundred("targets kept, β 5", KEPT, FIRMER),
    "push100_width100": _hundred("width 100", WIDE),
    "push100_width100_beta0.5": _hundred("width 100, β 0.5", WIDE, FIRM),
    "push100_width100_beta5": _hundred("width 100, β 5", WIDE, FIRMER),
    "push100_width100_kept_beta0.5": _hundred("width 100, targets kept, β 0.5", WIDE, KEPT, FIRM),
    "push100_lora4": _hundred("rank 4", "method.rank=4", methods=("lora",)),
    "push100_lora16": _hundred("rank 16", "method.rank=16", methods=("lora",)),
    "push100_chunked200_beta0.05": _hundred(
        "width 200, β 0.05",
        "method.hidden=[200,200]",
        "method.beta=0.05",
        methods=("chunked_hnet",),
    ),
}
"""Does the hypernetwork of `push100` forget for too weak a hold, for drift, or for its width? And
does one that writes in chunks, and is a tenth as large, hold a hundred tasks?"""

ALL_KEPT = tuple(f"{env}_all_kept" for env in ("door5", "slide", "cheetah_joints", "workbench"))
"""A hypernetwork that rehearses all transitions: `hnet_replay` rehearses a hundred of each task."""
SEQUENCES |= {
    name: _changed(
        name.removesuffix("_all_kept"), "hnet_replay", "all transitions", "method.per_task=null"
    )
    for name in ALL_KEPT
}
LOOSER = {f"cheetah_joints_strength{strength}": strength for strength in ("0.1", "1")}
"""Is EWC's penalty what keeps it from learning there? As it ships λ is 10."""
SEQUENCES |= {
    name: _changed("cheetah_joints", "ewc", f"λ {strength}", f"method.strength={strength}", seeds=3)
    for name, strength in LOOSER.items()
}


def variants_of(base: str, among: Iterable[str] = SEQUENCES) -> list[str]:
    """Those that are a sequence with other settings."""
    return [name for name in among if SEQUENCES[name].of == base]


STAGES = (
    (("door", "push", "push_frame"), FIRST),
    (("workbench",), FIRST),
    (("push_2000", "door_2000"), ("hnet",)),
    (("push_small",), ("hnet",)),
    (("push_members", "door_members", "workbench_members"), ("hnet",)),
    (("push20",), FIRST),
    (("double_integrator", "complex_ode", "cartpole"), INVERSION),
    (("cartpole_3000",), ("hnet", "single", "finetune")),
    (("double_integrator_hidden", "double_integrator_blind"), ("hnet",)),
    (variants_of("push20"), INVERSION),
    (("door", "push", "push_frame"), REST),
    (("workbench",), REST),
    (("door5", "slide", "cheetah_joints", "push_engines"), METHODS),
    (("push100",), ("hnet", "coreset_bytes", "finetune")),
    (ALL_KEPT, ("hnet_replay",)),
    (tuple(LOOSER), ("ewc",)),
    (("push100",), ("reservoir",)),
    (variants_of("push100"), ("hnet", "single", "chunked_hnet", "lora")),
    (("push20",), REST),
)
"""What is run first; within a stage one seed of all before the next."""


@dataclass(frozen=True)
class EvidenceCell:
    """One run."""

    sequence: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.sequence}/{self.method}/{self.seed}"

    @property
    def column(self) -> Sequence:
        return SEQUENCES[self.sequence]

    def words(self) -> list[str]:
        """The settings of `hypercrl train`."""
        column = self.column
        words = [f"env={column.env}", f"method={self.method}", *COMMON, *column.words]
        words += [f"threads={column.threads}", f"seed={self.seed}"]
        return [*words, *method_words(self.method, column)]


def method_words(method: str, column: Sequence) -> list[str]:
    """A method's own settings where they are not the shipped ones.

    As shipped, derpp, reservoir and coreset_bytes have as many bytes as hnet's parameters, and ftl
    features of about as many. PackNet's smallest share is the last task's, keep (1 − keep)^(N−1),
    which is largest at keep = 1/N; half as much again costs it a tenth and leaves the others more.
    As less is left than by its shipped half, it is retrained for longer.
    """
    if method == "coreset":
        return [f"method.per_task={column.coreset}"]
    if method == "packnet":
        return [f"method.keep={1.5 / column.tasks:.3g}", "method.retrain_updates=1500"]
    return []


def _of_stage(column: Sequence, methods: tuple[str, ...], seed: int) -> tuple[str, ...]:
    return tuple(m for m in methods if m in column.methods and seed < column.seeds)


def fits(name: str, only: str) -> bool:
    """Whether a cell's name fits one of the patterns of `only`, see `cells`."""
    return any(fnmatchcase(name, pattern) for pattern in only.split(","))


def check_patterns(only: str, names: Iterable[str]) -> None:
    """End the program where a pattern of `only` fits none of the names of cells."""
    every = list(names)
    for pattern in only.split(","):
        if not any(fits(name, pattern) for name in every):
            like = f"no cell is named so; the first one is {every[0]!r}"
            print(f"--only {pattern!r}: {like}", file=sys.stderr)
            raise SystemExit(2)


def cells(only: str = "*") -> Iterator[EvidenceCell]:
    """All cells, the most wanted first; of them those whose names fit a pattern of `only`.

    Args:
        only: patterns as of a shell, separated by commas: "push/*", "door/hnet/0". What fits an
            earlier pattern comes first.
    """
    patterns = only.split(",")
    fitting = (cell for cell in _by_stage() if fits(cell.name, only))
    yield from sorted(
        fitting, key=lambda cell: [fits(cell.name, pattern) for pattern in patterns].index(True)
    )


def _by_stage() -> Iterator[EvidenceCell]:
    for sequences, methods in STAGES:
        for seed in range(max(SEQUENCES[name].seeds for name in sequences)):
            for name in sequences:
                column = SEQUENCES[name]
                for method in _of_stage(column, methods, seed):
                    yield EvidenceCell(name, method, seed)
