#!/usr/bin/env bash
# stable-worldmodel 0.1.1, solver.CEMSolver
#
# Guess: configure(action_space=Box(-1, 1, ...)) tells the solver the bounds, and it plans within them.
# Seen: of the space it takes the shape alone. Candidates are never clipped, so that the model is asked
# about actions that cannot be executed, and where the best action lies beyond a bound the plan does
# too: 5.0 where the cost is least at 5, of a Box from -1 to 1. The best action within is found by
# clipping in get_cost, which the caller has to do.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1 stable-worldmodel==0.1.1 opencv-python-headless==5.0.0.93
venv/bin/python - <<'PY'
import gymnasium
import torch
from stable_worldmodel.policy import PlanConfig
from stable_worldmodel.solver import CEMSolver


class Cost:
    def get_cost(self, info, actions):
        return (actions - 5).square().sum((-1, -2))


solver = CEMSolver(Cost(), num_samples=300, n_steps=30, topk=30, var_scale=3)
space = gymnasium.spaces.Box(-1, 1, (1, 1))
solver.configure(action_space=space, n_envs=1, config=PlanConfig(horizon=2, receding_horizon=1))
plan = solver.solve({"state": torch.zeros(1, 3)})["actions"][0]
print("plan", plan.tolist(), "space", space)
assert (plan > 4.5).all(), "it behaves otherwise now"
PY
echo "as described"
