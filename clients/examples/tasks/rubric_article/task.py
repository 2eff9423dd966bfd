"""Instructions for a writer, scored by judges with a rubric: both are calls to the language model's endpoint.

.venv/bin/bilevel serve researcher                  # or OPENAI_BASE_URL, OPENAI_API_KEY and BILEVEL_MODEL
.venv/bin/python clients/examples/tasks/rubric_article/task.py --listen 127.0.0.1:7500
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import NamedTuple

from pydantic import BaseModel, Field

from clients.task_sdk import Context, Integer, Result, Split, Text, task
from service_kit.llm.client import LanguageModel
from service_kit.llm.failures import Message
from service_kit.llm.structured import ask
from service_kit.settings import ModelSettings

RUBRIC = {
    "coverage": "every fact of the brief is there, and nothing that is not in it",
    "clarity": "sentences of a length that can be read once",
    "example": "one example makes the subject concrete",
    "honesty": "what is uncertain is called uncertain",
}
JUDGES = ("an editor", "a newcomer to the subject", "a checker of facts")


class Brief(NamedTuple):
    """What an article must say."""

    topic: str
    facts: tuple[str, ...]


SEARCHED: tuple[Brief, ...] = (
    Brief(
        "why caches make programs faster",
        (
            "A processor waits hundreds of cycles for main memory, and a few for its nearest cache.",
            "Programs use the same data again soon, and data beside it.",
            "A cache keeps what was used last, and forgets what was used longest ago.",
            "A cache that is too small is emptied before its content is used again.",
        ),
    ),
    Brief(
        "why bridges have expansion joints",
        (
            "Steel grows by about a hundredth of a millimetre for each metre and degree.",
            "A bridge of a hundred metres grows by several centimetres between winter and summer.",
            "A joint leaves room for that, and carries wheels across the gap.",
            "Joints wear out first, and newer short bridges are built without them.",
        ),
    ),
)
HELD_OUT: tuple[Brief, ...] = (
    Brief(
        "why bread dough is left to rise twice",
        (
            "Yeast turns sugar into gas, and gluten holds the gas in small bubbles.",
            "Kneading after the first rise makes many small bubbles out of few large ones.",
            "The second rise fills them, and gives the loaf its final shape.",
            "Dough that rises too long collapses, and tastes of alcohol.",
        ),
    ),
)


class Article(BaseModel):
    """What the writer answers."""

    article: str = Field(description="the article, plain text")


class Score(BaseModel):
    """One line of a judge's sheet."""

    criterion: str
    score: float = Field(ge=0, le=10, description="0 is useless, 10 cannot be better")
    reason: str = Field(description="one sentence")


class Sheet(BaseModel):
    """What a judge answers."""

    scores: list[Score]


@task(
    name="rubric-article",
    metric="rubric_score",
    unit="points",
    goal="maximize",
    space={
        "instructions": Text(
            default="Write an article about the topic from the facts.",
            max_length=1_500,
            doc="What the writer is told about how to write. It must fit any topic: confirmation uses another one.",
        ),
        "words": Integer(40, 240, default=40, step=20, doc="Longest article, in words."),
    },
    budget=60.0,
    hard_limit=600.0,
    held_out=True,
    fresh_process=False,
)
async def article(instructions: str, words: int, *, context: Context) -> Result:
    """Mean score of articles, 0 to 10, given by three judges with a rubric of four criteria.

    A writer gets the instructions, a topic and its facts; judges get the article, the facts and the rubric, and not the
    instructions. Judges disagree and are moody: the spread of their scores is a side metric, and a gain counts only
    when it holds on fresh seeds and on a topic that the search never saw.
    """
    briefs = HELD_OUT if context.split is Split.HELD_OUT else SEARCHED
    briefs = briefs[: max(1, round(len(briefs) * context.budget_fraction))]
    model = LanguageModel(ModelSettings.load().or_scripted())
    try:
        sheets: list[Sheet] = []
        for number, brief in enumerate(briefs):
            text, answered_by = await write(model, brief, instructions, words, context.seed)
            sheets += await asyncio.gather(*(judge(model, brief, text, name, context.seed) for name in JUDGES))
            context.report((number + 1) / len(briefs), step=number + 1, phase="judging", rubric_score=mean(sheets))
    finally:
        await model.close()
    by_criterion = {name: fmean(points(sheet)[name] for sheet in sheets) for name in RUBRIC}
    spread = pstdev(fmean(points(sheet).values()) for sheet in sheets)
    scripted = " (scripted, no language model)" if answered_by.startswith("scripted") else ""
    return Result(
        mean(sheets),
        {**by_criterion, "spread_of_judges": spread, "calls": float(len(briefs) * (1 + len(JUDGES)))},
        f"written and judged by {answered_by}{scripted}",
        {"model": answered_by, "article": text},
    )


async def write(model: LanguageModel, brief: Brief, instructions: str, words: int, seed: int) -> tuple[str, str]:
    """An article, and the name of the model that wrote it."""
    state = {"topic": brief.topic, "facts": brief.facts, "instructions": instructions, "words": words, "draft": seed}
    said = f"Write one article of at most {words} words, as the instructions of this brief say.\n\n{fenced(state)}"
    answer = await ask(model, "write", [Message("user", said)], Article)
    return answer.value.article, answer.model


async def judge(model: LanguageModel, brief: Brief, text: str, name: str, seed: int) -> Sheet:
    """One judge's sheet: a score for each criterion. Raises ValueError for one that leaves a criterion out."""
    state = {
        "topic": brief.topic,
        "facts": brief.facts,
        "article": text,
        "rubric": RUBRIC,
        "judge": name,
        "sitting": seed,
    }
    said = f"You are {name}. Score the article of this brief from 0 to 10 on each criterion.\n\n{fenced(state)}"
    sheet = (await ask(model, "judge", [Message("user", said)], Sheet)).value
    if missing := RUBRIC.keys() - points(sheet).keys():
        raise ValueError(f"the judge, {name}, gave no score for {', '.join(sorted(missing))}")
    return sheet


def points(sheet: Sheet) -> dict[str, float]:
    """Criterion to score."""
    return {score.criterion: score.score for score in sheet.scores if score.criterion in RUBRIC}


def mean(sheets: Sequence[Sheet]) -> float:
    """Of every score of every sheet."""
    return fmean(fmean(points(sheet).values()) for sheet in sheets)


def fenced(state: object) -> str:
    """The brief as data, which a script can read as well as a model."""
    return f"```json brief\n{json.dumps(state, ensure_ascii=False)}\n```"


if __name__ == "__main__":
    article.serve()
