"""The machine under all training: the best of it, its end, and who hears of it."""

import pytest
import torch

from labs_helpers.fit import FitConfig, Objective, fit
from labs_helpers.rl import RLConfig, probe_policy, train


class Regression(Objective):
    """Fits y = x."""

    def encode(self, row):
        return {"row": row, "length": 1}

    def loss(self, model, batch, whole=None):
        x = torch.tensor([[row["row"] / 10] for row in batch])
        return (model(x) - x).square().mean(), {}


class Watched:
    """A training whose evaluations give these figures, one after the other."""

    def __init__(self, *figures, **settings):
        self.figures, self.seen, self.rows = figures, [], []
        settings = {"best_by": "score", "steps": len(figures), **settings}
        self.config = FitConfig(
            lr=0.1, batch_size=4, evaluate_every=1, progress=False, **settings
        )

    def evaluate(self, model):
        self.seen.append(model.weight.item())
        return {"score": self.figures[len(self.seen) - 1]}

    def run(self, **options):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(1, 1)
        options = {"evaluate": self.evaluate, "report": self.rows.append, **options}
        self.history = fit(self.model, range(8), Regression(), self.config, **options)
        return self


def test_ends_with_the_best_weights():
    watched = Watched(1, 3, 2, 0).run()
    assert watched.model.weight.item() == watched.seen[1]
    assert len(set(watched.seen)) == 4


def test_less_is_better_with_a_minus():
    watched = Watched(1, 3, 0, 2, best_by="-score").run()
    assert watched.model.weight.item() == watched.seen[2]


def test_ends_with_the_last_weights_if_nobody_asks():
    watched = Watched(1, 3, 2, 0, best_by=None).run()
    assert watched.model.weight.item() == watched.seen[3]


def test_a_figure_that_is_none_is_never_the_best():
    watched = Watched(float("nan"), 1, float("nan")).run()
    assert watched.model.weight.item() == watched.seen[1]


def test_stops_when_nothing_becomes_better():
    watched = Watched(1, 3, 2, 3, 9, 9, patience=2).run()
    assert len(watched.seen) == watched.history.last["step"] == 4
    assert watched.model.weight.item() == watched.seen[1]


def test_what_stopped_stays_so(tmp_path):
    options = {"patience": 2, "checkpoint": tmp_path}
    first = Watched(3, 1, 1, 1, **options).run()
    again = Watched(3, 1, 1, 1, **options).run()
    assert again.seen == []
    assert again.model.weight.item() == first.seen[0] == first.model.weight.item()
    assert again.history.rows == first.history.rows


def test_a_run_that_was_broken_off_knows_its_best(tmp_path):
    options = {"checkpoint": tmp_path, "save_every": 1}

    def fails_once(row):
        if row["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Watched(3, 1, 1, 1, **options).run(report=fails_once)
    watched = Watched(1, 1, **options, steps=4).run()
    assert len(watched.seen) == 2
    assert watched.model.weight.item() == Watched(3, 1, 1, 1).run().seen[0]


def test_every_row_is_reported():
    watched = Watched(1, 3, 2, 0, log_every=1).run()
    assert watched.rows == watched.history.rows
    assert [row["score"] for row in watched.rows] == [1, 3, 2, 0]


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"best_by": "scor"}, {}, "best_by is 'scor', and there is no such figure"),
        ({}, {"evaluate": None}, "best_by needs `evaluate`"),
        ({"best_by": None, "patience": 1}, {}, "patience needs best_by"),
    ],
)
def test_what_cannot_be_asked(settings, options, message):
    with pytest.raises(ValueError, match=message):
        Watched(1, 2, **settings).run(**options)


def test_a_policy_ends_with_its_best_weights_too():
    policy, tokenizer = probe_policy()
    figures, seen, rows = iter([1, 3, 2]), [], []

    def evaluate(policy):
        seen.append(next(policy.parameters()).detach().clone())
        return {"score": next(figures)}

    config = RLConfig(
        updates=3,
        samples=4,
        max_new_tokens=2,
        lr=1e-2,
        evaluate_every=1,
        best_by="score",
        progress=False,
    )
    history = train(
        policy,
        ["a"],
        lambda prompts, answers: [float(len(answer)) for answer in answers],
        config,
        tokenizer=tokenizer,
        evaluate=evaluate,
        report=rows.append,
    )
    assert torch.equal(next(policy.parameters()), seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert rows == history.rows
