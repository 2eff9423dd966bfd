def priority(item, bins):
    """Scripted template: best fit, but rather no gap that is too small for any item."""
    smallest = 20
    scores = []
    for space in bins:
        gap = space - item
        scores.append(-gap - (2 * smallest if 0 < gap < smallest else 0))
    return scores
