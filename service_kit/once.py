"""Work done once for each object that never changes, however often it is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


def once_each(size: int) -> Callable[[Callable[[ArgumentT], ResultT]], Callable[[ArgumentT], ResultT]]:
    """Remember a function's results for the ``size`` objects that were asked about last, by identity.

    For frozen objects that cannot be hashed because they hold dictionaries. Results are shared: nobody may change them.
    """

    def decorate(function: Callable[[ArgumentT], ResultT]) -> Callable[[ArgumentT], ResultT]:
        known: OrderedDict[int, tuple[ArgumentT, ResultT]] = OrderedDict()  # holding an object keeps its id its own

        @wraps(function)
        def remembered(argument: ArgumentT) -> ResultT:
            found = known.get(id(argument))
            if found is None:
                found = known[id(argument)] = (argument, function(argument))
                if len(known) > size:
                    known.popitem(last=False)
            else:
                known.move_to_end(id(argument))
            return found[1]

        return remembered

    return decorate
