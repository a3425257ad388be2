"""What models and data are worth: metrics, intervals, comparisons, suspects."""
