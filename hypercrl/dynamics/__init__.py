"""Dynamics models and the networks that write their weights."""

from hypercrl.dynamics.hypernetwork import ACTIVATIONS, ChunkedHypernetwork, Hypernetwork
from hypercrl.dynamics.layout import MLPLayout
from hypercrl.dynamics.model import DynamicsModel
from hypercrl.dynamics.normaliser import Normaliser

__all__ = [
    "ACTIVATIONS",
    "ChunkedHypernetwork",
    "DynamicsModel",
    "Hypernetwork",
    "MLPLayout",
    "Normaliser",
]
