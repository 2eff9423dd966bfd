def priority(item, bins):
    """Scripted template, close to next fit: the newest open bin with enough space."""
    last = len(bins) - 1
    return [index if index < last else -1 for index in range(len(bins))]
