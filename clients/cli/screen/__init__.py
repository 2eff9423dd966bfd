"""``bilevel watch`` on a terminal: one run on the whole screen, from the same feeds and folds as the dashboard.

``app`` knows Textual, keys and services; ``sections`` and ``plot`` turn what was folded into text, without any I/O.
"""
