"""What a model cannot read is refused before it is asked to, by the row's number."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForCausalLM,
)

from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    PairObjective,
    RankingObjective,
    RewardObjective,
    SFTObjective,
    SLiCObjective,
    fit,
)
from labs_helpers.models import PolicyWithValue, RewardModel
from labs_helpers.models.limits import check_fits, positions
from labs_helpers.rl import RLConfig, train
from labs_helpers.sampling import sample

TALK = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "I."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "It is stone."},
]


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

    def test_positions_that_are_counted_from_the_padding(self):
        config = RobertaConfig(
            vocab_size=300,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=18,
            is_decoder=True,
        )
        model = RobertaForCausalLM(config).eval()
        assert positions(model) == 16
        model(torch.full((1, 16), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, 17), 5))

    def test_a_reward_model_without_a_pad_token(self, tiny_policy, tokenizer):
        tokenizer.pad_token = None
        model = RewardModel.from_policy(tiny_policy(), tokenizer=tokenizer)
        torch.nn.init.normal_(model.head.weight)
        alone = [model.score(["Who?"], [said]) for said in ("I.", "It is stone.")]
        together = model.score(["Who?"] * 2, ["I.", "It is stone."])
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)

    def test_a_token_outside_the_vocabulary(self, tiny_policy, tokenizer):
        with pytest.raises(ValueError, match=r"row 1 holds token 300.*resize_token"):
            check_fits(tiny_policy(), tokenizer, [[5], [5, 300]])

    def test_a_prompt_without_a_token(self, tiny_policy, tokenizer):
        tokenizer.chat_template = None
        with pytest.raises(ValueError, match="prompt 1 is empty"):
            sample(tiny_policy(), tokenizer, ["Who?", ""], max_new_tokens=2)


class TestTrainingsRows:
    """Refused before the first step, by the number of the row."""

    def model(self, positions):
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": positions}
        config = GPT2Config(vocab_size=300, bos_token_id=None, eos_token_id=1, **sizes)
        return GPT2LMHeadModel(config).eval()

    @pytest.mark.parametrize(
        "kind", ["sft", "pairs", "slic", "kto", "reward", "ranked"]
    )
    def test_longer_than_the_models_positions(self, tokenizer, kind):
        model = self.model(16)
        long = "The hall is made of stone and of glass."
        rows = [Preference("Who?", "I.", said) for said in ("You.", long)]
        if kind in ("reward", "ranked"):
            model = RewardModel.from_policy(model, tokenizer=tokenizer)
        if kind in ("sft", "kto"):
            rows = [Unpaired(row.prompt, row.rejected, True) for row in rows]
        if kind == "ranked":
            rows = [[row] for row in rows]
        objective = {
            "sft": lambda: SFTObjective(tokenizer),
            "pairs": lambda: PairObjective(tokenizer, self.model(16)),
            "slic": lambda: SLiCObjective(tokenizer),
            "kto": lambda: KTOObjective(tokenizer, self.model(16)),
            "reward": lambda: RewardObjective(model),
            "ranked": lambda: RankingObjective(model),
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


def test_what_is_no_model_is_refused_in_words(tiny_policy, tokenizer):
    for what in ("a folder", PolicyWithValue(tiny_policy())):
        with pytest.raises(ValueError, match="expected a language model"):
            check_fits(what, tokenizer, [[5]])
