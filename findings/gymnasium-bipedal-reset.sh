#!/usr/bin/env bash
# gymnasium 1.4.0 with Box2D 2.3.10: BipedalWalker-v3 beside LunarLanderContinuous-v3
#
# Guess: reset(seed=s) begins an episode that the seed and the actions determine to the last bit, whatever was played before in that environment.
# Seen: so it is in a new environment, and always for LunarLander. A BipedalWalker in which another episode has gone before returns the same first
# observation from reset, and the first step already differs in 20 of its 24 numbers: reset takes the bodies out of the simulator's world and puts new
# ones in, but the world is the same. Whoever restores a state by a seed and the actions since, or checks that a seed is heeded by what reset returns
# alone, goes on in another episode. A new environment for each episode is exact.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet gymnasium==1.4.0 Box2D==2.3.10 pygame-ce==2.5.8
cat > played.py <<'PY'
import gymnasium
import numpy as np


def episode(env, seed):
    actions = np.random.default_rng(0).uniform(-1, 1, (200, *env.action_space.shape)).astype(np.float32)
    seen = [env.reset(seed=seed)[0]]
    for action in actions:
        obs, _, terminated, truncated, _ = env.step(action)
        seen.append(obs)
        if terminated or truncated:
            break
    return np.array(seen)


def first_difference(one, other):
    short = min(len(one), len(other))
    differs = np.nonzero((one[:short] != other[:short]).any(1))[0]
    if not len(differs):
        return "the same"
    step = int(differs[0])
    which = np.nonzero(one[step] != other[step])[0].tolist()
    return f"differs from observation {step} on, in {which}, in the end by {np.abs(one[short - 1] - other[short - 1]).max():.1g}"


for name in ("BipedalWalker-v3", "LunarLanderContinuous-v3"):
    fresh = episode(gymnasium.make(name), 0)
    env = gymnasium.make(name)
    first, _, again = episode(env, 0), episode(env, 1), episode(env, 0)
    print(name, "| a new environment:", first_difference(fresh, first), "| after another episode:", first_difference(first, again))
PY
venv/bin/python played.py | tee said.txt
same="new environment: the same"
grep -q "^BipedalWalker-v3 | a $same | after another episode: differs from observation 1 on" said.txt &&
  grep -q "^LunarLanderContinuous-v3 | a $same | after another episode: the same" said.txt || { echo "it behaves otherwise now"; exit 1; }
echo "as described"
