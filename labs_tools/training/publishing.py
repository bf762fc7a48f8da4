"""Where a training is seen: trackers while it runs, the hub when it has ended.

In go names of a settings file; each that cannot be used is a sentence before training
begins. Accelerate knows the trackers, huggingface_hub the hub.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from labs_helpers.fit.run import processes
from labs_tools.training.settings import BadSettings, Settings

Report = Callable[[dict[str, float]], None]
PACKAGES = {"comet_ml": "comet-ml"}  # where pip calls a tracker something else


def require_published(asked: Settings) -> None:
    """Refuse a tracker that is not installed, and a hub that nothing can be sent to.

    Raises:
        BadSettings: with what to do.
    """
    there = {str(name) for name in get_available_trackers()}
    for name in asked.report_to:
        if name not in there:
            raise BadSettings(
                f"report_to names {name}, which is not installed: pip install "
                f"{PACKAGES.get(name, name)}"
            )
    if asked.push_to_hub is None:
        return
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise BadSettings(
            "push_to_hub needs the hub, and HF_HUB_OFFLINE is set: unset it, or leave "
            "push_to_hub out"
        )
    if huggingface_hub.get_token() is None:
        raise BadSettings(
            "push_to_hub needs a token that may write: set HF_TOKEN, or run `hf auth "
            "login`; huggingface.co/settings/tokens makes one"
        )


@contextmanager
def reporting(asked: Settings, stage: str = "") -> Iterator[Report | None]:
    """Give what takes each row of a history to the trackers, in the main process.

    Args:
        stage: of several that one file asks for, told apart by it.
    """
    if not asked.report_to or not processes().is_main_process:
        yield None
        return
    out = Path(asked.out)
    name = f"{out.name}-{stage}" if stage else out.name
    trackers = [_started(kind, name, out) for kind in asked.report_to]
    for tracker in trackers:
        tracker.store_init_configuration(_plain(asdict(asked)))

    def report(row: dict[str, float]) -> None:
        for tracker in trackers:
            tracker.log(row, step=int(row["step"]))

    try:
        yield report
    finally:
        for tracker in trackers:
            tracker.finish()


def _started(kind: str, name: str, out: Path) -> Any:
    cls = LOGGER_TYPE_TO_CLASS[kind]
    tracker = cls(name, str(out)) if cls.requires_logging_directory else cls(name)
    if hasattr(tracker, "start"):  # older ones start by themselves
        tracker.start()
    return tracker


def _plain(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    """A nested table as one of plain values, which is what trackers take."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= _plain(value, f"{above}{key}.")
        elif value is None or isinstance(value, bool | int | float | str):
            found[above + key] = value
        else:
            found[above + key] = str(value)
    return found


def push(asked: Settings) -> str | None:
    """Upload the folder, without its checkpoint; give the address, if it was asked for.

    Raises:
        BadSettings: the hub refused it; the folder holds all of it.
    """
    if asked.push_to_hub is None:
        return None
    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(asked.push_to_hub, exist_ok=True)
        api.upload_folder(
            folder_path=asked.out,
            repo_id=asked.push_to_hub,
            ignore_patterns=["checkpoint/*", "*/checkpoint/*"],
        )
    except Exception as error:  # whatever network and hub come up with
        raise BadSettings(
            f"{asked.push_to_hub} could not be uploaded: {str(error)[:300]}. The model "
            f"is in {asked.out}; to try again: hf upload {asked.push_to_hub} "
            f"{asked.out}"
        ) from error
    return str(address)
