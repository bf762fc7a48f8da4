"""RLOO and GRPO learn from a batch what TRL's trainers do: loss and gradient."""

import pytest
import torch

from labs_helpers.course.trl import trl_config
from labs_helpers.models import PolicyWithValue, load_policy, load_tokenizer
from labs_helpers.rl import RLConfig, collect, updates
from labs_helpers.rl.collecting import reference_of
from labs_helpers.rl.learner import Learner
from labs_tools.town.build import MODELS

FOLDER = MODELS / "town-xs"
PROMPTS = ["What is the mill made of?", "Who is Otto?"]
ANSWERS, LONGEST = 4, 16
CASES = {
    "RLOO": ({"algorithm": "rloo", "normaliser": "constant"}, {}),
    "RLOO, two-sided clip": (
        {"algorithm": "rloo", "normaliser": "constant", "clip_high": 0.5},
        {"epsilon_high": 0.5},
    ),
    "GRPO": (
        {"algorithm": "grpo", "normaliser": "sequence", "whiten": True},
        {"loss_type": "grpo", "scale_rewards": "group"},
    ),
    "Dr. GRPO": (
        {"algorithm": "grpo", "normaliser": "constant"},
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
    ),
    "DAPO": (
        {"algorithm": "grpo", "clip_high": 0.28, "whiten": True},
        {"loss_type": "dapo", "scale_rewards": "group", "epsilon_high": 0.28},
    ),
}


def moved(policy, by):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(by * torch.randn_like(parameter))


def scores(prompts, answers):
    return torch.linspace(-1, 1, len(answers)).sin().roll(3)


def trainer_of(algorithm, policy, tokenizer, folder, settings):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    rloo, grpo = (RLOOConfig, RLOOTrainer), (GRPOConfig, GRPOTrainer)
    config, trainer = rloo if algorithm == "rloo" else grpo
    args = trl_config(
        config,
        output_dir=folder,
        beta=0.1,
        num_iterations=2,
        per_device_train_batch_size=len(PROMPTS) * ANSWERS,
        num_generations=ANSWERS,
        max_completion_length=LONGEST,
        **settings,
    )
    return trainer(
        model=policy,
        reward_funcs=lambda completions, **_: scores(None, completions).tolist(),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": p} for p in PROMPTS]),
        processing_class=tokenizer,
    )


def batch_of(trainer, experience, tokenizer, monkeypatch):
    """What TRL makes of the same answers."""
    starts = experience.predicts.int().argmax(dim=1) + 1
    prompts = [x[:n].tolist() for x, n in zip(experience.tokens, starts, strict=True)]
    rows = zip(experience.responses, experience.mask, strict=True)
    answers = [tokens[counts].tolist() for tokens, counts in rows]
    texts = tokenizer.batch_decode(answers)
    if "GRPO" in type(trainer).__name__:
        sampled = (prompts, answers, None, texts, None, {}, None, None)
    else:
        sampled = (prompts, answers, texts)
    monkeypatch.setattr(trainer, "_generate", lambda prompts: sampled)
    asked = [{"prompt": p} for p in PROMPTS for _ in range(ANSWERS)]
    trainer.model.train()
    batch = trainer._generate_and_score_completions(asked)
    trainer.model.eval()
    return batch


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient(name, tmp_path, monkeypatch):
    ours, theirs = CASES[name]
    policy, tokenizer = load_policy(FOLDER), load_tokenizer(FOLDER)
    trainer = trainer_of(ours["algorithm"], policy, tokenizer, str(tmp_path), theirs)
    reference, model = reference_of(policy), PolicyWithValue(policy)
    moved(policy, by=0.02)  # away from the reference: a KL to be priced
    config = RLConfig(
        **{"whiten": False, **ours},
        samples=len(PROMPTS) * ANSWERS,
        answers=ANSWERS,
        accumulate=3,
        max_new_tokens=LONGEST,
        kl_weight=0.1,
        epochs=2,
        missing_end_penalty=0.0,
    )
    experience, _ = collect(
        model, reference, tokenizer, PROMPTS, scores, config, seed=0
    )
    batch = batch_of(trainer, experience, tokenizer, monkeypatch)
    torch.testing.assert_close(
        experience.advantages[:, 0], batch["advantages"], atol=1e-5, rtol=1e-5
    )

    moved(policy, by=0.004)  # away from the policy that answered: ratios
    expected = trainer._compute_loss(policy, batch)
    weights = [p for p in policy.parameters() if p.requires_grad]
    expected_gradient = torch.autograd.grad(expected, weights)
    learner, gradient = Learner(model, config, longest=64), []

    def noted(parameters, losses):
        gradient[:] = [p.grad.clone() for p in weights]
        learner.run.free()
        return 0.0

    monkeypatch.setattr(learner.run, "apply", noted)
    measured = getattr(updates, config.algorithm)(learner, experience)

    assert 0 < measured["clip_fraction"] < 1
    # TRL's RLOO adds up an answer's log-probs, ours divides by the longest one's.
    unit = LONGEST if config.algorithm == "rloo" else 1
    assert unit * measured["loss"] == pytest.approx(expected.item(), abs=1e-5)
    for mine, other in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(unit * mine, other, atol=1e-5, rtol=1e-4)
