import linalg


class Mechanism:
    """Orthogonal exploration: measure the main effect of many parameters with few trials, then combine the best levels.

    Rao, Factorial Experiments Derivable from Combinatorial Arrangements of Arrays (1947); Taguchi's practice. Each row
    moves about half of the factors up and half down from the baseline. Settings: factors (7), spread (0.15) in units.
    """

    def __init__(self, space, settings, rng):
        self.space = space
        names = [p.name for p in space.parameters if space.has_unit(p.name) and not p.locked]
        self.factors = names[: int(settings.get("factors", 7))]
        self.spread = float(settings.get("spread", 0.15))
        self._levels = {}
        self._rows = linalg.orthogonal_array(max(1, len(self.factors)), 2)
        self._measured = {}
        self._attempted = set()

    def _settings_of(self, row):
        return tuple(self._levels[name][level] for name, level in zip(self.factors, row))

    def observe(self, trial):
        if not self._levels:
            for name in self.factors:
                unit = self.space.to_unit(name, trial.configuration[name])
                self._levels[name] = [self.space.from_unit(name, unit + way * self.spread) for way in (-1, 1)]
        key = tuple(trial.configuration[name] for name in self.factors)
        self._attempted.add(key)
        if trial.metric is not None:
            self._measured[key] = trial.metric

    def _effects(self, view):
        rows = [row for row in self._rows if self._settings_of(row) in self._measured]
        effects = {}
        for place, name in enumerate(self.factors):
            means = []
            for level in (0, 1):
                metrics = [self._measured[self._settings_of(row)] for row in rows if row[place] == level]
                means.append(sum(metrics) / len(metrics) if metrics else None)
            if None not in means:
                effects[name] = view.objective.gain(means[0], means[1])
        return effects

    def _pending(self):
        return [row for row in self._rows if self._levels and self._settings_of(row) not in self._attempted]

    def prompt(self, view):
        effects = self._effects(view)
        if self._pending() or not effects:
            return ""
        shown = sorted(effects.items(), key=lambda item: -abs(item[1]))
        return "Main effects of raising a parameter (gain): " + ", ".join(f"{name} {gain:+.4g}" for name, gain in shown)

    def propose(self, view, count):
        pending = self._pending()[:count]
        changes = [dict(zip(self.factors, self._settings_of(row))) for row in pending]
        hypothesis = f"orthogonal array: one of {len(self._rows)} rows that measure {len(self.factors)} main effects"
        effects = self._effects(view)
        if not pending and effects:
            best = tuple(1 if effects.get(name, 0.0) > 0 else 0 for name in self.factors)
            if self._settings_of(best) not in self._attempted:
                changes = [dict(zip(self.factors, self._settings_of(best)))]
                hypothesis = "orthogonal array: every factor at its better level"
        return [Candidate({n: v for n, v in change.items() if n in view.active}, hypothesis) for change in changes]
