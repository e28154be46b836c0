"""Tables as docs/benchmarks.md has them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
    """Print one Markdown table with its title and a note below."""
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n## {title}\n")
    print("| " + " | ".join(str(word).ljust(width) for word, width in zip(head, widths, strict=True)) + " |")
    print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows:
        print("| " + " | ".join(str(word).ljust(width) for word, width in zip(row, widths, strict=True)) + " |")
    if note:
        print(f"\n{note}")


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def rate(count: float, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if count / seconds >= 20 else f"{count / seconds:.1f}"


def middle(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def high(samples: Sequence[float]) -> float:
    """The 99th percentile, of few samples their largest."""
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * 0.99))]
