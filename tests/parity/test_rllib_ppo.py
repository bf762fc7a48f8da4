"""Our advantages and PPO's whole loss are RLlib's, gradient included.

Needs the extra `rl` (Ray RLlib); without it these tests are skipped, and say so.
"""

import numpy as np
import pytest
import torch

from labs_helpers.advantages import gae
from labs_helpers.losses import entropy, ppo_loss, value_loss

pytestmark = [
    pytest.mark.slow,
    # what Ray's own imports and its default networks say
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module", autouse=True)
def ray():
    """Import once: it takes seconds."""
    return pytest.importorskip(
        "ray.rllib",
        reason="Ray RLlib is not installed, so parity with it is NOT tested: "
        "pip install -e '.[rl]' -c .ci/constraints.txt",
    )


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0)])
def test_gae(gamma, lam):
    from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets

    rewards, values = torch.randn(4, 6), torch.randn(4, 6)
    lengths = torch.tensor([6, 1, 4, 3])
    mask = torch.arange(6) < lengths[:, None]
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    last = torch.arange(6) == lengths[:, None] - 1
    ended = last[mask].numpy().astype(np.float32)
    expected = compute_value_targets(
        values[mask].numpy(),
        rewards[mask].numpy(),
        ended,
        np.zeros_like(ended),
        gamma,
        lam,
    )
    np.testing.assert_allclose(returns[mask].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(
        advantages[mask].numpy(), expected - values[mask].numpy(), atol=1e-5
    )


@pytest.fixture(scope="module")
def learner(ray):
    import gymnasium
    from ray.rllib.algorithms.ppo import PPOConfig

    class Tokens(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-5, 5, (4,), np.float32)
        action_space = gymnasium.spaces.Discrete(7)

    config = (
        PPOConfig()
        .environment(Tokens)
        .learners(num_learners=0)
        .env_runners(num_env_runners=0)
        .training(
            clip_param=0.2,
            vf_loss_coeff=0.1,
            vf_clip_param=float("inf"),
            entropy_coeff=0.03,
            use_kl_loss=False,
        )
    )
    learner = config.build_learner(env=Tokens())
    learner.build()
    return learner


def test_whole_loss_and_gradient(learner):
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.core.columns import Columns
    from ray.rllib.evaluation.postprocessing import Postprocessing

    number = 50
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    weights = list(module.parameters())
    actions, mask = torch.randint(7, (number,)), torch.rand(number) < 0.8
    batch = {
        Columns.OBS: torch.randn(number, 4),
        Columns.ACTIONS: actions,
        Columns.LOSS_MASK: mask,
        Postprocessing.ADVANTAGES: torch.randn(number),
        Postprocessing.VALUE_TARGETS: torch.randn(number),
    }
    old_logits = (
        module.forward_train(batch)[Columns.ACTION_DIST_INPUTS].detach()
        + torch.randn(number, 7) / 4
    )
    old_logprobs = old_logits.log_softmax(1).gather(1, actions[:, None])[:, 0]
    batch[Columns.ACTION_DIST_INPUTS] = old_logits
    batch[Columns.ACTION_LOGP] = old_logprobs
    output = module.forward_train(batch)
    expected = learner.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID,
        config=learner.config.get_config_for_module(DEFAULT_MODULE_ID),
        batch=batch,
        fwd_out=output,
    )
    expected_gradient = torch.autograd.grad(expected, weights, retain_graph=True)

    logits = output[Columns.ACTION_DIST_INPUTS]
    logprobs = logits.log_softmax(1).gather(1, actions[:, None])[:, 0]
    values = module.compute_values(batch, embeddings=output.get(Columns.EMBEDDINGS))
    policy = ppo_loss(
        logprobs[None],
        old_logprobs[None],
        batch[Postprocessing.ADVANTAGES][None],
        mask[None],
    )
    # Theirs is the squared error, ours half of it.
    errors = value_loss(
        values[None],
        values[None],
        batch[Postprocessing.VALUE_TARGETS][None],
        mask[None],
        clip=float("inf"),
    )
    loss = policy.loss + 0.1 * 2 * errors - 0.03 * entropy(logits[None], mask[None])
    gradient = torch.autograd.grad(loss, weights)

    assert 0 < policy.clip_fraction < 1
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for ours, theirs in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
