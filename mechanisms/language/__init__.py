"""The language that mechanisms are written in: a desugaring pre-pass, RestrictedPython, and frozen facades."""
