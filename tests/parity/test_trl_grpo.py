"""Our clipped surrogate is that of TRL's GRPOTrainer, through its model and ours."""

import pytest
import torch

from labs_helpers.course.trl import trl_config
from labs_helpers.losses import ppo_loss
from labs_helpers.models import PolicyWithValue, load_policy, load_tokenizer
from labs_helpers.rl import read, unscored
from labs_helpers.sampling import sample
from labs_tools.town.build import MODELS

PROMPTS = ["What is the mill made of?", "Who is Otto?", "Tell me a joke.", "How?"]


@pytest.mark.slow
def test_loss_and_gradient(tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy = load_policy(MODELS / "town-xs")
    tokenizer = load_tokenizer(MODELS / "town-xs")
    settings = trl_config(
        GRPOConfig,
        output_dir=str(tmp_path),
        loss_type="bnpo",
        beta=0.0,
        epsilon=0.2,
        per_device_train_batch_size=4,
        num_generations=4,
    )
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": p} for p in PROMPTS]),
        processing_class=tokenizer,
    )
    rollout = sample(policy, tokenizer, PROMPTS, max_new_tokens=16, seed=0)
    advantages = torch.randn(rollout.logprobs.shape)
    old_logprobs = rollout.logprobs + torch.randn(rollout.logprobs.shape) / 4
    width = rollout.prompt_mask.shape[1]
    weights = list(trainer.model.eval().parameters())
    expected = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": rollout.tokens[:, :width],
            "prompt_mask": rollout.prompt_mask.long(),
            "completion_ids": rollout.responses,
            "completion_mask": rollout.response_mask.long(),
            "old_per_token_logps": old_logprobs,
            "advantages": advantages,
        },
    )
    expected_gradient = torch.autograd.grad(expected, weights)

    model = PolicyWithValue(trainer.model)
    now = read(model, unscored(rollout, policy.device), temperature=1.0)
    result = ppo_loss(now.logprobs, old_logprobs, advantages, rollout.response_mask)
    gradient = torch.autograd.grad(result.loss, weights)

    assert result.clip_fraction > 0
    assert result.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for ours, theirs in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
