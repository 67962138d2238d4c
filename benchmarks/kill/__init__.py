"""Deaths of processes, full disks, I/O errors and power cuts: `python -m benchmarks.kill`; see docs/reliability.md.

What is judged goes through the command line only: this folder uses nothing of the product but `run.main` to judge.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
