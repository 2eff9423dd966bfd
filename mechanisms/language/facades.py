"""Frozen facades: the modules that a mechanism may import, as named functions and nothing else.

A real module leads anywhere (``statistics.sys.modules``); a facade holds the functions listed here and cannot be
changed. What is offered is decided in this file alone: the language reference is generated from it.
"""

from __future__ import annotations

import ast
import bisect
import collections
import functools
import heapq
import itertools
import json
import math
import random
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mechanisms.language import linalg, objects

_MEMBERS = {
    "math": """
        acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1
        fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log
        log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc""",
    "random": """
        betavariate choice choices expovariate gammavariate gauss getrandbits lognormvariate normalvariate paretovariate
        randint random randrange sample shuffle triangular uniform vonmisesvariate weibullvariate""",
    "statistics": """
        NormalDist StatisticsError correlation covariance fmean geometric_mean harmonic_mean linear_regression mean
        median median_grouped median_high median_low mode multimode pstdev pvariance quantiles stdev variance""",
    "itertools": """
        accumulate chain combinations combinations_with_replacement compress dropwhile filterfalse groupby islice
        pairwise permutations product starmap takewhile zip_longest""",
    "collections": "Counter OrderedDict defaultdict deque",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
}
"""What is offered of the standard library unchanged."""

LITERAL_CHARACTERS = 4096


class Facade:
    """A frozen set of named members."""

    __slots__ = ("_members", "_name")
    _name: str
    _members: dict[str, Any]

    def __init__(self, name: str, members: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_members", dict(members))

    def __getattr__(self, name: str) -> Any:
        try:
            return self._members[name]
        except KeyError:
            raise AttributeError(
                f"{self._name} offers no {name!r}; it offers {', '.join(sorted(self._members))}"
            ) from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self._name} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self._name} cannot be changed")

    def __dir__(self) -> list[str]:
        return sorted(self._members)

    def __repr__(self) -> str:
        return f"<{self._name}>"


def facades(generator: random.Random) -> dict[str, Facade]:
    """Every importable facade; ``random`` draws from ``generator``."""
    modules = (math, statistics, itertools, collections, heapq, bisect)
    built: dict[str, dict[str, Any]] = {module.__name__: _members(module, module.__name__) for module in modules}
    built |= {
        "random": sampling(generator) | {"Random": _seeded_generator},
        "functools": {"partial": partial, "reduce": functools.reduce},
        "copy": {"copy": objects.shallow_copy, "deepcopy": objects.deep_copy},
        "json": {"dumps": dumps, "loads": loads},
        "ast": {"literal_eval": literal_eval},
        "dataclasses": {"asdict": objects.asdict, "astuple": objects.astuple, "replace": objects.replace},
        "logging": {"getLogger": get_logger, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40},
        "linalg": {name: getattr(linalg, name) for name in linalg.OFFERED},
    }
    return {name: Facade(name, members) for name, members in built.items()}


def _members(source: object, name: str) -> dict[str, Any]:
    return {member: getattr(source, member) for member in _MEMBERS[name].split()}


def sampling(generator: random.Random) -> dict[str, Any]:
    """The sampling functions of one generator."""
    return _members(generator, "random")


def rng_facade(generator: random.Random) -> Facade:
    """What a mechanism gets as ``rng``."""
    return Facade("rng", sampling(generator))


def _seeded_generator(seed: int = 0) -> Facade:
    if type(seed) is not int:
        raise TypeError("random.Random takes an integer seed here; the generator given to __init__ is seeded already")
    return rng_facade(random.Random(seed))  # noqa: S311 - a search needs no secrets


def partial(function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Callable[..., Any]:
    """``functools.partial`` as a closure, which has no attributes to walk along."""
    return lambda *more, **others: function(*args, *more, **(keywords | others))


def dumps(
    value: object,
    *,
    sort_keys: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    default: Callable[[Any], Any] | None = None,
    ensure_ascii: bool = True,
) -> str:
    """``json.dumps`` without the options that take classes."""
    return json.dumps(
        value, sort_keys=sort_keys, indent=indent, separators=separators, default=default, ensure_ascii=ensure_ascii
    )


def loads(text: str) -> Any:
    """``json.loads`` without hooks."""
    return json.loads(text)


def literal_eval(text: str) -> Any:
    """``ast.literal_eval`` of a short text."""
    if type(text) is not str or len(text) > LITERAL_CHARACTERS:
        raise ValueError(f"literal_eval takes a text of at most {LITERAL_CHARACTERS} characters")
    return ast.literal_eval(text)


_SILENT = ("debug", "info", "warning", "error", "exception", "critical", "log", "setLevel")


def _discard(*args: object, **keywords: object) -> None:
    """Mechanisms have no log: what they want to say goes into a reason, a hypothesis or a prompt."""


def get_logger(name: str = "") -> Facade:
    """A logger that discards everything."""
    return Facade("logger", dict.fromkeys(_SILENT, _discard) | {"isEnabledFor": lambda level: False})


def offered() -> dict[str, frozenset[str]]:
    """What each facade offers, by name: the allow-list of imports."""
    return {name: frozenset(dir(facade)) for name, facade in facades(random.Random(0)).items()}  # noqa: S311


def sampling_names() -> Iterable[str]:
    """What ``rng`` offers."""
    return tuple(_MEMBERS["random"].split())
