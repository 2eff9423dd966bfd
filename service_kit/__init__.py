"""What every server needs once: parameters, event log, server start and drain, errors, settings, logging, LLM access."""
