"""The language: what ordinary Python means after desugaring, and that guards hold at run time."""

from __future__ import annotations

import ast
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanisms import reference
from mechanisms.interface import Hook
from mechanisms.language import names
from mechanisms.language.compiler import compile_source, define
from mechanisms.language.conformance import ARGUMENTS
from mechanisms.language.desugar import LanguageError
from mechanisms.language.facades import offered
from mechanisms.language.policy import ATTRIBUTES, BUILTINS

OFFERED = offered()
FRAME = "class Mechanism:\n    def prompt(self, view):\n        return run()\n"


def run(body: str) -> Any:
    """What ``body``, the inside of a function after module-level lines, returns in the restricted language."""
    head, _, inside = body.rpartition("---\n")
    source = head + "def run():\n" + "\n".join(f"    {line}" for line in inside.splitlines()) + "\n" + FRAME
    return define(compile_source(source, OFFERED), random.Random(0))["Mechanism"]().prompt(None)


_HEADER = re.compile(r"^=== (.+?) \| (.+)$", re.MULTILINE)
_PARTS = _HEADER.split(Path(__file__).with_name("meanings.txt").read_text())
MEANINGS = dict(zip(_PARTS[1::3], zip(_PARTS[3::3], _PARTS[2::3], strict=True), strict=True))
"""By name: a body as for :func:`run`, and the literal that it returns in plain Python."""


@pytest.mark.parametrize("case", MEANINGS)
def test_desugared_code_means_what_was_written(case: str) -> None:
    body, value = MEANINGS[case]
    assert run(body.strip("\n")) == ast.literal_eval(value)


@pytest.mark.parametrize(
    "expression",
    [
        "(1).nothing",
        "[].nothing",
        "(lambda: 0).nothing",
        "len.nothing",
        "math.nothing",
        "A().nothing",
        "A.mro",
        "'x'.format_map",
    ],
)
def test_a_missing_or_closed_attribute_raises(expression: str) -> None:
    expression = expression.replace("math.nothing", "getattr(math, 'nothing')")
    with pytest.raises(AttributeError):
        run(f"import math\nclass A:\n    pass\n---\nreturn {expression}")


def test_messages_speak_the_authors_names() -> None:
    with pytest.raises(AttributeError, match="'_A' object has no attribute '_missing'"):
        run("class _A:\n    pass\n---\nreturn _A()._missing")


@given(st.text(alphabet="_abcxyz019", min_size=1, max_size=12))
def test_hidden_names_come_back_as_written(name: str) -> None:
    if not names.is_reserved(name):
        hidden = names.hide(name)
        assert names.reveal(hidden) == name
        assert names.is_dunder(name) or hidden == "_" or not hidden.startswith("_")


@given(st.text(max_size=400))
def test_no_text_gets_past_the_compiler_but_as_findings(source: str) -> None:
    with pytest.raises(LanguageError) as refused:
        compile_source(source, OFFERED)
    assert refused.value.findings


def test_the_hooks_of_the_worker_are_those_of_the_interface() -> None:
    assert set(ARGUMENTS) == {hook.value for hook in Hook}


def test_the_reference_names_everything_that_is_offered() -> None:
    text = reference.describe()
    assert "$" not in text
    for module, members in OFFERED.items():
        assert all(f"{member}" in text for member in members), module
    assert all(name in text for name in BUILTINS)


def test_nothing_offered_is_a_module_and_no_dunder_is_open() -> None:
    assert not [
        name for allowed in ATTRIBUTES.values() for name in allowed if name.startswith("_") or name in names.FRAME_NAMES
    ]
    assert not {
        "eval",
        "exec",
        "open",
        "compile",
        "globals",
        "locals",
        "vars",
        "dir",
        "delattr",
        "super",
        "__import__",
        "input",
    } & set(BUILTINS)
