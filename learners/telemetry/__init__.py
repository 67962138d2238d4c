"""What a run shows while it learns: TensorBoard events, histograms, learning curves, the pool in the Projector."""
