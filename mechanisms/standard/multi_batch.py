import math


class Mechanism:
    """Multi-batch ranking: run first what looks good by its neighbours and lies away from what was tried.

    The merit of Regis and Shoemaker, A Stochastic Radial Basis Function Method (2007): a weighted sum of a surrogate's
    value (here the nearest trials) and of distance. Settings: weight (0.6) of the value, neighbours (3).
    """

    def __init__(self, space, settings, rng):
        self.space = space
        self.weight = float(settings.get("weight", 0.6))
        self.neighbours = int(settings.get("neighbours", 3))
        self._names = [name for name in space.names if space.has_unit(name)]
        self._points = []

    def _point(self, configuration):
        return [self.space.to_unit(name, configuration[name]) for name in self._names]

    def observe(self, trial):
        self._points.append((self._point(trial.configuration), trial.metric))

    def rank(self, view, candidates):
        measured = [(point, metric) for point, metric in self._points if metric is not None]
        if len(measured) < 2 or not self._names:
            return None
        gains = [view.objective.gain(view.incumbent.metric, metric) for _, metric in measured]
        values, distances = [], []
        for candidate in candidates:
            here = self._point({**view.incumbent.configuration, **candidate.changes})
            near = sorted((math.dist(here, point), place) for place, (point, _) in enumerate(measured))[
                : self.neighbours
            ]
            weights = [1.0 / (distance + 0.05) for distance, _ in near]
            values.append(sum(w * gains[place] for w, (_, place) in zip(weights, near)) / sum(weights))
            distances.append(min(math.dist(here, point) for point, _ in self._points))
        return [
            self.weight * self._scaled(value, values) + (1.0 - self.weight) * self._scaled(distance, distances)
            for value, distance in zip(values, distances)
        ]

    def _scaled(self, value, values):
        low, high = min(values), max(values)
        return (value - low) / (high - low) if high > low else 0.5
