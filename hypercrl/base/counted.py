"""Numbers of things, in words."""


def counted(number: int, thing: str) -> str:
    """
    >>> counted(1, "task"), counted(2, "task"), counted(0, "task")
    ('1 task', '2 tasks', '0 tasks')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
