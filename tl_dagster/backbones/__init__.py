"""Backbones: description, weights, building, taps, splitting, inference."""
