"""What several benchmarks share: timing, tables, plots, image sets, maps and drives."""
