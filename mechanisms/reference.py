"""The complete interface in words: what an author, person or model, needs to write a mechanism.

Everything that can be read from the code is read from it: hooks from the interface, offered names from the facades and
the policy, attributes from the records, numbers from the limits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from mechanisms.interface import Hook
from mechanisms.language import linalg
from mechanisms.language.conformance import ARGUMENTS
from mechanisms.language.facades import offered, sampling_names
from mechanisms.language.policy import ATTRIBUTES, BUILTINS, record_attributes
from mechanisms.language.space import Parameter, Space
from mechanisms.sandbox.limits import SandboxLimits

EXAMPLE = '''class Mechanism:
    """Bold steps: when five trials in a row failed, double or halve a parameter at random."""

    def __init__(self, space, settings, rng):
        self.space, self.rng, self._stalled = space, rng, 0

    def observe(self, trial):
        self._stalled = 0 if trial.kept else self._stalled + 1

    def propose(self, view, count):
        if self._stalled < 5:
            return []
        name = self.rng.choice([n for n in view.active if self.space.neighbours(n, view.incumbent.configuration[n])])
        value = self.rng.choice(self.space.neighbours(name, view.incumbent.configuration[name]))
        return [Candidate(changes={name: value}, hypothesis=f"stalled for {self._stalled} trials: move {name}")]
'''
"""A complete mechanism; a test sends it through the gate."""

_RETURNS = {
    Hook.INIT: "called once. settings is a dict, rng a seeded random generator. Optional.",
    Hook.OBSERVE: "sees every decided trial once, the baseline first. Keep all state here: it is rebuilt by replaying it.",
    Hook.PROMPT: "text added to the proposer's prompt, or None.",
    Hook.PROPOSE: "a list of at most count candidates of your own, or None. Those equal to the incumbent are dropped.",
    Hook.REVISE: "a changed Candidate, or the candidate itself or None to leave it.",
    Hook.VETO: "a short reason to reject the candidate before it runs, or None to let it run.",
    Hook.RANK: "one number a candidate, higher runs first, or None.",
    Hook.ACCEPT: "True or False to move the incumbent to this trial or not, None to leave it to the default (strictly better). "
    "The best trial is never lost.",
    Hook.BUDGET: "the fraction of the full budget to spend on this candidate, above 0 and at most 1.",
}


def describe() -> str:
    """The interface and the allow-list as one plain text, for a prompt, a page or an RPC answer."""
    return (
        "\n\n".join((_hooks(), _objects(), _space(), _language(), _limits(), "Example:\n\n" + EXAMPLE.rstrip())) + "\n"
    )


def _hooks() -> str:
    lines = [
        "A mechanism is one Python source with one class named Mechanism. It implements any of these methods (hooks), with exactly these "
        "arguments. None always means: no opinion. The first line of the class docstring is its summary; write it as 'Name: what it does.'"
    ]
    lines += [f"  def {hook.value}(self, {', '.join(ARGUMENTS[hook.value])}) -> {_RETURNS[hook]}" for hook in Hook]
    return "\n".join(lines)


def _objects() -> str:
    records = record_attributes()
    notes = {
        "View": "history is a list of Trial, oldest first; incumbent (where the search continues from) and best are Trial; active and frozen are "
        "lists of parameter names; trials_left counts this one; space is the space that __init__ got.",
        "Trial": "configuration and changes are dicts from parameter name to value (a list-valued parameter is a tuple); outcome is 'succeeded', "
        "'diverged', 'crashed', 'out_of_memory', 'timed_out', 'infeasible', 'cancelled' or None (never ran); metric is a float, or None unless "
        "it succeeded; kept is None while undecided; incumbent_metric is what it had to beat.",
        "Candidate": "make one with Candidate(changes={'NAME': value}, hypothesis='one sentence'); the name needs no import. changes holds only what "
        "differs from the incumbent; only parameters in view.active may change, and only to allowed values (use space.clip).",
        "Objective": "better(a, b) tells whether metric a is strictly better than b; gain(old, new) is positive when new is better. Use them "
        "instead of < and >: direction is 'minimize' or 'maximize'.",
    }
    return "\n".join(f"{name} has {', '.join(fields)}. {notes[name]}" for name, fields in records.items())


def _space() -> str:
    methods = sorted(ATTRIBUTES[Space] - {"names", "parameters"})
    lines = [
        f"space: space.names, space.parameters, space['NAME'], 'NAME' in space, for name in space. A parameter has {', '.join(Parameter.__slots__)}; "
        "kind is 'integer', 'real', 'boolean', 'categorical', 'text', 'list' or 'source', scale 'linear', 'log2' or 'log10'. Methods:"
    ]
    for name in methods:
        function = getattr(Space, name)
        arguments = ", ".join(list(inspect.signature(function).parameters)[1:])
        lines.append(f"  space.{name}({arguments}): {_sentence(function.__doc__)}")
    lines.append(f"rng: {', '.join(sampling_names())}.")
    return "\n".join(lines)


def _language() -> str:
    modules = [
        f"  {name}: {', '.join(sorted(members))}" for name, members in sorted(offered().items()) if name != "linalg"
    ]
    functions = [
        f"  linalg.{name}{_plain(function)}: {_sentence(function.__doc__)}" for name, function in linalg.signatures()
    ]
    return "\n".join(
        [
            "Language: ordinary Python 3.11 functions, classes, comprehensions, f-strings, try, generators, @dataclass, @property, names with a leading "
            "underscore, type annotations (typing may be imported for them). Not available: other modules (no numpy, time, os, re), files, network, "
            "double-underscore attributes, super, nonlocal, match, async, with-statements over your own classes. print and logging are discarded.",
            "Import these modules only (import math, from collections import deque); each offers exactly:",
            *modules,
            "linalg works on plain lists of floats:",
            *functions,
            "Built-in names: " + ", ".join(sorted(BUILTINS)) + ".",
        ]
    )


def _limits() -> str:
    limits = SandboxLimits()
    return (
        f"Limits: {limits.call_seconds:g} s a call, {limits.install_seconds:g} s to construct, {limits.memory_bytes // 2**20} MB, prompt text "
        f"{limits.prompt_characters} characters, a reason or hypothesis {limits.reason_characters}, source {limits.source_bytes // 1024} KiB. A hook that "
        "raises, is late, or returns a wrong type or a value out of range ends the mechanism. The same observations and rng must give the same "
        f"answers. Vetoing more than {limits.veto_rate:.0%} of {limits.veto_window} candidates or proposing the same {limits.repeated_proposals} "
        "times in a row ends it as well."
    )


def _sentence(documentation: str | None) -> str:
    return " ".join((documentation or "").split())


def _plain(function: Callable[..., object]) -> str:
    return str(inspect.signature(function)).replace("'", "")
