"""Measure any model: `python -m labs_tools.safety MODEL --suites data/safety`.

Prints a model card, and writes it as Markdown and HTML where `--out` says. Public
suites come from files or the hub: `--xstest FILE`, `--harmbench FILE`, `--truthfulqa
FILE`.
"""

import argparse
import random
import shlex
import sys
from collections.abc import Iterator, Sequence
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names; 0 is success, 1 what cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m labs_tools.safety")
    parser.add_argument("model", help="a folder, or a name on the hub")
    parser.add_argument("--suites", type=Path, help="folder with suites and attacks")
    for name in PUBLIC:
        parser.add_argument(f"--{name}", help=f"{name}: a file, or a name on the hub")
    parser.add_argument("--limit", type=int, help="items of each suite, drawn by lot")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--out", type=Path, help="folder for the card")
    options = parser.parse_args(arguments)
    command = shlex.join(
        ["python", "-m", "labs_tools.safety", *(arguments or sys.argv[1:])]
    )
    suites: list[Suite] = []
    try:
        figures = [
            Figure(name, estimate, better, group, command)
            for name, estimate, better, group in _measured(options, suites)
        ]
    except (OSError, ValueError) as error:
        print(f"labs_tools.safety: {error}", file=sys.stderr)
        return 1
    card = ModelCard(
        options.model,
        "Measured with labs_helpers.safety; refusals are read by its classifier.",
        figures,
        suites=[f"{s.name}: {len(s)} items, {s.source}" for s in suites],
    )
    print(card.to_markdown())
    if options.out:
        card.write(options.out)
    return 0


def _measured(options: argparse.Namespace, used: list[Suite]) -> Iterator[tuple]:
    policy, tokenizer = load_policy(options.model), load_tokenizer(options.model)
    most = {"max_new_tokens": options.max_new_tokens}

    def drawn(suite: Suite) -> Suite:
        items = list(suite)
        if options.limit and len(items) > options.limit:
            items = random.Random(0).sample(items, options.limit)
        used.append(Suite(suite.name, tuple(items), suite.source))
        return used[-1]

    if folder := options.suites:
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
    for name, load in PUBLIC.items():
        if not (source := getattr(options, name)):
            continue
        suite = drawn(load(source))
        if suite.of("question").items:
            table = choice_table(policy, tokenizer, suite)
            yield "right answer likeliest", table.likeliest(), "higher", suite.name
            continue
        table = refusal_table(policy, tokenizer, suite, partial=False, **most)
        yield UNCLEAR, table.unclear(), "lower", suite.name
        for kind, better in (("safe", "lower"), ("harmful", "higher")):
            if suite.of(kind).items:
                yield f"{kind} prompts refused", table.rate(kind), better, suite.name


if __name__ == "__main__":
    sys.exit(main())
