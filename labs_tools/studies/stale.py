"""Committed studies that are older than what they were made with.

`python -m labs_tools.studies.stale` lists them. Given names, it writes today's hash
into the rows of these studies: only for a change that moves no figure, such as a field
of settings with another name, and with a word on that in the commit.
"""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from labs_helpers.common.files import write_atomically
from labs_helpers.course.recorded import FOLDER
from labs_tools.studies.running import studies

REBUILT = "made before town-s and the recorded answers were built anew"
FEW = "measured on 512 held-out comparisons, today on 2,048"
SEVERAL_TURNS = "made when practice prompts could have several turns"
# Stale and known to be: to be run again, and then to be taken off this list.
KNOWN = {
    "reward_alignment_tax": REBUILT,
    "reward_data_size": REBUILT,
    "reward_margins": REBUILT,
    "frontier": "made before PPO's learning rate was halved and TRPO's step shrank",
    "dpo_beta": FEW,
    "dpo_noise": FEW,
    "dpo_pair_sources": FEW,
    "kto_few_desirable": FEW,
    "rl_algorithms": SEVERAL_TURNS,
    "rl_details": SEVERAL_TURNS,
    "rl_exploration": SEVERAL_TURNS,
    "rl_ptx": SEVERAL_TURNS,
    "rl_sizes": SEVERAL_TURNS,
}


def stale(folder: Path = FOLDER) -> list[str]:
    """Studies whose rows were made with something else than there is now."""
    return [
        name
        for name, study in studies().items()
        if (folder / f"{name}.csv").exists()
        and {row.get("made_with") for row in _rows(folder, name)} != {study.made_with}
    ]


def lines() -> Iterator[str]:
    """One line for every stale study."""
    for name in stale():
        why = KNOWN.get(name, f"changed since: run `labs study {name}`")
        yield f"{name}: {why}"


def stamp(name: str, made_with: str, folder: Path = FOLDER) -> None:
    """Write what its rows were made with into a study's file."""
    rows = [{**row, "made_with": made_with} for row in _rows(folder, name)]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / f"{name}.csv", text.getvalue())


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    for study in sys.argv[1:]:
        stamp(study, studies()[study].made_with)
    print("\n".join(lines()) or "All studies are as new as what they were made with.")
