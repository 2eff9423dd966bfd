"""A task in Python is one decorated function and a parameter space.

    from clients.task_sdk import Context, Integer, task

    @task(metric="latency_ms", goal="minimize", space={"threads": Integer(1, 64, log=True), "cache": bool})
    def latency(threads: int, cache: bool, *, context: Context) -> float:
        return measure(threads, cache, seed=context.seed)

    if __name__ == "__main__":
        latency.serve()

Every evaluation runs in a process of its own and is killed whole. Importing this imports no gRPC: a child needs none.
"""

from clients.task_sdk.definition import Task, task
from clients.task_sdk.evaluation import Context, Infeasible, Result
from clients.task_sdk.problems import InvalidTask
from clients.task_sdk.sandboxed import sandboxed
from clients.task_sdk.spaces import Boolean, Choice, Integer, Numbers, Real, Source, Text
from service_kit.parameters import Split

__all__ = [
    "Boolean",
    "Choice",
    "Context",
    "Infeasible",
    "Integer",
    "InvalidTask",
    "Numbers",
    "Real",
    "Result",
    "Source",
    "Split",
    "Task",
    "Text",
    "sandboxed",
    "task",
]
