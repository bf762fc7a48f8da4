"""Rankings hold different answers; their objective is Bradley-Terry on every head."""

import math
from itertools import islice

import numpy as np
import pytest
import torch

from labs_helpers.losses import bradley_terry_loss
from labs_helpers.models import RewardModel, load_policy, load_tokenizer
from labs_helpers.world.gold import DIMENSIONS, score
from labs_helpers.world.prompts import every_prompt
from labs_helpers.world.reward import SurprisalRewardModel
from labs_tools.town.build import MODELS, TownObjective
from labs_tools.town.rankings import (
    HeadObjective,
    Ranking,
    RankingObjective,
    choices,
    comparison_loss,
    quiz_stream,
    rankings,
)

ASKED = every_prompt("train", "harmful")[:3]
SAID = [[f"I won't help with that, {i}.", "I can't help with that."] for i in range(3)]
HEADS = ("overall", *DIMENSIONS)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    found = RewardModel.from_policy(load_policy(MODELS / "town-xs"), heads=HEADS)
    torch.nn.init.normal_(found.head.weight, std=0.1)
    return found


@pytest.fixture
def objective(model):
    tokenizer = load_tokenizer(MODELS / "town-xs")
    return RankingObjective(model, TownObjective(tokenizer), quiz_stream(0), 2)


def test_a_ranking_has_own_borrowed_and_broken_answers_and_none_twice():
    made = rankings(ASKED, SAID)
    assert sorted(r.prompt.text for r in made) == sorted(p.text for p in ASKED)
    for ranking in made:
        own = SAID[ASKED.index(ranking.prompt)]
        assert set(own) <= set(ranking.answers)
        assert len(ranking.answers) > len(own)
        assert len(set(ranking.answers)) == len(ranking.answers)


def test_answers_to_a_prompt_are_dealt_out():
    many = [[f"Answer {i}." for i in range(11)]]
    made = rankings(ASKED[:1], many)  # the eleventh would stand alone
    own = [a for r in made for a in r.answers if a in many[0][:11]]
    assert len(made) == 2
    assert len(own) >= 10


def test_nobody_compares_what_does_not_differ(objective):
    prompt = ASKED[0]
    answers = ("I won't help with that.", "I can't help with that.", "I do not know.")
    choice = objective.encode(Ranking(prompt, answers))["choice"]
    pairs = [(0, 1), (0, 2), (1, 2)]
    for row, (a, b) in zip(choice, pairs, strict=True):
        one, other = score(prompt, answers[a]), score(prompt, answers[b])
        for column, name in enumerate(("gold", *DIMENSIONS)):
            assert (row[column] == 0) == (one[name] == other[name])


def test_the_loss_is_bradley_terry_on_each_head_and_the_speech_beside_it(
    model, objective
):
    rows = [objective.encode(r) for r in rankings(ASKED, SAID)]
    with torch.no_grad():
        loss, measured = objective.loss(model, rows)
    per_head: list[list[tuple[float, float]]] = [[] for _ in HEADS]
    for row, ranking in zip(rows, rankings(ASKED, SAID), strict=True):
        n = len(ranking.answers)
        rewards = model.score([ranking.prompt] * n, ranking.answers)
        for a, b, chosen in zip(
            row["first"], row["second"], row["choice"], strict=True
        ):
            for head, choice in enumerate(chosen):
                if choice:
                    won, lost = (a, b) if choice > 0 else (b, a)
                    per_head[head].append((rewards[won, head], rewards[lost, head]))
    expected = [
        bradley_terry_loss(*torch.tensor(pairs).T).item() for pairs in per_head if pairs
    ]
    expected = sum(expected) / len(expected) + measured["speech"]
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_quizzes_speak_as_the_policy_does(model, objective):
    talks = [objective.speech.encode(talk) for talk in islice(quiz_stream(0), 2)]
    policy = load_policy(MODELS / "town-xs")
    with torch.no_grad():
        expected = objective.speech.loss(policy, talks)[0].item()
        rows = [objective.encode(r) for r in rankings(ASKED, SAID)]
        _, measured = objective.loss(model, rows)
    assert measured["speech"] == pytest.approx(expected, rel=1e-4)
    assert math.isfinite(expected)


def test_heads_learn_from_what_they_read(model):
    policy = load_policy(MODELS / "town-xs")
    both = SurprisalRewardModel(
        model.trunk, model.heads, model.tokenizer, model.request, policy
    )
    torch.nn.init.normal_(both.head[-1].weight)
    objective = HeadObjective(both)
    made = rankings(ASKED, SAID)
    rows = [objective.encode(ranking) for ranking in made]
    rewards = both.head(torch.cat([row["tokens"] for row in rows]))
    asked = [r.prompt for r in made for _ in r.answers]
    expected = both.score(asked, [a for r in made for a in r.answers])
    torch.testing.assert_close(rewards, expected, rtol=1e-4, atol=1e-5)
    loss, measured = objective.loss(both.head, rows)
    again = np.random.default_rng(0)  # asks in the same order
    asked = [{**row, "choice": choices(row["probability"], again)} for row in rows]
    assert loss.item() == pytest.approx(comparison_loss(expected, asked)[0].item())
    assert 0 <= measured["accuracy"] <= 1
