import linalg


class Mechanism:
    """Gaussian-process proposals: Bayesian optimisation with expected improvement on the parameters that have a unit.

    Mockus (1975); Jones, Schonlau and Welch, Efficient Global Optimization of Expensive Black-Box Functions (1998).
    Settings: first (8) trials before it begins, window (80) trials that it learns from, pool (40) points it compares.
    """

    def __init__(self, space, settings, rng):
        self.space = space
        self.rng = rng
        self.first = int(settings.get("first", 8))
        self.window = int(settings.get("window", 80))
        self.pool = int(settings.get("pool", 40))
        self._names = [name for name in space.names if space.has_unit(name) and not space[name].locked]
        self._points = []
        self._metrics = []

    def observe(self, trial):
        if trial.metric is None:
            return
        self._points.append([self.space.to_unit(name, trial.configuration[name]) for name in self._names])
        self._metrics.append(trial.metric)

    def _moves(self, view):
        """Half local moves around the best, half far ones; each changes one to three parameters."""
        names = [name for name in self._names if name in view.active]
        best = view.incumbent.configuration
        moves = []
        while names and len(moves) < self.pool:
            changes = {}
            for name in self.rng.sample(names, min(len(names), self.rng.randint(1, 3))):
                if len(moves) % 2:
                    unit = self.space.to_unit(name, best[name]) + self.rng.gauss(0.0, 0.1)
                    changes[name] = self.space.from_unit(name, unit)
                else:
                    changes[name] = self.space.sample(name, self.rng)
            moves.append(changes)
        return [changes for changes in moves if any(best[name] != value for name, value in changes.items())]

    def propose(self, view, count):
        if len(self._points) < self.first:
            return []
        moves = self._moves(view)
        if not moves:
            return []
        base = view.incumbent.configuration
        points = []
        for changes in moves:
            configuration = {**base, **changes}
            points.append([self.space.to_unit(name, configuration[name]) for name in self._names])
        xs, ys = self._points[-self.window :], self._metrics[-self.window :]
        length = 0.2 * len(self._names) ** 0.5
        means, deviations = linalg.gp_posterior(xs, ys, points, length_scale=length, noise=0.02)
        minimize = view.objective.direction == "minimize"
        best = min(ys) if minimize else max(ys)
        gains = [linalg.expected_improvement(m, d, best, minimize) for m, d in zip(means, deviations)]
        order = sorted(range(len(moves)), key=lambda i: -gains[i])[:count]
        return [Candidate(moves[i], f"expected improvement {gains[i]:.3g}, predicted {means[i]:.5g}") for i in order]
