"""The corpus: hostile and broken mechanism sources, by category, with what each is after.

A case without a class of its own is the body of a ``prompt`` hook. In the text, ``@CANARY@`` is the path of a file and
``@SECRET@`` its content: a case that returns the content did what it must not be able to do.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

CORPUS = Path(__file__).with_name("corpus")
_HEADER = re.compile(r"^=== (?P<name>.+?) \| (?P<goal>\w+)$", re.MULTILINE)

GOALS = {
    "secret": "read a file, the environment or an attribute that is closed",
    "patch": "replace what others use",
    "mutate": "change what it was shown",
    "hang": "never answer, or slowly",
    "memory": "use up memory",
    "crash": "crash the interpreter or a process",
    "raise": "fail with an exception, also a hostile one",
    "parse": "harm the parser",
    "output": "answer out of contract",
    "obstruct": "stop the search",
    "influence": "make the search worse by the rules",
    "inject": "talk to the model or the terminal",
    "differ": "answer differently in another worker",
    "inert": "do nothing",
    "shape": "not be a mechanism",
    "harmless": "look hostile",
}

_PLACEHOLDERS = {
    "@PARENTHESES@": "[" * 95 + "1" + "]" * 95,
    "@MINUS@": "-" * 100,
    "@STATEMENTS@": "x=1\n" * 10_000,
    "@PADDING@": "x" * 70_000,
    "@NULL@": "\x00",
    "@SURROGATE@": "\ud800",
    "@COMPARISONS@": "0" + "<1" * 3000,
}


class Case(NamedTuple):
    """One attack."""

    category: str
    name: str
    goal: str
    text: str

    @property
    def key(self) -> str:
        return f"{self.category}: {self.name}"

    def source(self, canary: str, secret: str) -> str:
        """The complete source of a mechanism, aimed at ``canary``."""
        text = self.text.replace("@CANARY@", canary).replace("@SECRET@", secret)
        for placeholder, value in _PLACEHOLDERS.items():
            text = text.replace(placeholder, value)
        if "class Mechanism" in text:
            return text
        imports = [line for line in text.splitlines() if re.match(r"(import|from) ", line)]
        body = "\n".join(line for line in text.splitlines() if line not in imports)
        hook = textwrap.indent(body or "pass", " " * 8)
        return "\n".join([*imports, "class Mechanism:", "    def prompt(self, view):", hook, ""])


def load() -> list[Case]:
    """Every case of the corpus, by category and in the order of its file."""
    cases = []
    for path in sorted(CORPUS.glob("*.txt")):
        parts = _HEADER.split(path.read_text("utf-8"))
        for name, goal, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            cases.append(Case(path.stem.replace("_", " "), name, goal, text.strip("\n") + "\n"))
    return cases
