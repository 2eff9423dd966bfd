"""The checks of an outer service. Importing a module of checks adds them to the suite."""

from clients.conformance.outer import campaigns, library, stream, supervision
from clients.conformance.outer.subject import OUTER, OuterSubject

__all__ = ["OUTER", "OuterSubject", "campaigns", "library", "stream", "supervision"]
