"""The GPUs that a grid may use, as the driver tells a process of its own.

Who asks for the memory of a GPU holds a context on it to the end: a grid that lasts for hours had
better not be the one. This file is also that process's program, and imports nothing of ours.
"""

import ctypes
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ANSWER_SECONDS = 60.0
"""A driver that was idle needs seconds to begin, and longer with many GPUs."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name for CUDA_VISIBLE_DEVICES, the same for every process, and its free bytes."""

    name: str
    free: int


class NoAnswer(Exception):
    """The driver cannot be asked, and why."""


def visible_gpus(environment: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that a process with this environment sees, in CUDA's order.

    Raises:
        NoAnswer: there is no driver, no GPU, or they cannot be used.
    """
    try:
        said = subprocess.run(
            [sys.executable, "-I", __file__],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"the driver does not answer within {ANSWER_SECONDS:g} s") from error
    if said.returncode:
        raise NoAnswer(said.stderr.strip().rpartition("\n")[2])
    return [Gpu(**gpu) for gpu in json.loads(said.stdout)]


def _ask() -> list[dict[str, str | int]]:
    """The driver's answers; see its API: Device Management, Primary Context Management."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise SystemExit(str(error)) from error

    def call(name: str, *arguments: object) -> None:
        if code := getattr(cuda, name)(*arguments):
            said = ctypes.c_char_p()
            cuda.cuGetErrorString(code, ctypes.byref(said))
            raise SystemExit(f"{name}: {(said.value or b'error').decode()} ({code})")

    call("cuInit", 0)
    count = ctypes.c_int()
    call("cuDeviceGetCount", ctypes.byref(count))
    return [_about(call, index) for index in range(count.value)]


def _about(call: Callable[..., None], index: int) -> dict[str, str | int]:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    whole, own = (ctypes.c_ubyte * 16)(), (ctypes.c_ubyte * 16)()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDeviceGetUuid", whole, device)
    call("cuDeviceGetUuid_v2", own, device)  # of an instance of MIG, its own
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    kind = "GPU" if bytes(own) == bytes(whole) else "MIG"
    return {"name": f"{kind}-{uuid.UUID(bytes=bytes(own))}", "free": free.value}


if __name__ == "__main__":
    print(json.dumps(_ask(), allow_nan=False))
