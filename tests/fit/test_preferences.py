"""Objectives of the DPO family in `fit`: what they ask of whom, and that they learn."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    Objective,
    PairObjective,
    Reference,
    SLiCObjective,
    fit,
)
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, slic_loss
from labs_helpers.models import memory
from labs_helpers.models.adapters import with_lora
from labs_helpers.models.together import reads_together
from labs_helpers.sampling import response_logprobs

MEASURED = len(memory.PROBED)  # passes that tell what memory a row takes
CONFIG = FitConfig(lr=3e-3, batch_size=4, steps=20, progress=False, log_every=5)
PAIRS = [
    Preference(f"Who cleans hall {i}?", "Nobody does.", "I do not care at all.")
    for i in range(8)
]
SINGLES = [
    Unpaired(pair.prompt, answer, good)
    for pair in PAIRS
    for answer, good in ((pair.chosen, True), (pair.rejected, False))
]


def passes(model):
    """Count the model's forward passes from now on, by whether they have a gradient."""
    reads_together(model)  # which is looked at once
    counts = {True: 0, False: 0}

    def count(*_):
        counts[torch.is_grad_enabled()] += 1

    model.register_forward_pre_hook(count)
    return counts


def margins(policy, tokenizer):
    prompts = [pair.prompt for pair in PAIRS]
    chosen, rejected = (
        response_logprobs(
            policy, tokenizer, prompts, [getattr(p, side)[-1]["content"] for p in PAIRS]
        )
        for side in ("chosen", "rejected")
    )
    return chosen - rejected


@pytest.fixture
def policy(tiny_policy):
    return tiny_policy(spread=0.1)


@pytest.fixture
def reference(tiny_policy):
    return tiny_policy(spread=0.1).requires_grad_(False)


def encoded(objective, rows):
    return [objective.encode(row) for row in rows]


class TestPairs:
    def test_the_reference_itself_knows_nothing(
        self, policy, reference, tiny_tokenizer
    ):
        objective = PairObjective(tiny_tokenizer, reference)
        loss, metrics = objective.loss(policy, encoded(objective, PAIRS))
        assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
        assert metrics["reward_margin"] == pytest.approx(0, abs=1e-5)

    def test_loss_and_metrics_are_those_of_the_log_probs(
        self, policy, tiny_policy, tiny_tokenizer
    ):
        other = tiny_policy(1, spread=0.1)
        objective = PairObjective(tiny_tokenizer, other, partial(ipo_loss, beta=0.5))
        loss, metrics = objective.loss(policy, encoded(objective, PAIRS))
        prompts = [pair.prompt for pair in PAIRS]
        four = [
            response_logprobs(model, tiny_tokenizer, prompts, answers)
            for model in (policy, other)
            for answers in (
                [p.chosen[-1]["content"] for p in PAIRS],
                [p.rejected[-1]["content"] for p in PAIRS],
            )
        ]
        expected = ipo_loss(*four, beta=0.5)
        torch.testing.assert_close(loss, expected.loss, rtol=1e-4, atol=1e-4)
        difference = expected.chosen_rewards - expected.rejected_rewards
        assert metrics == {
            "reward_margin": pytest.approx(difference.mean().item(), rel=1e-4),
            "accuracy": pytest.approx((difference > 0).float().mean().item()),
            "chosen_logprob": pytest.approx(four[0].mean().item(), rel=1e-4),
            "rejected_logprob": pytest.approx(four[1].mean().item(), rel=1e-4),
            "chosen_logratio": pytest.approx(
                (four[0] - four[2]).mean().item(), rel=1e-3, abs=1e-4
            ),
            "rejected_logratio": pytest.approx(
                (four[1] - four[3]).mean().item(), rel=1e-3, abs=1e-4
            ),
        }

    def test_a_step_is_one_pass_of_the_policy(self, policy, reference, tiny_tokenizer):
        ours, theirs = passes(policy), passes(reference)
        fit(policy, PAIRS, PairObjective(tiny_tokenizer, reference), CONFIG)
        assert ours == {True: 20 + MEASURED, False: 0}
        assert theirs == {True: 0, False: 1}

    def test_learns_the_pairs_and_leaves_the_reference(
        self, policy, reference, tiny_tokenizer
    ):
        before = margins(reference, tiny_tokenizer)
        objective = PairObjective(tiny_tokenizer, reference, partial(dpo_loss, beta=1))
        history = fit(policy, PAIRS, objective, CONFIG)
        assert (margins(policy, tiny_tokenizer) > before + 1).all()
        assert torch.equal(margins(reference, tiny_tokenizer), before)
        assert history["accuracy"][-1] == 1
        assert history["loss"][-1] < 0.2

    def test_a_shared_reference_is_asked_once(self, policy, reference, tiny_tokenizer):
        asked, shared = passes(reference), Reference(reference)
        for loss in (dpo_loss, ipo_loss):
            objective = PairObjective(tiny_tokenizer, shared, loss)
            objective.prepare(policy, encoded(objective, PAIRS))
        assert asked == {True: 0, False: 1}

    def test_sequences_differ_by_where_the_answer_begins(self, policy, tiny_policy):
        reference = Reference(tiny_policy(1))
        tokens = [5, 6, 7, 8]
        rows = [(tokens, [0, 0, 1, 1]), (tokens, [0, 1, 1, 1])]
        together = reference.scores(policy, rows)
        assert together[0] != together[1]
        assert reference.scores(policy, rows[::-1]) == together[::-1]

    def test_lora_is_its_own_reference(self, policy, reference, tiny_tokenizer):
        adapted = with_lora(policy, 4, task="CAUSAL_LM")
        objectives = [PairObjective(tiny_tokenizer, r) for r in (None, reference)]
        losses = []
        for _ in range(2):
            losses = [o.loss(adapted, encoded(o, PAIRS))[0] for o in objectives]
            torch.testing.assert_close(*losses)
            config = FitConfig(lr=1e-2, batch_size=4, steps=5, progress=False)
            fit(adapted, PAIRS, objectives[0], config)
        assert losses[0] < 0.6  # of the second round: the adapter was off, not in it

    def test_the_model_in_training_is_no_reference(self, policy, tiny_tokenizer):
        with pytest.raises(ValueError, match="the very model in training"):
            fit(policy, PAIRS, PairObjective(tiny_tokenizer, policy), CONFIG)
        with pytest.raises(ValueError, match="this is a LlamaForCausalLM"):
            fit(policy, PAIRS, PairObjective(tiny_tokenizer, None), CONFIG)

    def test_a_resumed_run_is_an_unbroken_one(
        self, tiny_policy, reference, tiny_tokenizer, tmp_path
    ):
        def power_cut(model, inputs):
            if len(steps) == 8:
                raise KeyboardInterrupt
            steps.append(1)

        settings = {"lr": 3e-3, "batch_size": 4, "steps": 12, "progress": False}
        config = FitConfig(**settings, checkpoint=tmp_path, save_every=4)
        broken, whole = tiny_policy(spread=0.1), tiny_policy(spread=0.1)
        reads_together(broken)  # passes that are no steps
        steps, hook = [], broken.register_forward_pre_hook(power_cut)
        with pytest.raises(KeyboardInterrupt):
            fit(broken, PAIRS, PairObjective(tiny_tokenizer, reference), config)
        hook.remove()
        fit(broken, PAIRS, PairObjective(tiny_tokenizer, reference), config)
        fit(
            whole,
            PAIRS,
            PairObjective(tiny_tokenizer, reference),
            FitConfig(**settings),
        )
        for a, b in zip(broken.parameters(), whole.parameters(), strict=True):
            assert torch.equal(a, b)


class TestSLiC:
    def test_loss_is_that_of_the_log_probs(self, policy, tiny_tokenizer):
        objective = SLiCObjective(
            tiny_tokenizer, partial(slic_loss, delta=3.0, weight=0.2)
        )
        batch = encoded(objective, PAIRS)
        loss, metrics = objective.loss(policy, batch)
        difference = margins(policy, tiny_tokenizer)
        tokens = sum(sum(row["answers"][0][1]) for row in batch)
        likelihood = metrics["chosen_logprob"] * len(PAIRS) / tokens
        expected = torch.relu(3 - difference).mean() - 0.2 * likelihood
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)

    def test_learns_the_margin_and_stops_there(self, policy, tiny_tokenizer):
        delta = margins(policy, tiny_tokenizer).max().item() + 3
        objective = SLiCObjective(tiny_tokenizer, partial(slic_loss, delta=delta))
        history = fit(policy, PAIRS, objective, CONFIG)
        learned = margins(policy, tiny_tokenizer)
        assert (learned > delta - 1).all()
        assert history["loss"][-1] < history["loss"][0]
        slack = SLiCObjective(tiny_tokenizer, partial(slic_loss, delta=delta - 1))
        fit(policy, PAIRS, slack, CONFIG)
        assert torch.equal(margins(policy, tiny_tokenizer), learned)


class TestKTO:
    def test_the_reference_itself_costs_a_half(self, policy, reference, tiny_tokenizer):
        objective = KTOObjective(tiny_tokenizer, reference)
        loss, metrics = objective.loss(policy, encoded(objective, SINGLES))
        assert loss.item() == pytest.approx(0.5, abs=1e-5)
        assert metrics["kl"] == pytest.approx(0, abs=1e-5)

    def test_kl_is_that_of_each_prompt_with_the_answer_before(
        self, policy, tiny_policy, tiny_tokenizer
    ):
        other = tiny_policy(1, spread=0.1)
        # The policy is likelier than the other one to say what it says.
        for one, two in ((policy, other), (other, policy)):
            objective = KTOObjective(tiny_tokenizer, two)
            _, metrics = objective.loss(one, encoded(objective, SINGLES))
            answers = [
                SINGLES[i - 1].completion[-1]["content"] for i in range(len(SINGLES))
            ]
            prompts = [row.prompt for row in SINGLES]
            ratio = response_logprobs(
                one, tiny_tokenizer, prompts, answers
            ) - response_logprobs(two, tiny_tokenizer, prompts, answers)
            expected = max(0.0, ratio.mean().item())
            assert metrics["kl"] == pytest.approx(expected, rel=1e-3, abs=1e-4)

    def test_learns_from_answers_without_a_pair(
        self, policy, reference, tiny_tokenizer
    ):
        before = margins(reference, tiny_tokenizer)
        objective = KTOObjective(tiny_tokenizer, reference, partial(kto_loss, beta=0.5))
        history = fit(policy, SINGLES, objective, CONFIG)
        assert (margins(policy, tiny_tokenizer) > before + 1).all()
        gained = history["desirable_logratio"] - history["undesirable_logratio"]
        assert np.nanmean(gained[-2:]) > 1

    def test_a_step_is_one_pass_with_gradient(self, policy, reference, tiny_tokenizer):
        ours, theirs = passes(policy), passes(reference)
        fit(policy, SINGLES, KTOObjective(tiny_tokenizer, reference), CONFIG)
        assert ours == {True: 20 + MEASURED, False: 20}
        assert theirs == {True: 0, False: 21}

    def test_mixed_precision_keeps_the_gradient(
        self, policy, tiny_policy, tiny_tokenizer
    ):
        gradients = []
        for enabled in (False, True):
            objective = KTOObjective(tiny_tokenizer, tiny_policy(1, spread=0.1))
            rows = encoded(objective, SINGLES)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss, _ = objective.loss(policy, rows)
            found = torch.autograd.grad(loss, [*policy.parameters()])
            gradients.append(torch.cat([g.flatten() for g in found]))
        assert torch.cosine_similarity(*gradients, dim=0) > 0.95

    def test_a_batch_of_one_is_refused(self, policy, reference, tiny_tokenizer):
        objective = KTOObjective(tiny_tokenizer, reference)
        with pytest.raises(ValueError, match="batch_size >= 2"):
            objective.loss(policy, encoded(objective, SINGLES[:1]))

    def test_a_batch_of_one_kind_says_nothing_of_the_other(
        self, policy, reference, tiny_tokenizer
    ):
        objective = KTOObjective(tiny_tokenizer, reference)
        _, metrics = objective.loss(policy, encoded(objective, SINGLES[::2]))
        assert set(metrics) == {"kl", "desirable_logratio", "desirable_logprob"}

    def test_parts_of_a_batch_are_averaged_over_those_that_measured(
        self, policy, reference, tiny_tokenizer
    ):
        rows = [SINGLES[0], SINGLES[1], SINGLES[2], SINGLES[3]]  # good, bad, good, bad
        config = FitConfig(lr=0.0, batch_size=4, steps=1, accumulate=2, progress=False)
        history = fit(policy, rows, KTOObjective(tiny_tokenizer, reference), config)
        good = response_logprobs(
            policy, tiny_tokenizer, [r.prompt for r in rows[::2]], ["Nobody does."] * 2
        )
        assert history.last["desirable_logprob"] == pytest.approx(
            good.mean().item(), rel=1e-4
        )


def test_all_are_objectives(reference, tiny_tokenizer):
    for objective in (
        PairObjective(tiny_tokenizer, reference),
        KTOObjective(tiny_tokenizer, reference),
        SLiCObjective(tiny_tokenizer),
    ):
        assert isinstance(objective, Objective)
