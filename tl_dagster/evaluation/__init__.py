"""Metrics of models with intervals and comparisons, and evidence about the data."""
