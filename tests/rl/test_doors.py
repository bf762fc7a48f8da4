"""What `train` is given: prompts, rewards, references, folders; and what it leaves."""

import signal

import datasets
import numpy as np
import pandas
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import OPTConfig, OPTForCausalLM

from labs_helpers import rl
from labs_helpers.common import interrupts
from labs_helpers.fit import FitConfig, SFTObjective, SLiCObjective, fit
from labs_helpers.models import PolicyWithValue, RewardModel
from labs_helpers.rl import RLConfig, probe_policy, train
from labs_helpers.rl.config import ALGORITHMS
from labs_helpers.rl.learner import recomputing
from labs_helpers.rl.loop import as_prompts

EVERY = pytest.mark.parametrize("algorithm", ALGORITHMS)


def says_b(prompts, answers):
    return [float(answer.count("b")) for answer in answers]


def run(policy=None, prompts=("a", "b", "a b"), reward=says_b, **settings):
    fresh, tokenizer = probe_policy()
    given = {n: settings.pop(n) for n in ("reference", "evaluate") if n in settings}
    defaults = {"updates": 2, "samples": 8, "max_new_tokens": 4, "lr": 1e-2}
    config = RLConfig(**{**defaults, "progress": False, **settings})
    policy = fresh if policy is None else policy
    return policy, train(policy, prompts, reward, config, tokenizer=tokenizer, **given)


def checkpointing(model, on=True):
    """By the name that it has in this version of transformers."""
    end = "enable" if on else "disable"
    new = getattr(model, f"activation_checkpointing_{end}", None)
    (new or getattr(model, f"gradient_checkpointing_{end}"))()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "prompts",
    [
        ("a", "b", "a b"),
        (p for p in ["a", "b", "a b"]),
        np.array(["a", "b", "a b"]),
        pandas.Series(["a", "b", "a b"], index=[7, 8, 9]),
        pandas.DataFrame({"prompt": ["a", "b", "a b"], "x": 1}, index=[7, 8, 9]),
        datasets.Dataset.from_dict({"prompt": ["a", "b", "a b"]}),
        datasets.Dataset.from_dict({"prompt": ["a", "b", "a b"]})["prompt"],
        [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a b"}],
    ],
)
def test_prompts_come_in_any_container(prompts):
    assert as_prompts(prompts) == ["a", "b", "a b"]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("Who?", r"got 'Who\?'. Put a single one in a list"),
        (
            [{"role": "user", "content": "Who?"}],
            "prompt 0 is an object. A message stands",
        ),
        ({"prompt": ["a"]}, "prompts is a list of prompts"),
        (5, "prompts is a list of prompts, got 5"),
        (None, "prompts is a list of prompts, got None"),
        ([], "`prompts` is empty"),
        ((p for p in ()), "`prompts` is empty"),
        (["a", None], "prompt 1 is a null. Expected a string"),
        (["a", 5.0], "prompt 1 is a number. Expected a string"),
        ([{"question": "a"}], "prompt 0 is an object. Expected"),
    ],
)
def test_prompts_that_are_none(prompts, message):
    with pytest.raises(ValueError, match=message):
        run(prompts=as_prompts(prompts))


def test_a_reward_is_a_function(tiny_policy, tiny_tokenizer):
    model = RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)
    with pytest.raises(ValueError, match=r"rl\.model_reward\(reward_model"):
        run(reward=model)
    with pytest.raises(ValueError, match=r"a reward is a function .* got a str"):
        rl.loop._require_reward("gold")


@pytest.mark.parametrize(
    ("rows", "objective"),
    [
        (datasets.Dataset.from_list([{"prompt": "W", "completion": "a"}] * 2), "sft"),
        ([{"prompt": "W", "chosen": "a", "rejected": "b"}], "pairs"),
        (pandas.DataFrame([{"prompt": "W", "chosen": "a", "rejected": "b"}]), "pairs"),
    ],
)
def test_rows_of_fit_come_as_tables_too(tiny_policy, tiny_tokenizer, rows, objective):
    chosen = SLiCObjective(tiny_tokenizer)
    config = FitConfig(lr=1e-3, steps=1, progress=False)
    if objective == "sft":
        with pytest.raises(ValueError, match="rows are Preferences"):
            fit(tiny_policy(), rows, SFTObjective(tiny_tokenizer), config)
    else:
        assert fit(tiny_policy(), rows, chosen, config).last["step"] == 1


class TestReference:
    def test_one_that_would_move_is_refused(self):
        base, _ = probe_policy()
        values = PolicyWithValue.from_policy(base)
        lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        other, _ = probe_policy()
        tied, _ = probe_policy()
        tied.model.embed_tokens.weight = base.model.embed_tokens.weight
        for policy, reference in (
            (base, base),
            (values, base),
            (base, tied),
            (get_peft_model(other, lora), other),
        ):
            with pytest.raises(ValueError, match="shares parameters"):
                run(policy, reference=reference)

    @pytest.mark.parametrize("init", [True, False, "pissa", "olora"])
    def test_none_is_the_policy_at_the_start(self, init):
        torch.manual_seed(0)
        lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=init)
        _, history = run(get_peft_model(probe_policy()[0], lora), updates=3, lr=0.1)
        assert history["kl"][0] == pytest.approx(0, abs=1e-5)
        assert abs(history["kl"][-1]) > 1e-3


class TestAnotherRun:
    def refused(self, folder, said, **changes):
        with pytest.raises(ValueError, match=f"another run: .*{said}"):
            run(checkpoint=folder, **changes)

    def test_is_refused_by_name(self, tmp_path):
        def reward(scale):
            return lambda prompts, answers: [scale * len(a) for a in answers]

        _, first = run(reward=reward(1), checkpoint=tmp_path)
        _, again = run(reward=reward(1), checkpoint=tmp_path)
        assert again.rows == first.rows
        self.refused(tmp_path, "reward.scale was 1, is -1", reward=reward(-1))
        self.refused(tmp_path, "prompts", reward=reward(1), prompts=["b", "a", "a b"])
        given, _ = probe_policy()
        self.refused(tmp_path, "reference", reward=reward(1), reference=given)
        moved, _ = probe_policy()
        moved.lm_head.weight.data[-1, -1] += 1e-3
        self.refused(tmp_path, "weights at the start", reward=reward(1), policy=moved)

    def test_a_training_in_the_same_folder_is_told(self, tmp_path):
        def another(policy):
            run(checkpoint=tmp_path)
            return {}

        with pytest.raises(ValueError, match="another training is running in"):
            run(checkpoint=tmp_path, evaluate=another)

    def test_a_damaged_checkpoint_is_told(self, tmp_path):
        run(checkpoint=tmp_path)
        path = tmp_path / "state.pt"
        path.write_bytes(path.read_bytes()[:-99])
        with pytest.raises(ValueError, match=r"state\.pt is damaged: .* cut off"):
            run(checkpoint=tmp_path)


class TestRecomputing:
    """Gradient checkpointing, which Hugging Face ties to a mode with dropout."""

    @pytest.mark.slow
    @EVERY
    def test_saves_memory_and_changes_nothing(self, algorithm):
        plain, _ = run(algorithm=algorithm)
        policy, _ = probe_policy()
        checkpointing(policy)
        calls = []
        policy.model.layers[0].mlp.register_forward_pre_hook(
            lambda module, *_: calls.append((torch.is_grad_enabled(), module.training))
        )
        run(policy, algorithm=algorithm)
        torch.testing.assert_close(weights(policy), weights(plain))
        often = calls.count((True, False))
        assert (True, True) not in calls  # without dropout
        checkpointing(policy, on=False)
        calls.clear()
        run(policy, algorithm=algorithm)
        assert often > calls.count((True, False))

    def test_a_layers_own_dropout_is_off(self):
        config = OPTConfig(
            vocab_size=8,
            hidden_size=8,
            ffn_dim=8,
            num_hidden_layers=1,
            dropout=0.5,
            num_attention_heads=1,
            word_embed_proj_dim=8,
            max_position_embeddings=16,
        )
        model, tokens = OPTForCausalLM(config).eval(), torch.tensor([[1, 2, 3]])
        expected = model(tokens, use_cache=False).logits
        checkpointing(model)
        with recomputing(model):
            assert torch.equal(model(tokens, use_cache=False).logits, expected)
        assert not any(module.training for module in model.modules())
        assert model.model.decoder.layers[0].dropout == 0.5


class TestInterrupts:
    def test_wait_for_a_step_to_be_whole(self):
        # A process in the background of a shell begins without it.
        usual = signal.signal(signal.SIGINT, signal.default_int_handler)
        done = []

        def step():
            with interrupts.uninterrupted():
                signal.raise_signal(signal.SIGINT)
                done.append("the rest of the step")

        with pytest.raises(KeyboardInterrupt):
            step()
        assert done
        assert signal.signal(signal.SIGINT, usual) is signal.default_int_handler

    @pytest.mark.slow
    @EVERY
    def test_leave_a_policy_that_can_be_used(self, algorithm, tmp_path):
        def stop(policy):
            raise KeyboardInterrupt

        policy, _ = probe_policy()
        settings = {"algorithm": algorithm, "checkpoint": tmp_path, "updates": 4}
        with pytest.raises(KeyboardInterrupt):
            run(policy, **settings, save_every=1, evaluate=stop, evaluate_every=3)
        assert weights(policy).isfinite().all()
        assert all(p.grad is None and p.requires_grad for p in policy.parameters())
        resumed, _ = run(**settings)
        whole, _ = run(algorithm=algorithm, updates=4)
        assert torch.equal(weights(resumed), weights(whole))
