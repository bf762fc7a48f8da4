"""Tokenizers and chat templates of the well-known kinds, small and trained on the spot.

The tokenizers have the parts of the originals that decide where tokens end; templates
keep what they write around turns, what they trim and what they refuse.
"""

import copy
import json
from dataclasses import dataclass
from functools import cache

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
    trainers,
)
from tokenizers import pre_tokenizers as pre
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Who cleans the town hall? The baker cleans the hall of stone.\n\nI do not know.",
    "  user\nassistant\nmodel\nsystem\n [INST] [/INST] ### <|user|> it's 12 ...",
    "Gräßlich, naïve café! 東京 «the» <think>\n\n</think>\n\n",
] * 9
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")


def _trained(kind: str, tokens: list) -> Tokenizer:
    """A tokenizer of a kind with these control tokens."""
    settings = {"vocab_size": 420, "special_tokens": tokens, "show_progress": False}
    if kind in ("gpt2", "qwen2", "llama3"):
        tokenizer = Tokenizer(models.BPE())
        split = {"gpt2": GPT2, "qwen2": QWEN2, "llama3": LLAMA3}[kind]
        tokenizer.pre_tokenizer = pre.Sequence(
            [
                pre.Split(Regex(split), "isolated"),
                pre.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **settings)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **settings)
    elif kind == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(**settings)
    else:  # SentencePiece's BPE as it is converted: with bytes for what it lacks
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        if kind != "gemma":
            parts.append(decoders.Strip(" ", 1, 0))
        tokenizer.decoder = decoders.Sequence(parts)
        space = normalizers.Replace(" ", "▁")
        if kind == "legacy":  # Llama 2, Mistral: a blank before every piece of text
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), space]
            )
        elif kind == "metaspace":  # a blank before the first piece alone
            tokenizer.pre_tokenizer = pre.Metaspace(prepend_scheme="first", split=False)
        else:
            tokenizer.normalizer = space
        settings["special_tokens"] = [*tokens, *(f"<0x{i:02X}>" for i in range(256))]
        trainer = trainers.BpeTrainer(**settings | {"vocab_size": 700})
        lines = [part for text in CORPUS for part in text.split("\n")]
        tokenizer.train_from_iterator(lines, trainer)
        return _without_byte_tokens(tokenizer, tokens)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _without_byte_tokens(tokenizer: Tokenizer, tokens: list) -> Tokenizer:
    """Byte tokens are pieces of the model, no strings that a text may hold."""
    state = json.loads(tokenizer.to_str())
    kept = {str(token) for token in tokens}
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in kept]
    return Tokenizer.from_str(json.dumps(state))


@dataclass(frozen=True)
class Family:
    """A tokenizer's kind, its control tokens, and its template."""

    kind: str
    tokens: tuple[str, ...]  # the first one pads
    eos: str
    template: str | None
    bos: str | None = None
    plain: tuple[str, ...] = ()  # added, and no special tokens
    before: str = ""  # what a post-processor puts before a text
    after: str = ""  # and behind it
    strips: bool = False  # control tokens take the white space to their right
    lossless: bool = True

    @cache  # noqa: B019
    def _built(self) -> PreTrainedTokenizerFast:
        added = [
            AddedToken(t, special=True, normalized=False, rstrip=self.strips)
            for t in self.tokens
        ]
        inner = _trained(self.kind, added)
        inner.add_tokens([AddedToken(t, normalized=False) for t in self.plain])
        if self.before or self.after:
            single = " ".join(filter(None, (self.before, "$A", self.after)))
            ids = [(t, inner.token_to_id(t)) for t in (self.before, self.after) if t]
            inner.post_processor = processors.TemplateProcessing(
                single=single, special_tokens=ids
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=inner,
            pad_token=self.tokens[0],
            eos_token=self.eos,
            bos_token=self.bos,
            chat_template=self.template,
            clean_up_tokenization_spaces=False,
        )

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer that a test may change."""
        return copy.deepcopy(self._built())


ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}"
    "{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
)
CHATML_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
)
CHATML_PROMPT = (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = CHATML_TURNS + CHATML_PROMPT
QWEN25 = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
) + CHATML
QWEN3 = (
    "{%- set ns = namespace(last=messages|length - 1, found=false) %}"
    "{%- for m in messages[::-1] %}{%- if not ns.found and m.role == 'user' %}"
    "{%- set ns.last = (messages|length - 1) - loop.index0 %}"
    "{%- set ns.found = true %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- if m.role != 'assistant' %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{%- else %}{%- set content = m.content %}{%- set thought = '' %}"
    "{%- if '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].rstrip('\n')"
    ".split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last and (loop.last or thought) %}"
    "{{- '<|im_start|>assistant\n<think>\n' + thought.strip('\n')"
    " + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{%- else %}{{- '<|im_start|>assistant\n' + content }}{%- endif %}"
    "{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% else %}{% set content = m['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
LLAMA2 = (
    ALTERNATE + "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
MISTRAL = (
    ALTERNATE + "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3_CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    NO_SYSTEM + ALTERNATE + "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role'])"
    " + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] "
    "+ '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token"
    " + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
GLM = (  # no token ends a turn, the next one's header does
    "[gMASK]<sop>{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
HARMONY = (  # a channel before the answer, and another end for the last one
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content"
    " + ('<|return|>' if loop.last else '<|end|>') }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_THINK = ("<think>", "</think>")
_SP = ("<pad>", "<unk>", "<s>", "</s>")
_L3 = (
    "<|pad|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
_BOS3, _EOT3 = "<|begin_of_text|>", "<|end_of_text|>"
FAMILIES = {
    "smollm2": Family("gpt2", _CHATML_TOKENS, "<|im_end|>", QWEN25),
    "qwen2.5": Family("qwen2", _CHATML_TOKENS, "<|im_end|>", QWEN25),
    "qwen2.5 base": Family("qwen2", _CHATML_TOKENS, "<|endoftext|>", QWEN25),
    "qwen3": Family("qwen2", _CHATML_TOKENS, "<|im_end|>", QWEN3, plain=_THINK),
    "chatml, no generation prompt": Family(
        "qwen2", _CHATML_TOKENS, "<|endoftext|>", CHATML_TURNS
    ),
    "r1": Family(
        "qwen2",
        ("<｜pad｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        "<｜end▁of▁sentence｜>",
        R1,
        bos="<｜begin▁of▁sentence｜>",
        plain=("<｜User｜>", "<｜Assistant｜>", *_THINK),
        before="<｜begin▁of▁sentence｜>",
    ),
    "llama 2": Family("legacy", _SP, "</s>", LLAMA2, bos="<s>", before="<s>"),
    "llama 2, first": Family("metaspace", _SP, "</s>", LLAMA2, bos="<s>", before="<s>"),
    "mistral": Family(
        "legacy", (*_SP, "[INST]", "[/INST]"), "</s>", MISTRAL, bos="<s>", before="<s>"
    ),
    "zephyr": Family("legacy", _SP, "</s>", ZEPHYR, bos="<s>", before="<s>"),
    "chatml, metaspace": Family(
        "metaspace", ("<pad>", *_CHATML_TOKENS), "<|endoftext|>", CHATML
    ),
    "phi 3": Family(
        "legacy",
        (*_SP, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "</s>",
        PHI3,
        strips=True,
    ),
    "llama 3": Family("llama3", _L3, _EOT3, LLAMA3_CHAT, bos=_BOS3, before=_BOS3),
    "gemma": Family(
        "gemma",
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        GEMMA,
        bos="<bos>",
        before="<bos>",
    ),
    "glm": Family(
        "qwen2",
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        "<|endoftext|>",
        GLM,
    ),
    "harmony": Family(
        "qwen2",
        ("<|pad|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        "<|return|>",
        HARMONY,
    ),
    "gpt2, no template": Family("gpt2", ("<|endoftext|>",), "<|endoftext|>", None),
    "llama 3, no template": Family("llama3", _L3, _EOT3, None, bos=_BOS3, before=_BOS3),
    "llama 2, no template": Family(
        "legacy", _SP, "</s>", None, bos="<s>", before="<s>"
    ),
    "bos and eos, no template": Family(
        "metaspace", _SP, "</s>", None, bos="<s>", before="<s>", after="</s>"
    ),
    "t5, no template": Family(
        "unigram", _SP, "</s>", None, after="</s>", lossless=False
    ),
    "t5, chatml": Family(
        "unigram",
        (*_SP, "<|im_start|>", "<|im_end|>"),
        "</s>",
        CHATML,
        after="</s>",
        lossless=False,
    ),
    "words, no template": Family("words", _SP, "</s>", None, lossless=False),
}
