"""Prompts as files of a package: Jinja templates, versioned by what they say, rendered to fit the model's context."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from pydantic import BaseModel

from service_kit.llm.budget import Budget
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Failure, LimitTooSmall, Message, ModelError
from service_kit.llm.structured import Answer, ask
from service_kit.llm.tokens import estimate_messages
from service_kit.llm.usage import Usage

T = TypeVar("T", bound=BaseModel)
EntryT = TypeVar("EntryT")

VERSION_DIGITS = 12
SHRINKS = 2
"""Times a prompt is made shorter after the endpoint found it too long."""
ESSENTIAL = ("number", "changes", "directions", "origin", "outcome", "metric", "kept", "incumbent_metric")
"""What is left of a trial whose details are left out."""


class Templates:
    """The templates of one folder. A name that is missing in one is a bug and raises."""

    def __init__(self, folder: Path) -> None:
        # Text for a model, not HTML.
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            autoescape=False,  # noqa: S701
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # the version below is that of the templates as they were at the start
        )
        digest = hashlib.sha256()
        for file in sorted(folder.glob("*.j2")):
            digest.update(f"{file.name}\n{file.read_text(encoding='utf-8')}\n".encode())
        self.version = digest.hexdigest()[:VERSION_DIGITS]
        """The beginning of the SHA-256 of all templates: it changes when a prompt does."""

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        return self._environment.get_template(name).render(values).strip()


def preview_text(messages: Sequence[Message], version: str) -> str:
    """A prompt for people: every message as the model gets it, then its size. The schema of the answer comes on top."""
    parts = [f"===== {message.role} =====\n{message.content}\n" for message in messages]
    characters = sum(len(message.content) for message in messages)
    size = f"{len(messages)} messages, {characters} characters, about {estimate_messages(messages)} tokens"
    return "\n".join([*parts, f"===== {size}; prompts {version} =====\n"])


def preview_document(messages: Sequence[Message], version: str) -> dict[str, Any]:
    """The same as JSON-ready built-in types; the version is empty where it is not known."""
    return {
        "messages": [message.to_json() for message in messages],
        "estimated_tokens": estimate_messages(messages),
        "prompt_version": version,
    }


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of a search a prompt shows; None is everything."""

    full: int | None = None
    """Newest trials with everything that is known of them; of older ones what they changed and what came of it."""
    trials: int | None = None
    """Newest trials that are shown at all; those that were kept always are."""
    sources: int | None = None
    """Files of source text: the loop's own, or the task's."""
    examples: int | None = None
    """Complete mechanisms to learn from."""
    lessons: int | None = None
    """Lessons of earlier runs, for the outer loop's researcher."""


DETAILS = (
    Detail(),
    Detail(full=40),
    Detail(full=20, examples=3),
    Detail(full=20, sources=4, examples=2),
    Detail(full=10, sources=2, examples=1),
    Detail(full=10, trials=60, sources=1, examples=1),
    Detail(full=10, trials=60, sources=0, examples=1, lessons=3),
    Detail(full=5, trials=25, sources=0, examples=1, lessons=1),
    Detail(full=3, trials=10, sources=0, examples=0, lessons=0),
)
"""What is left out, step by step, until a prompt fits: details of old trials first, whole trials last."""


def fitting(
    build: Callable[[Detail], Sequence[Message]],
    limit: int,
    details: Sequence[Detail] = DETAILS,
    least: Callable[[Detail], int] = lambda _: 0,
) -> tuple[Message, ...]:
    """The most detailed prompt of at most ``limit`` estimated tokens; 0 is no limit.

    ``least`` says of how many tokens a prompt would be at least, so that what cannot fit need not be built. Raises
    :class:`LimitTooSmall` when even the shortest is longer.
    """
    tokens = 0
    for detail in details:
        if limit and least(detail) > limit and detail is not details[-1]:
            continue
        messages = tuple(build(detail))
        tokens = estimate_messages(messages)
        if not limit or tokens <= limit:
            return messages
    raise LimitTooSmall(tokens, limit)


def outline(trial: dict[str, Any]) -> dict[str, Any]:
    """What a trial changed and what came of it."""
    return {**{key: trial[key] for key in ESSENTIAL if key in trial}, "message": ""}


def divided(
    trials: Sequence[dict[str, Any]], detail: Detail
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """The trials that a prompt shows in outline, the newer ones that it shows whole, and what it leaves out of both, in
    sentences."""
    shown, left_out = list(trials), list[str]()
    if detail.trials is not None and len(shown) > detail.trials:
        recent = {trial["number"] for trial in shown[-detail.trials :]} if detail.trials else set()
        shown = [trial for trial in shown if trial["number"] in recent or trial["kept"]]
        if len(shown) < len(trials):
            left_out.append(f"{len(trials) - len(shown)} of {len(trials)} trials: old ones that were not kept")
    if detail.full is None or len(shown) <= detail.full:
        return [], shown, left_out
    old, new = shown[: len(shown) - detail.full], shown[len(shown) - detail.full :]
    left_out.append(f"hypothesis, side metrics and message of the {len(old)} oldest shown trials")
    return old, new, left_out


def shortened(trials: Sequence[dict[str, Any]], detail: Detail) -> tuple[list[dict[str, Any]], list[str]]:
    """Trials as a prompt shows them, and what was left out of them in sentences."""
    old, new, left_out = divided(trials, detail)
    return [*map(outline, old), *new], left_out


def first(entries: Sequence[EntryT], most: int | None, what: str) -> tuple[Sequence[EntryT], list[str]]:
    """The first ``most`` entries, and a sentence that names the others."""
    if most is None or len(entries) <= most:
        return entries, []
    others = ", ".join(str(getattr(entry, "path", entry)) for entry in entries[most:])
    return entries[:most], [f"{what}: {others}"]


async def ask_fitting(
    model: LanguageModel,
    purpose: str,
    build: Callable[[int], Sequence[Message]],
    answer_type: type[T],
    *,
    budget: Budget | None = None,
) -> Answer[T]:
    """Ask with the prompt that ``build`` makes for a limit of tokens: the settings' one, and half of the last prompt,
    twice at most, when the endpoint finds it too long. Raises like :func:`service_kit.llm.structured.ask`."""
    limit, usage, latency = model.settings.context_tokens, Usage(), 0.0
    too_long: ModelError | None = None
    for shrinks_left in range(SHRINKS, -1, -1):
        try:
            messages = build(limit)
        except ModelError as error:
            raise too_long or error from None  # what the endpoint said is the reason, not the limit that was tried
        try:
            answer = await ask(model, purpose, messages, answer_type, budget=budget)
        except ModelError as error:
            usage, latency = usage + error.usage, latency + error.latency
            error.usage, error.latency = usage, latency
            if error.kind is not Failure.CONTEXT_TOO_LONG or not shrinks_left:
                raise
            limit, too_long = estimate_messages(messages) // 2, error
        else:
            return answer.after(usage, latency)
    raise AssertionError("the last turn returns or raises")
