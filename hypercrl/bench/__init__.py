"""A grid of runs, each a process of its own, on this machine or on a cluster."""

from hypercrl.bench.cell import Cell, Status
from hypercrl.bench.grid import RECALL, TRAINING, Grid, Suite, compose_cells
from hypercrl.bench.scheduler import run_grid
from hypercrl.bench.workers import LocalWorkers, Workers

__all__ = [
    "RECALL",
    "TRAINING",
    "Cell",
    "Grid",
    "LocalWorkers",
    "Status",
    "Suite",
    "Workers",
    "compose_cells",
    "run_grid",
]
