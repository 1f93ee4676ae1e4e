"""What a class of somebody else's may raise while it is made, as one message."""

from collections.abc import Iterator
from contextlib import contextmanager

from hypercrl.base.errors import UserError


@contextmanager
def making(what: str) -> Iterator[None]:
    """Make something of somebody else's in the block.

    Args:
        what: it is, as it was chosen: "planner=mine".

    Raises:
        UserError, ValueError: as the block raised it: a setting that does not fit.
        ValueError: the block raised something else.

    Example:
        >>> with making("planner=mine"):  # whatever KeyError it raises is a ValueError that says so
        ...     planner = dict(samples=100)
    """
    from hypercrl_envs.checked import told

    try:
        yield
    except (UserError, ValueError):
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what}: making it {told(error)}") from error
