"""Words that pictures, the page and the command line share."""


def counted(count: int, noun: str) -> str:
    """`1 guest`, `2 guests`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
