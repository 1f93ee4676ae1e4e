"""A world that two tasks of a sequence are two signs of."""

import gymnasium
import numpy as np


class LinearWorld(gymnasium.Env):
    """s' = keep · s + sign · gain · a, paid for being near the middle."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, sign=1, keep=1.0, gain=1.0, render_mode=None):
        self.sign, self.keep, self.gain = sign, keep, gain

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.state, {}

    def step(self, action):
        change = self.gain * self.sign * action
        self.state = (self.keep * self.state + change).astype(np.float32)
        return self.state, -float(np.linalg.norm(self.state)), False, False, {}
