"""The exceptions that are meant for the person at the keyboard, and what others say."""


class UserError(Exception):
    """A mistake the user can mend; the CLI prints its message alone and exits with code 2."""


def first_line(error: BaseException) -> str:
    """What an error says first, or its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class GPUUnavailable(UserError):
    """A GPU is full or gone; a grid tries again elsewhere, or later (exit code 3)."""
