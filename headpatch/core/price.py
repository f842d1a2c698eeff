"""How costs are written."""


def passes(count: float) -> str:
    """Write a number of forward passes."""
    return f"{count:{',.1f' if count >= 1 else '.1g'}} forward passes"
