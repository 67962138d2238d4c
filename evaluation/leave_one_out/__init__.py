"""What policies are worth on data that they never saw: trainings without each data set, and a comparison on it."""
