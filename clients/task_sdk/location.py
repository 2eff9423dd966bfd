"""Where an author's module is, so that another process can import it afresh; nothing is ever pickled."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from clients.task_sdk.problems import InvalidTask

if TYPE_CHECKING:
    from types import ModuleType

    from clients.task_sdk.definition import Task


@dataclass(frozen=True, slots=True)
class Location:
    """A task's module and the search path on which it finds what it imports."""

    task: str
    """Name of the task in the module."""
    module: str
    """Name to import; empty for a script, which is known by its file alone."""
    file: str
    digest: str
    """SHA-256 of the file, so that a changed one is noticed."""
    path: tuple[str, ...]
    """``sys.path`` of the process that serves."""

    @classmethod
    def of(cls, task: Task) -> Self:
        """Raises :class:`InvalidTask` when no other process could find the task."""
        function, file = task.function, task.file
        if "<locals>" in function.__qualname__:
            raise InvalidTask(task.name, ["it is defined inside a function: move it to the top of its module"])
        if not file.is_file():
            raise InvalidTask(task.name, ["it is not defined in a file: save it in one and run that"])
        module = function.__module__
        if module == "__main__":  # `python -m package.module` has a name to import, `python file.py` has none
            spec = sys.modules["__main__"].__spec__
            module = spec.name if spec is not None else ""
        path = tuple(str(Path(entry).resolve()) for entry in sys.path)
        return cls(task.name, module, str(file), digest(file), path)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "path": tuple(data["path"])})

    def load(self) -> Task:
        """Import the module in this process and return the task. Raises :class:`InvalidTask`, and what it raises."""
        from clients.task_sdk.definition import Task

        name = Path(self.file).name
        if digest(Path(self.file)) != self.digest:
            raise InvalidTask(self.task, [f"{name} has changed since it is being served: start the server again"])
        module = importlib.import_module(self.module) if self.module else _import_file(Path(self.file))
        found = [value for value in vars(module).values() if isinstance(value, Task) and value.name == self.task]
        if len(set(map(id, found))) != 1:
            raise InvalidTask(
                self.task, [f"{name} defines {len(found)} tasks of this name: it must be one, at the top of the module"]
            )
        return found[0]


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _import_file(file: Path) -> ModuleType:
    """Import a script under its own name and not as ``__main__``, so that it does not serve again."""
    name = file.stem if file.stem not in sys.modules else f"{file.stem}_served"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
