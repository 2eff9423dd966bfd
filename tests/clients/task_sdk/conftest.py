from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """The sample tasks, imported by name from their own folder, as an author's module is."""
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location("sample_tasks", folder / "sample_tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sample_tasks"] = module
    sys.path.append(str(folder))  # the evaluating processes search where this one does
    spec.loader.exec_module(module)
    return module
