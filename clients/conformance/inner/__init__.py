"""The checks of an inner service. Importing a module of checks adds them to the suite."""

from clients.conformance.inner import control, driving, lessons, mechanisms, runs, trace, trials, without_python
from clients.conformance.inner.subject import INNER, InnerSubject

__all__ = [
    "INNER",
    "InnerSubject",
    "control",
    "driving",
    "lessons",
    "mechanisms",
    "runs",
    "trace",
    "trials",
    "without_python",
]
