"""The worker: one process, one mechanism. Started as a program by the host; everything it imports, it imports first.

Usage: ``python -S -s -P worker.py ROOT SITE MEMORY_BYTES CPU_SECONDS ALLOW_WEAK ANSWER_BYTES REQUEST_BYTES``, frames on
descriptors 0 and 1. The first frame it writes says which walls hold, or why there are none.
"""

from __future__ import annotations

import sys
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = sys.argv[1:3]

import random
import traceback

from mechanisms.findings import Finding, Stage
from mechanisms.language.compiler import FILENAME, Compiled, compile_source, define
from mechanisms.language.conformance import conform
from mechanisms.language.desugar import LanguageError
from mechanisms.language.digest import state_digest
from mechanisms.language.facades import offered, rng_facade
from mechanisms.language.functions import function_shape
from mechanisms.language.names import reveal
from mechanisms.language.objects import Candidate, Objective, Trial, View
from mechanisms.language.space import Space
from mechanisms.sandbox import jail
from mechanisms.sandbox.addresses import scatter
from mechanisms.sandbox.frames import FrameError, FrameTooLarge, read_frame, write_frame

OFFERED = offered()
_MESSAGE_CHARACTERS = 300
_MAX_VALUES = 20_000
_MAX_DEPTH = 8


class WrongAnswer(Exception):
    """A hook returned something that cannot cross; ``kind`` is the failure's kind."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Session:
    """The mechanism, its generator and the history that it has been shown."""

    def __init__(self, request: dict[str, Any], compiled: Compiled) -> None:
        self.generator = random.Random(0)  # noqa: S311 - a search needs no secrets
        self.seed = request["seed"]
        self.calls = 0
        self.history: list[Trial] = []
        self.by_number: dict[int, Trial] = {}
        self.space = Space(request["space"])
        self.objective = Objective(request["objective"]["metric"], request["objective"]["direction"])
        self._reseed()
        self.namespace = define(compiled, self.generator)
        cls = self.namespace["Mechanism"]
        arguments = (
            (self.space, request["settings"], rng_facade(self.generator)) if cls.__init__ is not object.__init__ else ()
        )
        self.mechanism = cls(*arguments)

    def call(self, request: dict[str, Any]) -> Any:
        """Run one hook and return its answer as plain data."""
        hook = request["hook"]
        if hook == "observe":
            return self.observe(request)
        self._reseed()
        method = getattr(self.mechanism, hook)
        view = self._view(request["view"])
        match hook:
            case "prompt":
                answer = method(view)
            case "propose":
                answer = method(view, request["count"])
            case "rank":
                answer = method(view, [Candidate(**candidate) for candidate in request["candidates"]])
            case "accept":
                answer = method(view, Trial(request["trial"]))
            case _:
                answer = method(view, Candidate(**request["candidate"]))
        return plain(answer)

    def observe(self, request: dict[str, Any]) -> str:
        """Show it a decided trial; returns a digest of its state."""
        trial = self._take(request)
        self.mechanism.observe(trial)
        return state_digest(self.mechanism, self.namespace)

    def remember(self, request: dict[str, Any]) -> str:
        """Take in a decided trial for a mechanism that does not observe; returns a digest of its state."""
        self._take(request)
        return state_digest(self.mechanism, self.namespace)

    def _take(self, request: dict[str, Any]) -> Trial:
        trial = Trial(request["trial"])
        self.history.append(trial)
        self.by_number[trial.number] = trial
        self.calls = 0
        self._reseed()
        return trial

    def _reseed(self) -> None:
        # Drawn from what was observed, not from how often hooks were called before it: replaying the observations
        # brings back the generator as well.
        self.generator.seed((self.seed * 1_000_003 + len(self.history)) * 1_000_003 + self.calls)
        self.calls += 1

    def _view(self, data: dict[str, Any]) -> View:
        return View(
            {
                "objective": self.objective,
                "history": self.history[: data["history_length"]],
                "incumbent": self.by_number[data["incumbent"]],
                "best": self.by_number[data["best"]],
                "active": data["active"],
                "frozen": data["frozen"],
                "strategy": data["strategy"],
                "guidance": data["guidance"],
                "trials_left": data["trials_left"],
                "space": self.space,
            }
        )


class FunctionSession:
    """A plain function and its generator."""

    def __init__(self, request: dict[str, Any], compiled: Compiled) -> None:
        self.function = define(compiled, random.Random(request["seed"]))[request["function"]]  # noqa: S311

    def call(self, request: dict[str, Any]) -> Any:
        """Call the function and return its answer as plain data."""
        return plain(self.function(*request["values"]))


def plain(answer: Any) -> Any:
    """``answer`` as exact built-in JSON types, candidates as objects; raises :class:`WrongAnswer`."""
    left = [_MAX_VALUES]

    def convert(value: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth > _MAX_DEPTH:
            raise WrongAnswer("wrong_type", "the answer is too large, too deep or contains itself")
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            if abs(value) >= 1 << 63:
                raise WrongAnswer("out_of_range", "the answer holds an integer beyond 64 bits")
            return value
        if kind is float:
            if value != value or value in (float("inf"), float("-inf")):
                raise WrongAnswer("out_of_range", f"the answer holds {value}; numbers must be finite")
            return value
        if kind is Candidate:
            return {"changes": convert(value.changes, depth + 1), "hypothesis": convert(value.hypothesis, depth + 1)}
        if kind is dict:
            if any(type(key) is not str for key in value):
                raise WrongAnswer("wrong_type", "the answer holds a dict whose keys are not all strings")
            return {key: convert(element, depth + 1) for key, element in value.items()}
        if kind is list or kind is tuple:
            return [convert(element, depth + 1) for element in value]
        raise WrongAnswer(
            "wrong_type",
            f"the answer holds a {reveal(kind.__name__)}; use None, bool, int, float, str, list, dict or Candidate",
        )

    return convert(answer, 0)


def install(request: dict[str, Any]) -> tuple[Session | FunctionSession | None, dict[str, Any]]:
    """Compile and, unless only the language is asked about, instantiate the mechanism or define the function."""
    plain_function = request["op"] == "define"
    shape = function_shape(request["function"], request["arguments"]) if plain_function else conform
    try:
        compiled = compile_source(request["source"], OFFERED, shape)
    except LanguageError as error:
        return None, {"rejected": [finding.to_json() for finding in error.findings[:50]]}
    except Exception as error:  # noqa: BLE001
        # A source that trips the compiler itself is refused like any other that is outside the language.
        finding = Finding(Stage.LANGUAGE, None, f"cannot be compiled: {type(error).__name__}: {str(error)[:200]}")
        return None, {"rejected": [finding.to_json()]}
    described = {"name": compiled.shape.name, "summary": compiled.shape.summary, "hooks": list(compiled.shape.hooks)}
    if request["language_only"]:
        return None, {"answer": described}
    try:
        session = FunctionSession(request, compiled) if plain_function else Session(request, compiled)
        return session, {"answer": described}
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its failure
        return None, raised(error)


def raised(error: BaseException) -> dict[str, Any]:
    """What the host is told about an exception: its type, message and the mechanism's line, never a stack trace."""
    if isinstance(error, WrongAnswer):
        return {"failed": {"kind": error.kind, "message": str(error), "line": None}}
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == FILENAME]
    try:
        text = reveal(str(error))[:_MESSAGE_CHARACTERS].encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - an exception of its own may refuse to be shown
        text = "(no message)"
    name = reveal(type(error).__name__)[:80]
    return {
        "failed": {
            "kind": "raised",
            "message": f"{name}: {text}" if text else name,
            "line": lines[-1] if lines else None,
        }
    }


def serve(answer_bytes: int, request_bytes: int) -> None:
    """Answer requests until the host closes the pipe."""
    session: Session | FunctionSession | None = None
    while (request := read_frame(0, request_bytes)) is not None:
        identifier = request["id"]
        if request["op"] in ("install", "define"):
            session, answer = install(request)
        elif session is None:
            return
        elif request["op"] == "remember" and isinstance(session, Session):
            answer = {"answer": session.remember(request)}
        else:
            try:
                answer = {"answer": session.call(request)}
            except BaseException as error:  # noqa: BLE001 - whatever it raises is its failure
                answer = raised(error)
        try:
            write_frame(1, {"id": identifier, **answer}, answer_bytes)
        except FrameTooLarge as error:
            write_frame(
                1,
                {"id": identifier, "failed": {"kind": "frame_too_large", "message": str(error), "line": None}},
                answer_bytes,
            )


def main() -> int:
    """Enter the jail, say so, serve."""
    memory_bytes, cpu_seconds, allow_weak, answer_bytes, request_bytes = map(int, sys.argv[3:8])
    _kept = scatter(random.Random())  # noqa: S311 - from the system's entropy, which the jail takes away
    try:
        layers = jail.enter(memory_bytes, cpu_seconds, bool(allow_weak))
    except jail.JailError as error:
        write_frame(1, {"id": 0, "unavailable": str(error)}, answer_bytes)
        return 3
    sys.path[:], sys.meta_path[:], sys.path_hooks[:] = [], [], []
    sys.stdin = sys.stdout = sys.stderr = sys.__stdin__ = sys.__stdout__ = sys.__stderr__ = None  # type: ignore[misc]
    write_frame(1, {"id": 0, "answer": layers}, answer_bytes)
    try:
        serve(answer_bytes, request_bytes)
    except FrameError:
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
