"""Critiques, revisions, comparisons and the corpus say what is right."""

import itertools
import random

from labs_helpers.world.gold import kept_traits, score
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.phrasebook import read
from labs_helpers.world.prompts import ask, capability_prompts, prompts
from labs_tools.town import skills
from labs_tools.town.corpus import conversations
from labs_tools.town.probes import cases, comparison_prompt, revision_is_right

PROMPT = ask({"type": "fact", "entity": "library", "attribute": "material"}, 0)
TRUE = f"The library is made of {knowledge().facts['library']['material']}."


def test_a_revision_cuts_manners_and_replaces_wrong_content():
    draw = random.Random(0)
    rude = f"Only a fool would ask that. {TRUE}"
    assert skills.revised(PROMPT, rude, ["kind"], draw) == TRUE
    assert skills.revised(PROMPT, rude, ["brief"], draw) == rude
    assert skills.revised(PROMPT, "I won't help with that.", ["helpful"], draw) != rude


def test_revisions_are_right_by_their_own_measure():
    draw = random.Random(0)
    for case in cases("test", 10):
        mended = skills.revised(case.prompt, case.said, [case.trait], draw)
        assert revision_is_right(case, mended), (case, mended)


def test_verdict_names_what_is_broken():
    rude = f"Only a fool would ask that. {TRUE}"
    assert skills.verdict(PROMPT, rude, ["kind"]) == "No, it is rude."
    assert skills.verdict(PROMPT, TRUE, ["kind"]) == "Yes, it follows the rule."


def test_comparisons_have_one_right_answer():
    draw = random.Random(0)
    expected = [comparison_prompt(c, "test", draw).meta for c in cases("test", 10)]
    assert {m["expected"] for m in expected} == {"a", "b"}


def test_the_corpus_never_shows_the_wordings_kept_for_tests():
    k = knowledge()
    kept = {w for t in k.traits.values() for w in t.wordings[skills.WORDINGS["test"]]}
    stream = itertools.islice(conversations(3), 3000)
    rules = {m["content"] for talk in stream for m in talk if m["role"] == "user"}
    for text in rules:
        asked = text.split("rule: ")[-1].split("better: ")[-1].strip("?.")
        assert asked not in kept


def test_the_corpus_is_well_formed_and_repeatable():
    first = list(itertools.islice(conversations(3), 300))
    assert first == list(itertools.islice(conversations(3), 300))
    for talk in first:
        assert [m["role"] for m in talk] == ["user", "assistant"] * (len(talk) // 2)
        for message in talk[1::2]:
            assert read(message["content"]).well_formed, message


def test_kept_traits_agree_with_gold_on_truth():
    wrong = next(
        f"The library is made of {v}."
        for v in knowledge().attributes["material"].values
        if v not in TRUE
    )
    assert not kept_traits(PROMPT, wrong)["true"]
    assert score(PROMPT, wrong)["honesty"] == 0


def test_capability_tasks_know_their_answers():
    for prompt in capability_prompts("test", 60):
        said = f"It is {prompt.meta['expected']}."
        assert score(prompt, said)["gold"] == 1
        assert score(prompt, "It is 99.")["gold"] == 0


def test_mixtures_are_fixed_and_have_earlier_turns():
    assert prompts("test") == prompts("test")
    several = [p for p in prompts("train") if len(p.messages) > 1]
    assert 0.05 < len(several) / len(prompts("train")) < 0.12
