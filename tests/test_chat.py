"""Which tokens an answer has: the same in training, in scoring and in sampling."""

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from labs_helpers.chat import (
    check_fits,
    encode_answer,
    encode_conversation,
    encode_prompt,
    end_tokens,
)
from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    PairObjective,
    RewardObjective,
    SFTObjective,
    SLiCObjective,
    fit,
)
from labs_helpers.models import RewardModel
from labs_helpers.rl import RLConfig, train
from labs_helpers.sampling import sample

TALK = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "I."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "It is stone."},
]


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """A copy that a test may change."""
    return copy.deepcopy(tiny_tokenizer)


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

    def test_without_a_template_an_answer_may_stand_first(self, tokenizer):
        tokenizer.chat_template = None
        tokens, marks = encode_conversation(tokenizer, TALK[1:2])
        assert tokenizer.decode(tokens) == "I.<|end|>"
        assert all(marks)

    def test_a_template_that_breaks(self, tokenizer):
        for broken in ("{{ messages[7].content.x.y }}", "{% for %}", "{{ 1 + 'a' }}"):
            tokenizer.chat_template = broken
            with pytest.raises(
                ValueError, match=r"refuses the conv.*'Who\?'.*It says:"
            ):
                encode_prompt(tokenizer, "Who?")


class TestLimits:
    def test_learnt_positions(self, tokenizer):
        config = GPT2Config(
            vocab_size=300,
            n_positions=32,
            n_embd=8,
            n_layer=1,
            n_head=2,
            bos_token_id=None,
            eos_token_id=1,
        )
        model = GPT2LMHeadModel(config).eval()
        sample(model, tokenizer, ["Who?"], max_new_tokens=20)
        with pytest.raises(ValueError, match=r"row 0 is 5.*48 new.*has 32 positions"):
            sample(model, tokenizer, ["Who?"], max_new_tokens=48)

    def test_a_pad_outside_the_vocabulary(self, tiny_policy, tokenizer):
        expected = sample(
            tiny_policy(), tokenizer, ["Who?", "Why so?"], max_new_tokens=3, seed=0
        )
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        found = sample(
            tiny_policy(), tokenizer, ["Who?", "Why so?"], max_new_tokens=3, seed=0
        )
        assert torch.equal(found.responses, expected.responses)

    def test_a_token_outside_the_vocabulary(self, tiny_policy, tokenizer):
        with pytest.raises(ValueError, match=r"row 1 holds token 300.*resize_token"):
            check_fits(tiny_policy(), tokenizer, [[5], [5, 300]])

    def test_a_prompt_without_a_token(self, tiny_policy, tokenizer):
        tokenizer.chat_template = None
        with pytest.raises(ValueError, match="prompt 1 is empty"):
            sample(tiny_policy(), tokenizer, ["Who?", ""], max_new_tokens=2)


class TestEnds:
    def test_are_the_templates_the_tokenizers_and_the_models(
        self, tiny_policy, tokenizer
    ):
        tokenizer.eos_token = "<|user|>"
        model = tiny_policy()
        model.generation_config.eos_token_id = [7, 8]
        assert end_tokens(tokenizer, model) == {1, 2, 7, 8}
        assert end_tokens(tokenizer) == {1, 2}


class TestTrainingsRows:
    """Refused before the first step, by the number of the row."""

    def model(self, positions):
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": positions}
        config = GPT2Config(vocab_size=300, bos_token_id=None, eos_token_id=1, **sizes)
        return GPT2LMHeadModel(config).eval()

    @pytest.mark.parametrize("kind", ["sft", "pairs", "slic", "kto", "reward"])
    def test_longer_than_the_models_positions(self, tokenizer, kind):
        model = self.model(16)
        long = "The hall is made of stone and of glass."
        rows = [Preference("Who?", "I.", said) for said in ("You.", long)]
        if kind == "reward":
            model = RewardModel.from_policy(model, tokenizer=tokenizer)
        if kind in ("sft", "kto"):
            rows = [Unpaired(row.prompt, row.rejected, True) for row in rows]
        objective = {
            "sft": lambda: SFTObjective(tokenizer),
            "pairs": lambda: PairObjective(tokenizer, self.model(16)),
            "slic": lambda: SLiCObjective(tokenizer),
            "kto": lambda: KTOObjective(tokenizer, self.model(16)),
            "reward": lambda: RewardObjective(model),
        }[kind]()
        with pytest.raises(ValueError, match=r"row 1 is \d+ tokens.*has 16 positions"):
            fit(model, rows, objective, FitConfig(lr=1e-3, steps=1, progress=False))
        short = FitConfig(lr=1e-3, steps=1, progress=False, max_length=16)
        if kind != "kto":
            fit(model, rows, objective, short)

    def test_encoding_names_the_row(self, tokenizer):
        tokenizer.chat_template = (
            "{{ raise_exception('no system') if messages[0].role == 'system' }}"
            + tokenizer.chat_template
        )
        rows = [TALK, [{"role": "system", "content": "Be short."}, *TALK]]
        with pytest.raises(ValueError, match=r"row 1: .*'Be short.'.*no system"):
            fit(self.model(64), rows, SFTObjective(tokenizer), FitConfig(lr=1e-3))

    def test_kto_needs_two_rows_in_every_batch(self, tokenizer):
        rows = [Unpaired("Who?", said, True) for said in ("I.", "You.", "It.")]
        objective = KTOObjective(tokenizer, self.model(64))
        with pytest.raises(ValueError, match=r"batch has 1 row\. Take batch_size >= 2"):
            fit(self.model(64), rows, objective, FitConfig(lr=1e-3, batch_size=2))

    def test_answers_of_other_rows_are_cut_to_the_positions(self, tokenizer):
        long = [
            Unpaired("It is stone. " * 3, "I.", True),
            Unpaired("I", "It is stone. " * 3, False),
        ]
        objective = KTOObjective(tokenizer, self.model(40))
        config = FitConfig(lr=1e-3, steps=1, progress=False)
        fit(self.model(40), long, objective, config)

    def test_longer_than_the_references_positions(self, tokenizer):
        row = Preference("Who?", "I.", "The hall is made of stone and of glass.")
        objective = PairObjective(tokenizer, self.model(16))
        with pytest.raises(ValueError, match="has 16 positions"):
            fit(self.model(64), [row], objective, FitConfig(lr=1e-3, progress=False))

    def test_of_reinforcement_learning(self, tokenizer):
        config = RLConfig(updates=1, samples=2, max_new_tokens=8, progress=False)
        model = self.model(16)
        prompts = ["Who?", "The hall is made of stone and of glass."]
        with pytest.raises(ValueError, match=r"row 1 is \d+.* 8 new.*has 16 positions"):
            train(
                model, prompts, lambda p, a: [1.0] * len(a), config, tokenizer=tokenizer
            )
