"""The training loop, its two objectives, checkpoints, histories and batches."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    History,
    Objective,
    RankingObjective,
    RewardObjective,
    SFTObjective,
    TrainingStopped,
    checkpoint,
    fit,
)
from labs_helpers.fit.loop import bucketed_batches
from labs_helpers.models import RewardModel, encode_chat

QUIET = {"progress": False, "batch_size": 4, "lr": 1e-2}
CHAT = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "I."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "It is stone."},
]


class Regression(Objective):
    """Fits y = x, and counts."""

    def __init__(self):
        self.calls, self.encoded = 0, 0

    def encode(self, row):
        self.encoded += 1
        return {"row": row, "length": 1 + row % 3}

    def loss(self, model, batch, whole=None):
        self.calls += 1
        x = torch.tensor([[row["row"] / 10, 1.0] for row in batch])
        loss = (model(x)[:, 0] - x[:, 0]).square().mean()
        return loss, {}


def noisy_line():
    """A model whose training depends on torch's random state."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(2, 1))


def breaking_line(at, error=None):
    """The same, but from a forward pass on it gives NaN, or raises."""
    model, calls = noisy_line(), []

    def count(module, inputs, output):
        calls.append(1)
        if len(calls) >= at:
            if error is not None:
                raise error
            return output * math.nan
        return output

    model.register_forward_hook(count)
    return model


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class TestFit:
    def test_learns(self):
        model = torch.nn.Linear(2, 1)
        history = fit(model, range(20), Regression(), FitConfig(**QUIET, epochs=40))
        assert history["loss"][-1] < history["loss"][0] / 20

    def test_encodes_each_row_once(self):
        objective = Regression()
        fit(noisy_line(), range(20), objective, FitConfig(**QUIET, epochs=3))
        assert objective.encoded == 20

    @pytest.mark.parametrize(("amount", "steps"), [(0.6, 3), (1.0, 5), (2.0, 10)])
    def test_epochs_count_passes(self, amount, steps):
        config = FitConfig(**QUIET, epochs=amount)
        assert fit(noisy_line(), range(20), Regression(), config).last["step"] == steps

    def test_same_seed_same_weights(self):
        models = [noisy_line(), noisy_line(), noisy_line()]
        for model, seed in zip(models, (1, 1, 2), strict=True):
            fit(model, range(20), Regression(), FitConfig(**QUIET, seed=seed))
        assert torch.equal(weights(models[0]), weights(models[1]))
        assert not torch.equal(weights(models[0]), weights(models[2]))

    def test_leaves_the_random_state_and_the_mode_alone(self):
        model = noisy_line().eval()
        before = torch.get_rng_state()
        fit(model, range(20), Regression(), FitConfig(**QUIET))
        assert torch.equal(torch.get_rng_state(), before)
        assert not model.training

    def test_parts_of_a_batch_add_up(self):
        whole, parts = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        parts.load_state_dict(whole.state_dict())
        fit(whole, range(18), Regression(), FitConfig(**QUIET))
        fit(parts, range(18), Regression(), FitConfig(**QUIET, accumulate=3))
        torch.testing.assert_close(weights(parts), weights(whole))

    def test_learning_rate_rises_then_falls_to_a_tenth(self):
        config = FitConfig(**QUIET, steps=41, warmup=0.25, log_every=1)
        lr = fit(noisy_line(), range(20), Regression(), config)["lr"]
        assert lr[0] == pytest.approx(0.001)
        assert lr.argmax() == 9
        assert lr.max() == pytest.approx(0.01)
        assert lr[-1] == pytest.approx(0.001, rel=0.1)

    def test_constant_schedule(self):
        config = FitConfig(**QUIET, steps=20, schedule="constant", log_every=1)
        lr = fit(noisy_line(), range(20), Regression(), config)["lr"]
        np.testing.assert_allclose(lr, 0.01)

    def test_frozen_parameters_stay(self):
        model = noisy_line()
        model[1].bias.requires_grad_(False)
        before = model[1].bias.clone()
        fit(model, range(20), Regression(), FitConfig(**QUIET, weight_decay=0.1))
        assert torch.equal(model[1].bias, before)

    def test_nothing_to_train_is_said(self):
        with pytest.raises(ValueError, match="nothing to train"):
            fit(
                noisy_line().requires_grad_(False),
                range(4),
                Regression(),
                FitConfig(**QUIET),
            )

    def test_no_rows_is_said(self):
        with pytest.raises(ValueError, match="`rows` is empty"):
            fit(noisy_line(), [], Regression(), FitConfig(**QUIET))

    def test_long_rows_are_left_out_and_counted(self, capsys):
        config = FitConfig(**QUIET, max_length=2)
        history = fit(noisy_line(), range(30), Regression(), config)
        assert history.last["step"] == 5
        assert "10 of 30 rows exceed 2 tokens" in capsys.readouterr().out

    def test_evaluates_in_eval_mode_without_gradients_and_at_the_end(self):
        seen = []

        def evaluate(model):
            seen.append((model.training, torch.is_grad_enabled()))
            return {"held_out": len(seen)}

        config = FitConfig(**QUIET, steps=7, evaluate_every=3)
        history = fit(noisy_line(), range(20), Regression(), config, evaluate=evaluate)
        assert seen == [(False, False)] * 3
        np.testing.assert_array_equal(history["step"], [3, 6, 7])
        np.testing.assert_array_equal(history["held_out"], [1, 2, 3])

    def test_history_counts_tokens(self):
        history = fit(noisy_line(), range(20), Regression(), FitConfig(**QUIET))
        assert history.last["tokens"] == sum(1 + i % 3 for i in range(20))
        assert history.tokens_per_second > 0


class TestNaN:
    def test_says_step_cause_and_remedy(self):
        with pytest.raises(
            TrainingStopped,
            match=r"step 4 of 5: the loss is nan.*weights from before this.*lr=0.003",
        ):
            fit(breaking_line(4), range(20), Regression(), FitConfig(**QUIET))

    def test_keeps_the_model_and_the_checkpoint(self, tmp_path):
        config = FitConfig(**QUIET, checkpoint=tmp_path, save_every=2)
        broken, good = breaking_line(4), noisy_line()
        with pytest.raises(TrainingStopped, match="last good checkpoint"):
            fit(broken, range(20), Regression(), config)
        assert weights(broken).isfinite().all()
        broken._forward_hooks.clear()
        fit(broken, range(20), Regression(), config)
        fit(good, range(20), Regression(), FitConfig(**QUIET))
        assert torch.equal(weights(broken), weights(good))

    def test_gradients_count_too(self):
        class Root(Regression):
            def loss(self, model, batch, whole=None):
                return (model(torch.zeros(1, 2)) * 0).sqrt().sum(), {}

        with pytest.raises(TrainingStopped, match="step 1 of 5: the gradient is nan"):
            fit(noisy_line(), range(20), Root(), FitConfig(**QUIET))


class TestResume:
    def broken_off(self, folder, at):
        config = FitConfig(**QUIET, epochs=3, checkpoint=folder, save_every=4)
        line = breaking_line(at + 1, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(line, range(20), Regression(), config)
        return config

    def test_ends_as_an_unbroken_run(self, tmp_path):
        config = self.broken_off(tmp_path, at=10)
        torch.manual_seed(99)
        resumed, unbroken = noisy_line(), noisy_line()
        objective = Regression()
        history = fit(resumed, range(20), objective, config)
        whole = fit(unbroken, range(20), Regression(), FitConfig(**QUIET, epochs=3))
        assert objective.calls == 15 - 8
        assert torch.equal(weights(resumed), weights(unbroken))
        for column in ("step", "loss", "grad_norm", "lr", "tokens"):
            np.testing.assert_array_equal(history[column], whole[column])

    def test_a_finished_run_is_loaded_not_repeated(self, tmp_path):
        config = FitConfig(**QUIET, checkpoint=tmp_path)
        first, second = noisy_line(), noisy_line()
        history = fit(first, range(20), Regression(), config)
        objective = Regression()
        assert fit(second, range(20), objective, config).rows == history.rows
        assert objective.calls == 0
        assert torch.equal(weights(first), weights(second))

    def test_another_run_is_refused_with_the_difference(self, tmp_path):
        config = self.broken_off(tmp_path, at=10)
        other = FitConfig(**{**QUIET, "lr": 0.5}, epochs=3, checkpoint=tmp_path)
        with pytest.raises(ValueError, match=r"lr was 0.01, is 0.5\. Delete it"):
            fit(noisy_line(), range(20), Regression(), other)
        with pytest.raises(ValueError, match="number of rows was 20, is 19"):
            fit(noisy_line(), range(19), Regression(), config)

    @pytest.mark.parametrize("when", ["while writing", "before the move"])
    def test_a_kill_while_saving_leaves_the_old_checkpoint(
        self, tmp_path, monkeypatch, when
    ):
        path = tmp_path / "state.pt"
        checkpoint.save(path, {"step": 1}, {})

        def write_half(state, target):
            target.write_bytes(b"half")
            raise KeyboardInterrupt

        def no_move(source, target):
            raise KeyboardInterrupt

        if when == "while writing":
            monkeypatch.setattr(torch, "save", write_half)
        else:
            monkeypatch.setattr(checkpoint.os, "replace", no_move)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(path, {"step": 2}, {})
        monkeypatch.undo()
        assert checkpoint.load(path, {}, "cpu") == {"step": 1}
        checkpoint.save(path, {"step": 3}, {})
        assert checkpoint.load(path, {}, "cpu") == {"step": 3}


class TestSFT:
    def learned(self, tokenizer, row):
        encoded = SFTObjective(tokenizer).encode(row)
        learned = itertools.compress(encoded["tokens"], encoded["answer"])
        return tokenizer.decode(list(learned))

    def test_every_turn_of_the_assistant_with_its_end(self, tiny_tokenizer):
        assert self.learned(tiny_tokenizer, CHAT) == "I.<|end|>It is stone.<|end|>"

    @pytest.mark.parametrize("row_type", ["preference", "unpaired"])
    def test_only_the_answer_of_a_row(self, tiny_tokenizer, row_type):
        *prompt, answer = CHAT
        row = Preference(prompt, [answer], "no")
        if row_type == "unpaired":
            row = Unpaired(prompt, answer["content"], True)
        assert self.learned(tiny_tokenizer, row) == "It is stone.<|end|>"

    def test_templates_without_marks_give_the_same(self, tiny_tokenizer, monkeypatch):
        marked = SFTObjective(tiny_tokenizer).encode(CHAT)
        template = tiny_tokenizer.chat_template
        for mark in ("{% generation %}", "{% endgeneration %}"):
            template = template.replace(mark, "")
        monkeypatch.setattr(tiny_tokenizer, "chat_template", template)
        assert SFTObjective(tiny_tokenizer).encode(CHAT) == marked

    def test_a_line_break_after_the_end_is_not_learned(
        self, tiny_tokenizer, monkeypatch
    ):
        monkeypatch.setattr(
            tiny_tokenizer,
            "chat_template",
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        )
        assert self.learned(tiny_tokenizer, CHAT[:2]) == "I.<|end|>"

    def test_a_template_that_rewrites_turns_is_refused(
        self, tiny_tokenizer, monkeypatch
    ):
        monkeypatch.setattr(
            tiny_tokenizer,
            "chat_template",
            "{% for m in messages %}<|{{ m.role }}|>"
            "{{ m.content if loop.last else 'past' }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        )
        with pytest.raises(ValueError, match="turn 1 of the conversation is written"):
            SFTObjective(tiny_tokenizer).encode(CHAT)

    def test_a_conversation_without_answers_is_refused(self, tiny_tokenizer):
        with pytest.raises(ValueError, match="no token of it is the assistant's"):
            SFTObjective(tiny_tokenizer).encode(CHAT[:1])

    def test_loss_is_that_of_the_plain_model_row_by_row(
        self, tiny_policy, tiny_tokenizer
    ):
        model, objective = tiny_policy(), SFTObjective(tiny_tokenizer)
        batch = [objective.encode(row) for row in (CHAT, CHAT[:2])]
        losses = []
        for row in batch:
            tokens = torch.tensor([row["tokens"]])
            labels = tokens.where(torch.tensor([row["answer"]]) == 1, -100)[0, 1:]
            logits = model(tokens).logits[0, :-1]
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        total = sum(sum(row["answer"]) for row in batch)
        loss, _ = objective.loss(model, batch)
        torch.testing.assert_close(loss, sum(losses) / total)

    def test_attention_takes_its_fast_path(
        self, tiny_policy, tiny_tokenizer, monkeypatch
    ):
        seen, attend = [], F.scaled_dot_product_attention

        def spy(*tensors, attn_mask=None, is_causal=False, **options):
            seen.append((attn_mask is None, is_causal))
            return attend(*tensors, attn_mask=attn_mask, is_causal=is_causal, **options)

        monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
        objective = SFTObjective(tiny_tokenizer)
        objective.loss(tiny_policy(), [objective.encode(CHAT)])
        assert set(seen) == {(True, True)}

    def test_learns_an_answer_by_heart(self, tiny_policy, tiny_tokenizer):
        model = tiny_policy(spread=0.02)
        config = FitConfig(**QUIET, steps=25)
        fit(model, [CHAT[:2]], SFTObjective(tiny_tokenizer), config)
        prompt = encode_chat(tiny_tokenizer, CHAT[:1], add_generation_prompt=True)
        answer = model(torch.tensor([prompt])).logits[0, -1].argmax()
        assert tiny_tokenizer.decode([int(answer)]) == "I"


class TestReward:
    @pytest.fixture
    def model(self, tiny_policy, tiny_tokenizer):
        return RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)

    @pytest.fixture
    def pairs(self):
        return [
            Preference(f"Who cleans hall {i}?", "Nobody.", "I do not care at all.")
            for i in range(8)
        ]

    def test_starts_at_ln_2_and_half_right(self, model, pairs):
        objective = RewardObjective(model)
        loss, metrics = objective.loss(model, [objective.encode(p) for p in pairs])
        assert loss.item() == pytest.approx(math.log(2))
        assert metrics == {"accuracy": 0.5}

    def test_loss_is_that_of_the_scores(self, model, pairs):
        torch.nn.init.normal_(model.head.weight)
        objective = RewardObjective(model, center_weight=0.1)
        prompts = [p.prompt for p in pairs]
        chosen = model.score(prompts, [p.chosen[-1]["content"] for p in pairs])
        rejected = model.score(prompts, [p.rejected[-1]["content"] for p in pairs])
        expected = -F.logsigmoid(chosen - rejected).mean()
        expected += 0.1 * (chosen + rejected).square().mean()
        loss, _ = objective.loss(model, [objective.encode(p) for p in pairs])
        torch.testing.assert_close(loss, expected)

    def test_learns_the_pairs(self, model, pairs):
        config = FitConfig(**QUIET, steps=15, log_every=5)
        history = fit(model, pairs, RewardObjective(model), config)
        assert history["accuracy"][-1] == 1
        prompts = [p.prompt for p in pairs]
        chosen = model.score(prompts, [p.chosen[-1]["content"] for p in pairs])
        assert (
            chosen > model.score(prompts, [p.rejected[-1]["content"] for p in pairs])
        ).all()

    def test_a_margin_asks_for_more(self, model, pairs):
        pair = Preference("Who?", "Nobody.", "I.", margin=2.0)
        objective = RewardObjective(model, margin=True)
        loss, _ = objective.loss(model, [objective.encode(pair)])
        assert loss.item() == pytest.approx(math.log(1 + math.e**2))
        with pytest.raises(ValueError, match="needs a margin in every row"):
            objective.encode(pairs[0])

    def test_a_row_trains_the_head_of_its_dimension(self, tiny_policy, tiny_tokenizer):
        model = RewardModel.from_policy(
            tiny_policy(), heads=("helpful", "honest"), tokenizer=tiny_tokenizer
        )
        objective = RewardObjective(model)
        row = objective.encode(Preference("Who?", "I.", "You.", dimension="honest"))
        objective.loss(model, [row])[0].backward()
        used = model.head.weight.grad.abs().sum(1) > 0
        assert used.tolist() == [False, True]
        with pytest.raises(ValueError, match=r"dimension None.*heads helpful, honest"):
            objective.encode(Preference("Who?", "I.", "You."))

    def test_messages_are_the_same_as_text(self, model):
        objective = RewardObjective(model)
        text = Preference("Who?", "I.", "You.")
        messages = Preference(
            CHAT[:1],
            [CHAT[1]],
            [{"role": "assistant", "content": "You."}],
        )
        assert objective.encode(text) == objective.encode(messages)

    def test_a_ranking_is_its_comparisons_each_answer_read_once(self, model):
        torch.nn.init.normal_(model.head.weight)
        said = ["Nobody.", "I do not care at all.", "You."]
        row = [
            Preference("Who?", said[i], said[j]) for i, j in ((0, 1), (1, 2), (0, 2))
        ]
        ranked = RankingObjective(model)
        encoded = ranked.encode(row)
        assert len(encoded["answers"]) == 3
        assert encoded["target"] == [(0, 1, 0), (1, 2, 0), (0, 2, 0)]
        loss, metrics = ranked.loss(model, [encoded])
        pairs = RewardObjective(model)
        expected, by_pair = pairs.loss(model, [pairs.encode(pair) for pair in row])
        torch.testing.assert_close(loss, expected)
        assert metrics["accuracy"] == pytest.approx(by_pair["accuracy"])
        assert metrics["accuracy"].count == 3

    def test_both_are_objectives(self, model, tiny_tokenizer):
        assert isinstance(RewardObjective(model), Objective)
        assert isinstance(SFTObjective(tiny_tokenizer), Objective)


class TestBatches:
    @given(
        st.lists(st.integers(1, 60), min_size=1, max_size=120),
        st.integers(1, 2),
        st.integers(0, 5),
    )
    def test_a_pass_uses_every_row_once_in_even_batches(self, lengths, size, seed):
        per_pass = math.ceil(len(lengths) / size)
        plan = bucketed_batches(np.array(lengths), size, 2 * per_pass, seed)
        for part in (plan[:per_pass], plan[per_pass:]):
            assert sorted(np.concatenate(part)) == list(range(len(lengths)))
            sizes = {len(batch) for batch in part}
            assert max(sizes) <= size
            assert max(sizes) - min(sizes) <= 1

    def test_batches_hold_rows_of_like_length(self):
        lengths = np.random.default_rng(0).integers(10, 100, 3200)
        plan = bucketed_batches(lengths, 32, 100, 0)
        padded = sum(len(batch) * lengths[batch].max() for batch in plan)
        assert padded < 1.03 * lengths.sum()

    def test_order_is_not_that_of_length(self):
        lengths = np.arange(1000)
        means = [lengths[b].mean() for b in bucketed_batches(lengths, 10, 100, 0)]
        assert abs(np.corrcoef(means, np.arange(100))[0, 1]) < 0.3


class TestHistory:
    def test_a_column_has_nan_where_nothing_was_logged(self):
        history = History([{"step": 1, "loss": 2.0}, {"step": 2, "accuracy": 0.5}])
        np.testing.assert_array_equal(history["loss"], [2.0, np.nan])
        assert history.last == {"step": 2, "loss": 2.0, "accuracy": 0.5}
        assert "accuracy" in history

    def test_unknown_columns_are_named_with_the_known(self):
        with pytest.raises(KeyError, match="no column 'reward'; it has step, loss"):
            History([{"step": 1, "loss": 2.0}])["reward"]

    def test_comes_back_from_csv(self, tmp_path):
        history = History([{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "kl": 1e-9}])
        history.save(tmp_path / "runs" / "history.csv")
        assert History.load(tmp_path / "runs" / "history.csv").rows == history.rows

    def test_a_file_that_was_cut_is_not_read(self, tmp_path):
        path = tmp_path / "history.csv"
        history = History([{"step": i, "loss": i / 7, "kl": i / 3} for i in range(40)])
        history.save(path)
        whole = path.read_bytes()
        ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
        for cut in [*range(0, len(whole) - 1, 13), *ends[:-1]]:
            path.write_bytes(whole[:cut])
            with pytest.raises(ValueError, match=r"history\.csv"):
                History.load(path)
        path.write_bytes(whole)
        assert History.load(path).rows == history.rows

    @pytest.mark.parametrize(
        "content",
        [b"", b"step,loss\n1,fast\n", b"step,loss\n1,2,3\n", b"\xff\xfe\x00", b"a\x00"],
    )
    def test_what_is_no_history_is_said(self, tmp_path, content):
        (tmp_path / "history.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"history\.csv"):
            History.load(tmp_path / "history.csv")

    def test_saving_leaves_the_old_file_or_the_new(self, tmp_path, monkeypatch):
        path = tmp_path / "history.csv"
        History([{"step": 1}]).save(path)
        broken = History([{"step": 1}, {"step": 2}])
        monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            broken.save(path)
        assert History.load(path).rows == [{"step": 1}]

    def test_an_empty_one_comes_back(self, tmp_path):
        History().save(tmp_path / "history.csv")
        assert History.load(tmp_path / "history.csv").rows == []

    def test_tables_of_others_are_read(self, tmp_path):
        (tmp_path / "history.csv").write_text("step,loss\n1,0.5\n2,0.25\n")
        rows = History.load(tmp_path / "history.csv").rows
        assert rows == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
