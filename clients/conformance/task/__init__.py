"""The checks of a task. Importing a module of checks adds them to the suite."""

from clients.conformance.task import capacity, description, evaluation, validation
from clients.conformance.task.subject import TASK, TaskSubject

__all__ = ["TASK", "TaskSubject", "capacity", "description", "evaluation", "validation"]
