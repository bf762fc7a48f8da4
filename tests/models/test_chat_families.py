"""All roads to an answer's tokens are one, whatever the template and the tokenizer."""

from collections import Counter
from itertools import compress
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import FitConfig, PairObjective, SFTObjective, fit
from labs_helpers.models import RewardModel
from labs_helpers.models.chat import (
    encode_answer,
    encode_answers,
    encode_conversation,
    encode_prompt,
    end_tokens,
)
from labs_helpers.sampling import sample

from .chat_families import FAMILIES

TOKENIZERS = {name: family.tokenizer() for name, family in FAMILIES.items()}
PIECES = (
    "The baker",
    "I do not know.",
    "Who",
    "?",
    "a",
    "12",
    "'s",
    "...",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "é",
    "e\u0301",
    "東京",
    "😀",
    "{{ m }}",
    "<|im_end|>",
    "<|im_start|>",
    "</s>",
    "<s>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|user|>",
    "<｜User｜>",
    "[/INST]",
    "<|endoftext|>",
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
QUESTIONS = TEXTS.filter(str.strip)
each_family = pytest.mark.parametrize("name", FAMILIES)


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def controls(tokenizer, tokens):
    """How often each control token is there."""
    ids = {t.content: i for i, t in tokenizer.added_tokens_decoder.items()}
    others = {ids.get(string) for string in ("<think>", "</think>", "<unk>")}
    return Counter(t for t in tokens if t in {*ids.values()} - others)


@each_family
class TestOneRoad:
    @settings(max_examples=12)
    @given(asked=QUESTIONS, said=TEXTS)
    def test_training_scoring_and_sampling_agree(self, name, asked, said):
        tokenizer = TOKENIZERS[name]
        tokens, marks = encode_answer(tokenizer, asked, said)
        start = marks.index(1)
        assert marks == [0] * start + [1] * (len(tokens) - start)
        assert tokens[:start] == encode_prompt(tokenizer, asked)
        assert tokens[-1] in end_tokens(tokenizer)
        for row in (
            Unpaired(asked, said, True),
            Preference(asked, said, "no"),
            [user(asked), assistant(said)],
        ):
            encoded = SFTObjective(tokenizer).encode(row)
            assert (encoded["tokens"], encoded["answer"]) == (tokens, marks)
        pair = PairObjective(tokenizer, None).encode(Preference(asked, "no", said))
        assert pair["answers"][1] == (tokens, marks)
        assert encode_answers(tokenizer, [asked], [said]) == [(tokens, marks)]
        reward = SimpleNamespace(tokenizer=tokenizer, request=None)
        assert RewardModel.encode(reward, asked, said) == tokens

    @settings(max_examples=12)
    @given(asked=QUESTIONS, said=TEXTS)
    def test_tokens_say_the_answer_and_the_prompt(self, name, asked, said):
        tokenizer, family = TOKENIZERS[name], FAMILIES[name]
        tokens, marks = encode_answer(tokenizer, asked, said)
        plain, _ = encode_answer(tokenizer, "Who?", "I.")
        assert controls(tokenizer, tokens) == controls(tokenizer, plain)
        if family.lossless and name != "harmony":
            answer = tokenizer.decode([*compress(tokens, marks)][:-1])
            assert answer.strip() == said.strip()
            assert asked.strip() in tokenizer.decode(tokens)

    @settings(max_examples=8)
    @given(talk=st.tuples(QUESTIONS, TEXTS, QUESTIONS, TEXTS))
    def test_every_answer_of_a_conversation(self, name, talk):
        tokenizer, family = TOKENIZERS[name], FAMILIES[name]
        messages = [
            user(talk[0]),
            assistant(talk[1]),
            user(talk[2]),
            assistant(talk[3]),
        ]
        tokens, marks = encode_conversation(tokenizer, messages)
        last, last_marks = encode_answer(tokenizer, messages[:3], talk[3])
        assert tokens == last
        start = last_marks.index(1)
        assert marks[start:] == last_marks[start:]
        if family.lossless and family.template is not None:
            earlier = tokenizer.decode([*compress(tokens[:start], marks)])
            # A piece that straddles the border of prompt and answer is not marked.
            assert talk[1].strip()[2:].strip() in earlier


@each_family
def test_what_was_learnt_by_heart_is_said_and_ends(name):
    tokenizer, family = TOKENIZERS[name], FAMILIES[name]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    policy = LlamaForCausalLM(config).eval()
    row = Unpaired("Who cleans the hall?", " The baker.", True)
    settings = FitConfig(lr=1e-2, batch_size=1, steps=100, progress=False)
    fit(policy, [row], SFTObjective(tokenizer), settings)
    rollout = sample(policy, tokenizer, [row.prompt], max_new_tokens=16, temperature=0)
    assert rollout.finished.all()
    tokens, marks = encode_answer(tokenizer, row.prompt, row.completion)
    assert rollout.responses[0].tolist() == [*compress(tokens, marks)]
    if family.lossless and name != "harmony":
        assert rollout.texts == ["The baker."]
