"""Which mechanism keeps a run from finding anything that may run, judged by the trace alone.

A mechanism's own sandbox ends it when it vetoes nearly everything for long. A run would have paused by then: so many
proposals in a row fail. This finds whom to part with instead.
"""

from __future__ import annotations

from collections import Counter
from itertools import takewhile

from inner_service.mechanism import MechanismState
from inner_service.run import Search, TrialState

FAILED_PROPOSALS = 4
"""So many failed proposals in a row end the mechanism behind them: one less than pause the run."""
REFUSED = 8
"""With fewer refused candidates in a row nobody is blamed: the model may have failed, too."""
SHARE = 0.5
"""Mechanisms are to blame when they had a hand in this share of the refused candidates."""


def obstructor(search: Search) -> tuple[str, str] | None:
    """The active mechanism with the largest part in the newest refusals, and a sentence on it; None without one.

    It has a part in a refusal that vetoed the candidate, or that revised it into one that may not run.
    """
    if search.run.failed_proposals < FAILED_PROPOSALS:
        return None
    refused = list(takewhile(lambda trial: trial.state is TrialState.REJECTED, reversed(search.trials)))
    active = {mechanism.name for mechanism in search.mechanisms if mechanism.state is MechanismState.ACTIVE}
    hands = [active.intersection(trial.changed_by) for trial in refused]
    if len(refused) < REFUSED or sum(map(bool, hands)) < SHARE * len(refused):
        return None
    name, count = Counter(name for names in hands for name in sorted(names)).most_common(1)[0]
    failed = search.run.failed_proposals
    return name, f"had a hand in {count} of the last {len(refused)} refusals; {failed} proposals in a row failed"
