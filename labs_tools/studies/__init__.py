"""Studies: experiments too long for a lab, run once and committed as CSV.

`labs study NAME` runs one and writes data/studies/NAME.csv; every row says with which
versions, on what device and when it was measured. What is measured stands in the module
of the lab.
"""

import csv
import platform
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from labs_helpers.course.recorded import FOLDER, Row
from labs_helpers.evaluation import Estimate
from labs_helpers.models import default_device_and_dtype

Study = Callable[[], Iterable[Row]]


class UnknownStudy(ValueError):
    """There is no study of this name."""


def studies() -> dict[str, Study]:
    """Every study by name."""
    from labs_tools.studies import (
        ai_feedback,
        constitutional,
        instabilities,
        lab1,
        lab3,
        lab4,
        optimum,
        preferences,
        recipes,
        rllib,
        trl,
        tuning,
    )

    rooms = (
        lab1,
        recipes,
        preferences,
        optimum,
        lab3,
        instabilities,
        tuning,
        rllib,
        trl,
        lab4,
        constitutional,
        ai_feedback,
    )
    return {name: study for room in rooms for name, study in room.STUDIES.items()}


def run(name: str, folder: Path = FOLDER) -> Path:
    """Run a study, writing each row as soon as it is measured; return the file.

    Raises:
        UnknownStudy: no such study; the message lists them.
    """
    known = studies()
    if name not in known:
        raise UnknownStudy(f"no study {name!r}; there are {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    unfinished = path.with_suffix(".csv.part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for row in known[name]():
            row = {**row, **here()}
            if writer is None:
                writer = csv.DictWriter(file, row, lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print({key: row[key] for key in list(row)[:-4]}, flush=True)
    unfinished.replace(path)
    return path


def columns(name: str, estimate: Estimate) -> Row:
    """An estimate as three columns."""
    ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {f"{name}{end}": round(float(value), 5) for end, value in ends.items()}


def here() -> Row:
    """With which versions, on what device and when something is measured."""
    hardware = default_device_and_dtype()
    device = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    if hardware.device.type == "cuda":
        device = torch.cuda.get_device_name()
    return {
        "torch": torch.__version__.split("+")[0],
        "transformers": metadata.version("transformers"),
        "device": device,
        "date": datetime.now(UTC).date().isoformat(),
    }
