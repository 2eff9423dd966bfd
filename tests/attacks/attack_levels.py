"""Two of the three levels at which a case is run: plain Python as the positive control, and the language layer alone.

Run as a program with a JSON request on standard input, in a process that its caller limits and kills. There is no jail
here: the control must be able to do harm, within a scratch folder and a memory limit.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import sys
from typing import Any

from attack_open import Open

CPU_SECONDS = 30
MEMORY_BYTES = 1 << 30
ROUNDS = 320


def plain_view(history: list[dict[str, Any]], space: Any) -> Any:
    """What a hook is shown, as ordinary open objects."""
    trials = [Open(**trial) for trial in history]
    objective = Open(metric="m", direction="minimize", better=lambda a, b: a < b, gain=lambda a, b: a - b)
    return Open(
        objective=objective, history=trials, incumbent=trials[0], best=trials[-1], active=list(space.names), frozen=[],
        strategy="", guidance="", trials_left=5, space=space,
    )  # fmt: skip


def call_hooks(mechanism: Any, view: Any, candidate: Any, trial: Any) -> list[str]:
    """Call every hook once, with open objects."""
    calls = {
        "observe": (trial,),
        "prompt": (view,),
        "propose": (view, 2),
        "revise": (view, candidate),
        "veto": (view, candidate),
        "rank": (view, [candidate, candidate]),
        "accept": (view, trial),
        "budget": (view, candidate),
    }
    return [
        str(getattr(mechanism, hook)(*arguments))[:20_000]
        for hook, arguments in calls.items()
        if hasattr(mechanism, hook)
    ]


def run_plain(request: dict[str, Any]) -> list[str]:
    """The case in Python as it is."""
    from mechanisms.language.space import Space

    class Candidate(Open):
        def __init__(self, changes: Any, hypothesis: str = "") -> None:
            super().__init__(changes=changes, hypothesis=hypothesis)

    class OpenSpace(Space):
        """A space that can be changed, as plain objects can."""

        __setattr__ = object.__setattr__

    namespace: dict[str, Any] = {"Candidate": Candidate, "__name__": "mechanism"}
    exec(compile(request["source"], "<mechanism>", "exec"), namespace)
    space = OpenSpace(request["space"])
    mechanism = _construct(namespace["Mechanism"], space, random.Random(0))
    view = plain_view(request["history"], space)
    outputs: list[str] = []
    for round_ in range(ROUNDS):
        view.history, view.trials_left = [view.best] * (2 * round_), ROUNDS - round_
        outputs += call_hooks(mechanism, view, Candidate({"DEPTH": 8}, "deeper"), view.best)
    return outputs


def run_language(request: dict[str, Any]) -> list[str]:
    """The case compiled and run by the language layer, without process, contract or supervision."""
    from mechanisms.language.compiler import compile_source, define
    from mechanisms.language.facades import offered, rng_facade
    from mechanisms.language.objects import Candidate, Objective, Trial, View
    from mechanisms.language.space import Space

    compiled = compile_source(request["source"], offered())
    generator = random.Random(0)
    space = Space(request["space"])
    mechanism = _construct(define(compiled, generator)["Mechanism"], space, rng_facade(generator))
    history = [Trial(trial) for trial in request["history"]]
    fields = {
        "objective": Objective("m", "minimize"), "incumbent": history[0], "best": history[-1],
        "active": list(space.names), "frozen": [], "strategy": "", "guidance": "", "space": space,
    }  # fmt: skip
    outputs: list[str] = []
    for round_ in range(ROUNDS):
        view = View({**fields, "history": [history[-1]] * (2 * round_), "trials_left": ROUNDS - round_})
        outputs += call_hooks(mechanism, view, Candidate({"DEPTH": 8}, "deeper"), history[-1])
        if [trial.configuration for trial in history] != [Trial(t).configuration for t in request["history"]]:
            outputs.append("@MUTATED@")
    return outputs


def _construct(cls: Any, space: Any, rng: Any) -> Any:
    return cls(space, {}, rng) if cls.__init__ is not object.__init__ else cls()


def main() -> None:
    """Answer one request: what the hooks returned, or what stopped them."""
    request = json.load(sys.stdin)
    sys.path[:0] = request["path"]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The kernel ends a case that hangs even when the program that started it is gone.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    from mechanisms.language.desugar import LanguageError

    answer: dict[str, Any]
    sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"))  # what a case prints is no answer
    try:
        outputs = (run_plain if request["level"] == "plain" else run_language)(request)
        answer = {"outcome": "returned", "text": "\n".join(sorted(set(outputs)))[:200_000]}
    except LanguageError:
        answer = {"outcome": "refused"}
    except BaseException as error:  # whatever stops it is the result
        answer = {"outcome": "exhausted" if isinstance(error, MemoryError) else "raised", "text": type(error).__name__}
    sys.stdout = sys.__stdout__
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
