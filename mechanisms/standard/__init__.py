"""Standard mechanisms: known ideas of search written to the hook interface: examples, references, a first library.

They are data to this program, never imported: each file is a source that passes the gate and runs in a worker.
"""

from __future__ import annotations

from importlib import resources


def sources() -> dict[str, str]:
    """Every standard mechanism's source by name, in alphabetical order."""
    files = sorted(resources.files(__name__).iterdir(), key=lambda file: file.name)
    names = (file for file in files if file.name.endswith(".py") and not file.name.startswith("_"))
    return {file.name.removesuffix(".py"): file.read_text("utf-8") for file in names}
