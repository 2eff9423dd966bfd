import math


def priority(item, bins):
    """Scripted template: gaps count by their share of the item, so that large items fill bins and small ones wait."""
    return [-math.sqrt((space - item) / item) if space > item else 1.0 for space in bins]
