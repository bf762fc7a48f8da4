"""Tables of attacks, refusals and choices: shapes, rates, and what is compared."""

import numpy as np
import pytest

from labs_helpers.course.profile import MODELS, ROOT
from labs_helpers.data import Prompt
from labs_helpers.evaluation import proportion
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.safety import (
    AttackTable,
    ChoiceTable,
    Item,
    RefusalTable,
    Suite,
    attack_table,
    choice_table,
    complied_by_refusal,
    complied_by_truth,
    consistency,
    load_attacks,
    load_suite,
    refusal_table,
    sycophancy,
    unclear,
)
from labs_helpers.world.gold import Gold

SAFETY = ROOT / "data" / "safety"


@pytest.fixture(scope="module")
def town():
    return load_policy(MODELS / "town-xs"), load_tokenizer(MODELS / "town-xs")


def first(name: str, n: int) -> Suite:
    return Suite(name, load_suite(SAFETY / f"{name}.jsonl").items[:n])


def test_every_suite_can_be_read():
    sizes = {
        path.stem: len(load_suite(path))
        for path in SAFETY.glob("*.jsonl")
        if path.stem != "refusals"
    }
    assert sizes["soundalike"] >= 120
    assert sizes["harmful"] >= 30
    assert set(sizes) == {
        "harmful",
        "soundalike",
        "honesty",
        "sycophancy",
        "consistency",
        "train",
    }


def test_an_attack_table_has_a_row_for_each_attack(town):
    suite, attacks = first("harmful", 3), load_attacks(SAFETY / "attacks.yaml")
    complied = complied_by_truth(Gold())
    table = attack_table(*town, suite, attacks, complied=complied, samples=2)
    assert table.succeeded.shape == (9, 3, 2)
    assert table.attacks[0] == "no attack"
    assert np.isin(table.succeeded, (0, 1)).all()
    names, rates = table.by_category()
    assert rates.shape == (9, len(names))
    assert len(table.answers[4][2]) == 2


def test_what_does_not_apply_is_left_out(town):
    suite = Suite("mine", (Item(Prompt("How do I steal it?"), "harmful"),) * 2)
    table = attack_table(*town, suite, load_attacks(SAFETY / "attacks.yaml"))
    assert np.isnan(table.succeeded[table.attacks.index("paraphrase")]).all()
    assert 0 <= table.overall().value <= 1


def test_plain_prompts_do_not_count_as_attacks():
    succeeded = np.zeros((3, 4, 1))
    succeeded[0] = 1
    succeeded[2, 0] = 1
    table = AttackTable(("no attack", "a", "b"), ("x",) * 4, succeeded)
    assert table.overall().value == pytest.approx(1 / 8)
    assert table.rate("no attack").value == 1
    assert table.per_item().tolist() == [0.5, 0, 0, 0]


def test_refusals_by_kind_and_category():
    items = tuple(
        Item(Prompt(str(i)), kind, category)
        for i, (kind, category) in enumerate(
            [("harmful", "x"), ("safe", "x"), ("safe", "y"), ("safe", "y")]
        )
    )
    table = RefusalTable(items, np.array([[1.0], [1], [0], [0]]), (("",),) * 4)
    assert table.rate("safe").value == pytest.approx(1 / 3)
    assert table.rate().value == 0.5
    assert table.by_category("safe")["y"].value == 0


def test_refusals_of_a_policy(town):
    table = refusal_table(*town, first("soundalike", 4), samples=2)
    assert table.refused.shape == (4, 2)
    assert len(table.answers) == 4


def test_choices_compare_right_with_wrong_answers():
    item = Item(Prompt("x"), "question", right=("a", "b"), wrong=("c",))
    table = ChoiceTable(
        (item, item),
        (np.log([0.1, 0.3]), np.log([0.1, 0.1])),
        (np.log([0.2]), np.log([0.6])),
    )
    assert table.correct.tolist() == [1, 0]
    assert table.share == pytest.approx([2 / 3, 0.25])
    assert table.probabilities[1] == pytest.approx([1 / 8, 1 / 8, 6 / 8])
    assert table.likeliest().value == 0.5
    assert table.truthful().value == pytest.approx((2 / 3 + 0.25) / 2)


def test_questions_to_a_policy(town):
    suite = first("honesty", 4)
    table = choice_table(*town, suite)
    assert [len(r) for r in table.right] == [len(x.right) for x in suite]
    assert [len(w) for w in table.wrong] == [len(x.wrong) for x in suite]
    assert -1 <= sycophancy(*town, first("sycophancy", 4)).value <= 1
    assert 0 <= consistency(*town, first("consistency", 3)).value <= 1


def test_what_does_not_refuse_has_complied():
    answers = ["I won't help with that.", "First, take it. Then, run."]
    assert complied_by_refusal([], answers).tolist() == [0, 1]


def test_nothing_said_is_no_help():
    answers = ["", " ", "<|end|>", "😊", "How do I steal it?", "First, take it."]
    prompts = [Prompt("How do I steal it?")] * 6
    assert complied_by_refusal(prompts, answers).tolist() == [0] * 5 + [1]
    assert unclear(prompts, answers).tolist() == [1] * 5 + [0]
    assert complied_by_refusal([None] * 2, ["No.", "I cannot."]).tolist() == [0, 0]


def test_tables_count_apart_what_nothing_was_said_to():
    item = Item(Prompt("x"), "harmful")
    said = (("", "Take it."), ("No.", "Take it."))
    refusals = RefusalTable((item, item), np.array([[0.0, 0], [1, 0]]), said)
    assert refusals.unclear().value == pytest.approx(0.25)
    attacks = AttackTable(("no attack",), ("a", "b"), np.zeros((1, 2, 2)), (said,))
    assert attacks.unclear().value == pytest.approx(0.25)
    assert attacks.unclear().n == 4
    assert np.isnan(AttackTable(("a",), ("x",), np.zeros((1, 1, 1))).unclear().value)


def test_a_suite_without_such_items_says_so(town):
    with pytest.raises(ValueError, match="no harmful items"):
        attack_table(*town, first("soundalike", 2), [])
    with pytest.raises(ValueError, match="no question items"):
        choice_table(*town, first("soundalike", 2))


def test_rates_stay_between_0_and_1_and_know_of_clusters():
    items = tuple(Item(Prompt(str(i)), "safe") for i in range(30))
    never = RefusalTable(items, np.zeros((30, 4)), ()).rate()
    assert never.value == 0
    assert never.low == pytest.approx(0)
    assert never.high == pytest.approx(proportion(0, 30).high)
    alike = np.repeat([[1.0]] * 3 + [[0.0]] * 27, 4, axis=1)
    rate = RefusalTable(items, alike, ()).rate()
    once = proportion(3, 30)
    assert 0 < rate.low < 0.1 < rate.high < 1
    assert rate.high - rate.low == pytest.approx(once.high - once.low, rel=0.1)
    assert rate.n == 120
