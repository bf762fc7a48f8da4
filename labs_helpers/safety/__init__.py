"""Safety of any policy: suites, attacks, refusals, figures with intervals, a card.

Every public name of the rooms can be imported from here.
"""

# fmt: off
from labs_helpers.safety.suites import BadSuite, Item, Suite, load_suite, save_suite
from labs_helpers.safety.public import (
    load_harmbench, load_public, load_suites, load_truthfulqa, load_xstest,
)
from labs_helpers.safety.attacks import (
    Attack, NO_ATTACK, attacked, load_attacks, with_typos,
)
from labs_helpers.safety.refusals import Refusal, classify, refuses
from labs_helpers.safety.measures import (
    AttackTable, ChoiceTable, RefusalTable, answers_of, attack_table, choice_table,
    complied_by_refusal, complied_by_truth, consistency, refusal_table, sycophancy,
    unclear,
)
from labs_helpers.safety.card import Figure, ModelCard
