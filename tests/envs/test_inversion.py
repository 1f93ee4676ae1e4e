"""The tasks of the Actuator Inversion Benchmark against the equations that they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from hypercrl_envs import Task, TaskSequence, make_task
from hypercrl_envs.cartpole import CartpoleTask
from hypercrl_envs.complex_ode import ComplexOdeTask
from hypercrl_envs.double_integrator import DoubleIntegratorTask

CONFIGS = Path(__file__).parents[2] / "configs/env"
SEQUENCES = ("double_integrator", "complex_ode", "cartpole")


def sequence(name: str) -> TaskSequence:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return TaskSequence(config["tasks"], config["name"])


def solves(task: Task, script: Task, seed: int = 0) -> bool:
    """Whether what the other task's script does solves this one."""
    obs, info = task.reset(seed=seed)
    truncated = False
    while not truncated:
        obs, _, _, truncated, info = task.step(script.scripted_action(obs))
    return info["success"]


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_script_solves_its_own_of_four_tasks_and_none_that_is_inverted(name: str):
    tasks = [sequence(name).make(index) for index in range(4)]
    solved = np.array([[solves(task, script) for task in tasks] for script in tasks])
    # The cart's motor has two ways to turn, and two lengths of the pole.
    same = np.array([[_inversion(a) == _inversion(b) for b in tasks] for a in tasks])
    np.testing.assert_array_equal(solved, same)
    assert not same[np.arange(3), np.arange(1, 4)].any(), "every change inverts something"


def _inversion(task: Task) -> Any:
    if isinstance(task, ComplexOdeTask):
        return tuple(np.sign(task.coefficients))
    return tuple(np.atleast_1d(task._turns if hasattr(task, "_turns") else task._turn))  # type: ignore[attr-defined]


@pytest.mark.parametrize("viscosity", [0.0, 1.5])
def test_a_constant_force_moves_the_mass_as_the_sums_say(viscosity: float):
    task = DoubleIntegratorTask(["y"], mass=2.0, friction=viscosity)
    state = task.reset(seed=0)[0], task.get_state()
    start = np.array([-0.4, 0.3, 0.0, 0.0])
    task.set_state({**state[1], "physics": start})
    for _ in range(9):
        obs, *_ = task.step(np.array([0.8, 0.5], np.float32))
    # v_n = (F / f) (1 - r^n) with r = 1 - dt f / m, or n dt F / m; p_n = p_0 + dt (v_0 + … + v_8).
    force, steps = np.array([0.8, -0.5]), np.arange(10)[:, None]
    if viscosity:
        velocity = force / viscosity * (1 - (1 - 0.1 * viscosity / 2.0) ** steps)
    else:
        velocity = steps * 0.1 * force / 2.0
    expected = np.concatenate((start[:2] + 0.1 * velocity[:9].sum(0), velocity[9]))
    np.testing.assert_allclose(obs, expected, rtol=1e-6)


def test_the_mass_starts_in_a_corner_and_is_held_by_the_walls():
    task = DoubleIntegratorTask()
    starts = np.array([task.reset(seed=seed)[0] for seed in range(60)])
    assert (abs(starts[:, :2]) >= 0.8).all()
    assert len(np.unique(np.sign(starts[:, :2]), axis=0)) == 4
    for _ in range(40):
        obs, reward, *_ = task.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(obs, np.ones(4))
    assert reward == pytest.approx(-2.0 - 0.1 * 2.0)


def test_episodes_draw_each_of_the_four_inversions():
    task = DoubleIntegratorTask(drawn=True)
    push = np.array([0.5, 0.5], np.float32)
    seen = []
    for seed in range(80):
        start, _ = task.reset(seed=seed)
        seen.append(np.sign(task.step(push)[0][2:]))
        assert solves(task, task, seed)
        again = DoubleIntegratorTask(drawn=True)
        np.testing.assert_array_equal(again.reset(seed=seed)[0], start)
        np.testing.assert_array_equal(np.sign(again.step(push)[0][2:]), seen[-1])
    _, counts = np.unique(seen, axis=0, return_counts=True)
    assert len(counts) == 4
    assert counts.min() > 10  # of 20; less has a probability of one in a hundred


def test_the_ode_takes_the_real_part_of_powers_of_the_action():
    task = ComplexOdeTask([5.0, -4.0, 3.0])
    x, _ = task.reset(seed=1)
    a, b = 0.6, -0.8
    moved, *_ = task.step(np.array([a, b], np.float32))
    speed = 5.0 * a - 4.0 * (a * a - b * b) + 3.0 * (a**3 - 3 * a * b * b)
    assert moved[0] == pytest.approx(x[0] + 0.01 * speed, rel=1e-5)


def test_the_ode_pays_by_nearness():
    x = torch.tensor([[0.0], [-0.049], [0.07], [-0.15], [0.4], [-1.9], [3.0]])
    paid = ComplexOdeTask().reward(x, torch.zeros(7, 2), x)
    torch.testing.assert_close(paid, torch.tensor([1.0, 1.0, 1 / 2, 1 / 3, 1 / 4, 0.05, 0.0]))


@pytest.mark.parametrize("half_length", [0.3, 0.85])
@pytest.mark.parametrize("turned", [False, True])
def test_the_pole_falls_as_the_equations_of_motion_say(half_length: float, turned: bool):
    task = CartpoleTask(turned, half_length)
    task.reset(seed=0)
    data = task.simulator.data
    state = np.concatenate((data.qpos, data.qvel))
    generator = np.random.default_rng(0)
    for _ in range(12):
        action = generator.uniform(-0.5, 1, 1).astype(np.float32)
        force = float(-10.0 * action[0] if turned else 10.0 * action[0])
        for _ in range(10):
            state = _runge_kutta(state, force, half_length, 4e-3)
        obs, *_ = task.step(action)
    x, angle, *velocity = state
    expected = np.array([x, np.cos(angle), np.sin(angle), *velocity])
    assert abs(angle) > 0.1, "it has to fall for the test to say something"
    np.testing.assert_allclose(obs, expected, rtol=1e-4, atol=1e-4)


def _runge_kutta(state: np.ndarray, force: float, half_length: float, dt: float) -> np.ndarray:
    a = _motion(state, force, half_length)
    b = _motion(state + dt / 2 * a, force, half_length)
    c = _motion(state + dt / 2 * b, force, half_length)
    d = _motion(state + dt * c, force, half_length)
    return state + dt / 6 * (a + 2 * b + 2 * c + d)


def _motion(state: np.ndarray, force: float, half_length: float) -> np.ndarray:
    """Of a cart of 1 kg and a pole of 0.1 kg, a capsule of radius 0.045 m, both slightly damped.

    (M + m) ẍ + m l cos θ θ̈ = F + m l sin θ θ̇² − d₁ ẋ
    m l cos θ ẍ + (I + m l²) θ̈ = m g l sin θ − d₂ θ̇
    """
    _, angle, speed, spin = state
    m, length, r, h = 0.1, half_length, 0.045, 2 * half_length
    caps, rod = 4 / 3 * r, h  # shares of volume, over π r²
    m_caps, m_rod = m * caps / (caps + rod), m * rod / (caps + rod)
    inertia = m_rod * (3 * r * r + h * h) / 12
    inertia += m_caps * (2 / 5 * r * r + h * h / 4 + 3 / 8 * h * r)
    coupling = m * length * np.cos(angle)
    matrix = np.array([[1.0 + m, coupling], [coupling, inertia + m * length**2]])
    pushes = np.array(
        [
            force + m * length * np.sin(angle) * spin**2 - 5e-4 * speed,
            m * 9.81 * length * np.sin(angle) - 2e-6 * spin,
        ]
    )
    return np.array([speed, spin, *np.linalg.solve(matrix, pushes)])


def test_the_cart_is_paid_as_the_tolerances_say():
    # Upright, still and centred; a full push; 2 m away; falling at 5 rad/s; hanging.
    obs = torch.tensor(
        [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [2, 1, 0, 0, 0], [0, 1, 0, 0, 5], [0, -1, 0, 0, 0]]
    ).float()
    action = torch.tensor([[0.0], [1.0], [0.0], [0.0], [0.0]])
    paid = CartpoleTask().reward(obs, action, obs)
    torch.testing.assert_close(paid, torch.tensor([1.0, 0.8, 0.55, 0.55, 0.0]))


UPRIGHT_BY_5, BY_6 = (np.cos(np.deg2rad(angle)) for angle in (5.0, 6.0))


@pytest.mark.parametrize(
    ("name", "solved", "unsolved"),
    [
        ("double_integrator", [0.07, -0.07, 1, 1], [0.072, -0.072, 0, 0]),
        ("complex_ode", [-0.049], [0.051]),
        ("cartpole", [-0.25, UPRIGHT_BY_5, 0, 1, 1], [0, BY_6, 0, 0, 0]),
        ("cartpole", [0.25, 1, 0, 0, 0], [-0.26, 1, 0, 0, 0]),
        ("cartpole", [0, 1, 0, 0, 0], [0.26, 1, 0, 0, 0]),
    ],
)
def test_success_by_hand(name: str, solved: list[float], unsolved: list[float]):
    """|p| < 0.1; |x| < 0.05; cos θ ≥ 0.995, 5.7°, within 0.25 m of the middle."""
    task = make_task(name)
    assert task.success(torch.tensor([solved, unsolved])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("task", "wrong", "message"),
    [
        ("double_integrator", {"reversed_axes": ["z"]}, "unknown axis: 'z'"),
        ("double_integrator", {"drawn": True, "reversed_axes": ["x"]}, "drawn must be true or"),
        ("double_integrator", {"drawn": 1}, "drawn must be true or false"),
        ("double_integrator", {"mass": 0.0}, "mass must be 0.1 to 2"),
        ("complex_ode", {"coefficients": [0, 0]}, "not all of them zero"),
        ("complex_ode", {"coefficients": [20]}, "within ±10"),
        ("cartpole", {"half_length": 2.0}, "0.1 to 1 m, not 2.0"),
        ("cartpole", {"reversed_motor": 1}, "true or false, not 1"),
    ],
)
def test_parameters_out_of_their_ranges_are_refused(task: str, wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_task(task, **wrong)


@pytest.mark.parametrize("name", ["double_integrator", "complex_ode"])
def test_pictures_show_where_it_is_and_success_in_green(name: str):
    task = make_task(name, render_mode="rgb_array", width=64, height=48)
    obs, _ = task.reset(seed=0)
    first = task.render()
    assert first is not None
    assert first.shape == (48, 64, 3)
    solved = False
    while not solved:
        obs, *_, info = task.step(task.scripted_action(obs))
        solved = info["success"]
    last = task.render().astype(int)  # type: ignore[union-attr]

    def green(picture: np.ndarray) -> int:
        red, green_, blue = picture.astype(int).transpose(2, 0, 1)
        return int(((green_ > red + 40) & (green_ > blue + 40)).sum())

    assert green(first) == 0 < green(last)
