"""Users of the product, as benchmarks and tests play them: the command, the daemon."""
