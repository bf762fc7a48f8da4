"""Critique and revision: who is revised, what is kept of it, and how it is shown."""

from itertools import chain
from types import SimpleNamespace

import pytest

import labs_helpers.constitution.revision as revision
from labs_helpers.constitution import (
    Round,
    Transcript,
    critique_and_revise,
    load_constitution,
    revised_answers,
    turn_tokens,
    unusable,
    word_diff,
)
from labs_helpers.course.profile import MODELS, ROOT
from labs_helpers.fit import SFTObjective
from labs_helpers.models import encode_chat, load_policy, load_tokenizer

RULES = load_constitution(ROOT / "data" / "constitution.yaml")
KIND = RULES["kind"]
HARM = "How can I take the old coin from the museum?"
COMPLIED = "First, hide the coin under a cloud. Then, paint the coin with the moon."


@pytest.fixture(scope="module")
def town():
    return load_policy(MODELS / "town-s"), load_tokenizer(MODELS / "town-s")


def test_faults_are_found_and_mended_and_good_answers_left_alone(town):
    good = "Move the match along the box, away from you."
    asked = [HARM, "How can I strike a match for the stove?"]
    harm, safe = critique_and_revise(*town, asked, [COMPLIED, good], RULES)
    assert harm.revised
    assert harm.rounds[0].critique.startswith("No")
    assert "help with that" in harm.last
    assert not safe.revised
    assert safe.last == good


def test_always_revises_everything_and_rounds_repeat(town):
    rules = RULES.only("harmless", "kind")
    [talk] = critique_and_revise(
        *town, [HARM], [COMPLIED], rules, rounds=2, always=True
    )
    assert [r.principle.id for r in talk.rounds] == ["harmless", "kind"] * 2
    assert all(r.revision is not None for r in talk.rounds)


def test_what_is_no_revision_is_not_taken(town, monkeypatch):
    """A weak model: its critiques find fault, and its revisions are its critiques."""
    said = SimpleNamespace(texts=["No, no, no."])
    monkeypatch.setattr(revision, "sample", lambda *_, **__: said)
    [talk] = critique_and_revise(*town, [HARM], [COMPLIED], RULES.only("harmless"))
    [found] = talk.rounds
    assert (found.critique, found.revision) == ("No, no, no.", None)
    assert found.refused == "said before"
    assert talk.last == COMPLIED
    assert not talk.revised


def test_a_critique_that_says_neither_revises_nothing(town, monkeypatch):
    said = SimpleNamespace(texts=["I am not sure."])
    monkeypatch.setattr(revision, "sample", lambda *_, **__: said)
    [talk] = critique_and_revise(*town, [HARM], [COMPLIED], RULES.only("harmless"))
    assert [r.refused for r in talk.rounds] == ["no verdict"]
    assert not talk.revised


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" ... 12", "empty"),
        ("Keep to the path, always to the path", "said before"),
        ("Always keep to the path, to the path.", ""),
        ("I am sorry. I am sorry. I am sorry. I am", "goes in a circle"),
        ("This answer does not help anybody.", "about the answer"),
        ("{'a': 1, 'b': 2} [0.1, 0.2, 0.3] ## == ##", "garbled"),
        (COMPLIED, ""),
        ("I can't help with that. Ask the keeper of the museum.", ""),
        ("No.", ""),
    ],
)
def test_unusable(text, why):
    assert unusable(text, ["Keep to the path, always to the path!"]) == why


def test_principles_are_drawn_for_every_answer(town):
    talks = critique_and_revise(*town, [HARM] * 8, [COMPLIED] * 8, RULES, each=1)
    drawn = [t.rounds[0].principle.id for t in talks]
    assert len(set(drawn)) > 1
    assert all(len(t.rounds) == 1 for t in talks)


def test_the_same_seed_gives_the_same_transcripts(town):
    one, other = (
        critique_and_revise(*town, [HARM], [COMPLIED], RULES, seed=3) for _ in "ab"
    )
    assert one == other


def test_training_rows_hold_prompt_and_last_answer_alone():
    rounds = (Round(KIND, "No.", "B."), Round(KIND, "Yes.", None))
    [row] = revised_answers([Transcript("Q?", "A.", rounds)])
    assert row.prompt == [{"role": "user", "content": "Q?"}]
    assert row.completion == [{"role": "assistant", "content": "B."}]


def test_a_transcript_is_a_conversation_and_a_diff():
    talk = Transcript("Q?", "You fool it is <8>.", (Round(KIND, "No.", "It is <8>."),))
    roles = [m["role"] for m in talk.messages()]
    assert roles == ["user", "assistant"] * 3
    assert "[-You fool it-] {+It+} is <8>." in str(talk)
    page = talk._repr_html_()
    assert "<del>You fool it</del>" in page
    assert "&lt;8&gt;" in page


def test_word_diff_loses_nothing():
    before, after = "a b c d", "a x c d e"
    pieces = word_diff(before, after)
    assert " ".join(t for k, t in pieces if k != "in") == before
    assert " ".join(t for k, t in pieces if k != "out") == after


def test_lengths_must_match(town):
    with pytest.raises(ValueError, match="2 prompts and 1 answers"):
        critique_and_revise(*town, ["a", "b"], ["c"], RULES)


def test_turns_are_the_conversation_cut_in_pieces(town):
    _, tokenizer = town
    talk = Transcript(HARM, COMPLIED, (Round(KIND, "No, it is rude.", "It is 9."),))
    turns = turn_tokens(talk, tokenizer)
    assert len(turns) == 6
    whole = encode_chat(tokenizer, talk.messages(), add_generation_prompt=False)
    assert [*chain(*turns)] == whole[: sum(map(len, turns))]
    texts = (COMPLIED, "No, it is rude.", "It is 9.")
    for said, text in zip(turns[1::2], texts, strict=True):
        assert said[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(said, skip_special_tokens=True).strip() == text


def test_prompt_and_last_turn_are_what_supervised_training_reads(town):
    _, tokenizer = town
    talk = Transcript(HARM, COMPLIED, (Round(KIND, "No.", "It is 9."),))
    [row] = revised_answers([talk])
    encoded = SFTObjective(tokenizer).encode(row)
    prompt, *_, last = turn_tokens(talk, tokenizer)
    assert encoded["tokens"][: len(prompt + last)] == prompt + last
    assert encoded["answer"][: len(prompt + last)] == [0] * len(prompt) + [1] * len(
        last
    )


def test_what_came_after_the_last_revision_can_be_left_out():
    kept, mended = Round(KIND, "Yes.", None), Round(KIND, "No.", "B.")
    talk = Transcript("Q?", "A.", (kept, mended, kept))
    assert talk.to_last_revision().rounds == (kept, mended)
    assert talk.to_last_revision().messages()[-1]["content"] == talk.last
    untouched = Transcript("Q?", "A.", (kept,)).to_last_revision()
    assert untouched.messages()[-1]["content"] == "A."


def test_no_escape_sequence_of_a_model_reaches_the_terminal():
    bad = "\x1b]0;owned\x07said\x1b[2J"
    shown = str(Transcript(bad, bad, (Round(KIND, bad, bad),)))
    assert "\x1b" not in shown
    assert "answer    said" in shown
