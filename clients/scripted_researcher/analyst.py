"""``analyse``: what the researcher says about a trace at level 1.5."""

from __future__ import annotations

from typing import Any

from clients.scripted_researcher.diagnosis import exhausted_parameters, since_gain, tallies, untried
from clients.scripted_researcher.state import SearchState

MOST_FREEZES = 5
LEAST_ACTIVE = 4


def analyse(state: SearchState) -> dict[str, Any]:
    """Freezes what is exhausted in every direction, and names what nobody tried.

    It does not tell the proposer to turn round: as in the paper, level 1.5 on its own rarely breaks a fixation.
    """
    worn = exhausted_parameters(state)
    room = max(0, min(MOST_FREEZES, len(state.active) - LEAST_ACTIVE))
    freeze = [
        {"parameter": name, "reason": f"scripted: tried {tries} times, both ways where it has two, without gain"}
        for name, tries in list(worn.items())[:room]
    ]
    waited = since_gain(state)
    open_ = untried(state)
    strategy = "explore" if waited >= LEAST_ACTIVE else "refine"
    guidance = (
        f"Not tried so far: {', '.join(open_[:8])}." if open_ else "Everything active has been tried at least once."
    )
    tried = [f"{t.towards} {t.parameter}: {t.gains} of {t.tries} gained" for t in tallies(state)[:6]]
    observation = (
        f"scripted: {waited} trials since the last gain. " + ("; ".join(tried) or "Nothing was tried yet") + "."
    )
    return {
        "observation": observation,
        "freeze": freeze,
        "unfreeze": [],
        "strategy": strategy,
        "guidance": f"(scripted) {guidance}",
    }
