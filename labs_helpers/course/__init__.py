"""What makes a course of the library and the world: labs, checks, widgets, command.

`lab = labs_helpers.course.start(1)` is a notebook's set-up; everything else hangs on
the `Lab` that it returns.
"""

from typing import Any

__all__ = ["Lab", "start"]


def __getattr__(name: str) -> Any:
    # Not before it is asked for: torch and transformers take seconds, and `labs --help`
    # needs neither.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from labs_helpers.course import lab

    return getattr(lab, name)
