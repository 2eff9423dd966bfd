class Mechanism:
    """Tabu search: a direction that failed repeatedly may not be tried again for a while.

    Glover, Tabu Search - Part I (1989). A direction is a parameter and whether it goes up or down.
    Settings: failures (2) before a direction is tabu, tenure (8) in trials.
    """

    def __init__(self, space, settings, rng):
        self.failures = int(settings.get("failures", 2))
        self.tenure = int(settings.get("tenure", 8))
        self._incumbent = {}
        self._failed = {}

    def _direction(self, changes):
        moves = []
        for name, value in changes.items():
            old = self._incumbent.get(name)
            if isinstance(value, (int, float)) and isinstance(old, (int, float)):
                moves.append(f"{name} {'up' if value > old else 'down'}")
            else:
                moves.append(f"{name} to {value}")
        return ", ".join(sorted(moves))

    def observe(self, trial):
        if trial.kept:
            self._incumbent = trial.configuration
        if trial.outcome is None or not trial.changes:
            return
        direction = self._direction(trial.changes)
        if trial.kept:
            self._failed.pop(direction, None)
        else:
            self._failed.setdefault(direction, []).append(trial.number)

    def veto(self, view, candidate):
        failed = self._failed.get(self._direction(candidate.changes), [])
        if len(failed) < self.failures:
            return None
        age = view.history[-1].number - failed[-1]
        if age >= self.tenure:
            return None
        return (
            f"{self._direction(candidate.changes)} failed {len(failed)} times; tabu for {self.tenure - age} more trials"
        )
