"""The loop: it learns, resumes to the bit, stops clearly, and leaves things tidy."""

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from labs_helpers import rl
from labs_helpers.fit import SFTObjective
from labs_helpers.models import PolicyWithValue
from labs_helpers.rl import (
    RLConfig,
    TrainingStopped,
    pretraining_mix,
    probe_policy,
    train,
)
from labs_helpers.rl.config import ALGORITHMS, GROUPED

PROMPTS = ["a", "b", "a b", "c d e"]
EVERY = pytest.mark.parametrize("algorithm", ALGORITHMS)


def says_b(prompts, answers):
    return [float(answer.count("b")) for answer in answers]


def config(**settings):
    defaults = {
        "updates": 5,
        "samples": 8,
        "max_new_tokens": 4,
        "minibatches": 2,
        "epochs": 2,
        "lr": 1e-2,
        "progress": False,
    }
    return RLConfig(**{**defaults, **settings})


def run(policy=None, reward=says_b, separate=False, **settings):
    """Train a fresh policy, or one given; return its model and the history."""
    fresh, tokenizer = probe_policy()
    policy = policy or fresh
    if not isinstance(policy, PolicyWithValue):
        policy = PolicyWithValue.from_policy(policy, separate=separate)
    keyword = {
        name: settings.pop(name)
        for name in ("evaluate", "pretraining_loss", "reference")
        if name in settings
    }
    history = train(
        policy, PROMPTS, reward, config(**settings), tokenizer=tokenizer, **keyword
    )
    return policy, history


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class PowerCut:
    """A reward that breaks off at a call, once: its count is no part of what it is."""

    def __init__(self, at, error=KeyboardInterrupt):
        self.calls, self.at, self.error = 0, at, error

    def __call__(self, prompts, answers):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return says_b(prompts, answers)


class TestTraining:
    @EVERY
    def test_logs_a_row_an_update(self, algorithm):
        _, history = run(algorithm=algorithm)
        np.testing.assert_array_equal(history["step"], [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(history["samples"], [8, 16, 24, 32, 40])
        for column in ("reward", "kl", "entropy", "length", "finished", "grad_norm"):
            assert np.isfinite(history[column]).all()
        assert history["kl"][0] == pytest.approx(0, abs=1e-6)  # the sampler rounds
        about = RLConfig(algorithm=algorithm)
        assert ("explained_variance" in history) == about.learns_values
        assert ("clip_fraction" in history) == (algorithm in ("ppo", *GROUPED))
        assert ("no_spread" in history) == (algorithm in GROUPED)

    def test_first_steps_ratio_is_1(self):
        _, history = run(updates=1, epochs=1, minibatches=1)
        assert history["clip_fraction"][0] == 0
        assert history["approx_kl"][0] == 0

    @EVERY
    def test_same_seed_same_weights(self, algorithm):
        first, again, other = (
            weights(run(algorithm=algorithm, seed=s)[0]) for s in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize("algorithm", ["reinforce", "actor_critic", "ppo"])
    def test_parts_of_a_step_add_up(self, algorithm):
        settings = {"algorithm": algorithm, "updates": 1, "minibatches": 1, "epochs": 1}
        whole, parts = run(**settings)[1], run(**settings, accumulate=3)[1]
        for column in ("grad_norm", "loss"):
            np.testing.assert_allclose(parts[column], whole[column], rtol=1e-4)

    @EVERY
    def test_leaves_mode_random_state_and_gradients_alone(self, algorithm):
        policy, tokenizer = probe_policy()
        model = PolicyWithValue.from_policy(policy).train()
        before = torch.get_rng_state()
        train(model, PROMPTS, says_b, config(algorithm=algorithm), tokenizer=tokenizer)
        assert torch.equal(torch.get_rng_state(), before)
        assert model.training
        assert all(p.requires_grad for p in model.parameters())
        assert all(p.grad is None for p in model.parameters())

    @EVERY
    def test_a_plain_policy_is_trained_in_place(self, algorithm):
        policy, tokenizer = probe_policy()
        before = weights(policy)
        train(policy, PROMPTS, says_b, config(algorithm=algorithm), tokenizer=tokenizer)
        assert not torch.equal(weights(policy), before)

    @EVERY
    def test_a_value_of_its_own(self, algorithm):
        model, _ = run(algorithm=algorithm, separate=True)
        moved = (model.value_head.weight != 0).any()
        assert moved == RLConfig(algorithm=algorithm).learns_values

    @pytest.mark.parametrize("algorithm", ["actor_critic", "ppo"])
    def test_values_have_a_learning_rate_of_their_own(self, algorithm):
        model, _ = run(algorithm=algorithm, separate=True, value_lr=0.0)
        untrained, _ = run(algorithm=algorithm, separate=True, lr=0.0, value_lr=1e-2)
        start = PolicyWithValue.from_policy(probe_policy()[0], separate=True)
        for trained, moved in ((model, False), (untrained, True)):
            pairs = zip(
                trained.value_parameters(), start.value_parameters(), strict=True
            )
            weights = [(a, b) for a, b in pairs if a.shape != (1,)]  # the bias is set
            assert all(torch.equal(a, b) != moved for a, b in weights)
            pairs = zip(
                trained.policy_parameters(), start.policy_parameters(), strict=True
            )
            assert all(torch.equal(a, b) == moved for a, b in pairs)

    @EVERY
    def test_lora_trains_the_adapter_alone(self, algorithm):
        policy, _ = probe_policy()
        base = {n: p.clone() for n, p in policy.named_parameters()}
        adapted = get_peft_model(policy, LoraConfig(r=2, target_modules="all-linear"))
        model, history = run(adapted, algorithm=algorithm)
        for name, parameter in policy.named_parameters():
            if "lora_" not in name:
                assert torch.equal(parameter, base[name.replace(".base_layer", "")])
        assert history["kl"][0] == pytest.approx(0, abs=1e-6)
        assert history["kl"][-1] != 0
        assert any(p.any() for n, p in model.named_parameters() if "lora_B" in n)

    def test_dropout_is_off_unless_asked_for(self):
        def modes(**settings):
            seen = []
            policy, _ = probe_policy()
            policy.model.norm.register_forward_hook(
                lambda module, *_: seen.append(module.training)
            )
            run(policy.train(), updates=1, **settings)
            return set(seen)

        assert modes() == {False}
        assert modes(dropout=True) == {False, True}

    def test_evaluates_in_eval_mode_without_gradients_and_at_the_end(self):
        seen = []

        def evaluate(policy):
            seen.append((policy.training, torch.is_grad_enabled()))
            return {"held_out": len(seen)}

        _, history = run(evaluate=evaluate, evaluate_every=2)
        assert seen == [(False, False)] * 3
        np.testing.assert_array_equal(history["held_out"], [np.nan, 1, np.nan, 2, 3])

    def test_every_prompt_is_asked_once_a_pass(self):
        asked = []

        def reward(prompts, answers):
            asked.extend(prompts)
            return [0.0] * len(prompts)

        run(reward=reward, updates=2, samples=6)
        assert all(sorted(asked[i : i + 4]) == sorted(PROMPTS) for i in (0, 4, 8))

    def test_kl_weight_adapts_to_its_target(self):
        _, history = run(kl_target=1e-3, lr=0.05)
        assert history["kl"][2] > 0.01
        assert history["kl_weight"][-1] > history["kl_weight"][0]
        _, fixed = run(lr=0.05)
        assert set(fixed["kl_weight"]) == {0.03}

    def test_entropy_bonus_keeps_the_policy_open(self):
        _, plain = run(updates=10, kl_weight=0.0)
        _, bonus = run(updates=10, kl_weight=0.0, entropy_weight=1.0)
        assert bonus["entropy"][-1] > plain["entropy"][-1] + 0.3

    def test_kl_weight_keeps_the_policy_near(self):
        _, free = run(updates=10, kl_weight=0.0)
        _, held = run(updates=10, kl_weight=2.0)
        assert held["kl"][-3:].mean() < free["kl"][-3:].mean() / 2

    def test_pretraining_is_mixed_in(self):
        _, tokenizer = probe_policy()
        chat = [
            {"role": "user", "content": "a "},
            {"role": "assistant", "content": "f"},
        ]

        class Plain(SFTObjective):
            def encode(self, row):
                return {"tokens": [2, 7], "answer": [0, 1], "length": 2}

        mix = pretraining_mix(Plain(tokenizer), [chat], weight=1.0, batch_size=2)
        model, history = run(
            pretraining_loss=mix, updates=10, reward=lambda p, t: [0.0] * len(t)
        )
        assert history["pretraining_loss"][-1] < history["pretraining_loss"][0] / 4
        assert model.policy(torch.tensor([[2]])).logits[0, 0].argmax() == 7


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"updates": 0}, "updates is at least 1"),
            ({"minibatches": 3, "accumulate": 3}, "8 samples cannot be cut"),
            ({"temperature": 0.0}, "temperature is above 0"),
            ({"algorithm": "trpo", "entropy_weight": 0.1}, "surrogate alone"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            config(**settings)

    def test_numbers_of_files_and_arrays_become_plain(self):
        assert type(config(lr=np.float64(1e-4)).lr) is float  # weights_only can load it
        assert config(lr="1e-4").lr == 1e-4  # as YAML reads it
        with pytest.raises(ValueError, match="lr is a number, got 'fast'"):
            config(lr="fast")
        with pytest.raises(ValueError, match=r"updates is a whole number, got 2\.5"):
            config(updates=2.5)

    def test_no_prompts(self):
        policy, tokenizer = probe_policy()
        with pytest.raises(ValueError, match="`prompts` is empty"):
            train(policy, [], says_b, config(), tokenizer=tokenizer)

    def test_nothing_to_train(self):
        policy, _ = probe_policy()
        with pytest.raises(ValueError, match="nothing to train"):
            run(policy.requires_grad_(False))

    def test_pretraining_with_trpo(self):
        with pytest.raises(ValueError, match="pretraining loss"):
            run(algorithm="trpo", pretraining_loss=lambda policy: 0)


class TestStopped:
    def test_a_reward_that_raises_says_when(self):
        with pytest.raises(TrainingStopped, match="update 3 of 5: the reward function"):
            run(reward=PowerCut(3, ZeroDivisionError))

    def test_the_last_good_checkpoint_is_kept(self, tmp_path):
        settings = {"checkpoint": tmp_path, "save_every": 2}
        reward = PowerCut(4, ZeroDivisionError)
        with pytest.raises(TrainingStopped, match="holds the last good checkpoint"):
            run(reward=reward, **settings)
        resumed, _ = run(reward=reward, **settings)
        assert torch.equal(weights(resumed), weights(run()[0]))

    @EVERY
    def test_a_nan_loss_moves_nothing(self, algorithm, monkeypatch):
        policy, _ = probe_policy()
        before = weights(policy)
        collected = rl.loop.collect

        def poisoned(*args, **kwargs):
            experience, measured = collected(*args, **kwargs)
            experience.advantages[0, 0] = math.nan
            return experience, measured

        monkeypatch.setattr(rl.loop, "collect", poisoned)
        with pytest.raises(TrainingStopped, match=r"update 1 of 5: the .* is nan"):
            run(policy, algorithm=algorithm, minibatches=1)
        assert torch.equal(weights(policy), before)

    def test_weights_that_diverged_are_said(self):
        policy, _ = probe_policy()
        with torch.no_grad():
            policy.lm_head.weight[0, 0] = math.nan
        with pytest.raises(TrainingStopped, match="update 1 of 5: The model gave NaN"):
            run(policy)


class TestResume:
    @pytest.mark.parametrize(
        ("algorithm", "separate"),
        [*((name, False) for name in ALGORITHMS), ("ppo", True)],
    )
    def test_ends_as_an_unbroken_run(self, tmp_path, algorithm, separate):
        settings = {"algorithm": algorithm, "separate": separate, "kl_target": 0.5}
        kept = {"checkpoint": tmp_path, "save_every": 2, **settings}
        reward = PowerCut(4)
        with pytest.raises(KeyboardInterrupt):
            run(reward=reward, **kept)
        torch.manual_seed(99)
        resumed, history = run(reward=reward, **kept)
        unbroken, whole = run(**settings)
        assert torch.equal(weights(resumed), weights(unbroken))
        for column in whole.columns:
            if "seconds" not in column:
                np.testing.assert_array_equal(history[column], whole[column])

    def test_with_an_adapter_that_starts_elsewhere(self, tmp_path):
        def adapted(seed):
            policy, _ = probe_policy()
            torch.manual_seed(seed)
            return get_peft_model(policy, LoraConfig(r=2, target_modules="all-linear"))

        kept = {"checkpoint": tmp_path, "save_every": 2}
        reward = PowerCut(4)
        with pytest.raises(KeyboardInterrupt):
            run(adapted(1), reward=reward, **kept)
        resumed, _ = run(adapted(2), reward=reward, **kept)
        unbroken, _ = run(adapted(1))
        assert torch.equal(weights(resumed), weights(unbroken))

    def test_a_finished_run_is_loaded_not_repeated(self, tmp_path):
        reward = PowerCut(0)
        first, history = run(reward=reward, checkpoint=tmp_path)
        second, again = run(reward=reward, checkpoint=tmp_path)
        assert again.rows == history.rows
        assert reward.calls == 5
        assert torch.equal(weights(first), weights(second))

    def test_another_run_is_refused_with_the_difference(self, tmp_path):
        run(checkpoint=tmp_path)
        with pytest.raises(ValueError, match=r"lr was 0.01, is 0.5\. Delete it"):
            run(checkpoint=tmp_path, lr=0.5)

    def test_another_policy_is_refused(self, tmp_path):
        run(checkpoint=tmp_path)
        with pytest.raises(ValueError, match="weights at the start"):
            run(probe_policy(seed=1)[0], checkpoint=tmp_path)

    def test_not_with_other_prompts(self, tmp_path):
        run(checkpoint=tmp_path)
        policy, tokenizer = probe_policy()
        policy = PolicyWithValue.from_policy(policy)
        with pytest.raises(ValueError, match="the prompts' content or order"):
            train(
                policy,
                [*PROMPTS[:-1], "e d c"],
                says_b,
                config(checkpoint=tmp_path),
                tokenizer=tokenizer,
            )


class TestLeaves:
    """What was there before does not matter, and comes back afterwards."""

    @pytest.mark.parametrize("training", [True, False])
    def test_the_mode_of_a_plain_policy(self, training):
        policy, tokenizer = probe_policy()
        policy.train(training)
        train(policy, PROMPTS, says_b, config(updates=1), tokenizer=tokenizer)
        assert policy.training is training

    def test_a_reference_as_it_was_but_without_its_dropout(self):
        policy, _ = probe_policy()
        reference, _ = probe_policy()
        reference.config.attention_dropout = 0.9
        for layer in reference.model.layers:
            layer.self_attn.attention_dropout = 0.9
        reference.train()
        _, history = run(policy, reference=reference, updates=1)
        assert abs(history["kl"][0]) < 1e-5
        assert reference.training

    @EVERY
    def test_old_gradients_move_nothing(self, algorithm):
        expected, _ = run(algorithm=algorithm, updates=1)
        policy, _ = probe_policy()
        for parameter in policy.parameters():
            parameter.grad = torch.ones_like(parameter)
        found, _ = run(policy, algorithm=algorithm, updates=1)
        assert torch.equal(weights(found), weights(expected))
