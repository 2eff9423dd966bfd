import math
import statistics


class Mechanism:
    """Simulated-annealing acceptance: continue from a slightly worse trial now and then, less and less often.

    Kirkpatrick, Gelatt and Vecchi, Optimization by Simulated Annealing (1983). The temperature is measured in units of
    the typical difference between trials. Settings: start (0.5), cooling (0.95) a trial.
    """

    def __init__(self, space, settings, rng):
        self.rng = rng
        self.start = float(settings.get("start", 0.5))
        self.cooling = float(settings.get("cooling", 0.95))
        self._differences = []
        self._trials = 0

    def observe(self, trial):
        self._trials += 1
        if trial.metric is not None and trial.incumbent_metric is not None:
            self._differences.append(abs(trial.metric - trial.incumbent_metric))

    def accept(self, view, trial):
        if trial.metric is None or len(self._differences) < 3:
            return None
        gain = view.objective.gain(view.incumbent.metric, trial.metric)
        if gain > 0:
            return None
        typical = statistics.median(self._differences)
        temperature = self.start * self.cooling**self._trials * typical
        if temperature <= 0.0:
            return None
        return True if self.rng.random() < math.exp(gain / temperature) else None
