"""Safety of any policy: suites, attacks, refusals, figures with intervals, a card.

Every public name of the rooms can be imported from here.
"""

from labs_helpers.safety.attacks import Attack, attacked, load_attacks
from labs_helpers.safety.card import Figure, ModelCard
from labs_helpers.safety.measures import (
    AttackTable,
    ChoiceTable,
    RefusalTable,
    answers_of,
    attack_table,
    choice_table,
    complied_by_refusal,
    complied_by_truth,
    consistency,
    refusal_table,
    sycophancy,
    unclear,
)
from labs_helpers.safety.public import load_harmbench, load_truthfulqa, load_xstest
from labs_helpers.safety.refusals import Refusal, classify, refuses
from labs_helpers.safety.suites import BadSuite, Item, Suite, load_suite, save_suite

__all__ = [
    "Attack",
    "AttackTable",
    "BadSuite",
    "ChoiceTable",
    "Figure",
    "Item",
    "ModelCard",
    "Refusal",
    "RefusalTable",
    "Suite",
    "answers_of",
    "attack_table",
    "attacked",
    "choice_table",
    "classify",
    "complied_by_refusal",
    "complied_by_truth",
    "consistency",
    "load_attacks",
    "load_harmbench",
    "load_suite",
    "load_truthfulqa",
    "load_xstest",
    "refusal_table",
    "refuses",
    "save_suite",
    "sycophancy",
    "unclear",
]
