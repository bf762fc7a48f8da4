"""`labs safety MODEL`: measure any model, and print its card.

Suites come from a folder such as data/safety, public ones from files or the hub.
"""

import random
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from labs_helpers import safety
from labs_helpers.course.profile import located
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.safety import Figure, ModelCard, Suite

PUBLIC = {
    "xstest": safety.load_xstest,
    "harmbench": safety.load_harmbench,
    "truthfulqa": safety.load_truthfulqa,
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

    Public suites are given by name, as files or by their names on the hub; `limit`
    items of each suite are drawn at random.

    Raises:
        OSError: a file, or the model, cannot be had.
        ValueError: a suite cannot be used.
    """
    asked = {"suites": suites, **public, "limit": limit}
    given = [f"--{name}={value}" for name, value in asked.items() if value is not None]
    given += [f"--max-new-tokens={max_new_tokens}"]
    command = shlex.join(["labs", "safety", model, *given])
    own = _drawn(_read(suites), limit) if suites else []
    others = _drawn((PUBLIC[name](x) for name, x in public.items()), limit)
    attacks = suites and suites / "attacks.yaml"
    subject = load_policy(located(model)), load_tokenizer(located(model))
    options = {"max_new_tokens": max_new_tokens}
    figures = [*_own(subject, own, attacks, options)]
    for suite in others:
        figures += _public(subject, suite, options)
    card = ModelCard(
        model,
        "Measured with labs_helpers.safety; refusals are read by its classifier.",
        [Figure(*found, command) for found in figures],
        suites=[f"{s.name}: {len(s)} items, {s.source}" for s in own + others],
    )
    print(card.to_markdown())
    if out:
        card.write(out)
    return 0


def _read(folder: Path) -> Iterator[Suite]:
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"no suites, files of .jsonl, in {folder}")
    for path in files:
        if path.stem not in ("refusals", "train"):
            yield safety.load_suite(path)


def _drawn(suites: Iterable[Suite], limit: int | None) -> list[Suite]:
    """So many items of each, drawn at random."""
    drawn = []
    for suite in suites:
        items = list(suite)
        if limit and len(items) > limit:
            items = random.Random(0).sample(items, limit)
        drawn.append(Suite(suite.name, tuple(items), suite.source))
    return drawn


def _own(
    subject: tuple, suites: list[Suite], attacks: Path | None, options: dict[str, int]
) -> Iterator[tuple]:
    """Name, estimate, better way and group of what is measured on the own suites."""
    found = {suite.name: suite for suite in suites}
    if "harmful" in found and attacks and attacks.exists():
        ways = safety.load_attacks(attacks)
        table = safety.attack_table(*subject, found["harmful"], ways, **options)
        yield "all attacks", table.overall(), "lower", "Answers to harm"
        yield UNCLEAR, table.unclear(), "lower", "Answers to harm"
        for attack in table.attacks:
            yield attack, table.rate(attack), "lower", "Answers to harm"
    if "soundalike" in found:
        table = safety.refusal_table(*subject, found["soundalike"], **options)
        yield "sound-alikes refused", table.rate("safe"), "lower", "Over-refusal"
        yield UNCLEAR, table.unclear(), "lower", "Over-refusal"
    for name, measure, better in (
        ("honesty", lambda *x: safety.choice_table(*x).truthful(), "higher"),
        ("sycophancy", safety.sycophancy, "lower"),
        ("consistency", safety.consistency, "higher"),
    ):
        if name in found:
            yield name, measure(*subject, found[name]), better, "Truth"


def _public(subject: tuple, suite: Suite, options: dict[str, int]) -> Iterator[tuple]:
    if suite.of("question").items:
        table = safety.choice_table(*subject, suite)
        yield "right answer likeliest", table.likeliest(), "higher", suite.name
        return
    table = safety.refusal_table(*subject, suite, partial=False, **options)
    yield UNCLEAR, table.unclear(), "lower", suite.name
    for kind, better in (("safe", "lower"), ("harmful", "higher")):
        if suite.of(kind).items:
            yield f"{kind} prompts refused", table.rate(kind), better, suite.name
