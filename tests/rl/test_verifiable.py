"""Verifiable rewards: checks against references, formats, and sums of rewards."""

import pytest
import torch

from labs_helpers.data import Prompt
from labs_helpers.rl import RLConfig, combined, ensemble, formatted, probe_policy, train
from labs_helpers.rl.verifiable import verified

REFERENCES = {"2 + 2?": "4", "3 + 3?": "6"}


def says(answer, reference):
    return reference in answer


class TestVerified:
    right = staticmethod(verified(says, REFERENCES))

    @pytest.mark.parametrize(
        "prompt",
        [
            "2 + 2?",
            [{"role": "user", "content": "2 + 2?"}],
            Prompt("2 + 2?", {}),
            [
                {"role": "user", "content": "3 + 3?"},
                {"role": "assistant", "content": "6"},
                {"role": "user", "content": "2 + 2?"},
            ],
        ],
    )
    def test_finds_the_reference_of_any_prompt(self, prompt):
        assert self.right([prompt] * 2, ["4", "6"]) == [1.0, 0.0]

    def test_by_a_function_of_the_prompt(self):
        near = verified(lambda said, number: -abs(len(said) - number), len)
        assert near(["abc", "abc"], ["abc", "a"]) == [0.0, -2.0]

    def test_a_prompt_without_one_is_named(self):
        with pytest.raises(ValueError, match=r"no reference for the prompt '5 \+ 5\?'"):
            self.right(["5 + 5?"], ["10"])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("It is 4.", 1), ("It is 4", 0), ("It is 4. It is 5.", 0), ("So it is 4.", 0)],
)
def test_a_format_is_of_the_whole_answer(answer, expected):
    assert formatted(r"It is \d+\.")(["2 + 2?"], [answer]) == [expected]


def test_rewards_are_weighed():
    right, form = verified(says, REFERENCES), formatted(r"It is \d+\.")
    prompts, answers = ["2 + 2?"] * 3, ["It is 4.", "It is 5.", "4"]
    torch.testing.assert_close(
        combined((1.0, right), (0.2, form))(prompts, answers),
        torch.tensor([1.2, 0.2, 1.0]),
    )
    both = ensemble([right, form], "worst")(prompts, answers)
    assert both.tolist() == [1, 0, 0]


@pytest.mark.slow
def test_are_learnt_from():
    policy, tokenizer = probe_policy()
    references = {"a": "b", "b": "c", "c": "d", "d": "a"}
    reward = verified(str.__eq__, references)
    config = RLConfig(
        algorithm="rloo",
        updates=40,
        max_new_tokens=1,
        lr=1e-2,
        kl_weight=0.0,
        missing_end_penalty=0.0,
        schedule="constant",
        progress=False,
    )
    history = train(policy, list(references), reward, config, tokenizer=tokenizer)
    assert history["reward"][-3:].mean() > 0.9
    assert history["no_spread"][-3:].mean() > history["no_spread"][:3].mean()
