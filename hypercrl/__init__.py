"""Continual model-based reinforcement learning on robots with hypernetworks."""

__version__ = "0.1.0"
