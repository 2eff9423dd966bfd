"""The boundary: one jailed worker process for each mechanism, and the host side that supervises it."""
