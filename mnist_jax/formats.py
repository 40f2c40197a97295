"""Numbers as programs print them and figures show them."""


def format_loss(loss: float) -> str:
    """Of at most ten characters, as one that diverges may have 32 digits."""
    return f"{loss:.4f}" if abs(loss) < 1000 else f"{loss:.3e}"


def counted(number: int, noun: str) -> str:
    """'1 seed' or '3 seeds'."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
