"""A private PyBullet world, and a clear message where PyBullet is missing."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any


class BulletClient:
    """PyBullet's functions, bound to one world of its own, and its constants.

    `pybullet_utils` has a class like this, which prints a line for each world.
    """

    def __init__(self) -> None:
        """
        Raises:
            ValueError: pybullet is not installed; the message says how to install it.
        """
        self._pybullet = _import_pybullet()
        self._number: int = self._pybullet.connect(self._pybullet.DIRECT)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._pybullet, name)
        if callable(value):
            value = functools.partial(value, physicsClientId=self._number)
        self.__dict__[name] = value
        return value

    def __del__(self) -> None:
        number = self.__dict__.get("_number")
        if number is not None and self._pybullet.isConnected(number):
            self._pybullet.disconnect(number)


def _import_pybullet() -> Any:
    try:
        return importlib.import_module("pybullet")
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ValueError(
            "engine 'bullet' needs pybullet: pip install 'hypercrl[bullet]'. There are wheels for "
            f"Python up to 3.11; this is Python {version}"
        ) from error
