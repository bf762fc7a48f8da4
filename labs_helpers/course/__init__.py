"""What makes a course of the library and the world: labs, checks, widgets, command.

`lab = labs_helpers.course.start(1)` is a notebook's set-up; everything else hangs on
the `Lab` that it returns.
"""

from labs_helpers.course.lab import Lab, start

__all__ = ["Lab", "start"]
