def priority(item, bins):
    """Scripted template, worst fit: the emptiest open bin; a new one only when none is open."""
    last = len(bins) - 1
    return [space - item if index < last else -1 for index, space in enumerate(bins)]
