import math


class Mechanism:
    """Multi-scale bandit: learn which parameter to move, and how far, from what moving it brought so far.

    Discounted UCB, because what helped once stops helping: Auer, Cesa-Bianchi and Fischer (2002); Garivier and Moulines
    (2011). An arm is a parameter with a near or a far step. Settings: exploration (0.5), memory (0.93) a trial,
    wait (3) trials before it begins.
    """

    def __init__(self, space, settings, rng):
        self.space = space
        self.rng = rng
        self.exploration = float(settings.get("exploration", 0.5))
        self.memory = float(settings.get("memory", 0.93))
        self.wait = int(settings.get("wait", 3))
        self._arms = {(name, scale): [0, 0] for name in space.names for scale in ("near", "far")}
        self._incumbent = {}
        self._trials = 0

    def _arm(self, name, old, new):
        return (name, "near" if new in self.space.neighbours(name, old) else "far")

    def observe(self, trial):
        for pulls in self._arms.values():
            pulls[0] *= self.memory
            pulls[1] *= self.memory
        for name, value in trial.changes.items():
            if self._incumbent:
                pulls = self._arms[self._arm(name, self._incumbent[name], value)]
                pulls[0] += 1
                pulls[1] += 1 if trial.kept else 0
        if trial.kept:
            self._incumbent = trial.configuration
        self._trials += 1

    def _score(self, arm):
        pulled, improved = self._arms[arm]
        if pulled < 0.05:
            return float("inf")
        total = max(1.0, sum(pulls[0] for pulls in self._arms.values()))
        return improved / pulled + self.exploration * math.sqrt(2.0 * math.log(total) / pulled)

    def _values(self, name, scale, old):
        near = self.space.neighbours(name, old)
        if scale == "near":
            return near
        far = [self.space.sample(name, self.rng) for _ in range(8)]
        return [value for value in far if value != old and value not in near]

    def propose(self, view, count):
        if self._trials <= self.wait:
            return []
        arms = [arm for arm in self._arms if arm[0] in view.active]
        self.rng.shuffle(arms)
        candidates = []
        for name, scale in sorted(arms, key=self._score, reverse=True):
            values = self._values(name, scale, view.incumbent.configuration[name])
            if values and len(candidates) < count:
                pulled, improved = self._arms[(name, scale)]
                reason = f"bandit: a {scale} step of {name} improved {improved:.1f} of {pulled:.1f} times of late"
                candidates.append(Candidate({name: self.rng.choice(values)}, reason))
        return candidates
