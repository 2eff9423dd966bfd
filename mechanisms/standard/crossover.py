class Mechanism:
    """Elite crossover: combine the settings of two of the best trials, each parameter from one of them.

    Uniform crossover: Syswerda, Uniform Crossover in Genetic Algorithms (1989). Settings: elites (4), first (6) trials.
    """

    def __init__(self, space, settings, rng):
        self.rng = rng
        self.elites = int(settings.get("elites", 4))
        self.first = int(settings.get("first", 6))
        self._measured = []
        self._tried = set()

    def observe(self, trial):
        self._tried.add(tuple(sorted(trial.configuration.items())))
        if trial.metric is not None:
            self._measured.append((trial.metric, trial.number, trial.configuration))

    def propose(self, view, count):
        if len(self._measured) < self.first:
            return []
        ordered = sorted(self._measured, key=lambda m: (-view.objective.gain(0.0, m[0]), m[1]))
        elites = ordered[: self.elites]
        base = view.incumbent.configuration
        candidates, seen = [], set(self._tried)
        for _ in range(8 * count):
            if len(candidates) == count:
                break
            mother, father = self.rng.sample(elites, 2)
            child = {name: self.rng.choice((mother, father))[2][name] for name in view.active}
            changes = {name: value for name, value in child.items() if value != base[name]}
            key = tuple(sorted({**base, **changes}.items()))
            if changes and key not in seen:
                seen.add(key)
                candidates.append(Candidate(changes, f"crossover of trials {mother[1]} and {father[1]}"))
        return candidates
