"""``write`` and ``judge``: what the script answers to the rubric example, by rules that anyone can read here.

The writer states the facts of the brief, one sentence each, and obeys four phrases of its instructions and no others:
"short sentences" splits facts at ", and", "example" adds one, "uncertain" adds a last sentence, "main point" a first.
It stops before the word limit.

The judge scores ``coverage`` by the share of facts whose longer words occur, ``clarity`` by how far the mean sentence
is from fourteen words, ``example`` and ``honesty`` by whether the words "for example" and "uncertain" occur, and
anything else 5. To that it adds a mood between -1 and 1 that a digest of judge, sitting, criterion and article gives.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from clients.scripted_researcher.state import BadRequest

_BRIEF = re.compile(r"^```json brief[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"[^.!?]+[.!?]")
_LONG_WORD = re.compile(r"\w{6,}")
_READABLE_WORDS = 14

Messages = Sequence[Mapping[str, str]]


def write(messages: Messages) -> dict[str, Any]:
    """An article from a brief. Raises :class:`BadRequest`."""
    brief = _brief(messages, "topic", "facts", "instructions", "words")
    wanted = str(brief["instructions"]).lower()
    sentences = []
    if "main point" in wanted:
        sentences.append(f"This is {brief['topic']}.")
    for fact in map(str, brief["facts"]):
        sentences += [fact] if "short sentences" not in wanted else fact.replace(", and ", ". And ").split(". ")
    if "example" in wanted:
        sentences.insert(min(2, len(sentences)), "For example, look at one of them closely.")
    if "uncertain" in wanted:
        sentences.append("How large the effect is in your case is uncertain.")
    article = ""
    for sentence in sentences:
        longer = f"{article} {sentence.rstrip('.')}.".strip()
        if len(longer.split()) > int(brief["words"]):
            break
        article = longer
    return {"article": article or "Nothing fits."}


def judge(messages: Messages) -> dict[str, Any]:
    """A score for each criterion of the rubric. Raises :class:`BadRequest`."""
    brief = _brief(messages, "facts", "article", "rubric", "judge", "sitting")
    article = str(brief["article"])
    scores = []
    for criterion in brief["rubric"]:
        quality, reason = _quality(str(criterion), article, [str(fact) for fact in brief["facts"]])
        mood = _mood(brief["judge"], brief["sitting"], criterion, article)
        score = round(min(10.0, max(0.0, quality + mood)), 2)
        scores.append({"criterion": criterion, "score": score, "reason": f"scripted: {reason}, mood {mood:+.2f}."})
    return {"scores": scores}


def _quality(criterion: str, article: str, facts: Sequence[str]) -> tuple[float, str]:
    lowered = article.lower()
    match criterion:
        case "coverage":
            words = [set(_LONG_WORD.findall(fact.lower())) for fact in facts]
            there = sum(1 for fact in words if 2 * sum(word in lowered for word in fact) >= len(fact))
            return 10.0 * there / max(1, len(facts)), f"{there} of {len(facts)} facts"
        case "clarity":
            lengths = [len(sentence.split()) for sentence in _SENTENCE.findall(article)]
            mean = sum(lengths) / max(1, len(lengths))
            return max(0.0, 10.0 - abs(mean - _READABLE_WORDS) / 2), f"{mean:.1f} words a sentence"
        case "example":
            found = "for example" in lowered
            return (9.0, "an example") if found else (3.0, "no example")
        case "honesty":
            found = "uncertain" in lowered
            return (9.0, "says what is uncertain") if found else (4.0, "sounds certain throughout")
    return 5.0, "no rule for this criterion"


def _mood(*parts: object) -> float:
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).digest()
    return int.from_bytes(digest[:4]) / 2**31 - 1.0


def _brief(messages: Messages, *needed: str) -> dict[str, Any]:
    for message in reversed(messages):
        if message["role"] == "user" and (block := _BRIEF.search(message["content"])):
            try:
                brief = json.loads(block[1])
            except ValueError:
                raise BadRequest("the brief block is not JSON", "messages") from None
            if isinstance(brief, dict) and brief.keys() >= set(needed):
                return brief
            raise BadRequest(f"the brief block must be an object with {', '.join(needed)}", "messages")
    raise BadRequest("the last user message must hold a block that begins with the line ```json brief", "messages")
