"""Merge what several people have compared, and say who agrees with whom.

Files of the labs' annotator come in, each with its ties beside it; out go one file of
preferences, one of ties, and a report. Whom to believe is not decided here.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labs_helpers.common.files import write_atomically
from labs_helpers.common.printable import one_line, text_table
from labs_helpers.course.annotations import read_lines
from labs_helpers.course.judgements import choice_of, key_of, text_of
from labs_helpers.data import Preference, save_preferences
from labs_helpers.evaluation import (
    annotator_sharpness,
    cohen_kappa,
    krippendorff_alpha,
    proportion,
)

UNDECIDED = ".undecided"
DISPUTED = 5  # pairs that are printed
HEADINGS = (
    "who",
    "pairs",
    "ties",
    "agrees with themselves",
    "kappa with the others",
    "alpha without them",
    "sharpness",
)
Rows = dict[str, list[dict[str, Any]]]  # by person, in the order of the files


def merge(files: Sequence[Path], out: Path) -> int:
    """Write the comparisons of all files to one, and print who agrees with whom.

    Raises:
        ValueError: there is no comparison in them, or a file is none of annotations.
    """
    people = read_people(files)
    rows = [row for own in people.values() for row in own]
    if not rows:
        raise ValueError("there is no comparison in these files")
    decided = [row for row in rows if "chosen" in row]
    out.parent.mkdir(parents=True, exist_ok=True)
    save_preferences([_preference(row) for row in decided], out)
    ties = [json.dumps(row, ensure_ascii=False) for row in rows if "chosen" not in row]
    beside = out.with_suffix(f"{UNDECIDED}{out.suffix}")
    write_atomically(beside, "".join(f"{line}\n" for line in ties))
    print(f"{len(decided)} preferences of {len(people)} people, written to {out}")
    print("\n".join(report(people)))
    return 0


def read_people(files: Sequence[Path]) -> Rows:
    """Comparisons by person. Who has one name in two files is named after the file."""
    mains = dict.fromkeys(_main(file) for file in files)
    found: list[tuple[Path, str, dict[str, Any]]] = []
    for main in mains:
        if not main.exists():
            raise FileNotFoundError(f"{main} is missing: give files of the annotator")
        for path in (main, main.with_suffix(f"{UNDECIDED}{main.suffix}")):
            for row in read_lines(path, key_of):
                found.append((main, str(row.get("annotator") or "somebody"), row))
    labels = dict(zip(mains, _labels(list(mains)), strict=True))
    people: Rows = {}
    for path, name, row in found:
        shared = len({p for p, other, _ in found if other == name}) > 1
        name = labels[path] if shared else name
        people.setdefault(name, []).append({**row, "annotator": name})
    return people


def report(people: Rows) -> list[str]:
    """How far everybody agrees with themselves and with the others; disputed pairs."""
    keys = [*dict.fromkeys(key_of(row) for own in people.values() for row in own)]
    votes = np.full((len(people), len(keys)), np.nan)
    again = []
    for vote, own in zip(votes, people.values(), strict=True):
        said: dict[str, list[float]] = {}
        for row in sorted(own, key=lambda row: str(row.get("time"))):
            if choice_of(row) != "skip":
                said.setdefault(key_of(row), []).append(_said(row))
        for key, verdicts in said.items():
            vote[keys.index(key)] = verdicts[0]
        later = [v == first for first, *rest in said.values() for v in rest]
        again.append(proportion(sum(later), len(later)) if later else "not asked twice")
    lines = [f"Krippendorff's alpha of all: {krippendorff_alpha(votes):.2f}"]
    several = len(people) > 1 and not np.isnan(votes).all()
    sharp = annotator_sharpness(votes) if several else ["alone"] * len(people)
    rows = []
    for i, name in enumerate(people):
        others = np.delete(votes, i, axis=0)
        kappas = [cohen_kappa(votes[i], other) for other in others]
        kappas = [kappa for kappa in kappas if not np.isnan(kappa)]
        with_others = f"{np.mean(kappas):.2f}" if kappas else "-"
        without = f"{krippendorff_alpha(others):.2f}" if len(others) > 1 else "-"
        judged, ties = (~np.isnan(votes[i])).sum(), (votes[i] == 0.5).sum()
        rows.append((name, judged, ties, again[i], with_others, without, sharp[i]))
    return [*lines, text_table(HEADINGS, rows), *_disputed(votes, keys)]


def _disputed(votes: np.ndarray, keys: list[str]) -> list[str]:
    """The pairs on which most people are in a minority, to be talked over."""
    shares = np.nan_to_num([np.nanmean(v) if (v == v).any() else 0 for v in votes.T])
    split = np.minimum(shares, 1 - shares)
    lines = ["The pairs that divide people most:"] if split.max() > 0 else []
    for column in np.argsort(-split, kind="stable")[:DISPUTED]:
        if split[column] > 0:
            messages, answers, _ = json.loads(keys[column])
            for_first = f"{shares[column]:.0%} for the first"
            lines.append(f"- {one_line(text_of(messages), 200)} ({for_first})")
            lines += [f"    {one_line(answer, 200)}" for answer in answers]
    return lines


def _said(row: dict[str, Any]) -> float:
    """1 where the first answer of the pair's key was preferred, 0 the second."""
    if choice_of(row) == "tie":
        return 0.5
    _, answers, _ = json.loads(key_of(row))
    return float(text_of(row["chosen"]) == answers[0])


def _preference(row: dict[str, Any]) -> Preference:
    named = ("dimension", "annotator", "time")
    others = {name: row.get(name) for name in named} | {"meta": row.get("meta") or {}}
    return Preference(row["prompt"], row["chosen"], row["rejected"], **others)


def _main(file: Path) -> Path:
    """The file of preferences, of one of ties that which it stands beside."""
    path = Path(file).resolve()
    return path.with_name(path.name.replace(f"{UNDECIDED}{path.suffix}", path.suffix))


def _labels(files: list[Path]) -> list[str]:
    """Names for files: their own, or their folders' where all are called the same."""
    for part in (lambda path: path.stem, lambda path: path.parent.name):
        labels = [part(path) for path in files]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in files]
