"""The checks of the course: "right", or "not yet", and why. They need torch and numpy alone.

In a notebook:   import checks; check = checks.Unit("02", globals()); check.difference()
In a check:      see CONTRIBUTING.md, "The course", and `unit_02.py`.
"""

from checks.answers import called
from checks.comparing import Mistake, expect
from checks.units import Unit
from checks.verdicts import NotYet

__all__ = ["Mistake", "NotYet", "Unit", "called", "expect"]
