"""Every door through which prompts and answers enter reads them in the same way."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labs_helpers.data import Preference
from labs_helpers.evaluation import RecordedJudge, RewardJudge
from labs_helpers.models import RewardModel
from labs_helpers.sampling import response_logprobs, sample

LEGAL = [
    [{"role": "user", "content": "Who?"}],
    ({"from": "human", "value": "Who?"},),
    [{"role": "Human", "content": [{"type": "text", "text": "Who?"}]}],
    [SimpleNamespace(role="user", content="Who?")],
    np.str_("Who?"),
]
BAD = [
    [{"role": "user", "content": None}],
    [{"role": "user", "content": [{"type": "image"}]}],
    {"role": "user", "content": "Who?"},
    [[{"role": "user", "content": "Who?"}]],
    "Who \ud800?",
    b"Who?",
    None,
    " ",
    [],
]


@pytest.fixture
def doors(tiny_policy, tiny_tokenizer):
    """Each takes a prompt, and says a number that depends on what was asked."""
    policy = tiny_policy(spread=0.5)
    reward = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer)
    torch.nn.init.normal_(reward.head.weight)
    judge = RecordedJudge([Preference("Who?", "a", "b")])
    greedy = {"max_new_tokens": 3, "temperature": 0}
    return {
        "sample": lambda x: sample(policy, tiny_tokenizer, [x], **greedy).texts,
        "logprobs": lambda x: response_logprobs(policy, tiny_tokenizer, [x], ["a"]),
        "score": lambda x: reward.score([x], ["a"]),
        "judge": lambda x: RewardJudge(reward).compare([x], ["a"], ["b"]),
        "recorded": lambda x: judge.knows([x], ["a"], ["b"]),
        "row": lambda x: Preference(x, "a", "b").prompt,
    }


DOORS = ["sample", "logprobs", "score", "judge", "recorded", "row"]


@pytest.mark.parametrize("door", DOORS)
def test_what_is_legal_says_the_same_everywhere(doors, door):
    expected = doors[door]("Who?")
    for prompt in LEGAL:
        found = doors[door](prompt)
        assert np.array_equal(found, expected), prompt


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_prompt_is_a_value_error(doors, door):
    for prompt in BAD:
        with pytest.raises(ValueError, match="prompt"):
            doors[door](prompt)


def test_answers_may_be_messages_and_may_be_empty(tiny_policy, tiny_tokenizer):
    policy = tiny_policy(spread=0.5)
    reward = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer, request="Good?")
    for answers in (["", "Me."], [[{"role": "assistant", "content": "Me."}], ""]):
        assert torch.isfinite(reward.score(["Who?"] * 2, answers)).all()
        logprobs = response_logprobs(policy, tiny_tokenizer, ["Who?"] * 2, answers)
        assert torch.isfinite(logprobs).all()


def test_one_prompt_in_place_of_many(tiny_policy, tiny_tokenizer):
    with pytest.raises(ValueError, match=r"expected a list\. Put a single prompt in"):
        sample(tiny_policy(), tiny_tokenizer, "Who?", max_new_tokens=1)
