"""The declared pipelines: one folder each."""
