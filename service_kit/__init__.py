"""What every server needs once: parameters, event log, start and drain, errors, settings, logging, LLM access."""

import os

# gRPC's C core reads this when grpc is first imported; without it the core writes its own view of closed connections
# on stderr, between the lines that we write for the user.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
