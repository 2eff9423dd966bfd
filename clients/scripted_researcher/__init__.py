"""The scripted researcher: a small OpenAI-compatible server that stands in for a language model.

Every answer is computed from its request alone. It behaves like the documented prior of the method's paper, and it is
labelled wherever it can be seen: its results are never evidence for the method.
"""
