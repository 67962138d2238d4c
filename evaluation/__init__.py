"""Which strategy is better? Paired comparisons, their statistics and their report."""
