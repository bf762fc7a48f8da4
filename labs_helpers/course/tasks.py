"""The task that a profile names: the embedded world, or a preference set."""

from labs_helpers.course.profile import Profile, short_name
from labs_helpers.data import (
    SPLITS,
    Preference,
    Task,
    Unpaired,
    load_preferences,
    task_from_preferences,
)

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
    rows, name = load_preferences(profile.data), short_name(profile.data, 2)
    if max_length is not None:
        limit = max_length * CHARACTERS_PER_TOKEN
        fitting = [row for row in rows if _characters(row) <= limit]
        print(f"{name}: {len(fitting)} of {len(rows)} rows fit in {max_length} tokens")
        rows = fitting
    task = task_from_preferences(rows, name, seed=profile.seed)
    empty = [part for part in SPLITS if not task.preferences(part)]
    if empty:
        raise ValueError(
            f"{name} has {len(rows)} rows that can be used, which leaves none for "
            f"{' and '.join(empty)}: the labs need 10 or more, to as many prompts"
        )
    return task


def _characters(row: Preference | Unpaired) -> int:
    """The length of the prompt with its longer answer."""
    if isinstance(row, Preference):
        answers = (row.chosen, row.rejected)
    else:
        answers = (row.completion,)
    prompt, *answers = (
        sum(len(message["content"]) for message in messages)
        for messages in (row.prompt, *answers)
    )
    return prompt + max(answers)
