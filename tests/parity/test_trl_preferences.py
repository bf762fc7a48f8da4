"""Our DPO, IPO, SLiC and KTO have TRL's losses and gradients, on TRL's own batches."""

import pytest
import torch

from labs_helpers.course.trl import trl_config
from labs_helpers.data import Preference, Unpaired
from labs_helpers.data.preferences import to_trl
from labs_helpers.fit import KTOObjective, PairObjective
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, mismatched_kl, slic_loss
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.sampling import answer_logprobs
from labs_tools.town.build import MODELS

pytestmark = pytest.mark.slow

ANSWERS = ("The mill is red.", "I do not know.", "No.", "It is 12. I like cats.")
FOLDER = MODELS / "town-xs"
BETA = 0.3


@pytest.fixture
def pairs():
    return [
        Preference(
            prompt=[{"role": "user", "content": f"What is {i} plus {i}?"}],
            chosen=[{"role": "assistant", "content": ANSWERS[i % 4]}],
            rejected=[{"role": "assistant", "content": ANSWERS[(i + 1) % 4]}],
        )
        for i in range(6)
    ]


@pytest.fixture
def singles(pairs):
    return [Unpaired(p.prompt, p.chosen, label=i % 3 > 0) for i, p in enumerate(pairs)]


@pytest.fixture
def tokenizer():
    return load_tokenizer(FOLDER)


def policy_and_reference():
    """A policy that has moved away from its reference."""
    torch.manual_seed(1)
    policy, reference = load_policy(FOLDER), load_policy(FOLDER)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy, reference


def settings(kind, folder, **own):
    own = {"beta": BETA} | own
    return trl_config(
        kind, output_dir=str(folder), per_device_train_batch_size=6, **own
    )


def theirs(trainer):
    """TRL's batch, loss and gradient."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    return batch, loss, gradient(loss, trainer.model)


def gradient(loss, model):
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


def require_equal(ours, expected, model, expected_gradient):
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    for ours_g, theirs_g in zip(gradient(ours, model), expected_gradient, strict=True):
        torch.testing.assert_close(ours_g, theirs_g, atol=1e-5, rtol=1e-5)


def scored(model, batch, tokens="input_ids", mask="completion_mask"):
    rows = [*zip(batch[tokens].tolist(), batch[mask].tolist(), strict=True)]
    logprobs, predicted = answer_logprobs(model, rows)
    return logprobs.sum(dim=1), predicted.sum(dim=1)


def hinge(*logprobs):
    chosen, rejected, *reference = logprobs
    return slic_loss(
        BETA * (chosen - reference[0]), BETA * (rejected - reference[1]), delta=1.0
    )


@pytest.fixture
def dpo_trainer(pairs, tokenizer, tmp_path):
    from trl import DPOConfig, DPOTrainer

    def build(loss_type):
        policy, reference = policy_and_reference()
        return DPOTrainer(
            model=policy,
            ref_model=reference,
            args=settings(DPOConfig, tmp_path, loss_type=loss_type),
            train_dataset=to_trl(pairs),
            processing_class=tokenizer,
        )

    return build


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo"])
def test_pair_losses(dpo_trainer, loss_type):
    trainer = dpo_trainer(loss_type)
    batch, expected, expected_gradient = theirs(trainer)
    logprobs, lengths = scored(trainer.model, batch)
    with torch.no_grad():
        reference, _ = scored(trainer.ref_model, batch)
    if loss_type == "ipo":  # TRL's is of means over tokens
        logprobs, reference = logprobs / lengths, reference / lengths
    four = *logprobs.chunk(2), *reference.chunk(2)
    if loss_type == "hinge":
        loss = hinge(*four)
    else:
        loss = {"sigmoid": dpo_loss, "ipo": ipo_loss}[loss_type](*four, beta=BETA).loss
    require_equal(loss, expected, trainer.model, expected_gradient)


def test_pair_objective_is_trls_whole_step(dpo_trainer, pairs, tokenizer):
    trainer = dpo_trainer("sigmoid")
    _, expected, expected_gradient = theirs(trainer)
    objective = PairObjective(
        tokenizer, trainer.ref_model, lambda *four: dpo_loss(*four, beta=BETA)
    )
    loss, _ = objective.loss(trainer.model, [objective.encode(p) for p in pairs])
    require_equal(loss, expected, trainer.model, expected_gradient)


@pytest.fixture
def kto_trainer(singles, tokenizer, tmp_path):
    from trl import KTOConfig, KTOTrainer

    policy, reference = policy_and_reference()
    return KTOTrainer(
        model=policy,
        ref_model=reference,
        args=settings(
            KTOConfig, tmp_path, desirable_weight=1.5, undesirable_weight=0.8
        ),
        train_dataset=to_trl(singles),
        processing_class=tokenizer,
    )


def weighted_kto(*arguments):
    return kto_loss(*arguments, BETA, 1.5, 0.8)


def test_kto(kto_trainer):
    batch, expected, expected_gradient = theirs(kto_trainer)
    kl_names = "KL_input_ids", "KL_completion_mask"
    logprobs, _ = scored(kto_trainer.model, batch)
    kl_logprobs, _ = scored(kto_trainer.model, batch, *kl_names)
    with torch.no_grad():
        reference, _ = scored(kto_trainer.ref_model, batch)
        kl_reference, _ = scored(kto_trainer.ref_model, batch, *kl_names)
    kl = mismatched_kl(kl_logprobs, kl_reference)
    loss = weighted_kto(logprobs, reference, torch.as_tensor(batch["label"]), kl)
    require_equal(loss, expected, kto_trainer.model, expected_gradient)


def test_kto_objective_is_trls_whole_step(kto_trainer, singles, tokenizer):
    _, expected, expected_gradient = theirs(kto_trainer)
    objective = KTOObjective(tokenizer, kto_trainer.ref_model, weighted_kto)
    batch = [objective.encode(row) for row in singles]
    loss, metrics = objective.loss(kto_trainer.model, batch)
    require_equal(loss, expected, kto_trainer.model, expected_gradient)
    theirs_kl = kto_trainer._metrics["train"]["kl"][-1]
    assert metrics["kl"] == pytest.approx(theirs_kl, abs=1e-5)


def test_slic_is_cpos_hinge(pairs, tokenizer, tmp_path):
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    weight = 0.4
    trainer = CPOTrainer(
        model=policy_and_reference()[0],
        args=settings(
            CPOConfig,
            tmp_path,
            beta=1.0,
            loss_type="hinge",
            cpo_alpha=weight,
            max_length=128,
        ),
        train_dataset=to_trl(pairs),
        processing_class=tokenizer,
    )
    batch, expected, expected_gradient = theirs(trainer)
    sides = []
    for side in ("chosen", "rejected"):
        counts = (batch[f"{side}_labels"] != -100).long()
        rows = [*zip(batch[f"{side}_input_ids"].tolist(), counts.tolist(), strict=True)]
        sides.append(answer_logprobs(trainer.model, rows))
    (chosen, predicted), (rejected, _) = sides
    loss = slic_loss(
        chosen.sum(dim=1), rejected.sum(dim=1), chosen[predicted], 1.0, weight
    )
    require_equal(loss, expected, trainer.model, expected_gradient)
