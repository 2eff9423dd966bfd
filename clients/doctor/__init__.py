"""``bilevel doctor``: looks at everything that the services need on this machine, and says what to do."""

from clients.doctor.examination import examine
from clients.doctor.finding import Finding, Severity

__all__ = ["Finding", "Severity", "examine"]
