"""What a template refuses is said in a sentence, with what it would take."""

import pytest

from labs_helpers.models.chat import encode_answer, encode_conversation, encode_prompt
from labs_helpers.sampling import sample

TALK = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "I."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "It is stone."},
]


class TestRefusals:
    def test_a_template_that_takes_no_system_message(self, tiny_policy, tokenizer):
        tokenizer.chat_template = (
            "{% if messages[0].role == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}"
        ) + tokenizer.chat_template
        talk = [{"role": "system", "content": "Be short."}, TALK[0]]
        with pytest.raises(ValueError, match=r"prompt 1.*'Be short.'.*not supported"):
            sample(tiny_policy(), tokenizer, ["Who?", talk], max_new_tokens=2)

    def test_say_what_the_template_would_take(self, tokenizer):
        tokenizer.chat_template = (
            "{% for m in messages %}"
            "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}"
            "{% endfor %}"
        ) + tokenizer.chat_template
        system = {"role": "system", "content": "Be short."}
        with pytest.raises(ValueError, match=r"alternate.*put what the system says in"):
            encode_prompt(tokenizer, [system, TALK[0]])
        with pytest.raises(ValueError, match=r"alternate.*join turns of one role"):
            encode_answer(tokenizer, [TALK[0], TALK[2]], "I.")

    def test_a_template_that_leaves_a_message_out(self, tokenizer):
        tokenizer.chat_template = (
            "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>"
            "{{ m.content }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}"
        )
        system = {"role": "system", "content": "Be short."}
        with pytest.raises(ValueError, match="leaves out what the system says"):
            encode_prompt(tokenizer, [system, TALK[0]])

    def test_an_answer_to_nobody(self, tokenizer):
        with pytest.raises(ValueError, match="the assistant speaks first"):
            encode_conversation(tokenizer, TALK[1:])

    def test_a_template_that_breaks(self, tokenizer):
        for broken in ("{{ messages[7].content.x.y }}", "{% for %}", "{{ 1 + 'a' }}"):
            tokenizer.chat_template = broken
            with pytest.raises(
                ValueError, match=r"refuses the conv.*'Who\?'.*It says:"
            ):
                encode_prompt(tokenizer, "Who?")
