"""`labs safety MODEL`: measure any model, and print its card.

Suites come from a folder such as data/safety, public ones from files or the hub.
"""

import random
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.safety import (
    Figure,
    ModelCard,
    Suite,
    attack_table,
    choice_table,
    consistency,
    load_attacks,
    load_harmbench,
    load_suite,
    load_truthfulqa,
    load_xstest,
    refusal_table,
    sycophancy,
)

PUBLIC = {
    "xstest": load_xstest,
    "harmbench": load_harmbench,
    "truthfulqa": load_truthfulqa,
}
# Neither help nor a refusal: a model that says nothing is not a safe one.
UNCLEAR = "nothing said that can be judged"


def run(
    model: str,
    suites: Path | None,
    public: Mapping[str, str],
    limit: int | None,
    max_new_tokens: int,
    out: Path | None,
) -> int:
    """Measure a model, print its card, and write it where `out` says.

    Args:
        model: a folder, or a name on the hub.
        suites: folder with suites and attacks.
        public: files of public suites, or their names on the hub.
        limit: items of each suite, drawn at random.
        max_new_tokens: of an answer.
        out: folder for the card, as Markdown and HTML.

    Raises:
        OSError: a file, or the model, cannot be had.
        ValueError: a suite cannot be used.
    """
    asked = {"suites": suites, **public, "limit": limit}
    given = [f"--{name}={value}" for name, value in asked.items() if value is not None]
    given += [f"--max-new-tokens={max_new_tokens}"]
    command = shlex.join(["labs", "safety", model, *given])
    used: list[Suite] = []
    figures = [
        Figure(name, estimate, better, group, command)
        for name, estimate, better, group in _measured(
            model, suites, public, limit, max_new_tokens, used
        )
    ]
    card = ModelCard(
        model,
        "Measured with labs_helpers.safety; refusals are read by its classifier.",
        figures,
        suites=[f"{s.name}: {len(s)} items, {s.source}" for s in used],
    )
    print(card.to_markdown())
    if out:
        card.write(out)
    return 0


def _measured(
    model: str,
    folder: Path | None,
    public: Mapping[str, str],
    limit: int | None,
    max_new_tokens: int,
    used: list[Suite],
) -> Iterator[tuple]:
    policy, tokenizer = load_policy(model), load_tokenizer(model)
    most = {"max_new_tokens": max_new_tokens}

    def drawn(suite: Suite) -> Suite:
        items = list(suite)
        if limit and len(items) > limit:
            items = random.Random(0).sample(items, limit)
        used.append(Suite(suite.name, tuple(items), suite.source))
        return used[-1]

    if folder:
        files = sorted(folder.glob("*.jsonl"))
        if not files:
            raise FileNotFoundError(f"no suites, files of .jsonl, in {folder}")
        found = {
            path.stem: drawn(load_suite(path))
            for path in files
            if path.stem not in ("refusals", "train")
        }
        if "harmful" in found and (folder / "attacks.yaml").exists():
            attacks = load_attacks(folder / "attacks.yaml")
            table = attack_table(policy, tokenizer, found["harmful"], attacks, **most)
            yield "all attacks", table.overall(), "lower", "Answers to harm"
            yield UNCLEAR, table.unclear(), "lower", "Answers to harm"
            for attack in table.attacks:
                yield attack, table.rate(attack), "lower", "Answers to harm"
        if "soundalike" in found:
            table = refusal_table(policy, tokenizer, found["soundalike"], **most)
            yield "sound-alikes refused", table.rate("safe"), "lower", "Over-refusal"
            yield UNCLEAR, table.unclear(), "lower", "Over-refusal"
        if "honesty" in found:
            table = choice_table(policy, tokenizer, found["honesty"])
            yield "honesty", table.truthful(), "higher", "Truth"
        for name, measure, better in (
            ("sycophancy", sycophancy, "lower"),
            ("consistency", consistency, "higher"),
        ):
            if name in found:
                yield name, measure(policy, tokenizer, found[name]), better, "Truth"
    for name, source in public.items():
        suite = drawn(PUBLIC[name](source))
        if suite.of("question").items:
            table = choice_table(policy, tokenizer, suite)
            yield "right answer likeliest", table.likeliest(), "higher", suite.name
            continue
        table = refusal_table(policy, tokenizer, suite, partial=False, **most)
        yield UNCLEAR, table.unclear(), "lower", suite.name
        for kind, better in (("safe", "lower"), ("harmful", "higher")):
            if suite.of(kind).items:
                yield f"{kind} prompts refused", table.rate(kind), better, suite.name
