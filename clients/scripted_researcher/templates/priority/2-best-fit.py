def priority(item, bins):
    """Scripted template, best fit: the bin that is left with the least space."""
    return [item - space for space in bins]
