"""Trained models: heads, calibration, predictions, the classifier as one object."""
