"""Checks an installation: everything that a run needs and that can be looked at in seconds."""

from corpusmill.doctor.examination import examine
from corpusmill.doctor.finding import Finding

__all__ = ["Finding", "examine"]
