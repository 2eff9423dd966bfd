"""Online bin packing, searched over code: the parameter is the Python function that chooses the bin.

.venv/bin/python clients/examples/tasks/bin_packing/task.py --listen 127.0.0.1:7500
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial

from clients.task_sdk import Context, Result, Source, Split, sandboxed, task

CAPACITY, SMALLEST, LARGEST = 150, 20, 100
"""Sizes as in the instances of Falkenauer (1996) that the OR-Library keeps: uniform whole numbers, bins of 150."""
INSTANCES, ITEMS = 4, 200
HELD_OUT = 1_000_003
"""Added to the seed for instances that no search measures on."""
DEFINES = "priority(item, bins)"

FIRST_FIT = '''def priority(item, bins):
    """First fit: the oldest bin with enough space."""
    return [-index for index in range(len(bins))]
'''


@task(
    name="bin-packing",
    metric="excess_percent",
    unit="%",
    goal="minimize",
    space={
        "priority": Source(
            default=FIRST_FIT,
            defines=DEFINES,
            max_length=4_000,
            doc="item is the size of the next item; bins holds the free space of every bin that it fits into, oldest "
            "first, an empty bin last. It returns one number for each; the item goes into the bin with the largest.",
        ),
    },
    budget=5.0,
    hard_limit=120.0,
    held_out=True,
    deterministic=True,
)
async def packing(priority: str, *, context: Context) -> Result:
    """Bins used beyond the lower bound, in percent, when items come one by one and never move again.

    Four instances of 200 items that follow the seed. The function runs in a sandbox and sees one item and the bins that
    it fits into: neither the items to come nor how it is scored. A smaller budget means fewer instances.
    """
    seed = context.seed + (HELD_OUT if context.split is Split.HELD_OUT else 0)
    count = max(1, round(INSTANCES * context.budget_fraction))
    excess = []
    async with sandboxed(priority, DEFINES, seed=seed) as choose:
        for number in range(count):
            items = instance(seed, number)
            bins: list[int] = []
            for item in items:
                open_bins = [index for index, space in enumerate(bins) if space >= item]
                spaces = [*(bins[index] for index in open_bins), CAPACITY]
                chosen = await choose.call(item, spaces, judge=partial(largest, len(spaces)))
                if chosen == len(open_bins):
                    bins.append(CAPACITY - item)
                else:
                    bins[open_bins[chosen]] -= item
            bound = lower_bound(items)
            excess.append(100.0 * (len(bins) - bound) / bound)
            context.report((number + 1) / count, step=number + 1, phase="packing", excess_percent=excess[-1])
        seconds = choose.seconds
    return Result(sum(excess) / count, {"worst_instance": max(excess), "seconds_in_function": seconds})


def instance(seed: int, number: int) -> list[int]:
    """The items of one instance, in the order in which they come."""
    generator = random.Random(seed * 1_009 + number)
    return [generator.randint(SMALLEST, LARGEST) for _ in range(ITEMS)]


def largest(count: int, answer: object) -> int:
    """Index of the largest of ``count`` priorities, the first of equal ones."""
    if not isinstance(answer, list) or not all(type(number) in (int, float) for number in answer):
        raise TypeError("must return a list of numbers")
    if len(answer) != count:
        raise ValueError(f"must return one number for each of the {count} bins; it returned {len(answer)}")
    return max(range(count), key=lambda index: answer[index])


def lower_bound(items: Sequence[int]) -> int:
    """The bound L2 of Martello and Toth (1990): no packing, online or not, uses fewer bins."""
    best = math.ceil(sum(items) / CAPACITY)
    for small in {item for item in items if 2 * item <= CAPACITY}:
        alone = [item for item in items if item > CAPACITY - small]
        large = [item for item in items if CAPACITY - small >= item and 2 * item > CAPACITY]
        rest = sum(item for item in items if 2 * item <= CAPACITY and item >= small)
        left = len(large) * CAPACITY - sum(large)
        best = max(best, len(alone) + len(large) + max(0, math.ceil((rest - left) / CAPACITY)))
    return best


if __name__ == "__main__":
    packing.serve()
