"""One call of the proposer in the making: what may run so far, and which candidates are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from inner_service.candidates import configuration
from inner_service.choice import Option
from inner_service.lessons.lesson import Lesson
from inner_service.run import Search
from inner_service.search_state import Refusal
from mechanisms.interface import Candidate, SearchView
from service_kit.parameters import Value


@dataclass(slots=True)
class Round:
    """One call of the proposer in the making."""

    search: Search
    view: SearchView
    count: int
    texts: dict[str, str]
    lessons: Sequence[Lesson]
    own: list[Option] = field(default_factory=list)
    """Mechanisms' candidates that may run."""
    model: list[Option] = field(default_factory=list)
    """The model's candidates that may run."""
    refused: list[Refusal] = field(default_factory=list)
    vetoers: list[str] = field(default_factory=list)
    """Which mechanism vetoed each refused candidate; empty where something else refused it."""
    failure: str = ""
    """Why the model gave nothing at all."""
    over_budget: str = ""
    """Why the model could not be asked (again): the run's budget of tokens or money."""
    first_choice: Candidate | None = None
    """What the model wanted, before anyone changed it: the counterfactual."""

    @property
    def several(self) -> bool:
        """Whether candidates can get in each other's way: several are wanted, or others are under way."""
        return self.count > 1 or bool(self.search.open)

    def twin(self, values: dict[str, Value], pool: Sequence[Option]) -> str:
        """What has the same configuration already: a trial that is under way or a candidate in ``pool``; else empty."""
        for trial in self.search.open_trials:
            if trial.configuration == values:
                return f"trial {trial.number}, which is under way"
        if any(configuration(self.search, option.candidate) == values for option in pool):
            return "another candidate of this proposal"
        return ""

    def distinct(self, options: Sequence[Option]) -> list[Option]:
        """The options without those that repeat an earlier one's configuration."""
        seen: list[dict[str, Value]] = []
        kept = []
        for option in options:
            values = configuration(self.search, option.candidate)
            if values not in seen:
                seen.append(values)
                kept.append(option)
        return kept
