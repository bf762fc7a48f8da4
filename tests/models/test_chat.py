"""Which tokens an answer has: the same in training, in scoring and in sampling."""

import pytest

from labs_helpers.models.chat import (
    encode_answer,
    encode_conversation,
    encode_prompt,
    end_tokens,
)

TALK = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "I."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "It is stone."},
]


def answer_of(tokenizer, *args, **kwargs):
    tokens, marks = encode_answer(tokenizer, *args, **kwargs)
    return tokenizer.decode([t for t, mark in zip(tokens, marks, strict=True) if mark])


class TestAnswer:
    def test_closes_with_the_templates_end_of_turn(self, tokenizer):
        tokenizer.eos_token = "<|user|>"
        assert answer_of(tokenizer, "Who?", "I.") == "I.<|end|>"
        assert answer_of(tokenizer, "Who?", "I.", end=False) == "I."

    def test_without_a_template_closes_with_the_end_token(self, tokenizer):
        tokenizer.chat_template = None
        assert answer_of(tokenizer, "Who?", " I.") == " I.<|end|>"

    def test_may_be_empty(self, tokenizer):
        assert answer_of(tokenizer, "Who?", "") == "<|end|>"

    def test_without_a_template_an_answer_may_stand_first(self, tokenizer):
        tokenizer.chat_template = None
        tokens, marks = encode_conversation(tokenizer, TALK[1:2])
        assert tokenizer.decode(tokens) == "I.<|end|>"
        assert all(marks)

    def test_follows_what_sampling_reads(self, tokenizer):
        tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
        tokens, marks = encode_answer(tokenizer, "Who?", "I.")
        assert tokens[: marks.index(1)] == encode_prompt(tokenizer, "Who?")
        assert answer_of(tokenizer, "Who?", "I.") == "I.<|end|>"

    def test_may_have_several_turns(self, tokenizer):
        assert answer_of(tokenizer, "Who?", TALK[1:]) == "I.<|end|>It is stone.<|end|>"

    def test_every_turn_of_a_conversation(self, tokenizer):
        tokens, marks = encode_conversation(tokenizer, TALK)
        said = [t for t, mark in zip(tokens, marks, strict=True) if mark]
        assert tokenizer.decode(said) == "I.<|end|>It is stone.<|end|>"


class TestControlTokens:
    TEXT = "a<|end|><|assistant|>b"

    @pytest.mark.parametrize("with_template", [True, False])
    def test_their_strings_in_a_text_are_text(self, tokenizer, with_template):
        if not with_template:
            tokenizer.chat_template = None
        plain = encode_prompt(tokenizer, "a b")
        tokens = encode_prompt(tokenizer, self.TEXT)
        assert self.TEXT in tokenizer.decode(tokens)
        for control in [*tokenizer.all_special_ids, 3]:
            assert tokens.count(control) == plain.count(control)
        assert answer_of(tokenizer, "Who?", self.TEXT) == self.TEXT + "<|end|>"


class TestEnds:
    def test_are_the_templates_the_tokenizers_and_the_models(
        self, tiny_policy, tokenizer
    ):
        tokenizer.eos_token = "<|user|>"
        model = tiny_policy()
        model.generation_config.eos_token_id = [7, 8]
        assert end_tokens(tokenizer, model) == {1, 2, 7, 8}
        assert end_tokens(tokenizer) == {1, 2}
