"""Many trainings with different settings, and which of them no other one beats."""
