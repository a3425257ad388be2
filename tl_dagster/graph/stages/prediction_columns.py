"""The columns of predictions.parquet, which each model writes."""

from collections.abc import Mapping

from tl_dagster.graph.stage import Column

__all__ = ["prediction_columns"]


def prediction_columns(*features: tuple[str, str]) -> Mapping[str, Column]:
    """Return the columns.

    Args:
        features: (asset, column) of what the probabilities are computed from.
    """
    rows = {
        "id": "SHA-256 of the bytes of a validation or test image.",
        "label": "Its class.",
        "split": "validation or test.",
    }
    return {
        **{name: Column("string", text, [("bottleneck_features", name)]) for name, text in rows.items()},
        "p0 …": Column("float", "Probability of each class, in the order of classes.json: p0, p1 and so on.", features),
        "predicted": Column("string", "The likeliest class.", features),
    }
