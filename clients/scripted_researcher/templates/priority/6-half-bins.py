def priority(item, bins):
    """Scripted template: items above half a bin open bins of their own, the others follow best fit."""
    last, capacity = len(bins) - 1, bins[-1]
    if 2 * item > capacity:
        return [1 if index == last else item - space for index, space in enumerate(bins)]
    return [item - space for space in bins]
