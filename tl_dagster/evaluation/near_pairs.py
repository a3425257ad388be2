"""Pairs of near-identical images in two splits, as a bottleneck_features artifact holds them."""

from pathlib import Path

import pandas as pd

__all__ = ["SHEET", "read_near_pairs", "write_near_pairs"]

FILE = "near_identical.parquet"
SHEET = "Near-identical pairs"  # title of their picture


def write_near_pairs(folder: Path, pairs: pd.DataFrame) -> None:
    """Write pairs: columns id, split, other, other_split, distance."""
    pairs.to_parquet(folder / FILE)


def read_near_pairs(folder: Path) -> pd.DataFrame:
    """Return the pairs of :func:`write_near_pairs`, nearest first."""
    return pd.read_parquet(folder / FILE)
