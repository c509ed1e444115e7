"""Figures and tables as text."""

from typing import Sequence


def amount(figure: float, unit: str) -> str:
    """A figure with its unit, to three digits."""
    if unit == "throughput":
        return f"{_digits(1 / figure)} /s"
    if unit == "memory":
        return f"{figure:.1f} MB"
    if unit == "kilobytes":
        return f"{_digits(figure)} kB"
    for factor, name in ((1, "s"), (1e3, "ms")):
        if figure * factor >= 1:
            return f"{_digits(figure * factor)} {name}"
    return f"{_digits(figure * 1e6)} µs"


def _digits(figure: float) -> str:
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # The first column is words, the others are figures.
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join([f"| {' | '.join(line)} |" for line in lines])
