"""The student's own reward model: Lab 1 keeps it, later labs go on with it.

It lies in the labs' folder as `RewardModel.save_pretrained` writes it, with a card for
people (README.md) and what it was made with, so that no other profile takes it.
"""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from labs_helpers.course.profile import Profile, short_name
from labs_helpers.course.results import results_folder
from labs_helpers.models import RewardModel
from labs_helpers.safety import ModelCard

NAME = "my_reward_model"
MADE_WITH = "made_with.json"


def keep(model: RewardModel, card: ModelCard, profile: Profile) -> Path:
    """Save a reward model with its card, in place of an earlier one; gives the folder.

    Raises:
        OSError: it cannot be written; an earlier one stays as it is.
    """
    folder = results_folder() / NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".labs."))
    try:
        model.save_pretrained(unfinished)
        (unfinished / "README.md").write_text(card.to_markdown(), encoding="utf-8")
        (unfinished / MADE_WITH).write_text(json.dumps(_made_with(profile)) + "\n")
        if folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".labs."))
            os.replace(folder, old / NAME)
            shutil.rmtree(old)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def kept(profile: Profile) -> Path | None:
    """The folder of a reward model that was kept with this profile, model and data."""
    folder = results_folder() / NAME
    with suppress(OSError, ValueError):
        if json.loads((folder / MADE_WITH).read_text()) == _made_with(profile):
            return folder
    return None


def _made_with(profile: Profile) -> dict[str, str]:
    data = short_name(profile.data, 2) if profile.data else "embedded world"
    model = short_name(profile.model)
    return {"profile": profile.name, "model": model, "data": data}
