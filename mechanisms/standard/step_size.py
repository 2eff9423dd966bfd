class Mechanism:
    """Step-size calibration: make the steps of a parameter longer while they succeed and shorter while they fail.

    The one-fifth success rule of evolution strategies: Rechenberg (1973); in the form of Kern et al. (2004).
    Settings: grow (1.5) for each success; a failure shrinks by its fourth root, so that one in five keeps the size.
    """

    def __init__(self, space, settings, rng):
        self.space = space
        self.grow = float(settings.get("grow", 1.5))
        self._factor = {}

    def observe(self, trial):
        for name in trial.changes:
            if self.space.has_unit(name) and self.space[name].kind in ("integer", "real"):
                old = self._factor.get(name, 1.0)
                new = old * self.grow if trial.kept else old * self.grow**-0.25
                self._factor[name] = min(3.0, max(0.1, new))

    def revise(self, view, candidate):
        changes = candidate.changes
        notes = []
        for name, value in changes.items():
            factor = self._factor.get(name, 1.0)
            old = view.incumbent.configuration[name]
            if abs(factor - 1.0) < 0.1 or name not in self._factor:
                continue
            start = self.space.to_unit(name, old)
            scaled = self.space.from_unit(name, start + factor * (self.space.to_unit(name, value) - start))
            if scaled not in (old, value):
                changes[name] = scaled
                notes.append(f"{name} step x {factor:.2f}")
        if not notes:
            return candidate
        return Candidate(changes, f"{candidate.hypothesis} [{', '.join(notes)}]"[:500])
