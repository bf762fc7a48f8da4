"""What makes a course of the library and the world: labs, exercises, widgets, studies.

`lab = labs_helpers.course.start(1)` is a notebook's set-up; everything else hangs on
the `Lab` that it returns.
"""

from importlib import import_module
from typing import Any

ROOMS = {
    "Annotator": "widgets",
    "Lab": "lab",
    "MODELS": "profile",
    "start": "lab",
    "trl_config": "trl",
    "with_bar": "trl",
}
__all__ = list(ROOMS)


def __getattr__(name: str) -> Any:
    # Not before it is asked for: torch and transformers take seconds, and `labs --help`
    # needs neither.
    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{ROOMS[name]}"), name)
