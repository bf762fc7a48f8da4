"""Judges: who wins, what ties, and that the order of the sides does not matter."""

import json

import numpy as np
import pytest
import torch

from labs_helpers.data import Judge, Prompt
from labs_helpers.evaluation import (
    BothOrders,
    LanguageModelJudge,
    RecordedJudge,
    RewardJudge,
    TruthJudge,
    judges,
)
from labs_helpers.models import RewardModel

PROMPTS = [Prompt("one"), Prompt("two"), Prompt("three")]


class LengthIsGold:
    dimensions = ("shortness",)

    def score(self, prompt, response):
        return {"gold": float(len(response)), "shortness": -float(len(response))}

    def scores(self, prompts, responses, dimension="gold"):
        pairs = zip(prompts, responses, strict=True)
        return np.array([self.score(*pair)[dimension] for pair in pairs])


@pytest.fixture
def reward_model(tiny_policy, tiny_tokenizer):
    model = RewardModel.from_policy(
        tiny_policy(), heads=("helpful", "honest"), tokenizer=tiny_tokenizer
    )
    torch.nn.init.normal_(model.head.weight)
    return model


class TestTruthJudge:
    def test_the_higher_score_wins_and_equals_tie(self):
        judge = TruthJudge(LengthIsGold())
        outcomes = judge.compare(PROMPTS, ["long", "a", "ab"], ["s", "abc", "cd"])
        np.testing.assert_array_equal(outcomes, [1, 0, 0.5])

    def test_judges_by_the_dimension_asked_for(self):
        judge = TruthJudge(LengthIsGold(), dimension="shortness")
        assert judge.compare(PROMPTS[:1], ["long"], ["s"]).tolist() == [0]

    def test_uneven_sides_are_named(self):
        with pytest.raises(ValueError, match="3 prompts, 1 answers a and 3 answers b"):
            TruthJudge(LengthIsGold()).compare(PROMPTS, ["x"], ["x", "y", "z"])


class TestRewardJudge:
    A, B = ["stone", "wood", "glass"], ["a stone", "no", "glass"]

    def test_the_higher_reward_of_the_head_wins(self, reward_model):
        difference = reward_model.score(PROMPTS, self.A) - reward_model.score(
            PROMPTS, self.B
        )
        for number, head in enumerate(reward_model.heads):
            expected = (difference[:, number].sign() + 1) / 2
            for asked in (number, head):
                outcomes = RewardJudge(reward_model, asked).compare(
                    PROMPTS, self.A, self.B
                )
                np.testing.assert_array_equal(outcomes, expected)

    def test_turning_the_sides_turns_the_outcome(self, reward_model):
        judge = RewardJudge(reward_model)
        there = judge.compare(PROMPTS, self.A, self.B)
        np.testing.assert_array_equal(judge.compare(PROMPTS, self.B, self.A), 1 - there)

    def test_the_same_answer_ties(self, reward_model):
        outcomes = RewardJudge(reward_model).compare(PROMPTS, self.A, self.A)
        np.testing.assert_array_equal(outcomes, [0.5, 0.5, 0.5])

    def test_within_the_margin_all_tie(self, reward_model):
        judge = RewardJudge(reward_model, tie_margin=1e6)
        assert set(judge.compare(PROMPTS, self.A, self.B)) == {0.5}

    def test_an_unknown_head_is_named_with_the_known(self, reward_model):
        with pytest.raises(ValueError, match=r"'humour'.*helpful, honest"):
            RewardJudge(reward_model, "humour").compare(PROMPTS, self.A, self.B)


class TestBothOrders:
    said = BothOrders(np.array([0.9, 0.2, 0.8, 0.5]), np.array([0.6, 0.4, 0.3, 0.9]))

    def test_only_what_holds_in_both_orders_wins(self):
        np.testing.assert_array_equal(self.said.outcomes, [1, 0, 0.5, 0.5])
        assert self.said.disagreement.value == 0.5

    def test_position_bias_is_the_share_of_firsts(self):
        # Shown first, a wins, loses, wins, ties; b loses, wins, wins, loses.
        assert self.said.position_bias.value == pytest.approx((1 + 1 + 2 + 0.5) / 8)
        always_first = BothOrders(np.full(9, 0.7), np.full(9, 0.1))
        assert always_first.position_bias.value == 1
        assert set(always_first.outcomes) == {0.5}


class TestLanguageModelJudge:
    def judge_by(self, monkeypatch, margin):
        """A judge whose log-prob of "A" less that of "B" is a function of its request.

        The request is a tuple here: prompt, first and second answer.
        """

        def reply_logprobs(policy, tokenizer, requests, replies):
            return np.array([[float(margin(*asked)), 0.0] for asked in requests])

        monkeypatch.setattr(judges, "reply_logprobs", reply_logprobs)

        def build(policy, tokenizer):
            return LanguageModelJudge(policy, tokenizer, lambda *asked: asked)

        return build

    def test_prefers_in_both_orders(self, tiny_policy, tiny_tokenizer, monkeypatch):
        build = self.judge_by(monkeypatch, lambda _, a, b: float(len(a) - len(b)))
        judge = build(tiny_policy(), tiny_tokenizer)
        a, b = ["longer", "s", "same"], ["short", "longer", "four"]
        np.testing.assert_array_equal(judge.compare(PROMPTS, a, b), [1, 0, 0.5])
        said = judge.both_orders(PROMPTS, a, b)
        np.testing.assert_allclose(said.a_first, said.a_second)
        assert said.a_first[0] == pytest.approx(1 / (1 + np.exp(-1)))
        assert said.position_bias.value == 0.5

    def test_a_verdict_that_turns_with_the_order_is_a_tie(
        self, tiny_policy, tiny_tokenizer, monkeypatch
    ):
        build = self.judge_by(monkeypatch, lambda _, a, b: len(a) - len(b) + 2.0)
        judge = build(tiny_policy(), tiny_tokenizer)
        said = judge.both_orders(PROMPTS, ["aa", "aaaa", "a"], ["b", "b", "b"])
        np.testing.assert_array_equal(said.outcomes, [0.5, 1, 0.5])
        assert said.position_bias.value == pytest.approx(5 / 6)

    @pytest.fixture
    def judge(self, tiny_policy, tiny_tokenizer):
        request = "{prompt} A: {a} B: {b} Which?"
        return LanguageModelJudge(tiny_policy(), tiny_tokenizer, request, ("A.", "B."))

    def test_turning_the_sides_turns_the_outcome(self, judge):
        a, b = ["stone", "wood", "{glass}"], ["a stone", "no", "I do not know."]
        there, back = judge.both_orders(PROMPTS, a, b), judge.both_orders(PROMPTS, b, a)
        np.testing.assert_allclose(there.a_first, 1 - back.a_second, rtol=1e-5)
        np.testing.assert_array_equal(there.outcomes, 1 - back.outcomes)

    def test_equal_answers_tie(self, judge):
        same = ["stone", "wood", "glass"]
        assert set(judge.compare(PROMPTS, same, same)) == {0.5}

    def test_probability_is_that_of_the_two_replies(self, judge, tiny_tokenizer):
        from labs_helpers.sampling import response_logprobs

        said = judge.both_orders(PROMPTS[:1], ["stone"], ["wood"])
        asked = ["one A: stone B: wood Which?"] * 2
        logprobs = response_logprobs(
            judge.policy, tiny_tokenizer, asked, ["A.", "B."], end=False
        )
        expected = logprobs.softmax(0)[0].item()
        assert said.a_first[0] == pytest.approx(expected, rel=1e-5)

    def test_a_conversation_is_told_turn_by_turn(self, judge):
        turns = [{"role": "user", "content": "Who?"}, {"role": "user", "content": "{}"}]
        asked = judge._ask(turns, "x", "y")
        assert asked == "user: Who?\nuser: {} A: x B: y Which?"

    @pytest.mark.parametrize("request_", ["{question}: {a} or {b}?", "{", "{} {a}"])
    def test_a_request_that_cannot_be_filled_in_is_refused(
        self, tiny_policy, tiny_tokenizer, request_
    ):
        judge = LanguageModelJudge(tiny_policy(), tiny_tokenizer, request_)
        with pytest.raises(ValueError, match=r"request is text with {prompt}, {a} and"):
            judge.compare(["Who?"], ["I."], ["You."])

    @pytest.mark.parametrize("choices", [("A", "A"), ("A", "A."), ("", "A")])
    def test_choices_that_begin_alike_are_refused(
        self, tiny_policy, tiny_tokenizer, choices
    ):
        judge = LanguageModelJudge(tiny_policy(), tiny_tokenizer, choices=choices)
        with pytest.raises(ValueError, match="choices are two different replies"):
            judge.compare(["Who?"], ["I."], ["You."])


class TestRecordedJudge:
    ROWS = (
        {"prompt": "one", "chosen": "yes", "rejected": "no"},
        {"prompt": "two", "answers": ["x", "y"], "meta": {"choice": "tie"}},
        {"prompt": "three", "answers": ["x", "y"], "meta": {"choice": "skip"}},
    )

    def test_repeats_what_was_said_in_either_order(self):
        judge = RecordedJudge(self.ROWS)
        assert judge.compare(PROMPTS[:2], ["yes", "x"], ["no", "y"]).tolist() == [
            1,
            0.5,
        ]
        assert judge.compare(PROMPTS[:2], ["no", "y"], ["yes", "x"]).tolist() == [
            0,
            0.5,
        ]

    def test_messages_are_the_same_as_text(self):
        (row, *_) = self.ROWS
        answers = {
            side: [{"role": "assistant", "content": row[side]}]
            for side in ("chosen", "rejected")
        }
        judge = RecordedJudge(
            [{"prompt": [{"role": "user", "content": "one"}], **answers}]
        )
        assert judge.compare(["one"], ["yes"], ["no"]).tolist() == [1]

    def test_the_majority_counts(self):
        other = {"prompt": "one", "chosen": "no", "rejected": "yes"}
        rows = [self.ROWS[0], other]
        assert RecordedJudge(rows).compare(["one"], ["yes"], ["no"]).tolist() == [0.5]
        rows.append(other)
        assert RecordedJudge(rows).compare(["one"], ["yes"], ["no"]).tolist() == [0]

    def test_what_was_not_judged_is_counted(self):
        judge = RecordedJudge(self.ROWS)
        a, b = ["yes", "x", "x"], ["no", "y", "y"]
        assert judge.knows(PROMPTS, a, b).tolist() == [True, True, False]
        with pytest.raises(ValueError, match="1 of 3 pairs were never judged"):
            judge.compare(PROMPTS, a, b)

    def test_reads_files(self, tmp_path):
        preferences, ties = tmp_path / "me.jsonl", tmp_path / "me.undecided.jsonl"
        preferences.write_text(json.dumps(self.ROWS[0]) + "\n")
        one = RecordedJudge.read(preferences, ties)
        assert one.knows(PROMPTS[:2], ["yes", "x"], ["no", "y"]).tolist() == [1, 0]
        ties.write_text("".join(json.dumps(row) + "\n" for row in self.ROWS[1:]))
        both = RecordedJudge.read(preferences, ties)
        assert both.knows(PROMPTS[:2], ["yes", "x"], ["no", "y"]).all()
        with pytest.raises(FileNotFoundError, match="no judgements are recorded"):
            RecordedJudge.read(tmp_path / "you.jsonl")

    def test_reads_what_others_wrote(self, tmp_path):
        path = tmp_path / "theirs.jsonl"
        said = [{"from": "human", "value": "o\u2028ne"}]
        rows = [
            {"prompt": "o\u2028ne", "chosen": "yes", "rejected": "no"},
            {"conversations": said, "chosen": {"from": "gpt", "value": "yes"},
             "rejected": {"from": "gpt", "value": "well"}},
        ]  # fmt: skip
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
        judge = RecordedJudge.read(path)
        a, b = ["yes", "well"], ["no", "yes"]
        assert judge.compare(["o\u2028ne"] * 2, a, b).tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("3", r"me\.jsonl:2: is no judgement: a judgement is an object, got a num"),
            ('{"chosen": "a", "rejected": "b"}', "no judgement: a prompt is a null"),
            ('{"prompt": "a", "chosen": "b"}', "no judgement: an answer is a null"),
            ('{"prompt": "a", "chosen"', r"me\.jsonl:2: is no JSON"),
            (
                '{"prompt": "a", "answers": [1, 2], "meta": {"choice": "tie"}}',
                "a number",
            ),
        ],
    )
    def test_a_broken_line_is_named(self, tmp_path, line, said):
        path = tmp_path / "me.jsonl"
        path.write_text(json.dumps(self.ROWS[0]) + "\n" + line + "\n")
        with pytest.raises(ValueError, match=said):
            RecordedJudge.read(path)


def test_all_are_judges(reward_model, tiny_policy, tiny_tokenizer):
    assert isinstance(TruthJudge(LengthIsGold()), Judge)
    assert isinstance(RewardJudge(reward_model), Judge)
    assert isinstance(LanguageModelJudge(tiny_policy(), tiny_tokenizer), Judge)
    assert isinstance(RecordedJudge([]), Judge)
