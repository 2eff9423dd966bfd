"""Run the corpus at three levels and say what happened. ``python tests/attacks/attack_runner.py`` is ``make attacks``.

plain       the case in ordinary Python: does it do harm at all?
language    desugaring, RestrictedPython and guards in one process: what the language stops by itself
full        gate, then a run of a few hundred trials in the jailed worker: what a service would live through
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import RestrictedPython
from attack_cases import Case, load

from mechanisms.gate import check
from mechanisms.interface import Candidate, Hook, SearchView, TrialRecord
from mechanisms.replay import incumbents
from mechanisms.sandbox.failures import MechanismFailure
from mechanisms.sandbox.host import MechanismProcess
from mechanisms.sandbox.limits import SandboxLimits
from mechanisms.synthetic import synthetic_history
from service_kit.parameters import Kind, Objective, Parameter, ParameterSpace, Scale

ROOT = Path(__file__).parents[2]
EXPECTED = Path(__file__).with_name("expected.json")
TABLE = ROOT / "docs" / "security.md"
SECRET = "canary-5b1c9a"
LEVEL_SECONDS = 2.5
SERVICE_TRIALS = 450
LIMITS = SandboxLimits(call_seconds=0.5, install_seconds=2.0, budget_seconds=3.0, budget_seconds_per_trial=0.02)
OBJECTIVE = Objective("loss")
SPACE = ParameterSpace(
    (
        Parameter("DEPTH", Kind.INTEGER, 4, minimum=1, maximum=16),
        Parameter("LR", Kind.REAL, 0.04, minimum=1e-4, maximum=1.0, scale=Scale.LOG10),
        Parameter("ACTIVATION", Kind.CATEGORICAL, "relu", choices=("relu", "gelu", "swiglu")),
        Parameter("BETAS", Kind.LIST, (0.8, 0.95), minimum=0.0, maximum=0.999, length=2),
        Parameter("PATTERN", Kind.TEXT, "SSSL", pattern="[SL]+"),
        Parameter("SEED", Kind.INTEGER, 1, locked=True, minimum=0, maximum=10),
    )
)


class Result(NamedTuple):
    """What happened to one case at each level."""

    plain: str
    language: str
    full: str


async def run(case: Case, canary: Path, levels: Sequence[str] = ("plain", "language", "full")) -> Result:
    """Run ``case`` at ``levels``; a level that is left out is empty."""
    results = {"plain": "", "language": "", "full": ""}
    for level in ("plain", "language"):
        if level in levels:
            results[level] = await _level(level, case, canary)
    if "full" in levels:
        results["full"] = await full(case, canary)
    return Result(**results)


async def _level(level: str, case: Case, canary: Path) -> str:
    request = {
        "level": level,
        "source": case.source(str(canary), SECRET),
        "space": SPACE.to_json(),
        "history": [trial.to_json() for trial in synthetic_history(SPACE, OBJECTIVE, 6, 1)],
        "path": [str(ROOT), str(Path(RestrictedPython.__file__).parents[1])],
    }
    with tempfile.TemporaryDirectory() as scratch:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", str(Path(__file__).with_name("attack_levels.py"))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"CANARY": SECRET, "PATH": os.environ["PATH"]},
            cwd=scratch,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(json.dumps(request).encode()), LEVEL_SECONDS)
        except TimeoutError:
            return "hung"
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself and left nothing
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    try:
        answer = json.loads(output.decode(errors="replace").splitlines()[-1])
    except (IndexError, ValueError):
        return "crashed"
    text = answer.get("text", "")
    if answer["outcome"] == "returned":
        return "broke out" if SECRET in text else "changed" if "@MUTATED@" in text else "returned"
    return str(answer["outcome"])


async def full(case: Case, canary: Path) -> str:
    """The gate's verdict, and what becomes of an accepted mechanism in a run."""
    source = case.source(str(canary), SECRET)
    history = synthetic_history(SPACE, OBJECTIVE, 12, 3)
    report = await check(source, space=SPACE, objective=OBJECTIVE, history=history, limits=LIMITS)
    if not report.accepted:
        return "broke out" if SECRET in report.render() else f"rejected at {report.stage.value}"
    seen: list[str] = [report.render()]
    try:
        process = await MechanismProcess.start(source, SPACE, OBJECTIVE, {}, 0, name="attack", limits=LIMITS)
        async with process:
            await _serve(process, seen)
    except MechanismFailure as failure:
        seen.append(failure.message)
        outcome = f"suspended: {failure.kind.value.replace('_', ' ')}"
    else:
        outcome = "ran to the end"
    return "broke out" if any(SECRET in text for text in seen) else outcome


async def _serve(process: MechanismProcess, seen: list[str]) -> None:
    """Live with the mechanism as a run does: its proposals are run, every hook is called, every trial observed."""
    recorded = synthetic_history(SPACE, OBJECTIVE, SERVICE_TRIALS, 11)
    history: list[TrialRecord] = [recorded[0]]
    await process.observe(recorded[0])
    active = tuple(parameter.name for parameter in SPACE.editable)
    for number in range(1, SERVICE_TRIALS):
        incumbent, best = incumbents(history, OBJECTIVE)[-1]
        left = SERVICE_TRIALS - number
        view = SearchView(OBJECTIVE, tuple(history), incumbent, best, active, (), "", "", left)
        trial = dataclasses.replace(recorded[number], number=number)
        changes = SPACE.changes(incumbent.configuration, trial.configuration)
        candidate = await _ask(process, view, Candidate(changes, trial.hypothesis), trial, seen)
        configuration = SPACE.apply(incumbent.configuration, candidate.changes)
        trial = dataclasses.replace(trial, configuration=configuration, changes=candidate.changes)
        history.append(trial)
        await process.observe(trial)


async def _ask(
    process: MechanismProcess, view: SearchView, candidate: Candidate, trial: TrialRecord, seen: list[str]
) -> Candidate:
    hooks = process.hooks
    if Hook.PROMPT in hooks:
        seen.append(await process.prompt(view))
    if Hook.PROPOSE in hooks:
        proposed = await process.propose(view, 1)
        candidate = proposed[0] if proposed else candidate
        seen.append(candidate.hypothesis)
    if candidate.changes and Hook.REVISE in hooks:
        candidate = await process.revise(view, candidate)
    if candidate.changes and Hook.VETO in hooks:
        seen.append(str(await process.veto(view, candidate)))
    if Hook.RANK in hooks:
        await process.rank(view, [candidate, Candidate({"DEPTH": 2}, "")])
    if Hook.BUDGET in hooks:
        await process.budget(view, candidate)
    if Hook.ACCEPT in hooks and trial.metric is not None:
        await process.accept(view, dataclasses.replace(trial, kept=None))
    return candidate


async def run_all(cases: Sequence[Case], levels: Sequence[str], parallel: int) -> dict[str, Result]:
    """Every case, a few at the same time. The canary must be as it was in the end."""
    gate = asyncio.Semaphore(parallel)
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(SECRET)

        async def one(case: Case) -> tuple[str, Result]:
            async with gate:
                return case.key, await run(case, canary, levels)

        results = {}
        for place, done in enumerate(asyncio.as_completed([one(case) for case in cases]), start=1):
            key, results[key] = await done
            if place % 50 == 0:
                print(f"{place} of {len(cases)} cases", file=sys.stderr, flush=True)
        if canary.read_text() != SECRET:
            raise AssertionError("a case changed the canary")
    return results


_REACHED = {
    "secret": ("broke out",),
    "hang": ("hung", "exhausted"),
    "memory": ("exhausted", "hung", "crashed"),
    "crash": ("crashed",),
    "raise": ("raised", "crashed", "hung", "exhausted"),
    "parse": ("returned", "crashed", "hung"),
    "shape": ("returned", "raised"),
}


def reached(case: Case, plain: str) -> bool:
    """Whether a case got in plain Python what it is after; for most goals, that nothing stopped it."""
    return plain in _REACHED.get(case.goal, ("returned", "changed"))


def table(cases: Sequence[Case], results: dict[str, Result]) -> str:
    """The results by category, as Markdown."""
    columns = "| category | cases | plain Python: did harm | language alone: stopped | rejected by the gate "
    lines = [
        columns + "| suspended in the run | ran to the end, harmless | escapes |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    grouped: dict[str, list[Result]] = defaultdict(list)
    for case in cases:
        grouped[case.category].append(results[case.key])
    totals: Counter[int] = Counter()
    for category, group in grouped.items():
        row = [
            len(group),
            sum(reached(case, results[case.key].plain) for case in cases if case.category == category),
            sum(r.language in ("refused", "raised") for r in group),
            sum(r.full.startswith("rejected") for r in group),
            sum(r.full.startswith("suspended") for r in group),
            sum(r.full == "ran to the end" for r in group),
            sum("broke out" in (r.full, r.language) for r in group),
        ]
        for column, value in enumerate(row):
            totals[column] += value
        lines.append(f"| {category} | " + " | ".join(map(str, row)) + " |")
    lines.append("| **all** | " + " | ".join(f"**{totals[column]}**" for column in range(7)) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run everything, compare with what is expected, and rewrite the table in docs/security.md.

    ``--accept`` makes what was found the expectation; ``--table`` writes the table of the expectation without running.
    """
    cases = load()
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    started = time.monotonic()
    if "--table" in sys.argv:
        results = {key: Result(**result) for key, result in expected.items()}
    else:
        results = asyncio.run(run_all(cases, ("plain", "language", "full"), parallel=os.cpu_count() or 2))
    found = {key: result._asdict() for key, result in results.items()}
    if "--accept" in sys.argv:
        expected = {case.key: found[case.key] for case in cases}
        EXPECTED.write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
    differing = [key for key in found if _comparable(found[key]) != _comparable(expected.get(key, {}))]
    for key in differing:
        print(f"{key}: expected {expected.get(key)}, found {found[key]}")
    text = table(cases, results)
    print(text)
    escapes = [key for key, result in results.items() if "broke out" in (result.language, result.full)]
    print(
        f"{len(cases)} cases in {time.monotonic() - started:.0f} s, {len(escapes)} escapes, {len(differing)} unexpected"
    )
    _rewrite(text)
    return 1 if escapes or differing else 0


def _comparable(result: dict[str, str]) -> dict[str, str]:
    """The verdicts without what chance decides: which limit a case meets first that has no sandbox to stop it."""
    endless = ("hung", "exhausted", "crashed")
    return {level: "endless" if level != "full" and said in endless else said for level, said in result.items()}


def _rewrite(text: str) -> None:
    if TABLE.exists():
        before, _, rest = TABLE.read_text().partition("<!-- attacks -->\n")
        _, _, after = rest.partition("<!-- /attacks -->")
        TABLE.write_text(f"{before}<!-- attacks -->\n{text}\n<!-- /attacks -->{after}")


if __name__ == "__main__":
    sys.exit(main())
