"""What several benchmarks share: timing and tables, plots, data sets, maps and drives."""
