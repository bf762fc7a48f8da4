"""A batch in parts is the batch: loss, gradient and figures, for every objective.

And batches and rows that memory has no room for.
"""

from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model

from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    PairObjective,
    PretrainingObjective,
    RankingObjective,
    RewardObjective,
    SFTObjective,
    SLiCObjective,
    SoftPairObjective,
    SoftRewardObjective,
    TrainingStopped,
    fit,
)
from labs_helpers.fit.parts import Parts
from labs_helpers.losses import dpo_loss, ipo_loss, slic_loss
from labs_helpers.models import RewardModel, memory
from labs_helpers.sampling import rollout_kl, sample

WORDS = ["Me.", "The hall is made of stone. " * 3, "No.", "It is " * 9, "I do.", "Who?"]
PAIRS = [
    Preference(f"Who cleans hall {i}?", WORDS[i], WORDS[-1 - i], margin=i / 3)
    for i in range(6)
]
RANKINGS = [
    [Preference(f"Who cleans hall {i}?", *WORDS[j : j + 2]) for j in range(1 + i % 3)]
    for i in range(6)
]
SINGLES = [Unpaired("Who?" * (i + 1), WORDS[i], i % 3 == 0) for i in range(6)]

OBJECTIVES = {
    "sft": (lambda t, r, m: SFTObjective(t), SINGLES),
    "dpo": (lambda t, r, m: PairObjective(t, r, dpo_loss), PAIRS),
    "ipo": (lambda t, r, m: PairObjective(t, r, partial(ipo_loss, beta=0.3)), PAIRS),
    "soft": (lambda t, r, m: SoftPairObjective(t, r), PAIRS),
    "pretraining": (
        lambda t, r, m: PretrainingObjective(
            PairObjective(t, r), lambda model: sum(p.sum() for p in model.parameters())
        ),
        PAIRS,
    ),
    "slic": (lambda t, r, m: SLiCObjective(t, partial(slic_loss, weight=0.7)), PAIRS),
    "kto": (lambda t, r, m: KTOObjective(t, r), SINGLES),
    "reward": (lambda t, r, m: RewardObjective(m, True, 0.1), PAIRS),
    "reward of rankings": (lambda t, r, m: RankingObjective(m), RANKINGS),
    "soft reward": (lambda t, r, m: SoftRewardObjective(m), PAIRS),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_add_up_to_the_batch(name, tiny_policy, tiny_tokenizer):
    def measured(accumulate):
        model = tiny_policy(spread=0.1)
        if "reward" in name:
            model = RewardModel.from_policy(model, tokenizer=tiny_tokenizer)
            torch.nn.init.normal_(model.head.weight, generator=torch.manual_seed(1))
        build, rows = OBJECTIVES[name]
        objective = build(tiny_tokenizer, tiny_policy(1, spread=0.1), model)
        config = FitConfig(
            lr=0.0, batch_size=6, steps=1, accumulate=accumulate, progress=False
        )
        return fit(model, rows, objective, config).last

    whole = measured(1)
    for accumulate in (2, 3, 6):
        parts = measured(accumulate)
        assert set(parts) == set(whole)
        for figure in set(whole) - {"seconds"}:
            expected = pytest.approx(whole[figure], rel=2e-5, abs=1e-6)
            assert parts[figure] == expected, (accumulate, figure)


class TestReferences:
    CONFIG = FitConfig(lr=1e-2, batch_size=6, steps=3, log_every=1, progress=False)

    @pytest.mark.parametrize("objective", [PairObjective, KTOObjective])
    def test_one_that_would_move_is_refused(
        self, tiny_policy, tiny_tokenizer, objective
    ):
        base = tiny_policy(spread=0.1)
        lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        policy = get_peft_model(base, lora)
        rows = PAIRS if objective is PairObjective else SINGLES
        for model, reference in ((policy, base), (policy, policy)):
            with pytest.raises(ValueError, match="shares parameters"):
                fit(model, rows, objective(tiny_tokenizer, reference), self.CONFIG)

    @pytest.mark.parametrize(
        "settings", [{}, {"init_lora_weights": False}, {"init_lora_weights": "pissa"}]
    )
    def test_none_is_the_policy_at_the_start(
        self, tiny_policy, tiny_tokenizer, settings
    ):
        torch.manual_seed(0)
        lora = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], **settings)
        policy = get_peft_model(tiny_policy(spread=0.1), lora)
        objective = PairObjective(tiny_tokenizer, None)
        history = fit(policy, PAIRS, objective, self.CONFIG)
        assert history["reward_margin"][0] == pytest.approx(0, abs=1e-5)
        assert history["reward_margin"][-1] > 0

    def test_a_resumed_run_has_the_reference_of_its_start(
        self, tiny_policy, tiny_tokenizer, tmp_path
    ):
        def adapted():
            torch.manual_seed(0)
            lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
            return get_peft_model(tiny_policy(spread=0.1), lora)

        def stop(model):
            raise KeyboardInterrupt

        settings = {"lr": 1e-2, "batch_size": 6, "steps": 4, "progress": False}
        kept = FitConfig(**settings, checkpoint=tmp_path, save_every=1)
        broken = FitConfig(
            **settings, checkpoint=tmp_path, save_every=1, evaluate_every=3
        )
        objective = KTOObjective(tiny_tokenizer, None)
        with pytest.raises(KeyboardInterrupt):
            fit(adapted(), SINGLES, objective, broken, evaluate=stop)
        resumed, whole = adapted(), adapted()
        fit(resumed, SINGLES, KTOObjective(tiny_tokenizer, None), kept)
        fit(whole, SINGLES, KTOObjective(tiny_tokenizer, None), FitConfig(**settings))
        for a, b in zip(resumed.parameters(), whole.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_a_kl_from_what_moved_along_is_refused(self, tiny_policy, tiny_tokenizer):
        base = tiny_policy(spread=0.1)
        lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        policy = get_peft_model(base, lora).eval()
        said = sample(base, tiny_tokenizer, ["Who?"], max_new_tokens=3, seed=0)
        with pytest.raises(ValueError, match="shares what the policy trains"):
            rollout_kl(policy, base, said)
        assert rollout_kl(policy, policy, said).item() == 0


class TestAnotherRun:
    """A folder holds one run, told by all that its result depends on."""

    def run(self, folder, policy, tokenizer, rows=PAIRS, reference=None, loss=dpo_loss):
        config = FitConfig(
            lr=1e-3, batch_size=6, steps=1, checkpoint=folder, progress=False
        )
        return fit(policy, rows, PairObjective(tokenizer, reference, loss), config)

    def test_is_refused_by_name(self, tiny_policy, tiny_tokenizer, tmp_path):
        def build(seed=0, move=0.0):
            policy = tiny_policy(seed, spread=0.1)
            policy.model.layers[1].mlp.down_proj.weight.data[-1, -1] += move
            return policy

        def again(said=None, policy=None, reference=None, **changes):
            reference = reference or build(1)
            arguments = (tmp_path, policy or build(), tiny_tokenizer)
            if said is None:
                return self.run(*arguments, reference=reference, **changes)
            with pytest.raises(ValueError, match=f"another run: .*{said}"):
                self.run(*arguments, reference=reference, **changes)

        first = again()
        assert again().rows == first.rows
        assert again(loss=partial(dpo_loss, beta=0.1)).rows == first.rows
        again("pair_loss.beta was 0.1, is 0.9", loss=partial(dpo_loss, beta=0.9))
        again("pair_loss was .*dpo_loss, is .*ipo_loss", loss=ipo_loss)
        again("the rows' content or order", rows=PAIRS[::-1])
        other = [Preference("Who cleans hall 0?", WORDS[0][:-1] + "!", WORDS[-1])]
        again("the rows' content or order", rows=[*other, *PAIRS[1:]])
        again("the model's weights at the start", policy=build(move=1e-3))
        again("reference.policy's weights", reference=build(1, move=1e-3))
        again("the model's weights at the start", policy=build().double())


class TestMemory:
    """Room is made small, so that a batch does not fit as it is."""

    CONFIG = FitConfig(lr=1e-2, batch_size=6, steps=2, log_every=1, progress=False)

    def run(self, tiny_policy, tiny_tokenizer, **given):
        policy = tiny_policy(spread=0.1)
        objective = PairObjective(tiny_tokenizer, tiny_policy(1, spread=0.1), dpo_loss)
        history = fit(policy, PAIRS, objective, self.CONFIG, **given)
        return history["loss"], policy

    @pytest.fixture
    def expected(self, tiny_policy, tiny_tokenizer):
        return self.run(tiny_policy, tiny_tokenizer)[0]

    @pytest.fixture
    def parts(self, monkeypatch):
        """The number of parts of every batch."""
        seen = []

        def counted(self, lengths, at_least=1):
            seen.append(found := original(self, lengths, at_least))
            return found

        original = Parts.of
        monkeypatch.setattr(Parts, "of", counted)
        return seen

    def test_a_batch_too_large_is_cut(
        self, tiny_policy, tiny_tokenizer, expected, monkeypatch, parts, capsys
    ):
        found = memory.footprint(tiny_policy(spread=0.1).train())
        room = found.rows(2 * 2, 60)
        monkeypatch.setattr(memory, "free_bytes", lambda device: room)
        losses, _ = self.run(tiny_policy, tiny_tokenizer)
        assert all(len(cut) >= 2 for cut in parts)
        assert losses == pytest.approx(expected, rel=1e-5)
        assert "again" not in capsys.readouterr().out

    def test_a_row_too_large_is_recomputed_and_the_model_set_back(
        self, tiny_policy, tiny_tokenizer, expected, monkeypatch, capsys
    ):
        monkeypatch.setattr(memory, "free_bytes", lambda device: 1.0)
        losses, policy = self.run(tiny_policy, tiny_tokenizer)
        assert losses == pytest.approx(expected, rel=1e-5)
        assert "gradient checkpointing" in capsys.readouterr().out
        assert not policy.is_gradient_checkpointing

    def test_what_does_not_fit_in_fact_is_cut_again(
        self, tiny_policy, tiny_tokenizer, expected, monkeypatch, parts, capsys
    ):
        original = PairObjective.loss

        def loss(self, model, batch, whole=None):
            result = original(self, model, batch, whole)
            if len(batch) > 2:
                result[0].backward()  # what it has added by then is taken back
                raise torch.OutOfMemoryError("CUDA out of memory")
            return result

        monkeypatch.setattr(PairObjective, "loss", loss)
        losses, _ = self.run(tiny_policy, tiny_tokenizer)
        assert losses == pytest.approx(expected, rel=1e-5)
        assert "parts half as large" in capsys.readouterr().out
        assert len(parts[-1]) >= 3

    def test_a_single_row_that_does_not_fit_stops_in_a_sentence(
        self, tiny_policy, tiny_tokenizer, monkeypatch
    ):
        def loss(self, model, batch, whole=None):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr(PairObjective, "loss", loss)
        with pytest.raises(TrainingStopped, match="one row at a time: leave out long"):
            self.run(tiny_policy, tiny_tokenizer)

    def test_other_errors_pass(self, tiny_policy, tiny_tokenizer, monkeypatch):
        def loss(self, model, batch, whole=None):
            raise KeyError("mine")

        monkeypatch.setattr(PairObjective, "loss", loss)
        with pytest.raises(KeyError, match="mine"):
            self.run(tiny_policy, tiny_tokenizer)
