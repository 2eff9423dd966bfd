"""Search mechanisms: the hook interface, the gate that judges generated source, and the sandbox that runs it."""
