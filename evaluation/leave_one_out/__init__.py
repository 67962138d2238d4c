"""What policies are worth on data that they never saw: the plan of trainings, the work, its result and its tables."""
