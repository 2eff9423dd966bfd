"""What a researcher must read to improve the search: the loop's own source and complete examples."""

from __future__ import annotations

from functools import cache
from importlib import metadata, resources

from inner_service.task import SourceFile
from mechanisms import standard

LOOP_FILES = (
    "loop.py",
    "driving.py",
    "proposer.py",
    "candidates.py",
    "choice.py",
    "acceptance.py",
    "mechanism_set.py",
    "search_state.py",
    "lessons/relevance.py",
    "prompts/propose_system.j2",
    "prompts/propose.j2",
)
"""The files that decide how the search goes; the rest of the service stores, serves and translates."""


@cache
def loop_sources() -> tuple[SourceFile, ...]:
    """The loop's source as it runs."""
    package = resources.files("inner_service")
    return tuple(SourceFile(f"inner_service/{path}", package.joinpath(path).read_text("utf-8")) for path in LOOP_FILES)


@cache
def examples() -> tuple[SourceFile, ...]:
    """The standard mechanisms."""
    return tuple(SourceFile(f"mechanisms/standard/{name}.py", text) for name, text in standard.sources().items())


def implementation() -> str:
    """Name and version of this inner service, for people."""
    return f"bilevel-autoresearch inner service {metadata.version('bilevel-autoresearch')}"
