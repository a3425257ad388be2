"""The Dagster graph: the only package that imports dagster."""
