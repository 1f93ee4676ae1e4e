"""What is kept of the transitions, and which give way when the room is used up."""

from hypercrl.replay.coreset import SELECTIONS, Coreset
from hypercrl.replay.fifo import Replay
from hypercrl.replay.stream import POLICIES, StreamStore

__all__ = ["POLICIES", "SELECTIONS", "Coreset", "Replay", "StreamStore"]
