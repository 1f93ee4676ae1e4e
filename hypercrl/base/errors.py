"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake the user can mend; the CLI prints its message alone and exits with code 2."""
