"""The tests' short cut through Triton's interpreter, and that it is none where Triton differs."""

import importlib.util
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

CONFTEST = Path(__file__).parents[1] / "conftest.py"


@pytest.fixture
def patched_once():
    spec = importlib.util.spec_from_file_location("conftest_of_all", CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.patched_once


class Scope:
    def restore(self):
        pass


def a_triton():
    """What is asked of one, whose language has one function."""
    core = SimpleNamespace(is_builtin=lambda function: function == "own", load="own")
    parts = {"_patch_lang": lambda _: "patched", "_LangPatchScope": Scope}
    return SimpleNamespace(**parts), SimpleNamespace(core=core, load="own")


def test_a_language_is_patched_when_it_is_not(patched_once):
    interpreter, tl = a_triton()
    once = patched_once(interpreter, tl)
    function = SimpleNamespace(__globals__={"tl": tl})
    assert once(function) == "patched"
    tl.load = "interpreted"
    once(function).restore()


@pytest.mark.parametrize(
    "absent", ["_patch_lang", "_LangPatchScope", "is_builtin", "restore", "marks"]
)
def test_another_triton_is_left_alone(absent, patched_once):
    interpreter, tl = a_triton()
    if absent == "is_builtin":
        del tl.core.is_builtin
    elif absent == "restore":
        interpreter._LangPatchScope = object
    elif absent == "marks":
        tl.core.is_builtin = lambda _: False
    else:
        delattr(interpreter, absent)
    assert patched_once(interpreter, tl) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled")
def test_and_this_one_is_known():
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    if version("triton").startswith("3.9."):
        assert interpreter._patch_lang.__name__ == "once"
