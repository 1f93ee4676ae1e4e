import gc
import importlib.metadata
import importlib.util
import os
import signal
import sys

import pytest
import torch

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so what they start.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        interrupts = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if interrupts else signal.SIG_DFL)


# Until everything is imported there is no garbage, for which half a million objects would be looked
# through again and again.
gc.disable()

# Small tensors: a second thread costs more than it brings, and test workers share the cores.
torch.set_num_threads(1)

# Kernels run on the GPU where there is one, else in Triton's interpreter, which has to be chosen
# before Triton is imported.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

NO_BULLET = "pybullet is not installed: it has wheels for Python 3.11 only"


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported stays, and no collection looks at it again
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("bullet") and importlib.util.find_spec("pybullet") is None:
        pytest.skip(NO_BULLET)
    if extra := item.get_closest_marker("extra"):
        # Whoever asks for these tests alone (make extras) has to have what they need.
        end = pytest.fail if item.config.getoption("-m") == "extra" else pytest.skip
        for name in extra.args:
            if not any(importlib.metadata.Distribution.discover(name=name)):
                end(f"{name} is not installed: see make extras")


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own(tmp_path_factory):
    """The key that configurations are signed with is not the one of who runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def _path_of_its_own():
    """What a test, or the command that it calls, makes importable is so for no other test."""
    kept = list(sys.path)
    yield
    sys.path[:] = kept


def patched_once(interpreter, tl):
    """Triton's way to patch its language for the interpreter, but for what is patched already; None
    where this Triton is another one than that way is known of (3.9), which patches as it likes."""
    try:
        patch, nothing, builtin = interpreter._patch_lang, interpreter._LangPatchScope, tl.core
        nothing().restore()
        if not builtin.is_builtin(tl.load):
            return None
    except (AttributeError, TypeError):
        return None

    def once(function):
        modules = function.__globals__.values()
        unpatched = any(builtin.is_builtin(m.load) for m in modules if m is tl or m is tl.core)
        return patch(function) if unpatched else nothing()

    return once


@pytest.fixture(scope="session", autouse=True)
def _language_patched_once():
    """Triton's interpreter patches its language when a kernel is launched, and all of it once more
    whenever the kernel calls a function: two fifths of the time of kernels of many functions."""
    if DEVICE == "cuda" or importlib.util.find_spec("triton") is None:
        yield
        return
    from triton import language as tl
    from triton.runtime import interpreter

    with pytest.MonkeyPatch.context() as patch:
        if (once := patched_once(interpreter, tl)) is not None:
            patch.setattr(interpreter, "_patch_lang", once)
        yield


@pytest.fixture
def device():
    pytest.importorskip("triton")
    return DEVICE
