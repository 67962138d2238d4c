"""What this package promises and asks for, as checks that anybody can run: of an environment, and of a task model."""

from envs.contract.environment import check_environment
from envs.contract.task_model import check_task_model

__all__ = ["check_environment", "check_task_model"]
