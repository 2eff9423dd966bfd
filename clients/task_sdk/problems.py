"""What an author can get wrong in a definition, told all at once and where it was written."""

from __future__ import annotations

from collections.abc import Sequence


class InvalidTask(ValueError):
    """A task is defined wrongly; ``problems`` lists everything found, each a sentence that says what to do."""

    def __init__(self, task: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([f"task {task} cannot be served:", *(f"  * {problem}" for problem in problems)]))


class Problem(ValueError):
    """One sentence of an :class:`InvalidTask`, raised where it is found."""
