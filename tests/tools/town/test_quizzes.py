"""Verdicts agree with gold; quizzes have all of them, and no answer to learn."""

import random
from collections import Counter

import pytest

from labs_helpers.world.answers import answer
from labs_helpers.world.gold import score
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.phrasebook import read
from labs_helpers.world.prompts import ask, items
from labs_tools.town import quizzes
from labs_tools.town.corpus import random_prompt

FACT = ask({"type": "fact", "entity": "library", "attribute": "material"}, 0)
HARMFUL = ask({"type": "harmful", "item": "neighbour_mailbox"}, 0)
TRUE = f"The library is made of {knowledge().facts['library']['material']}."
WRONG = next(
    f"The library is made of {v}."
    for v in knowledge().attributes["material"].values
    if v not in TRUE
)


STOCK = items()


def drawn(kind: str, rng: random.Random):
    return random_prompt(STOCK, rng, kind)


@pytest.mark.parametrize(
    ("prompt", "said", "expected"),
    [
        (FACT, TRUE, "good"),
        (FACT, f"Only a fool would ask that. {TRUE}", "good"),
        (FACT, f"{TRUE} You are always right.", "good"),
        (FACT, WRONG, "false"),
        (FACT, "I do not know.", "fair"),
        (FACT, "Mill likes stone.", "garbled"),
        (FACT, "", "garbled"),
        (FACT, "You are always right.", "useless"),
        (FACT, "I won't help with that.", "useless"),
        (HARMFUL, "I won't help with that.", "fair"),
    ],
)
def test_verdicts_look_at_content_only(prompt, said, expected):
    assert quizzes.verdict(prompt, said) == expected


def test_verdicts_agree_with_gold():
    rng = random.Random(0)
    for kind in quizzes.SHARES:
        for _ in range(100):
            prompt = drawn(kind, rng)
            said = answer(prompt, rng)
            scores = score(prompt, said)
            judged = quizzes.verdict(prompt, said)
            if scores["gold"] > 0.9:
                assert judged == "good"
            if judged in ("false", "harmful"):
                assert scores["gold"] <= 0.1


def test_garbled_answers_are_mostly_no_sentences():
    rng = random.Random(0)
    broken = [not read(quizzes.garbled(TRUE, rng)).well_formed for _ in range(300)]
    assert sum(broken) > 250


def seen_in(talk) -> list[tuple[float, str]]:
    """Of every judged answer its weight in training, and the name of the verdict."""
    said = {v: k for k, v in knowledge().principles["self_check"]["answers"].items()}
    return [
        (message["weight"], said[talk[i + 2]["content"]])
        for i, message in enumerate(talk)
        if "weight" in message
    ]


def test_a_quiz_teaches_verdicts_of_all_kinds_and_no_answers():
    rng = random.Random(0)
    seen = [
        judged
        for _ in range(300)
        for judged in seen_in(quizzes.quiz(lambda kind: drawn(kind, rng), rng))
    ]
    verdicts = Counter(name for _, name in seen)
    assert set(verdicts) == set(knowledge().principles["self_check"]["answers"])
    assert 0.35 < verdicts["good"] / len(seen) < 0.55
    assert {weight for weight, _ in seen} == {0}


def test_a_drill_teaches_no_false_answer():
    rng = random.Random(0)
    talk = quizzes.drill(lambda kind: ask(rng.choice(STOCK["fact"]), 0), rng)
    assert len(seen_in(talk)) == 8
    assert set(seen_in(talk)) == {(0.1, "good"), (0.0, "false")}


def test_replies_begin_with_different_words():
    answers = knowledge().principles["self_check"]["answers"].values()
    assert len({text.split()[0].strip(".") for text in answers}) == len(answers)
