"""Running a study into its file."""

import csv
import os
from importlib import import_module
from pathlib import Path

from labs_helpers.course.recorded import FOLDER
from labs_tools.studies import cluster
from labs_tools.studies.study import STUDIES, Study, here

ROOMS = (
    "lab1", "lab2", "like_for_like", "tax", "optimum", "lab3", "instabilities",
    "tuning", "rllib", "trl", "frontier", "lab4", "memory", "real_speed",
    "real_reward", "real_verifiable",
)  # fmt: skip


class UnknownStudy(ValueError):
    """There is no study of this name."""


def studies() -> dict[str, Study]:
    """Every study by name."""
    for room in ROOMS:
        import_module(f"{__package__}.{room}")
    return STUDIES


def run(name: str, folder: Path = FOLDER) -> Path:
    """Run a study; return its file, which is the old one until all rows are measured.

    Where RAY_ADDRESS is set, the cluster there measures its seeds.

    Raises:
        UnknownStudy: no such study; the message lists them.
    """
    known = studies()
    if name not in known:
        raise UnknownStudy(f"no study {name!r}; there are {', '.join(sorted(known))}")
    study = known[name]
    rows = cluster.rows_of(study) if os.environ.get("RAY_ADDRESS") else study.rows()
    made_with = {"made_with": study.made_with}
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / f"{name}.csv", folder / f"{name}.csv.part"
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for row in rows:
            print(row, flush=True)
            row = {**row, **({} if "device" in row else here()), **made_with}
            if writer is None:
                writer = csv.DictWriter(file, row, lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            file.flush()
    unfinished.replace(path)
    return path
