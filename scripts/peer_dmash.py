"""DMA*-SH's own program on the inversions of our sequences, scored as our agents are.

DMA*-SH (Benad et al. 2026, arXiv:2602.06550) is soft actor-critic whose actor, critic and dynamics
model share adapters; a hypernetwork writes these from what an LSTM has read of the last
transitions, and prediction alone trains both. It is https://github.com/dma-sh/dmash at c74cb4a;
https://github.com/ml-jku/hopfield-layers and the packages of its uv.lock are on the path.

It runs as it is, with its defaults, in its own environments (`cartpole`: in ours, where an action
is held for four of its steps). Set from outside are the contexts, which are the four inversions of
our sequence; how many robots collect, and for how long at random; and when it ends. What it
measures of its embeddings, from which nothing is learned, is left out: random forests of minutes.
Adapters of a batch are applied at once and not in a loop, five times as fast (`adapters_differ`).

Scores are those of its own evaluation on our tasks: ten episodes each, the policy's mean, once
after the first steps of an episode have filled the context window and it began anew ("warm"), and
once without those ("cold", as our agents are scored). Every step of a training environment counts,
those that fill windows too.
"""

# It need not be there.
# pyright: reportMissingImports=false

from __future__ import annotations

import copy
import io
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from hypercrl_envs import make_task

EPISODES = 10
ENOUGH = 0.975
"""Mean success at two scores in a row with which a run ends early."""
POINTS = (3600, 6000, 9000, 12000, 18000, 24000, *range(36000, 2000000, 12000))
"""Steps in all training environments together after which there is a score."""
SIGNS = ((1.0, 1.0), (-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0))


@dataclass(frozen=True)
class Ground:
    """One of our sequences, and the same four tasks in the words of an environment of theirs.

    Attributes:
        env_id: what they are trained in.
        contexts, tasks: parameters of each there and of our `task`.
    """

    env_id: str
    task: str
    contexts: tuple[dict[str, Any], ...]
    tasks: tuple[dict[str, Any], ...]


_DI = Ground(
    "dmash/DI-sparse-v0",
    "double_integrator",
    tuple({"action_factor_0": x, "action_factor_1": y} for x, y in SIGNS),
    tuple(
        {"reversed_axes": [a for a, s in zip("xy", signs, strict=True) if s < 0]} for signs in SIGNS
    ),
)
_COEFFICIENTS = ((5.0, 5.0), (-5.0, -5.0), (5.0, -5.0), (-5.0, 5.0))
_POLES = tuple(
    {"half_length": length, "reversed_motor": turned}
    for length, turned in ((0.3, False), (0.85, True), (0.85, False), (0.3, True))
)
GROUNDS = {
    "double_integrator": Ground("dmash/DI-dense-v0", _DI.task, _DI.contexts, _DI.tasks),
    "double_integrator_sparse": _DI,
    "complex_ode": Ground(
        "dmash/ODE-v0",
        "complex_ode",
        tuple({"parameter_0": a, "parameter_1": b} for a, b in _COEFFICIENTS),
        tuple({"coefficients": list(c)} for c in _COEFFICIENTS),
    ),
    "cartpole": Ground("hypercrl/Cartpole-v0", "cartpole", _POLES, _POLES),
}
"""`double_integrator` has the dense reward of their class, which is ours; sparse is what they
publish: 1 within 0.1 of the goal, else 0."""


@dataclass(frozen=True)
class Way:
    """How it is run.

    Attributes:
        robots: environments that step side by side, before one update each time; one alone draws
            an inversion for every episode, and so has an update for each of its steps.
        random: steps at random in all, before anything is learned.
        method: of its own names.
    """

    robots: int
    random: int
    method: str = "inferred_hypernet_shared"


WAYS = {
    "four": Way(4, 1200),
    "one": Way(1, 1200),
    "told": Way(4, 1200, "aware_concat"),
    "published": Way(10, 50000),
}
"""`four` and `one` have as many random steps as our agents; `told` is its soft actor-critic to
which the context is an observation; `published` has the robots and the random steps of its
defaults."""


class _Ended(Exception):
    """It has had its steps, or its time."""


class _Drawn(gymnasium.Env):
    """One robot for several environments: another one after every episode that has ended."""

    def __init__(self, envs: Sequence[gymnasium.Env], seed: int) -> None:
        self._envs, self._rng = envs, np.random.default_rng(seed)
        self._at, self._ended = envs[0], True
        self.observation_space = envs[0].observation_space
        self.action_space = envs[0].action_space
        self._max_episode_steps = envs[0].get_wrapper_attr("_max_episode_steps")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self._ended:
            self._at, self._ended = self._envs[int(self._rng.integers(len(self._envs)))], False
        return self._at.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        *result, _ = self._at.step(action)
        self._ended = bool(result[2] or result[3])
        return *result, {}


class _Counted:
    """The training environments; `at` is told of every step taken in them, before it is taken."""

    def __init__(self, envs: SyncVectorEnv, at: Callable[[int], None]) -> None:
        self._envs, self._at, self.steps = envs, at, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._envs, name)

    def step(self, actions: Any) -> Any:
        self._at(self.steps)
        self.steps += self._envs.num_envs
        return self._envs.step(actions)


class _Scored(gymnasium.Wrapper):
    """One of our tasks: return and success at the last step of every episode that was ended."""

    def __init__(self, task: gymnasium.Env, told: Sequence[float]) -> None:
        super().__init__(task)
        self._told = np.array(told, np.float32)
        space: Any = task.observation_space
        beyond = np.full(len(told), 1e3, np.float32)
        low, high = np.append(space.low, -beyond), np.append(space.high, beyond)
        self.observation_space = gymnasium.spaces.Box(low, high)
        self.ended: list[tuple[float, float]] = []
        self._return = 0.0

    def reset(self, **words: Any) -> Any:
        self._return = 0.0
        obs, info = self.env.reset(**words)
        return np.append(obs, self._told), info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        if terminated or truncated:
            self.ended.append((self._return, float(info["success"])))
        return np.append(obs, self._told), reward, terminated, truncated, {}


@dataclass
class _Parts:
    """What `train` of its program makes: its models by name, its settings, its updates so far."""

    made: dict[str, Any] = field(default_factory=dict)
    updates: int = 0


def _watched(sac: Any, parts: _Parts) -> None:
    """Let the makers of its models leave them in `parts` as well, and count its updates."""

    def kept(name: str, maker: Callable[..., Any]) -> Callable[..., Any]:
        def make(*arguments: Any, **words: Any) -> Any:
            return parts.made.setdefault(name, maker(*arguments, **words))

        return make

    losses = sac.compute_losses

    def counted(*arguments: Any, **words: Any) -> Any:
        parts.updates += bool(words["training"])
        return losses(*arguments, **words)

    sac.compute_losses = counted
    sac.modify_groups = kept("args", sac.modify_groups)
    sac.Actor = kept("actor", sac.Actor)
    sac.ForwardModel = kept("forward", sac.ForwardModel)
    for encoder in ("MLPContextEncoder", "LSTMContextEncoder"):
        setattr(sac, encoder, kept("encoder", getattr(sac, encoder)))


def _adapted_at_once(base: Any) -> None:
    """Let its models multiply by the adapters of a batch at once, where theirs is a loop over it.

    As they are by default: adapters with biases and a bottleneck, added to what goes in.
    """

    def weights(self: Any, context: torch.Tensor, obs: torch.Tensor) -> torch.Tensor | None:
        if getattr(self, "fc_hnet", None) is None:
            return None
        _, context = self.embed({"obs": obs}, context)
        return self.fc_hnet(cond_input=context, ret_format="flattened")

    def forward(self: Any, x: Any, context: Any, hnet_weights: Any = None) -> Any:
        if self.context_merge_type not in ("hypernet", "hypernet_shared"):
            return one_by_one(self, x, context, hnet_weights)
        if self.context_merge_type == "hypernet":
            hnet_weights = self.fc_hnet(cond_input=context, ret_format="flattened")
        x = self.fcs(x)
        down, less, up, more = (
            piece.view(len(x), *shape)
            for piece, shape in zip(
                hnet_weights.split([int(np.prod(s)) for s in self.fc_mnet.param_shapes], 1),
                self.fc_mnet.param_shapes,
                strict=True,
            )
        )
        narrow = torch.relu(torch.baddbmm(less[..., None], down, x[..., None]))
        return torch.relu(x + torch.baddbmm(more[..., None], up, narrow)[..., 0]), hnet_weights

    one_by_one = base._forward
    base._forward, base.get_hnet_weights = forward, weights


def adapters_differ(model: Any, base: Any) -> float:
    """Largest relative difference of what a dynamics model predicts with both ways to adapt it."""
    generator = torch.Generator().manual_seed(0)
    words = [
        torch.randn(16, size, generator=generator)
        for size in (int(model.obs_dim), int(model.action_dim), int(model.context_dim))
    ]
    with torch.no_grad():
        loop = model(*words)
        kept = base._forward, base.get_hnet_weights
        _adapted_at_once(base)
        at_once = model(*words)
        base._forward, base.get_hnet_weights = kept
    return float((loop - at_once).abs().max() / loop.abs().max())


def _score(parts: _Parts, ground: Ground, evaluate: Callable[..., Any]) -> dict[str, Any]:
    """Success and return of every task, warm and cold; the random states stay as they are."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    args = copy.copy(parts.made["args"])
    args.num_eval_episodes = 1  # of each of the robots, as many of each task as episodes
    told = args.context_mode == "aware"
    nothing = SimpleNamespace(insert=lambda *_, **__: None)
    models = [copy.deepcopy(parts.made.get(name)) for name in ("actor", "encoder", "forward")]
    actor, encoder, forward = models
    scores: dict[str, Any] = {}
    for name, args.context_warm_up in (("warm", True), ("cold", False)):
        tasks = [
            _Scored(make_task(ground.task, **task), tuple(context.values()) if told else ())
            for task, context in zip(ground.tasks, ground.contexts, strict=True)
            for _ in range(EPISODES)
        ]
        envs = SyncVectorEnv(
            [lambda t=task: gymnasium.wrappers.RecordEpisodeStatistics(t) for task in tasks],
            autoreset_mode=AutoresetMode.DISABLED,
        )
        envs.reset(seed=1000)
        with torch.no_grad(), torch.random.fork_rng([]):
            on = torch.device("cpu")
            evaluate(args, actor, encoder, None, forward, None, envs, nothing, on)
        ended = np.array([task.ended for task in tasks]).reshape(len(ground.tasks), EPISODES, 2)
        figures = ended.mean(1)
        scores[name] = {
            "success": [round(float(x), 4) for x in figures[:, 1]],
            "return": [round(float(x), 3) for x in figures[:, 0]],
        }
        envs.close()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    return scores


def differs(ground: Ground) -> float:
    """Largest difference of an observation or dense reward between theirs and ours, at random."""
    if ground.task == "cartpole":
        return 0.0  # there it is ours
    largest, generator = 0.0, np.random.default_rng(0)
    for parameters, context in zip(ground.tasks, ground.contexts, strict=True):
        ours, theirs = (
            make_task(ground.task, **parameters),
            gymnasium.make(ground.env_id, **context),
        )
        obs, _ = ours.reset(seed=1)
        theirs.reset(seed=1)
        inner: Any = theirs.unwrapped
        inner.x, inner.position, inner.velocity = obs.copy(), obs[:2].copy(), obs[2:].copy()
        for _ in range(50):
            action = generator.uniform(-1, 1, 2).astype(np.float32)
            (obs, reward, *_), (obs_, reward_, *_) = ours.step(action), theirs.step(action)
            largest = max(largest, float(np.abs(obs - obs_).max()))
            if "sparse" not in ground.env_id:
                largest = max(largest, abs(float(reward) - float(reward_)))
    return largest


def _words(ground: Ground, way: Way, seed: int) -> list[str]:
    """The command line of its program."""
    words = ["sac.py", "--env_id", ground.env_id, "--method", way.method, "--seed", str(seed)]
    words += ["--num_train_envs", str(max(way.robots, len(ground.contexts)))]
    words += ["--num_eval_envs", str(len(ground.contexts)), "--num_eval_episodes", "1"]
    words += ["--cuda", "False"]
    words += ["--learning_starts", str(way.random // way.robots)]
    if way.robots == 1:
        words += ["--total_timesteps", "100000"]  # as large as its buffer
    if way.method.startswith("aware"):
        words += ["--di_goal_threshold", "0"]  # else it is taken for a context, and looked up
    return words


def _prepare(ground: Ground, way: Way, seed: int, at: Callable[[int], None]) -> Any:
    """Its program, with our inversions for contexts and a look at every step."""
    from dmash.contexts import context, model, sac

    sac.BaseModel = model.BaseModel
    if ground.env_id not in gymnasium.registry:
        dense = {"reward_type": "dense"}
        gymnasium.register(ground.env_id, "dmash.envs:DIEnv", max_episode_steps=100, kwargs=dense)
    ranges = context.CONTEXT_DEFAULTS
    ranges.setdefault(ground.env_id, ranges["dmash/DI-sparse-v0"])
    four = ground.contexts
    context.select_context_instances = lambda _, number, __: [
        dict(four[i % len(four)]) for i in range(number)
    ]
    sac.dci = lambda *_: (0.0, 0.0, 0.0)
    sac.mig = sac.beta_vae = sac.dcimig = lambda *_, **__: 0.0
    sac.compute_metrics = lambda *_, **__: ({},) * 8
    setup = sac.setup_context_env

    def counted(*arguments: Any) -> Any:
        envs, *rest = setup(*arguments)
        if way.robots == 1:
            drawn = gymnasium.wrappers.RecordEpisodeStatistics(_Drawn(envs.envs, seed), 20)
            envs = SyncVectorEnv([lambda: drawn], autoreset_mode=AutoresetMode.DISABLED)
        return _Counted(envs, at), *rest

    sac.setup_context_env = counted
    return sac


def run(name: str, steps: int, seconds: float) -> dict[str, Any]:
    """One run, to its last step, its time or until it has solved the tasks twice.

    Args:
        name: ground/way/seed.
        steps: in all training environments together; seconds: at most.
    """
    torch.set_num_threads(1)
    of, by, number = name.split("/")
    ground, way, seed = GROUNDS[of], WAYS[by], int(number)
    began, points, parts = time.monotonic(), [], _Parts()
    wanted = [p for p in POINTS if p <= steps]

    def at(step: int) -> None:
        late = time.monotonic() - began > seconds
        due = bool(wanted) and step >= wanted[0]
        if due:
            wanted.pop(0)
        if (due or late) and "actor" in parts.made and parts.updates:
            point = {"steps": step, "updates": parts.updates}
            points.append(point | _score(parts, ground, evaluate))
            print(name, json.dumps(points[-1], allow_nan=False), file=sys.stderr, flush=True)
        last = [np.mean(p["warm"]["success"]) for p in points][-2:]
        if late or not wanted or (len(last) == 2 and min(last) >= ENOUGH):
            raise _Ended

    sac = _prepare(ground, way, seed, at)
    evaluate = sac.make_evaluation_and_fill_ds
    _watched(sac, parts)
    _adapted_at_once(sac.BaseModel)
    sys.argv = _words(ground, way, seed)
    try:
        with redirect_stdout(io.StringIO()):
            sac.train()
    except _Ended:
        pass
    return {
        "cell": name,
        "points": points,
        "differs": differs(ground),
        "words": sys.argv[1:],
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(time.process_time(), 1),
        "torch": torch.__version__,
    }
