"""A window on a running simulation: MuJoCo's passive viewer, for `render_mode="human"`."""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import warnings

import mujoco

from hypercrl_envs.rendering import RenderingUnavailable, import_triton_first

_NO_WINDOW = (
    'render_mode="human" opens a window of MuJoCo\'s viewer, and {}; '
    'render_mode="rgb_array" needs no display'
)


def has_display() -> bool:
    """Whether there is a screen, as far as the environment says."""
    on_linux = sys.platform == "linux"
    return not on_linux or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Window:
    """Shows states in real time; what is done in it leaves the simulation alone.

    It opens at the first state that is shown. The view is that of a camera until Esc is pressed;
    then the mouse moves it. Once it is closed by hand, nothing is shown any more.
    """

    def __init__(self, camera: str, rate: float) -> None:
        """
        Args:
            camera: name of one of the model's cameras.
            rate: states in a second; `show` waits for its time.

        Raises:
            RenderingUnavailable: there is no display, or no window can be opened on it.
        """
        _try_display()
        self._camera, self._period = camera, 1.0 / rate
        self._model = self._data = self._viewer = None
        self._drawing: set[threading.Thread] = set()
        self._due = 0.0

    def show(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Show a state of `model`; another model than before gets a new window."""
        if self._viewer is not None and not self._viewer.is_running():
            return
        if model is not self._model:
            self._open(model)
        assert self._viewer is not None
        with self._viewer.lock():
            mujoco.mj_copyData(self._data, model, data)
            mujoco.mj_kinematics(model, self._data)
            mujoco.mj_camlight(model, self._data)
        self._viewer.sync()
        time.sleep(max(0.0, self._due - time.perf_counter()))
        self._due = max(self._due, time.perf_counter()) + self._period

    def _open(self, model: mujoco.MjModel) -> None:
        import mujoco.viewer

        self.close()
        # Not the simulation's own data: the viewer moves them with the mouse, and steps them once.
        self._model, self._data = model, mujoco.MjData(model)
        others = set(threading.enumerate())
        try:
            self._viewer = mujoco.viewer.launch_passive(
                model, self._data, show_left_ui=False, show_right_ui=False
            )
        except RuntimeError as error:
            # Such as macOS, where the script is to be run by mjpython.
            raise RenderingUnavailable(_NO_WINDOW.format(f"it says: {error}")) from error
        self._drawing = set(threading.enumerate()) - others
        # Before what the viewer itself has registered: see close().
        atexit.register(self.close)
        with self._viewer.lock():
            self._viewer.cam.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._viewer.cam.fixedcamid = model.camera(self._camera).id

    def close(self) -> None:
        """Close the window, if it is open."""
        atexit.unregister(self.close)
        if self._viewer is not None:
            self._viewer.close()
        # The viewer only asks its thread to end; one that draws while GLFW terminates would hang.
        for thread in self._drawing:
            thread.join()
        self._drawing = set()
        self._model = self._data = self._viewer = None


def _try_display() -> None:
    """Look first: without a display the viewer ends the process, past every `except`."""
    if not has_display():
        raise RenderingUnavailable(_NO_WINDOW.format("there is no display (DISPLAY is not set)"))
    if sys.platform != "linux":
        return
    import_triton_first()
    import glfw

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", glfw.GLFWError)
        window = None
        if glfw.init():
            glfw.window_hint(glfw.VISIBLE, glfw.FALSE)
            window = glfw.create_window(16, 16, "", None, None)
            glfw.default_window_hints()
        if not window:
            display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            raise RenderingUnavailable(
                _NO_WINDOW.format(f"none can be opened on the display {display!r}")
            )
        glfw.destroy_window(window)
