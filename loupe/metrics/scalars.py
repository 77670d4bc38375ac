"""How a computed number is written down. It computes nothing."""

from __future__ import annotations

SIGNIFICANT_DIGITS = 8
"""More is rounding of a kernel."""


def rounded(value: float) -> float:
    """Return `value` with 8 significant digits."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
