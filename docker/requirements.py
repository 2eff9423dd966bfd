"""Prints what the given extras of pyproject.toml need, so that an image holds it in a layer that code leaves alone."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

OWN = re.compile(r"bilevel-autoresearch\[([a-z,]+)\]")


def requirements(extras: list[str]) -> list[str]:
    """The requirements of the project with ``extras``, each once, sorted."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    found, waiting = set(project["dependencies"]), list(extras)
    while waiting:
        for requirement in project["optional-dependencies"][waiting.pop()]:
            if own := OWN.fullmatch(requirement):
                waiting += own[1].split(",")
            else:
                found.add(requirement)
    return sorted(found)


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(sys.argv[1:])) + "\n")
