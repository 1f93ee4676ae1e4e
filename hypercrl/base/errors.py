"""The exceptions that are meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake the user can mend; the CLI prints its message alone and exits with code 2."""


class GPUUnavailable(UserError):
    """A GPU is full or gone; a grid tries again elsewhere, or later (exit code 3)."""
