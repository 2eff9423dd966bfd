class Mechanism:
    """Plateau diversification: after a stall, propose parameters that were changed least and say so in the prompt.

    A restart in untried directions, as in iterated local search: Lourenco, Martin and Stuetzle (2003).
    Settings: patience (5) trials without an improvement.
    """

    def __init__(self, space, settings, rng):
        self.space = space
        self.rng = rng
        self.patience = int(settings.get("patience", 5))
        self._stalled = 0
        self._tried = dict.fromkeys(space.names, 0)

    def observe(self, trial):
        self._stalled = 0 if trial.kept else self._stalled + 1
        for name in trial.changes:
            self._tried[name] += 1

    def _neglected(self, view):
        names = [name for name in view.active if self.space.has_unit(name)]
        return sorted(names, key=lambda name: self._tried[name])[:3]

    def prompt(self, view):
        if self._stalled < self.patience:
            return ""
        names = ", ".join(f"{name} ({self._tried[name]} trials)" for name in self._neglected(view))
        return (
            f"No improvement for {self._stalled} trials. Least explored: {names}. Try one of these, with a bold step."
        )

    def propose(self, view, count):
        if self._stalled < self.patience:
            return []
        candidates = []
        for name in self._neglected(view)[:count]:
            value = self.space.sample(name, self.rng)
            if value != view.incumbent.configuration[name]:
                candidates.append(
                    Candidate({name: value}, f"plateau: {name} was changed only {self._tried[name]} times")
                )
        return candidates
