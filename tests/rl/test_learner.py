"""A step in parts that fit into memory is the step."""

import pytest
import torch

from labs_helpers.fit.parts import Parts
from labs_helpers.fit.run import Run
from labs_helpers.models import memory
from labs_helpers.rl import RLConfig, probe_policy, train
from labs_helpers.rl.config import ALGORITHMS

PROMPTS = ["a", "b", "a b", "c d e a b c d e"]


def run(algorithm):
    policy, tokenizer = probe_policy()
    config = RLConfig(
        algorithm=algorithm,
        updates=1,
        samples=16,
        max_new_tokens=4,
        lr=1e-2,
        progress=False,
    )

    def says_b(prompts, answers):
        return [float(answer.count("b")) for answer in answers]

    history = train(policy, PROMPTS, says_b, config, tokenizer=tokenizer)
    noise = ("seconds", "residual")  # and what conjugate gradients leave of rounding
    return {n: x for n, x in history.last.items() if not n.endswith(noise)}


@pytest.fixture
def parts(monkeypatch):
    """How many rows each part of each step had."""
    seen = []
    original = Parts.of

    def noted(self, lengths, at_least=1, beside=None):
        cut = original(self, lengths, at_least, beside)
        seen.append([len(part) for part in cut])
        return cut

    monkeypatch.setattr(Parts, "of", noted)
    return seen


def assert_equal(found, expected, rel=1e-4):
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=rel, abs=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_does_not_fit_is_cut(algorithm, monkeypatch, parts):
    expected = run(algorithm)
    assert max(map(max, parts)) > 2
    parts.clear()
    room = memory.footprint(probe_policy()[0]).rows(2, 12)
    monkeypatch.setattr(memory, "free_bytes", lambda device: room)
    # TRPO's step is made of many products.
    assert_equal(run(algorithm), expected, 1e-3 if algorithm == "trpo" else 1e-4)
    assert max(map(len, parts)) > 2


@pytest.mark.slow
def test_what_runs_out_of_memory_is_cut_again(monkeypatch, parts, capsys):
    expected = run("ppo")

    def too_much(loss):
        def backward(self, *args, **keywords):
            loss(self, *args, **keywords)
            if max(parts[-1]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

        return backward

    monkeypatch.setattr(Run, "backward", too_much(Run.backward))
    assert_equal(run("ppo"), expected)
    assert "parts half as large" in capsys.readouterr().out
