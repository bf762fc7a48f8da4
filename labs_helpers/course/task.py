"""The task that a profile names: the embedded world, or a preference set and its judge.

A profile comes in, a `Task` goes out, its data read and its models not yet loaded.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from labs_helpers.common.files import write_atomically
from labs_helpers.course.profile import MEASURES, Profile, short_name
from labs_helpers.course.results import results_folder
from labs_helpers.data import (
    SPLITS,
    Judge,
    Preference,
    Task,
    Unpaired,
    load_capability,
    load_preferences,
    task_from_preferences,
)
from labs_helpers.data.task import JUDGE
from labs_helpers.evaluation import Estimate, RewardJudge, load_judge
from labs_helpers.evaluation.fitted import BATCH_SIZE, drop_upper_layers, fit_head
from labs_helpers.fit.identity import digest
from labs_helpers.models import RewardModel, load_policy, load_tokenizer
from labs_helpers.safety import load_suites

# A little less than English text has with today's tokenizers.
CHARACTERS_PER_TOKEN = 3.5
# Of a trunk's layers: the upper ones are about the next token, and cost as much.
KEPT_LAYERS = 1 / 2


def load_task(profile: Profile, max_length: int | None = None) -> Task:
    """Build the task that a profile names: the embedded world, or a preference set.

    Args:
        profile: names the data, and what measures models on it.
        max_length: of a preference set, rows with about more tokens are left out: one
            long conversation takes as much memory as a whole batch of others.
    """
    if profile.embedded:
        # Reads all of the world's knowledge, which real data has no use for.
        from labs_helpers.world.task import town_task

        if given := [name for name in MEASURES if getattr(profile, name)]:
            names = " and ".join(f"LABS_{name.upper()}" for name in given)
            print(f"{names} not used: for data of yours, which LABS_DATA names.")
        return town_task()
    name = short_name(profile.data, 2)
    rows = load_preferences(profile.data, every_aspect=True)
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
    judge = LabJudge(profile, task.preferences(JUDGE))
    suites, questions = profile.suites, profile.capability
    return replace(
        task,
        judge=judge if profile.judge or judge.pairs else None,
        suites=load_suites(suites) if suites else {},
        capability=load_capability(questions) if questions else None,
    )


class LabJudge:
    """What LABS_JUDGE names or, without it, a reward model fitted on pairs set aside.

    Loaded or fitted when it first compares. It says what it is and how good, and how
    often a verdict turned with the order of the answers.

    Attributes:
        pairs: that no training sees.
    """

    def __init__(self, profile: Profile, pairs: Sequence[Preference]):
        self._profile = profile
        self.pairs = pairs

    def compare(
        self, prompts: Sequence, a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers prompt by prompt: 1 where `a` wins, 0.5 a tie, 0 `b`."""
        if not hasattr(self.judge, "both_orders"):
            return self.judge.compare(prompts, a, b)
        said = self.judge.both_orders(prompts, a, b)
        turns = said.disagreement
        weak = ": LABS_JUDGE is too weak a judge" if turns.value > 0.5 else ""
        print(f"The verdict turns with the order, a tie, in {turns}{weak}.")
        return said.outcomes

    @cached_property
    def judge(self) -> Judge:
        """The judge itself."""
        if self._profile.judge:
            print(f"Judge: {self._profile.judge}.")
            return load_judge(self._profile.judge)
        started, name = time.perf_counter(), self._profile.model
        tokenizer = load_tokenizer(name)
        model = RewardModel.from_policy(load_policy(name), tokenizer=tokenizer)
        drop_upper_layers(model.trunk, KEPT_LAYERS)
        accuracy, way = self._fit(model)
        seconds = f"{time.perf_counter() - started:.0f} s"
        coin = "" if accuracy.low > 0.5 else ": no better than a coin, so far"
        print(
            f"Judge: a linear head on {short_name(name)}, {way} {len(self.pairs)} "
            f"pairs that nothing else is trained on ({seconds}). Of those held out of "
            f"the fit it ranks {accuracy} right{coin}."
        )
        return RewardJudge(model, batch_size=BATCH_SIZE)

    def _fit(self, model: RewardModel) -> tuple[Estimate, str]:
        """Fit the head, or take what an earlier lab has fitted on the same."""
        known = digest([model.trunk.state_dict(), self.pairs, KEPT_LAYERS])
        path = results_folder() / "judges" / f"{known.split()[-1][:16]}.json"
        try:
            found = json.loads(path.read_text())
            weights = torch.tensor([found["weights"]])
            model.head.load_state_dict({"weight": weights})
            return Estimate(**found["accuracy"]), "fitted before on"
        except (OSError, ValueError, LookupError, TypeError, RuntimeError):
            pass
        accuracy = fit_head(model, self.pairs)
        [weights] = model.head.weight.tolist()
        found = {"weights": weights, "accuracy": vars(accuracy)}
        with suppress(OSError):  # it is fitted again then
            write_atomically(path, json.dumps(found))
        return accuracy, "fitted on"


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
