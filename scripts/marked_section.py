"""Pages of which a program writes a part, between two marks, and a person the rest."""

from hypercrl.base.errors import UserError


def with_section(page: str, begin: str, end: str, text: str) -> str:
    """The page with this text from behind the mark `begin` to the next `end`.

    Raises:
        UserError: a mark is missing.
    """
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise UserError(f"the page has no {begin.strip()} with {end.strip()} behind it.")
    return f"{before}{begin}{text}{end}{after}"
