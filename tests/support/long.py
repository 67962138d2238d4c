"""Files of tests that take a quarter of a minute or more, the longest first.

Several processes (`make test`) that take a file at a time are ready at about the same time if they begin with these.
"""

LONG = (
    "learners/test_resuming.py",
    "learners/test_training.py",
    "learners/algorithms/test_ppo.py",
    "evaluation/leave_one_out/test_leave_one_out.py",
    "examples/test_examples.py",
    "evaluation/test_comparison_faults.py",
    "learners/algorithms/test_evolution.py",
    "learners/test_mistakes.py",
    "learners/test_baseline_curves.py",
    "evaluation/test_comparison.py",
    "runtime/test_tasks.py",
    "learners/telemetry/test_telemetry.py",
)
