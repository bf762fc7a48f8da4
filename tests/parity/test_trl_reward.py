"""Our reward loss and gradient are TRL's, on TRL's own batch."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from labs_helpers.course.trl import trl_config
from labs_helpers.data import Preference
from labs_helpers.data.preferences import to_trl
from labs_helpers.losses import bradley_terry_loss
from labs_helpers.models import RewardModel, load_tokenizer
from labs_tools.town.build import MODELS

ANSWERS = ("The mill is red.", "I do not know.", "No.", "It is 12. I like cats.")


@pytest.fixture
def rows():
    return [
        Preference(
            prompt=[{"role": "user", "content": f"What is {i} plus {i}?"}],
            chosen=[{"role": "assistant", "content": ANSWERS[i % 4]}],
            rejected=[{"role": "assistant", "content": ANSWERS[(i + 1) % 4]}],
            margin=0.1 * i,
        )
        for i in range(8)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("center_weight", [0.0, 0.01])
def test_loss_and_gradient(rows, center_weight, tmp_path):
    from trl import RewardConfig, RewardTrainer

    tokenizer = load_tokenizer(MODELS / "town-xs")
    theirs = AutoModelForSequenceClassification.from_pretrained(
        MODELS / "town-xs", num_labels=1, dtype=torch.float32
    )
    theirs.config.pad_token_id = tokenizer.pad_token_id
    torch.nn.init.normal_(theirs.score.weight)
    settings = trl_config(
        RewardConfig,
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        center_rewards_coefficient=center_weight or None,
    )
    trainer = RewardTrainer(
        model=theirs,
        args=settings,
        train_dataset=to_trl(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(trainer.model, dict(batch))
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    expected_gradient = torch.autograd.grad(expected, weights)

    ours = RewardModel(trainer.model.model, ("reward",), tokenizer)
    ours.head = trainer.model.score
    rewards = ours(batch["input_ids"], batch["attention_mask"].sum(1))[:, 0]
    loss = bradley_terry_loss(*rewards.chunk(2), batch["margin"], center_weight)
    gradient = torch.autograd.grad(loss, weights)

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for ours_g, theirs_g in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(ours_g, theirs_g, atol=1e-5, rtol=1e-4)
