"""The complete interface in words: what an author, person or model, needs to write a mechanism.

The sentences stand in ``reference.txt``. Everything that can be read from the code is read from it: hooks from the
interface, offered names from the facades and the policy, attributes from the records, numbers from the limits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from importlib import resources
from string import Template

from mechanisms.interface import Hook
from mechanisms.language import linalg
from mechanisms.language.conformance import ARGUMENTS
from mechanisms.language.facades import offered, sampling_names
from mechanisms.language.policy import ATTRIBUTES, BUILTINS, record_attributes
from mechanisms.language.space import Parameter, Space
from mechanisms.sandbox.limits import SandboxLimits
from service_kit.parameters import Kind, Outcome, Scale

EXAMPLE = '''class Mechanism:
    """Bold steps: when five trials in a row failed, move a parameter at random."""

    def __init__(self, space, settings, rng):
        self.space, self.rng, self._stalled = space, rng, 0

    def observe(self, trial):
        self._stalled = 0 if trial.kept else self._stalled + 1

    def propose(self, view, count):
        if self._stalled < 5:
            return []
        old = view.incumbent.configuration
        name = self.rng.choice([n for n in view.active if self.space.neighbours(n, old[n])])
        value = self.rng.choice(self.space.neighbours(name, old[name]))
        return [Candidate(changes={name: value}, hypothesis=f"stalled for {self._stalled} trials: move {name}")]
'''
"""A complete mechanism; a test sends it through the gate."""

_RETURNS = {
    Hook.INIT: "Called once. settings is a dict, rng a seeded random generator. Optional.",
    Hook.OBSERVE: "Sees every decided trial once, the baseline first. Keep all state here: it is rebuilt by replay.",
    Hook.PROMPT: "Text added to the proposer's prompt.",
    Hook.PROPOSE: "A list of at most count candidates of your own. Those equal to the incumbent are dropped.",
    Hook.REVISE: "A changed candidate, or the same one.",
    Hook.VETO: "A short reason to reject the candidate before it runs, or None to let it run.",
    Hook.RANK: "A list with one number a candidate; higher runs first.",
    Hook.ACCEPT: "True or False: whether the search continues from this trial. The default is strictly better than the "
    "incumbent. The best trial is never lost.",
    Hook.BUDGET: "The fraction of the full budget to spend on this candidate, from 0.01 to 1.",
}


@cache
def describe() -> str:
    """The interface and the allow-list as one plain text, for a prompt, a page or an RPC answer."""
    template = Template(resources.files("mechanisms").joinpath("reference.txt").read_text("utf-8"))
    return template.substitute(_interface() | _language() | _limits(), example=EXAMPLE.rstrip())


def _interface() -> dict[str, str]:
    hooks = [f"  def {hook.value}(self, {', '.join(ARGUMENTS[hook.value])})\n      {_RETURNS[hook]}" for hook in Hook]
    methods = [getattr(Space, name) for name in sorted(ATTRIBUTES[Space] - {"names", "parameters"})]
    return {name: ", ".join(fields) for name, fields in record_attributes().items()} | {
        "hooks": "\n".join(hooks),
        "outcomes": ", ".join(f'"{outcome.value}"' for outcome in Outcome),
        "kinds": ", ".join(f'"{kind.value}"' for kind in Kind),
        "scales": ", ".join(f'"{scale.value}"' for scale in Scale),
        "parameter": ", ".join(Parameter.__slots__),
        "space": "\n".join(f"  space.{_signature(method).replace('(self, ', '(')}" for method in methods),
    }


def _language() -> dict[str, str]:
    modules = [f"  {name}: {', '.join(sorted(members))}" for name, members in sorted(offered().items())]
    return {
        "rng": ", ".join(sampling_names()),
        "modules": "\n".join(line for line in modules if not line.startswith("  linalg:")),
        "linalg": "\n".join(f"  linalg.{_signature(function)}" for _, function in linalg.signatures()),
        "builtins": ", ".join(sorted(BUILTINS)),
    }


def _limits() -> dict[str, str]:
    limits = SandboxLimits()
    return {
        "call_seconds": f"{limits.call_seconds:g}",
        "install_seconds": f"{limits.install_seconds:g}",
        "memory": str(limits.memory_bytes // 2**20),
        "prompt": str(limits.prompt_characters),
        "reason": str(limits.reason_characters),
        "source": str(limits.source_bytes // 1024),
        "veto_rate": f"{limits.veto_rate:.0%}",
        "veto_window": str(limits.veto_window),
    }


def _signature(function: Callable[..., object]) -> str:
    signature = str(inspect.signature(function)).replace("'", "")
    return f"{function.__name__}{signature}: {' '.join((function.__doc__ or '').split())}"
