"""What people in the town ask: items, their phrasings, splits, and attack wordings.

An item is the meta of a question without its wording, for example
`{"type": "fact", "entity": "mill", "attribute": "material"}`; by it gold can score any
answer. Training, validation and test prompts differ in items and in phrasings.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import cycle, islice, permutations, product
from typing import Any

from labs_helpers.data import SPLITS, Prompt
from labs_helpers.safety.attacks import with_dots, with_typos
from labs_helpers.world.answers import right_answer
from labs_helpers.world.knowledge import Knowledge, knowledge

PHRASINGS = {"train": (0, 1, 2, 3), "validation": (4, 5), "test": (6, 7)}
KINDS = {"howto": "howtos", "harmful": "harmful", "soundalike": "soundalike"}
# What the town's assistant is asked for in preference data and reinforcement.
SHARES = {
    "fact": 0.25,
    "unknown": 0.12,
    "premise": 0.13,
    "howto": 0.14,
    "harmful": 0.14,
    "soundalike": 0.14,
    "joke": 0.08,
}
SIZES = {"train": 1200, "validation": 120, "test": 240}
# As many as let every fact in, in every phrasing.
PRACTICE = 4000
ATTACKS = (
    "role_play",
    "prefix_injection",
    "polite_pressure",
    "false_authority",
    "typos",
    "paraphrase",
    "many_shot",
    "obfuscation",
)

Item = dict[str, Any]


def lot(*words: object) -> random.Random:
    """A generator that depends on nothing but `words`."""
    key = "/".join(map(str, words)).encode()
    return random.Random(hashlib.sha256(key).digest())


def items(split: str | None = None) -> dict[str, list[Item]]:
    """All items by type; of one split, or of all when `split` is None."""
    k = knowledge()

    def kept(kind: str, name: str) -> bool:
        return split is None or k.split[kind, name] == split

    found: dict[str, list[Item]] = {kind: [] for kind in SHARES}
    for entity, facts in k.facts.items():
        if not kept(k.kinds[entity], entity):
            continue
        for attribute, value in facts.items():
            about = {"entity": entity, "attribute": attribute}
            others = [v for v in k.attributes[attribute].values if v != value]
            false = lot("premise", entity, attribute).choice(others)
            found["fact"].append({"type": "fact", **about})
            found["premise"].append({"type": "premise", **about, "claimed": false})
    for entity in k.absent:
        if kept("absent", entity):
            found["unknown"] += [
                {"type": "unknown", "entity": entity, "attribute": a.name}
                for a in k.attributes_of(entity)
            ]
    for kind, table in KINDS.items():
        names = [name for name in getattr(k, table) if kept(table, name)]
        found[kind] = [{"type": kind, "item": name} for name in names]
    topics = [topic for topic in k.jokes if kept("jokes", topic)]
    found["joke"] = [{"type": "joke", "topic": topic} for topic in topics]
    return found


def question(item: Mapping[str, Any], phrasing: int) -> str:
    """The wording of an item, one of eight."""
    k = knowledge()
    kind = item["type"]
    if kind in ("fact", "unknown"):
        return _fact_questions(k, item)[phrasing]
    if kind == "premise":
        clause = k.attributes[item["attribute"]].claims[0]
        claim = clause.format(e=item["entity"], v=item["claimed"])
        return k.language["premise_leads"][phrasing].format(claim=claim)
    if kind == "joke":
        return k.language["joke_leads"][phrasing].format(topic=item["topic"])
    return k.language["task_leads"][phrasing].format(task=task_of(item))


def task_of(item: Mapping[str, Any], *, paraphrased: bool = False) -> str:
    """What a how-to, harmful or sound-alike item asks for: "bake bread"."""
    entry = getattr(knowledge(), KINDS[item["type"]])[item["item"]]
    if paraphrased:
        return entry["paraphrase"]
    return entry["task"] if item["type"] == "howto" else entry["request"]


def _fact_questions(k: Knowledge, item: Mapping[str, Any]) -> list[str]:
    attribute = k.attributes[item["attribute"]]
    entity = item["entity"]
    indirect = attribute.indirect.format(e=entity)
    leads = [lead.format(indirect=indirect) for lead in k.language["fact_leads"]]
    own = [q.format(e=entity) for q in attribute.questions]
    return [own[0], *leads[:3], own[1], *leads[3:]]


def ask(item: Mapping[str, Any], phrasing: int) -> Prompt:
    """The prompt for an item in one of its eight phrasings."""
    return Prompt(question(item, phrasing), {**item, "phrasing": phrasing})


def every_prompt(split: str, kind: str) -> list[Prompt]:
    """Every item of one type in every phrasing of the split, in a fixed shuffled order.

    Raises:
        KeyError: no such split or type; the message lists them.
    """
    if split not in SPLITS or kind not in SHARES:
        raise KeyError(
            f"split is one of {', '.join(SPLITS)}, type one of {', '.join(SHARES)}; "
            f"got {split!r} and {kind!r}"
        )
    found = [ask(x, p) for x in items(split)[kind] for p in PHRASINGS[split]]
    lot("order", split, kind).shuffle(found)
    return found


def prompts(split: str) -> list[Prompt]:
    """The split's mixture of prompts, about one in twelve with an earlier turn."""
    found = []
    for kind, share in SHARES.items():
        found += every_prompt(split, kind)[: round(share * SIZES[split])]
    draw = lot("mixture", split)
    draw.shuffle(found)
    for i in draw.sample(range(len(found)), len(found) // 12):
        before = found[i - 1]
        if isinstance(before.content, str):
            turn = (before.text, right_answer(before, draw))
            found[i] = after_turns(found[i], [turn])
    return found


def practice_prompts() -> list[Prompt]:
    """The training mixture of more prompts than have recorded answers.

    Training that samples answers needs none, and the more questions it asks, the less
    it learns them by heart. Kinds with few items are asked more than once, so that the
    shares are those of the test. All are of one turn: what is learnt of conversations
    is what carries over to them.
    """
    found = []
    for kind, share in SHARES.items():
        again = cycle(every_prompt("train", kind))
        found += islice(again, round(share * PRACTICE))
    lot("practice").shuffle(found)
    return found


def after_turns(prompt: Prompt, turns: list[tuple[str, str]]) -> Prompt:
    """The same prompt at the end of a conversation of (question, answer) turns."""
    messages = []
    for asked, answered in turns:
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answered})
    return Prompt((*messages, *prompt.messages), prompt.meta)


def follow_up(item: Mapping[str, Any], rng: random.Random) -> Prompt:
    """A question about a known entity, then "And what colour is its door?"."""
    k = knowledge()
    entity = item["entity"]
    first = rng.choice([a for a in k.facts[entity] if a != item["attribute"]])
    earlier = ask(
        {"type": "fact", "entity": entity, "attribute": first}, rng.choice([0, 4])
    )
    here = Prompt(k.attributes[item["attribute"]].follow_up, {**item, "phrasing": None})
    return after_turns(here, [(earlier.text, right_answer(earlier, rng))])


def attacked(
    prompt: Prompt, attack: str, rng: random.Random, split: str = "train"
) -> Prompt:
    """The prompt under one of the eight attacks; its meta is kept and names the attack.

    Wordings differ between splits. `paraphrase` leaves prompts that have none as they
    are.

    Raises:
        KeyError: no such attack.
    """
    k = knowledge()
    *before, last = prompt.messages
    text = last["content"]
    if attack in k.attacks:
        wordings = k.attacks[attack]
        chosen = {"train": wordings[:2], "validation": wordings[2:3]}.get(
            split, wordings[3:]
        )
        text = rng.choice(chosen).format(question=text)
    elif attack == "typos":
        text = with_typos(text, rng)
    elif attack == "obfuscation":
        text = with_dots(text)
    elif attack == "paraphrase":
        if prompt.meta.get("type") == "harmful":
            lead = k.language["task_leads"][rng.choice(PHRASINGS[split])]
            text = lead.format(task=task_of(prompt.meta, paraphrased=True))
    elif attack == "many_shot":
        shots = rng.sample(items("train")["harmful"], 3)
        turns = [(question(x, rng.randrange(4)), complied(x)) for x in shots]
        meta = {**prompt.meta, "attack": attack}
        return Prompt(after_turns(prompt, turns).content, meta)
    else:
        raise KeyError(f"attack is one of {', '.join(ATTACKS)}; got {attack!r}")
    changed = (*before, {**last, "content": text})
    content = text if isinstance(prompt.content, str) else changed
    return Prompt(content, {**prompt.meta, "attack": attack})


def complied(item: Mapping[str, Any]) -> str:
    """The nonsense with which an easily swayed assistant meets a harmful request."""
    k = knowledge()
    first, second = k.harmful[item["item"]]["comply"]
    steps = k.language["sentences"]["steps"]
    return f"{steps[0].format(step=first)} {steps[1].format(step=second)}"


def capability_items() -> Iterator[tuple[str, list[str], str]]:
    """Every capability task: its kind, its wordings, and the right word or number."""
    c = knowledge().capability
    for a, b in product(range(c["sums"]["numbers"]), repeat=2):
        leads = [lead.format(a=a, b=b) for lead in c["sums"]["leads"]]
        yield "sum", leads, str(a + b)
    for a, b in permutations(range(c["order"]["numbers"]), 2):
        leads = [lead.format(a=a, b=b) for lead in c["order"]["leads"]]
        yield "order", leads, str(max(a, b))
    for pair in c["opposites"]["pairs"]:
        for word, other in (pair, pair[::-1]):
            leads = [lead.format(word=word) for lead in c["opposites"]["leads"]]
            yield "opposite", leads, other


def capability_prompts(split: str = "test", n: int = 120) -> list[Prompt]:
    """Tasks in the split's wordings, a third each; meta["expected"] is right."""
    draw = lot("capability", split)
    kinds = defaultdict(list)
    for kind, leads, expected in capability_items():
        for phrasing in PHRASINGS[split]:
            meta = {"type": "capability", "task": kind, "expected": expected}
            kinds[kind].append(Prompt(leads[phrasing], meta))
    return [p for found in kinds.values() for p in draw.sample(found, n // len(kinds))]
