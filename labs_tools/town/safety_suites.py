"""The town's safety suites: `python -m labs_tools.town.safety_suites`.

Makes data/safety/*.jsonl and attacks.yaml, in the formats of `labs_helpers.safety`.
Items and phrasings are those of the test split, but for the suite to train on
(train.jsonl); wordings of attacks are given for training and for tests.
"""

from pathlib import Path

import yaml

from labs_helpers.data import Prompt
from labs_helpers.safety import Item, save_suite
from labs_helpers.world.knowledge import DATA, capitalised, knowledge
from labs_helpers.world.prompts import (
    ATTACKS,
    PHRASINGS,
    ask,
    complied,
    every_prompt,
    items,
    lot,
    question,
    task_of,
)

FOLDER = DATA / "safety"
CHANGES = {
    "typos": "typos",
    "obfuscation": "dots",
    "paraphrase": "paraphrase",
    "many_shot": "many_shot",
}
TEST = PHRASINGS["test"]


def write(folder: Path = FOLDER) -> list[Path]:
    """Write every suite and the attacks; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, made in SUITES.items():
        paths.append(folder / f"{name}.jsonl")
        save_suite(made(), paths[-1])
    paths.append(folder / "attacks.yaml")
    paths[-1].write_text(attacks(), encoding="utf-8")
    return paths


def train() -> list[Item]:
    """Harmful wishes and sound-alikes of the training split, for Lab 4 to train on."""
    found = harmful("train") + soundalike("train")
    lot("safety", "train").shuffle(found)
    return found


def harmful(split: str = "test") -> list[Item]:
    """Wishes to be refused, with paraphrases."""
    leads, found = knowledge().language["task_leads"], []
    for prompt in every_prompt(split, "harmful"):
        task, name = task_of(prompt.meta, paraphrased=True), prompt.meta["item"]
        same = tuple(leads[p].format(task=task) for p in PHRASINGS[split][:2])
        category = knowledge().harmful[name]["category"]
        item = Item(prompt, "harmful", category, _id(prompt), paraphrases=same)
        found.append(item)
    return found


def soundalike(split: str = "test") -> list[Item]:
    """Safe wishes that only sound harmful, by the word that sounds so."""
    return [
        Item(prompt, "safe", prompt.meta["item"].split("_")[0], _id(prompt))
        for prompt in every_prompt(split, "soundalike")
    ]


def _id(prompt: Prompt) -> str:
    return f"{prompt.meta['item']}-{prompt.meta['phrasing']}"


def honesty(n: int = 48) -> list[Item]:
    """What nobody can know, and questions with a false premise."""
    said = knowledge().language["sentences"]
    found = []
    for item in items("test")["unknown"]:
        which = knowledge().unknown_as(item["entity"])
        right = [text.format(e=item["entity"]) for text in said[which]]
        right += said["dont_know"]
        found += [_question(item, "unknown", right, phrasing=p) for p in TEST]
    for item in _shuffled("premise")[:n]:
        right = _said("correction", item)
        wrong = _said("agreement", item, item["claimed"])
        found.append(_question(item, "false premise", right, wrong))
    lot("safety", "honesty").shuffle(found)
    return found


def sycophancy(n: int = 60) -> list[Item]:
    """Facts, asked plainly and by somebody who believes something else."""
    found = []
    for item in _shuffled("premise")[:n]:
        fact, false = {**item, "type": "fact"}, item["claimed"]
        right = [_sentence(item), *_said("correction", item)]
        wrong = [_sentence(item, false), *_said("agreement", item, false)]
        pressed = question(item, TEST[0])
        found.append(_question(fact, "fact", right, wrong, pressed=pressed))
    return found


def consistency(n: int = 60) -> list[Item]:
    """Facts in several wordings."""
    return [
        _question(
            item,
            "fact",
            [_sentence(item)],
            paraphrases=tuple(question(item, p) for p in (TEST[1], 0, 4)),
        )
        for item in _shuffled("fact")[:n]
    ]


def attacks() -> str:
    """The eight attacks as YAML."""
    rows = []
    for name in ATTACKS:
        row: dict = {"id": name}
        if name in CHANGES:
            row["change"] = CHANGES[name]
        else:
            wordings = [
                w.replace("{question}", "{prompt}") for w in knowledge().attacks[name]
            ]
            row |= {"train": wordings[:2], "test": wordings[3:]}
        if name == "many_shot":
            row["shots"] = [
                {"prompt": ask(x, i % 4).text, "answer": complied(x)}
                for i, x in enumerate(items("train")["harmful"])
            ]
        rows.append(row)
    head = (
        "# Attacks on a prompt, for labs_helpers.safety. Made by\n"
        "# python -m labs_tools.town.safety_suites from data/world/.\n"
    )
    return head + yaml.safe_dump(rows, sort_keys=False, width=88)


def _shuffled(kind: str) -> list[dict]:
    found = list(items("test")[kind])
    lot("safety", kind).shuffle(found)
    return found


def _question(
    item: dict,
    category: str,
    right: list[str],
    wrong: list[str] | None = None,
    phrasing: int = TEST[0],
    **more,
) -> Item:
    name = f"{category}-{item['entity']}-{item['attribute']}-{phrasing}"
    return Item(
        Prompt(question(item, phrasing), {**item, "phrasing": phrasing}),
        "question",
        category,
        name.replace(" ", "_"),
        right=tuple(right),
        wrong=tuple(wrong or _false_answers(item)),
        **more,
    )


def _false_answers(item: dict, n: int = 3) -> list[str]:
    """Claims of other values, as somebody states them who makes them up."""
    k = knowledge()
    true = k.facts.get(item["entity"], {}).get(item["attribute"])
    others = [v for v in k.attributes[item["attribute"]].values if v != true]
    drawn = lot("false", item["entity"], item["attribute"]).sample(others, n)
    return [_sentence(item, value) for value in drawn]


def _said(kind: str, item: dict, value: str | None = None) -> list[str]:
    claim = _claim(item, value)
    texts = knowledge().language["sentences"][kind]
    return [text.format(claim=claim) for text in texts]


def _sentence(item: dict, value: str | None = None) -> str:
    return capitalised(_claim(item, value)) + "."


def _claim(item: dict, value: str | None = None) -> str:
    k = knowledge()
    if value is None:
        value = k.facts[item["entity"]][item["attribute"]]
    return k.attributes[item["attribute"]].claims[0].format(e=item["entity"], v=value)


MADE = (train, harmful, soundalike, honesty, sycophancy, consistency)
SUITES = {made.__name__: made for made in MADE}

if __name__ == "__main__":
    for path in write():
        print(path)
