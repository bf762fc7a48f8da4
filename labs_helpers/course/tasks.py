"""The task that a profile names: the embedded world, or a preference set."""

import gzip
import zlib
from pathlib import Path

from labs_helpers.course.profile import Profile, short_name
from labs_helpers.data import load_hh, load_preferences
from labs_helpers.task import Task, task_from_preferences


def load_task(profile: Profile) -> Task:
    """Build the task that a profile names: the embedded world, or a preference set."""
    if profile.embedded:
        # Reads all of the world's knowledge, which real data has no use for.
        from labs_helpers.world.task import town_task

        return town_task()
    load = load_hh if _holds_dialogues(profile.data) else load_preferences
    rows = load(profile.data)
    return task_from_preferences(rows, short_name(profile.data, 2), seed=profile.seed)


def _holds_dialogues(data: str) -> bool:
    """Whether a file has whole dialogues for answers, as Anthropic's HH does."""
    path = Path(data)
    if not path.is_file():
        return False
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace") as file:
            line = file.readline()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False  # load_preferences reports it
    return '"prompt"' not in line and "Human:" in line
