"""Pictures from MuJoCo on machines with or without a display, or without any GL library.

MuJoCo chooses its GL backend once, when it is imported, from the variable `MUJOCO_GL`. This
module is imported before MuJoCo and chooses for it, so that training never needs a GL library:
MuJoCo set to EGL cannot even be imported where libEGL or OpenGL itself is missing.
"""

# MuJoCo's compiled modules come without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import mujoco


class RenderingUnavailable(RuntimeError):
    """No picture can be drawn, on this machine or of this task; the message says why."""


def choose_gl_backend() -> None:
    """Set `MUJOCO_GL` for headless Linux, unless the user has set it.

    "egl" where libEGL and an OpenGL can be loaded, else "disable" (physics works, rendering
    raises `RenderingUnavailable`). With a display, and on other systems, MuJoCo's own choice is
    right.
    """
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux" or os.environ.get("DISPLAY"):
        return
    # PyOpenGL, through which MuJoCo speaks with EGL, takes any of the three.
    opengl = ("libOpenGL.so.0", "libGL.so.1", "libGLESv2.so.2")
    egl = _can_load("libEGL.so.1") and any(map(_can_load, opengl))
    os.environ["MUJOCO_GL"] = "egl" if egl else "disable"


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def import_triton_first() -> None:
    """Triton and Mesa's software renderer both bring LLVM; Triton crashes if it comes second."""
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")


def make_renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    """An off-screen renderer of `height` × `width` pixels.

    Raises:
        RenderingUnavailable: no GL library, no driver, or a backend that does not start.
    """
    import mujoco

    import_triton_first()
    try:
        return mujoco.Renderer(model, height=height, width=width)
    # The backends fail in many ways: ImportError, RuntimeError, AttributeError (rendering
    # disabled), the errors of glfw, PyOpenGL and MuJoCo. All mean the same to the user.
    except Exception as error:
        backend = os.environ.get("MUJOCO_GL", "unset")
        raise RenderingUnavailable(
            f"cannot render (MUJOCO_GL={backend}: {error}). On a machine without a display "
            "install EGL and OpenGL (apt-get install libegl1 libopengl0 libgl1-mesa-dri "
            "libegl-mesa0), leave MUJOCO_GL unset or set it to egl, and import hypercrl_envs "
            "before mujoco"
        ) from error


def as_picture(value: Any, caption: str) -> np.ndarray:
    """What `render` of a task of others' returned, as uint8 [height, width, 3].

    Shades of grey get three channels, and transparency is left out.

    Args:
        caption: of the task.

    Raises:
        RenderingUnavailable: it is no picture.
    """
    array = isinstance(value, np.ndarray)
    if array and value.dtype == np.uint8 and value.size:
        grey = value[..., None] if value.ndim == 2 else value
        if grey.ndim == 3 and grey.shape[2] in (1, 3, 4):
            return np.broadcast_to(grey[..., :3], (*grey.shape[:2], 3))
    given = f"{value.dtype} {list(value.shape)}" if array else type(value).__name__
    raise RenderingUnavailable(
        f"{caption} gave no picture: render returned {given}, and is to return uint8 "
        "[height, width, 3]"
    )


def fitted(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """All of a picture [h, w, 3], as large as fits, in the middle of a black one of that size."""
    scale = min(height / picture.shape[0], width / picture.shape[1])
    rows, columns = (
        np.arange(size) * given // size
        for given in picture.shape[:2]
        for size in [max(1, round(given * scale))]
    )
    whole = np.zeros((height, width, 3), np.uint8)
    top, left = (height - len(rows)) // 2, (width - len(columns)) // 2
    whole[top : top + len(rows), left : left + len(columns)] = picture[rows[:, None], columns]
    return whole
