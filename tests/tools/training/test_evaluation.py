"""Figures on rows that no step learns from are those of the whole, however cut."""

from functools import partial

import pytest
import torch

from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    PairObjective,
    RewardObjective,
    SFTObjective,
    SLiCObjective,
)
from labs_helpers.losses import slic_loss
from labs_helpers.models import RewardModel
from labs_helpers.rl import RLConfig, probe_policy
from labs_helpers.rl.collecting import reference_of
from labs_tools.training.evaluation import on_prompts, on_rows

PAIRS = [Preference("Who?", "The baker" + "." * i, "No") for i in range(1, 6)]
SINGLE = [Unpaired("Who?", "The baker" + "." * i, i % 2 == 0) for i in range(1, 6)]


def config(batch_size):
    return FitConfig(lr=0.0, batch_size=batch_size)


@pytest.mark.parametrize("method", ["sft", "dpo", "slic", "kto", "reward"])
def test_parts_give_the_figures_of_the_whole(tiny_policy, tokenizer, method):
    model, other = tiny_policy(seed=0), tiny_policy(seed=1)
    rows = SINGLE if method == "kto" else PAIRS
    if method == "reward":
        model = RewardModel.from_policy(model, tokenizer=tokenizer)
        torch.nn.init.normal_(model.head.weight)
    objective = {
        "sft": lambda: SFTObjective(tokenizer),
        "dpo": lambda: PairObjective(tokenizer, other),
        "slic": lambda: SLiCObjective(tokenizer, partial(slic_loss, weight=0.1)),
        "kto": lambda: KTOObjective(tokenizer, other),
        "reward": lambda: RewardObjective(model),
    }[method]()
    with torch.no_grad():
        whole, parts = (
            on_rows(model, objective, rows, config(size))(model) for size in (5, 2)
        )
        loss, metrics = objective.loss(
            model, [{**objective.encode(row), "number": 0} for row in rows]
        )
    assert whole == pytest.approx(parts, rel=1e-4, abs=1e-5)
    assert whole["validation_loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert whole.keys() == {f"validation_{name}" for name in ("loss", *metrics)}


def test_rows_that_the_model_cannot_read_are_refused_at_the_start(
    tiny_policy, tokenizer
):
    model = tiny_policy(max_position_embeddings=8)
    with pytest.raises(ValueError, match="row 0"):
        on_rows(model, SFTObjective(tokenizer), PAIRS, config(2))


def evaluated(policy, tokenizer, reference, **settings):
    sampling = RLConfig(max_new_tokens=4, kl_weight=0.5, **settings)
    reward = lambda prompts, answers: [len(answer) for answer in answers]  # noqa: E731
    with torch.no_grad():
        return on_prompts("abc" * 4, reward, reference, tokenizer, sampling)(policy)


class TestOnPrompts:
    def test_a_policy_that_has_not_moved_has_no_kl(self):
        policy, tokenizer = probe_policy()
        found = evaluated(policy, tokenizer, reference_of(policy))
        assert found["validation_kl"] == pytest.approx(0, abs=1e-5)
        assert found["validation_objective"] == pytest.approx(
            found["validation_reward"], abs=1e-5
        )

    def test_the_objective_is_the_reward_less_priced_kl(self):
        policy, tokenizer = probe_policy()
        reference = reference_of(policy)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        found = evaluated(policy, tokenizer, reference)
        assert found["validation_kl"] > 0.01
        assert found["validation_objective"] == pytest.approx(
            found["validation_reward"] - 0.5 * found["validation_kl"], rel=1e-5
        )

    def test_is_always_the_same_and_leaves_the_random_state(self):
        policy, tokenizer = probe_policy()
        reference, state = reference_of(policy), torch.get_rng_state()
        first = evaluated(policy, tokenizer, reference)
        assert torch.equal(torch.get_rng_state(), state)
        assert first == evaluated(policy, tokenizer, reference)
