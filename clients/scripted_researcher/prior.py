"""``propose``: the prior that the paper documents, as a script.

It follows the lessons that it is shown: what one says to try comes right after what the run itself suggests, what one
says to avoid is left out of the round. A candidate names the lessons without which it would have been another.

It believes in larger batches, then in weight decay, attention windows and small learning-rate moves; it tries them
round and round and never decreases the batch by itself. On spaces without those names it does the same with what is
there: the first number is its favourite and only ever grows; the others take small steps up, then down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clients.scripted_researcher.moves import Multiple, Towards, fitted, moved, multiples, ordered
from clients.scripted_researcher.state import SearchState
from clients.scripted_researcher.suggestions import Suggestions
from service_kit.parameters import Configuration, Value, value_to_json

UP, DOWN, OTHER = Towards.INCREASE, Towards.DECREASE, Towards.CHANGE

FAVOURITE = "TOTAL_BATCH_SIZE"
BENCHMARK_ROUND = (
    (FAVOURITE, UP),
    (FAVOURITE, UP),
    ("WEIGHT_DECAY", UP),
    ("WINDOW_PATTERN", OTHER),
    ("MATRIX_LR", UP),
    ("WEIGHT_DECAY", DOWN),
    (FAVOURITE, UP),
    ("EMBEDDING_LR", UP),
    ("WEIGHT_DECAY", UP),
    ("WINDOW_PATTERN", OTHER),
    ("UNEMBEDDING_LR", UP),
    ("SCALAR_LR", DOWN),
    (FAVOURITE, UP),
    ("MATRIX_LR", DOWN),
    ("EMBEDDING_LR", DOWN),
    ("UNEMBEDDING_LR", DOWN),
)
"""One round over the benchmark's hyperparameters; TOTAL_BATCH_SIZE only ever upwards."""

SIZES = (1, 2, 3)
"""Small steps of a move: the first that is new on the present incumbent, else the first again."""

_WHY = {
    UP: "a somewhat larger {name} usually helps",
    DOWN: "a somewhat smaller {name} may regularise less and learn faster",
    OTHER: "another {name} may fit this budget better",
}

Move = tuple[str, Towards]


def propose(state: SearchState) -> dict[str, Any]:
    """The answer to ``propose``: ``count`` candidates, or as many as the space leaves open."""
    candidates: list[dict[str, Any]] = []
    taken: list[Configuration] = [*state.refused, *state.under_way]
    for changes, why, lessons in _candidates(state):
        if len(candidates) == state.count:
            break
        if changes in taken:
            continue
        taken.append(changes)
        listed = [{"parameter": name, "value": value_to_json(value)} for name, value in changes.items()]
        cited = {"lessons": list(lessons)} if state.lessons else {}
        candidates.append({"changes": listed, "hypothesis": f"scripted: {why}.", **cited})
    return {"candidates": candidates}


def benchmark_like(state: SearchState) -> bool:
    """Whether the space is the benchmark's."""
    return FAVOURITE in state.parameters and sum(name in state.parameters for name, _ in BENCHMARK_ROUND) > 4


def round_of(state: SearchState) -> tuple[Move, ...]:
    """One round of moves over the space, frozen parameters included: freezing skips moves but keeps the order."""
    if benchmark_like(state):
        return BENCHMARK_ROUND
    names = [name for name, parameter in state.parameters.items() if not parameter.locked]
    numbers = [name for name in names if ordered(state.parameters[name])]
    favourite = numbers[:1]
    first = [(name, UP if name in numbers else OTHER) for name in names]
    again = [(name, UP) for name in favourite]
    return (*first, *again, *((name, DOWN) for name in numbers[1:]))


Idea = tuple[Configuration, str, tuple[str, ...]]
"""Changes, why, and the ids of the lessons that led to them."""


def _candidates(state: SearchState) -> Iterator[Idea]:
    """Candidates in the order of preference: suggestions, lessons, the round from where it stopped, what is left."""
    texts = [state.guidance, state.strategy, *(m.prompt for m in state.mechanisms if m.state == "active")]
    suggestions = Suggestions.read(texts, state.parameters)
    rules = tuple(multiples(state.constraints, tuple(state.parameters)))
    tried = state.tried_since_incumbent()
    for name, towards in suggestions.wanted:
        changes = _change(state, (name, towards), 1, rules)
        if changes is not None and changes not in tried:
            yield changes, f"the prompt suggests to {towards} {name}", ()
    learnt = {lesson.id: Suggestions.read([lesson.statement], state.parameters) for lesson in state.lessons}
    for id_, lesson in learnt.items():
        for name, towards in lesson.wanted:
            changes = _change(state, (name, towards), 1, rules)
            if changes is not None and changes not in tried and suggestions.allows(name, towards):
                yield changes, f"a lesson of an earlier search says to {towards} {name}", (id_,)
    yield from _round(state, suggestions, learnt, rules)
    yield from _leftovers(state, suggestions, rules)


def _round(
    state: SearchState, suggestions: Suggestions, learnt: Mapping[str, Suggestions], rules: tuple[Multiple, ...]
) -> Iterator[Idea]:
    """The round's moves from where it stopped, without those that lessons advise against; what follows cites these."""
    refused, tried = set(_refused_moves(state)), state.tried_since_incumbent()
    order = [move for move in round_of(state) if suggestions.allows(*move) and move not in refused]
    if not order:
        return
    asked = sum(trial.origin == "model" for trial in state.trials)
    start = asked % len(order)
    passed_over: dict[str, None] = {}
    for move in (*order[start:], *order[:start]):
        if not (changes := _preferred(state, move, rules, tried)):
            continue
        against = [id_ for id_, lesson in learnt.items() if not lesson.allows(*move)]
        if against:
            passed_over |= dict.fromkeys(against)
            continue
        yield changes, _WHY[move[1]].format(name=move[0]), tuple(passed_over)


def _refused_moves(state: SearchState) -> Iterator[Move]:
    """What was refused just now, as moves: who is told that a direction is barred tries another one."""
    for changes in state.refused:
        for name, value in changes.items():
            parameter, old = state.parameters.get(name), state.incumbent.get(name)
            if parameter is None or not ordered(parameter):
                yield name, OTHER
            elif isinstance(value, int | float) and isinstance(old, int | float):
                yield name, UP if value > old else DOWN


def _preferred(
    state: SearchState, move: Move, rules: tuple[Multiple, ...], tried: list[Configuration]
) -> Configuration | None:
    possible = [
        changes for size in SIZES if (changes := _change(state, move, size, rules)) not in (None, *state.refused)
    ]
    fresh = [changes for changes in possible if changes not in tried]
    return next(iter((*fresh, *possible)), None)


def _leftovers(state: SearchState, suggestions: Suggestions, rules: tuple[Multiple, ...]) -> Iterator[Idea]:
    """Every other small move of an active parameter, in a fixed order; the favourite still never shrinks."""
    favourite = FAVOURITE if benchmark_like(state) else next(iter(dict(round_of(state))), None)
    for size in range(1, 9):
        for name in state.active:
            for towards in (UP, DOWN, OTHER):
                if (name == favourite and towards is DOWN) or not suggestions.allows(name, towards):
                    continue
                if changes := _change(state, (name, towards), size, rules):
                    yield changes, f"nothing better comes to mind than to {towards} {name}", ()


def _change(state: SearchState, move: Move, size: int, rules: tuple[Multiple, ...]) -> Configuration | None:
    """The changes that ``move`` needs on the incumbent; None where it is impossible or touches what is not active."""
    name, towards = move
    if name not in state.active:
        return None
    value: Value | None = moved(state.parameters[name], state.incumbent[name], towards, size)
    if value is None or value == state.incumbent[name]:
        return None
    changes = fitted({name: value}, state.incumbent, rules)
    return changes if all(other in state.active for other in changes) else None
