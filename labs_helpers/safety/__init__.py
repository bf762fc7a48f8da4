"""Safety of any policy: suites, attacks, refusals, and figures with intervals.

Every public name of the rooms can be imported from here.
"""

from labs_helpers.safety.public import load_harmbench, load_truthfulqa, load_xstest
from labs_helpers.safety.refusals import Refusal, classify, refuses
from labs_helpers.safety.suites import BadSuite, Item, Suite, load_suite, save_suite

__all__ = [
    "BadSuite",
    "Item",
    "Refusal",
    "Suite",
    "classify",
    "load_harmbench",
    "load_suite",
    "load_truthfulqa",
    "load_xstest",
    "refuses",
    "save_suite",
]
