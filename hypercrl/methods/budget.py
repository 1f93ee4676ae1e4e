"""Equal bytes: what a memory may hold so that a method costs no more than hnet."""

from hypercrl.base.errors import UserError
from hypercrl.base.sizes import FLOAT
from hypercrl.dynamics import DynamicsModel, MLPLayout
from hypercrl.methods.hnet import HnetConfig


def rows_at_equal_bytes(model: DynamicsModel, network_bytes: int, row_bytes: int) -> int:
    """Rows of `row_bytes` that fit, beside a network, into what hnet keeps for this model.

    Counted are the parameters of `method=hnet` at its default widths. The targets that hnet adds
    with every task are not, so that the memory is the smaller one from the second task on.

    Raises:
        UserError: the network alone is larger.
    """
    defaults = HnetConfig("hnet")
    hypernetwork = MLPLayout([defaults.embedding_size, *defaults.hidden, model.layout.numel])
    rows = (FLOAT * hypernetwork.numel - network_bytes) // row_bytes
    if rows < 1:
        raise UserError(
            "equal bytes with hnet leave no room for a memory; give method.capacity instead."
        )
    return rows


def transition_bytes(model: DynamicsModel, extra: int = 0) -> int:
    """Bytes of one stored transition with its task and `extra` further numbers."""
    return FLOAT * (2 * model.obs_size + model.action_size + 1 + extra)
