"""The committed models belong to the committed knowledge."""

import json

import pytest

from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.world.recorded import pairs, recorded_answers
from labs_tools.town.build import CONTEXT, MODELS, SIZES, TownObjective, new_model
from labs_tools.town.corpus import conversations, corpus_hash

NAMES = sorted(path.parent.name for path in MODELS.glob("town-*/build.json"))


def test_there_are_models():
    assert {"town-xs", "town-s", "town-s-reward"} <= set(NAMES)


@pytest.fixture(scope="module")
def corpus():
    """What the knowledge gives now; it takes seconds."""
    return corpus_hash()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_not_older_than_knowledge(name, corpus):
    record = json.loads((MODELS / name / "build.json").read_text())
    assert record["corpus"] == corpus, (
        f"{name} was trained on other knowledge: run python -m "
        "labs_tools.town.build, then measure with labs_tools.town.report"
    )


@pytest.mark.parametrize("name", [n for n in NAMES if not n.endswith("reward")])
def test_models_have_the_shape_that_the_build_gives(name):
    policy, tokenizer = load_policy(MODELS / name), load_tokenizer(MODELS / name)
    fresh = new_model(SIZES[name.removeprefix("town-")], tokenizer)
    shapes = {n: p.shape for n, p in fresh.named_parameters()}
    assert {n: p.shape for n, p in policy.named_parameters()} == shapes
    assert policy.config.max_position_embeddings == CONTEXT


def test_the_fast_encoding_is_the_chat_templates():
    tokenizer = load_tokenizer(MODELS / "town-xs")
    objective = TownObjective(tokenizer)
    stream = conversations(5)
    for _ in range(50):
        talk = next(stream)
        slow = tokenizer.apply_chat_template(
            talk, return_dict=True, return_assistant_tokens_mask=True
        )
        fast = objective.encode(talk)
        assert fast["tokens"] == slow["input_ids"]
        assert fast["answer"] == slow["assistant_masks"]


def test_weights_are_small():
    total = sum(p.stat().st_size for p in MODELS.rglob("*.safetensors"))
    assert total < 25e6


def test_recorded_answers_are_paired_within_prompts():
    assert len(recorded_answers("test")) > 200
    for pair in pairs("test", 50):
        assert pair.a != pair.b
