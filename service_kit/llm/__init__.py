"""Language models behind any OpenAI-compatible endpoint: calls, usage, structured answers, recorded conversations."""
