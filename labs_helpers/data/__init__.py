"""Preferences, prompts and tasks: what they are, reading, checking and writing them."""

# fmt: off
from labs_helpers.data.preferences import (
    as_rows, by_prompt, check_preferences, duplicates, from_trl, leaks,
    load_preferences, read_prompts, save_preferences, split, to_trl,
)
from labs_helpers.data.rows import Preference, Unpaired
from labs_helpers.data.messages import BadMessages, Message, as_messages
from labs_helpers.data.report import BadPreferences, PreferenceReport
from labs_helpers.data.files import BadFile
from labs_helpers.data.task import (
    Judge, Probe, Prompt, SPLITS, Task, Truth, task_from_preferences,
)
from labs_helpers.data.capability import load_capability
