class Mechanism:
    """Quick test: spend a part of the budget on directions that have failed before, the whole on the others.

    The idea of early stopping in racing and successive halving: Maron and Moore (1994); Jamieson and Talwalkar (2016).
    Settings: fraction (0.4), failures (2) of a parameter in a row.
    """

    def __init__(self, space, settings, rng):
        self.fraction = float(settings.get("fraction", 0.4))
        self.failures = int(settings.get("failures", 2))
        self._failed = {}

    def observe(self, trial):
        for name in trial.changes:
            self._failed[name] = 0 if trial.kept else self._failed.get(name, 0) + 1

    def budget(self, view, candidate):
        doubtful = [name for name in candidate.changes if self._failed.get(name, 0) >= self.failures]
        return self.fraction if doubtful and len(doubtful) == len(candidate.changes) else 1.0
