"""A course made of the library and the world: labs with checks, claims and reports.

`lab = start(1)` is a notebook's set-up; everything else hangs on the `Lab`.
"""

# fmt: off
from labs_helpers.course.lab import Lab, start
from labs_helpers.course.profile import MODELS
from labs_helpers.course.trl import trl_config, with_bar
from labs_helpers.course.widgets import Annotator
