"""A reward model that reads surprisal: the figures, what the heads read, the folder."""

import math

import pytest
import torch

from labs_helpers.models import RewardModel, encode_chat
from labs_helpers.world.reward import (
    SURPRISAL_UNITS,
    SurprisalRewardModel,
    surprisal,
)

PROMPTS = ["Who?", "What is the hall made of?", "Why?"]
ANSWERS = ["Stone.", "I won't help with that.", "I do not know why it is so."]


@pytest.fixture
def model(tiny_policy):
    return tiny_policy()


class TestSurprisal:
    SAID = ("Stone and glass.", "I do not know.", "It")

    def figures(self, model, tokenizer, prompt, response):
        """The ten figures of one response, from the plain model's log-probs."""
        messages = [{"role": "user", "content": prompt}]
        before = encode_chat(tokenizer, messages, add_generation_prompt=True)
        said = tokenizer(response, add_special_tokens=False)["input_ids"]
        tokens = [*before, *said, tokenizer.eos_token_id]
        scores = model(torch.tensor([tokens])).logits[0].log_softmax(dim=1)
        each = [
            scores[place - 1, tokens[place]].item()
            for place in range(len(before), len(tokens))
        ]
        average, rare = sum(each) / len(each), sorted(each)[:3]
        return {
            "all tokens": sum(each),
            "mean token": average,
            "rarest token": rare[0],
            "three rarest": sum(rare),
            "first token": each[0],
            "first four": sum(each[:4]),
            "end token": each[-1],
            "number of tokens": len(each),
            "log of the mean": math.log(0.02 - average),
            "log of the rarest": math.log(0.05 - rare[0]),
        }

    def test_figures_are_those_of_the_plain_model(self, model, tiny_tokenizer):
        found = surprisal(model, tiny_tokenizer, PROMPTS, self.SAID)
        for row, prompt, response in zip(found, PROMPTS, self.SAID, strict=True):
            expected = self.figures(model, tiny_tokenizer, prompt, response)
            units = SURPRISAL_UNITS
            assert tuple(expected) == tuple(units)
            scaled = torch.tensor([x / units[name] for name, x in expected.items()])
            torch.testing.assert_close(row, scaled, rtol=1e-4, atol=1e-5)

    def test_of_nothing(self, model, tiny_tokenizer):
        assert surprisal(model, tiny_tokenizer, [], []).shape == (0, 10)


class TestModel:
    @pytest.fixture
    def plain(self, tiny_policy, tiny_tokenizer):
        return RewardModel.from_policy(
            tiny_policy(1), ("help", "harm"), tiny_tokenizer, request="right?"
        )

    @pytest.fixture
    def both(self, plain, model):
        return SurprisalRewardModel(
            plain.trunk, plain.heads, plain.tokenizer, plain.request, model
        ).eval()

    def test_starts_with_rewards_of_zero(self, both):
        assert not both.score(PROMPTS, ANSWERS).any()

    def test_heads_read_hidden_state_and_surprisal(self, both, plain):
        torch.nn.init.normal_(both.head[-1].weight)
        hidden = plain.features(PROMPTS, ANSWERS)
        said = surprisal(both.reference, both.tokenizer, PROMPTS, ANSWERS)
        expected = both.head(torch.cat([hidden, said], dim=1))
        torch.testing.assert_close(both.score(PROMPTS, ANSWERS), expected)

    def test_the_reference_is_not_trained(self, both):
        trained = {id(p) for p in both.parameters() if p.requires_grad}
        assert trained
        assert trained.isdisjoint(id(p) for p in both.reference.parameters())

    def test_tokens_alone_are_refused_in_words(self, both):
        with pytest.raises(TypeError, match=r"call score\(prompts"):
            both(torch.tensor([[2, 3, 1]]), torch.tensor([3]))

    def test_comes_back_as_what_it_is(self, both, plain, tmp_path):
        torch.nn.init.normal_(both.head[-1].weight)
        both.save_pretrained(tmp_path)
        again = RewardModel.from_pretrained(tmp_path, device="cpu")
        assert isinstance(again, SurprisalRewardModel)
        assert torch.equal(again.score(PROMPTS, ANSWERS), both.score(PROMPTS, ANSWERS))
        assert not any(p.requires_grad for p in again.reference.parameters())
        plain.save_pretrained(tmp_path)  # a reference of before is not read
        assert type(RewardModel.from_pretrained(tmp_path, device="cpu")) is RewardModel
