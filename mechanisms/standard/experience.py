from collections import defaultdict


class Mechanism:
    """Experience prompts: tell the proposer in numbers what each direction brought so far, good and bad.

    Verbal reinforcement from outcomes: Shinn et al., Reflexion (2023). Settings: lines (8), first (4) trials.
    """

    def __init__(self, space, settings, rng):
        self.lines = int(settings.get("lines", 8))
        self.first = int(settings.get("first", 4))
        self._incumbent = {}
        self._tried = defaultdict(list)
        self._failed = defaultdict(int)
        self._trials = 0

    def _direction(self, name, value):
        old = self._incumbent.get(name)
        if isinstance(value, (int, float)) and isinstance(old, (int, float)) and not isinstance(value, bool):
            return f"{name} {'up' if value > old else 'down'}"
        return f"{name} = {value}"

    def observe(self, trial):
        self._trials += 1
        for name, value in trial.changes.items():
            direction = self._direction(name, value)
            if trial.metric is None:
                self._failed[(direction, trial.outcome or "rejected")] += 1
            elif trial.incumbent_metric is not None:
                self._tried[direction].append((trial.incumbent_metric, trial.metric, bool(trial.kept)))
        if trial.kept:
            self._incumbent = trial.configuration

    def prompt(self, view):
        if self._trials <= self.first:
            return ""
        rows = []
        for direction, results in self._tried.items():
            gains = [view.objective.gain(old, new) for old, new, _ in results]
            kept = sum(kept for _, _, kept in results)
            rows.append((sum(gains) / len(gains), direction, kept, len(results)))
        rows.sort(reverse=True)
        shown = rows if len(rows) <= self.lines else rows[: self.lines // 2] + rows[-(self.lines // 2) :]
        text = [f"{direction}: kept {kept} of {count}, mean gain {gain:+.4g}" for gain, direction, kept, count in shown]
        text += [f"{direction}: {count} x {outcome}" for (direction, outcome), count in sorted(self._failed.items())][
            : self.lines
        ]
        return "What was measured so far, best first:\n" + "\n".join(text) if text else ""
