"""What processes need: Ray, tasks, progress, results under keys, signals."""
