"""The task that a profile names: the embedded world, or a preference set."""

import gzip
import zlib
from pathlib import Path

from labs_helpers.course.profile import Profile, short_name
from labs_helpers.data import (
    Preference,
    Unpaired,
    as_messages,
    load_hh,
    load_preferences,
)
from labs_helpers.task import Task, task_from_preferences

# A little less than English text has with today's tokenizers.
CHARACTERS_PER_TOKEN = 3.5


def load_task(profile: Profile, max_length: int | None = None) -> Task:
    """Build the task that a profile names: the embedded world, or a preference set.

    Args:
        profile: names the data.
        max_length: of a preference set, rows with about more tokens are left out: one
            long conversation takes as much memory as a whole batch of others.
    """
    if profile.embedded:
        # Reads all of the world's knowledge, which real data has no use for.
        from labs_helpers.world.task import town_task

        return town_task()
    load = load_hh if _holds_dialogues(profile.data) else load_preferences
    rows, name = load(profile.data), short_name(profile.data, 2)
    if max_length is not None:
        limit = max_length * CHARACTERS_PER_TOKEN
        fitting = [row for row in rows if _characters(row) <= limit]
        print(f"{name}: {len(fitting)} of {len(rows)} rows fit in {max_length} tokens")
        rows = fitting
    return task_from_preferences(rows, name, seed=profile.seed)


def _characters(row: Preference | Unpaired) -> int:
    """The length of the prompt with its longer answer."""
    if isinstance(row, Preference):
        answers = (row.chosen, row.rejected)
    else:
        answers = (row.completion,)
    prompt, *answers = (
        sum(len(message["content"]) for message in as_messages(text))
        for text in (row.prompt, *answers)
    )
    return prompt + max(answers)


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
