"""An examination as text for people, JSON, and JUnit XML for continuous integration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from clients.conformance.suite import Examination, Finding, Verdict

DOCUMENT = "docs/protocol.md"
_MARKS = {
    Verdict.HOLDS: "ok  ",
    Verdict.VIOLATED: "FAIL",
    Verdict.ADVICE: "warn",
    Verdict.NOT_SEEN: "skip",
    Verdict.UNDECIDED: "????",
}
_ELEMENTS = {
    Verdict.VIOLATED: "failure",
    Verdict.UNDECIDED: "error",
    Verdict.ADVICE: "skipped",
    Verdict.NOT_SEEN: "skipped",
}


def lines(examination: Examination) -> Iterator[str]:
    """One line a check, what the implementation did instead below it, and the count."""
    yield f"{examination.subject} at {examination.address}, profile {examination.profile}; clauses of {DOCUMENT}"
    for finding in examination.findings:
        yield f"{_MARKS[finding.verdict]}  {finding.clause:<12} {finding.title}"
        if finding.message:
            yield f"      {'':<12} {finding.message}"
    yield summary(examination)


def summary(examination: Examination) -> str:
    """What holds and what does not, in numbers and clauses."""
    counts = {verdict: len(examination.of(verdict)) for verdict in Verdict}
    said = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    broken = list(dict.fromkeys(finding.clause for finding in examination.of(Verdict.VIOLATED)))
    verdict = f"does not conform: {', '.join(broken)}" if broken else "conforms"
    if examination.of(Verdict.UNDECIDED) and not broken:
        verdict = "undecided"
    return f"{examination.subject} at {examination.address} {verdict} ({said})"


def to_json(examination: Examination) -> dict[str, Any]:
    """The whole examination as JSON-ready built-in types."""
    return asdict(examination) | {"conforms": examination.exit_code == 0, "document": DOCUMENT}


def to_junit(examination: Examination) -> bytes:
    """One test case a check: violations are failures, what was not seen or is advice is skipped with its reason."""
    skipped = examination.of(Verdict.ADVICE, Verdict.NOT_SEEN)
    suite = ElementTree.Element(
        "testsuite",
        name=f"bilevel conform {examination.subject} {examination.profile}",
        tests=str(len(examination.findings)),
        failures=str(len(examination.of(Verdict.VIOLATED))),
        errors=str(len(examination.of(Verdict.UNDECIDED))),
        skipped=str(len(skipped)),
        time=f"{sum(finding.seconds for finding in examination.findings):.3f}",
    )
    for finding in examination.findings:
        _test_case(suite, examination, finding)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _test_case(suite: ElementTree.Element, examination: Examination, finding: Finding) -> None:
    name = f"{finding.clause} {finding.title}"
    class_name = f"conformance.{examination.subject}"
    case = ElementTree.SubElement(suite, "testcase", classname=class_name, name=name, time=f"{finding.seconds:.3f}")
    kind = {
        Verdict.VIOLATED: "failure",
        Verdict.UNDECIDED: "error",
        Verdict.ADVICE: "skipped",
        Verdict.NOT_SEEN: "skipped",
    }
    if finding.verdict in kind:
        message = f"{finding.clause}: {_printable(finding.message)}"
        ElementTree.SubElement(case, kind[finding.verdict], message=message, type=finding.verdict.value)


def _printable(text: str) -> str:
    """``text`` without the control characters that XML cannot hold: a server under test may say anything."""
    return "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)
