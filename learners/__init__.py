"""How a policy gets better: advantages, REINFORCE on RLlib, the training loop, telemetry."""
