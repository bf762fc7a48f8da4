"""Several answers a prompt: how they are asked, compared, and drawn anew."""

import numpy as np
import pytest
import torch

from labs_helpers.models import PolicyWithValue
from labs_helpers.rl import RLConfig, collect, probe_policy, train
from labs_helpers.rl.collecting import reference_of
from labs_helpers.rl.config import GROUPED

PROMPTS = ["a", "b", "a b", "c d e", "d", "e f"]
EACH = pytest.mark.parametrize("algorithm", GROUPED)


def says_b(prompts, answers):
    return [float(answer.count("b")) for answer in answers]


def config(**settings):
    usual = {"algorithm": "rloo", "updates": 3, "samples": 8, "max_new_tokens": 4}
    return RLConfig(**{**usual, "lr": 1e-2, "progress": False, **settings})


def run(reward=says_b, prompts=PROMPTS, **settings):
    policy, tokenizer = probe_policy()
    history = train(policy, prompts, reward, config(**settings), tokenizer=tokenizer)
    return torch.cat([p.detach().flatten() for p in policy.parameters()]), history


def gathered(reward=says_b, others=(), **settings):
    policy, tokenizer = probe_policy()
    asked, reference = config(**settings), reference_of(policy)
    prompts = PROMPTS[: asked.samples // asked.group]
    model = PolicyWithValue(policy)
    return collect(
        model, reference, tokenizer, prompts, reward, asked, seed=3, others=others
    )


@pytest.mark.parametrize("algorithm", ["ppo", *GROUPED])
def test_each_prompt_is_asked_so_often(algorithm):
    asked = []

    def reward(prompts, answers):
        asked.append(prompts)
        return says_b(prompts, answers)

    _, history = run(reward, algorithm=algorithm, answers=2, samples=6, updates=2)
    for round_ in asked:
        assert round_[::2] == round_[1::2]
    assert sorted(asked[0][::2] + asked[1][::2]) == sorted(PROMPTS)
    np.testing.assert_array_equal(history["samples"], [6, 12])


class TestAdvantages:
    def test_are_the_groups_alone_and_those_of_whole_answers(self):
        settings = {"whiten": False, "missing_end_penalty": 0.0, "kl_weight": 0.0}
        scores = torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0, 9.0, 9.0, 9.0])
        experience, _ = gathered(lambda p, a: scores, **settings)
        expected = torch.tensor([-2, -2 / 3, 2 / 3, 2, 0, 0, 0, 0])[:, None]
        torch.testing.assert_close(
            experience.advantages, expected.where(experience.mask, 0.0)
        )

    def test_kl_in_the_reward_tells_answers_apart_and_in_the_loss_not(self):
        def spread(**settings):
            policy, tokenizer = probe_policy()
            reference = reference_of(policy)
            with torch.no_grad():
                policy.lm_head.weight.add_(0.2 * torch.randn(8, 16))
            asked = config(missing_end_penalty=0.0, **settings)
            experience, _ = collect(
                PolicyWithValue(policy),
                reference,
                tokenizer,
                PROMPTS[:2],
                lambda p, a: [1.0] * len(a),
                asked,
                seed=3,
            )
            return experience.advantages.abs().max()

        assert spread(kl_in="loss") == 0
        assert spread(kl_in="reward") > 0
        assert spread(algorithm="grpo") == 0

    def test_are_whitened_over_the_answers(self):
        experience, _ = gathered(lambda p, a: torch.arange(8.0) ** 2)
        assert experience.advantages[:, 0].square().mean().item() == pytest.approx(1)


class TestSteps:
    @EACH
    @pytest.mark.parametrize("normaliser", ["token", "sequence", "constant"])
    def test_parts_add_up(self, algorithm, normaliser):
        settings = {"algorithm": algorithm, "normaliser": normaliser, "updates": 1}
        settings |= {"kl_weight": 0.5, "kl_in": "loss", "epochs": 2, "lr": 0.05}
        whole, parts = run(**settings)[1], run(**settings, accumulate=3)[1]
        for column in ("grad_norm", "loss", "policy_loss", "approx_kl"):
            np.testing.assert_allclose(parts[column], whole[column], rtol=1e-4)

    @EACH
    def test_one_step_has_no_ratio(self, algorithm):
        _, history = run(algorithm=algorithm)
        assert not history["approx_kl"].any()
        assert not history["clip_fraction"].any()

    @EACH
    def test_kl_in_the_loss_holds_the_policy(self, algorithm):
        settings = {"algorithm": algorithm, "kl_in": "loss", "updates": 10}
        _, free = run(**settings, kl_weight=0.0)
        _, held = run(**settings, kl_weight=5.0)
        assert held["kl"][-3:].mean() < free["kl"][-3:].mean() / 2


class TestSpread:
    def test_prompts_without_are_counted(self):
        def reward(prompts, answers):
            return [i * (p == "a") for i, p in enumerate(prompts)]

        _, measured = gathered(reward, missing_end_penalty=0.0)
        assert measured["no_spread"] == 0.5
        assert measured["redrawn"] == 0

    def test_and_give_place_to_others(self):
        seen = []

        def reward(prompts, answers):
            seen.append(prompts)
            return [float(i) if p in ("a", "d") else 1.0 for i, p in enumerate(prompts)]

        settings = {"missing_end_penalty": 0.0, "redraw": 2, "whiten": False}
        experience, measured = gathered(reward, ["c d e", "d", "e f"], **settings)
        assert seen == [["a"] * 4 + ["b"] * 4, ["c d e"] * 4, ["d"] * 4]
        assert measured["no_spread"] == 0.5
        assert measured["redrawn"] == 8
        assert measured["reward"] == (0 + 1 + 2 + 3 + 4) / 8
        # The prompt is the answers' own: the third one drawn stands where "b" stood.
        _, tokenizer = probe_policy()
        assert tokenizer.decode(experience.tokens[4, 0]) == "d"
        first = torch.tensor([-2, -2 / 3, 2 / 3, 2]).repeat(2)
        torch.testing.assert_close(experience.advantages[:, 0], first)
        assert experience.logprobs[experience.mask].lt(0).all()

    def test_until_there_are_no_more(self):
        experience, measured = gathered(
            lambda p, a: [1.0] * len(a), ["d"], missing_end_penalty=0.0, redraw=5
        )
        assert measured["redrawn"] == 0
        assert not experience.advantages.any()

    def test_those_drawn_anew_count_as_samples(self):
        def reward(prompts, answers):
            return [float(i) * (p in ("a", "d")) for i, p in enumerate(prompts)]

        _, history = run(reward, redraw=1, missing_end_penalty=0.0)
        drawn = 8 * np.arange(1, 4) + history["redrawn"].cumsum()
        np.testing.assert_array_equal(history["samples"], drawn)
        assert history["redrawn"].any()

    def test_a_run_with_them_resumes_to_the_bit(self, tmp_path):
        class PowerCut:
            calls = 0

            def __call__(self, prompts, answers):
                self.calls += 1
                if self.calls == 6:
                    raise KeyboardInterrupt
                return [float(i) * (p in ("a", "d")) for i, p in enumerate(prompts)]

        settings = {"redraw": 1, "missing_end_penalty": 0.0, "updates": 6}
        kept, reward = {"checkpoint": tmp_path, "save_every": 1}, PowerCut()
        with pytest.raises(KeyboardInterrupt):
            run(reward, **settings, **kept)
        resumed, history = run(reward, **settings, **kept)
        unbroken, whole = run(
            lambda p, a: [float(i) * (x in ("a", "d")) for i, x in enumerate(p)],
            **settings,
        )
        assert torch.equal(resumed, unbroken)
        np.testing.assert_array_equal(history["samples"], whole["samples"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answers": 1}, "rloo compares the answers to a prompt"),
        ({"samples": 6}, "6 samples are no whole number of prompts with 4"),
        (
            {"algorithm": "ppo", "normaliser": "constant"},
            "only rloo and grpo read normaliser: leave it out of the settings of ppo",
        ),
        ({"algorithm": "reinforce", "answers": 2, "redraw": 1}, "read redraw"),
        ({"algorithm": "trpo", "kl_in": "loss", "clip_high": 1}, "kl_in, clip_high"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)
