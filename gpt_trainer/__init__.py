"""Karpathy's GPT pre-training benchmark as a task: model, optimiser, data, honest clock, warm workers, Task server."""
