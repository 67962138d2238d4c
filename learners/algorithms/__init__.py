"""How weights follow from episodes: policy gradients on RLlib, and evolution strategies."""
