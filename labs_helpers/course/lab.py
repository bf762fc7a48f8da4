"""A lab as its notebook sees it: set-up, claims, predictions, checks, report.

`start` prepares a session and returns the `Lab`. What a claim is, how an answer is
checked and what the report looks like are other modules' business.
"""

import contextlib
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from labs_helpers.course import own_model
from labs_helpers.course.exercises import (
    CheckFailed,
    Diagnosis,
    Exercise,
    check,
    exercises_of,
    is_lent,
    lend,
    unchanged,
    undefined,
)
from labs_helpers.course.figures import show, slide
from labs_helpers.course.needs import require
from labs_helpers.course.profile import Profile, load_profile
from labs_helpers.course.results import (
    Claim,
    ExerciseResult,
    Report,
    difference,
    merge_results,
    peak_memory_gb,
    results_folder,
    words,
)
from labs_helpers.course.task import load_task
from labs_helpers.data import Task
from labs_helpers.models import RewardModel, default_device_and_dtype
from labs_helpers.safety import ModelCard

LABS = {
    1: "Reward models",
    2: "Direct preference optimisation",
    3: "Reinforcement learning from human feedback",
    4: "Constitutional AI",
}
TITLES = {
    "0": "Primer",
    **{str(number): f"Lab {number} · {about}" for number, about in LABS.items()},
    **{f"further/{n}": f"Lab {n}, further · {about}" for n, about in LABS.items()},
}
PACKAGES = ("alignment-labs", "torch", "transformers", "peft", "trl", "datasets")


def start(name: int | str) -> "Lab":
    """Set up a notebook: seeds, profile and device; prints what it found.

    Args:
        name: of a lab its number, 0 of the primer, "further/1" of Lab 1's studies.
    """
    if str(name) not in TITLES:
        raise ValueError(
            f"There is no lab {name!r}: choose one of {', '.join(TITLES)}."
        )
    profile = load_profile()
    set_seed(profile.seed)
    # Bars and reports for every small model that is loaded would drown the lab's own
    # output; peft 0.21 asks transformers 5 by an attribute's old name.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
    lab = Lab(str(name), profile)
    if lab.number:
        require(profile)
    versions = lab.versions
    print(f"{lab.title} · profile {profile.title} · seed {profile.seed}")
    print(" · ".join(f"{name} {versions[name]}" for name in list(versions)[:4]))
    print(default_device_and_dtype().reason)
    return lab


class Lab:
    """One session of one lab. Get yours from `start`.

    Attributes:
        name: that `start` was given.
        number: whose exercises and sizes it has; 0 for a notebook without, which
            is the same under every profile.
        namespace: where answers are looked up by name: the notebook's, or what
            Python itself runs.
    """

    def __init__(self, name: str, profile: Profile):
        self.name = name
        self.number = int(name) if name.isdecimal() else 0
        self.profile = profile
        self.namespace = _namespace()
        self._started = time.perf_counter()
        self._claims: dict[str, Claim] = {}
        self._exercises = exercises_of(self.number)
        self._diagnoses: dict[str, Diagnosis] = {}
        self._attempts: dict[str, int] = {}
        self._predictions: dict[str, tuple[Any, Any]] = {}

    @property
    def title(self) -> str:
        """Number and name."""
        return TITLES[self.name]

    @property
    def sizes(self) -> Any:
        """Sizes of this lab in this profile: `lab.sizes.batch_size`."""
        return self.profile.sizes(self.number)

    @property
    def precision(self) -> torch.dtype:
        """Of a policy to branch: float32, or the device's own under adapters."""
        adapters = self.sizes.get("lora_rank")
        return default_device_and_dtype().dtype if adapters else torch.float32

    @property
    def versions(self) -> dict[str, str]:
        """Versions of what computes the results."""
        found = {"python": platform.python_version()}
        for package in PACKAGES:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[package] = metadata.version(package)
        return found

    @property
    def folder(self) -> Path:
        """Where the lab leaves what it writes, as seen from here."""
        return Path(os.path.relpath(results_folder()))

    @cached_property
    def task(self) -> Task:
        """What is to be aligned, by the profile. Built when first asked for."""
        return load_task(self.profile, self.sizes.get("max_length"))

    def needs(self, *measures: str) -> bool:
        """Say whether the task has these; if not, in a line how to get the first.

        Args:
            measures: truth, judge, capability, heads (more than one), or a suite.
        """
        missing = self.task.missing(*measures)
        if missing:
            print(missing)
        return not missing

    def needs_truth(self) -> bool:
        """Say whether the task knows the true reward, in one line if it does not."""
        return self.needs("truth")

    # The student's own reward model

    def keep_reward_model(self, model: RewardModel, card: ModelCard) -> None:
        """Save the student's own reward model with its card, for later labs."""
        folder = own_model.keep(model, card, self.profile)
        print(f"Your reward model and its card are in {os.path.relpath(folder)}.")

    def own_reward_model(self) -> RewardModel | None:
        """Load what Lab 1 kept with this profile, model and data, and say so."""
        folder = own_model.kept(self.profile)
        if folder is None:
            print("No reward model of your own: Lab 1 keeps one for this profile.")
            return None
        print(f"Your own reward model of Lab 1, {os.path.relpath(folder)}.")
        return RewardModel.from_pretrained(folder)

    # Claims and predictions

    def claim(
        self,
        id: str,
        value: Any,
        *,
        text: str,
        at_least: float | None = None,
        at_most: float | None = None,
        ci: tuple[float, float] | None = None,
        goal: bool = False,
    ) -> None:
        """State a measured claim and print it with its verdict.

        Args:
            id: names the claim in results.json; claiming it again replaces it.
            value: a number, or an estimate with `value` and `ci`.
            text: the sentence.
            at_least: what the value, or the lower end of its interval, must reach.
            at_most: what the value, or the upper end, must not exceed.
            ci: the 95 % interval.
            goal: the bound is wanted and not reached yet: a miss is shown, no failure.
        """
        if hasattr(value, "ci"):
            value, ci = value.value, ci or value.ci
        claim = Claim(
            id,
            text,
            float(value),
            None if ci is None else (float(ci[0]), float(ci[1])),
            None if at_least is None else float(at_least),
            None if at_most is None else float(at_most),
            self.profile.judge_claims or not self.number,
            goal,
        )
        self._claims[id] = claim
        reason = "" if claim.judged else f" (profile {self.profile.name})"
        print(f"Claim: {claim.text}")
        print(f"  {claim.measured} · {claim.bound}: {claim.verdict}{reason}")

    def predict(self, key: str, *expected: Any) -> None:
        """Write down what you expect, before the experiment; None: nothing yet."""
        value = expected[0] if len(expected) == 1 else None
        self._predictions[key] = (value, None)
        if len(expected) > 1:
            print("A prediction is one value, a number with a point: 0.5, not 0,5.")
        elif value is None:
            print("No prediction yet: write yours in place of None.")
        else:
            print(f"Noted. You predict {words(value)}.")

    def compare(self, key: str, outcome: Any) -> None:
        """Show the outcome beside the prediction of the same key."""
        if key not in self._predictions and self.profile.strict:
            made = ", ".join(map(repr, self._predictions)) or "none yet"
            raise KeyError(f"no prediction {key!r}; there are: {made}")
        predicted, _ = self._predictions.get(key, (None, None))
        self._predictions[key] = (predicted, outcome)
        if predicted is None:
            print(f"It is {words(outcome)}. You made no prediction.")
        else:
            print(
                f"You predicted {words(predicted)}; it is {words(outcome)}"
                f"{difference(predicted, outcome)}."
            )

    # Exercises

    def check(
        self, id: str, answer: Any = None, *, seed: int | None = None
    ) -> Callable[..., Any]:
        """Check an exercise and return the function that the lab goes on with.

        It is yours when it is right, the reference otherwise. Every attempt meets new
        random inputs; the same attempt in a new session meets the same ones.

        Args:
            id: of the exercise, such as "1.2".
            answer: your function; if left out, what has its name in the notebook.
            seed: of the inputs, in place of the attempt's.
        """
        exercise = self._exercise(id)
        problem = None
        if answer is None:
            answer, problem = self._look_up(exercise)
        if is_lent(answer):
            print(
                f"{id} · {exercise.title}: this is the reference that the lab lent "
                "you. Run the cell with your own function, then check again."
            )
            return answer
        self._attempts[id] = self._attempts.get(id, 0) + 1
        if seed is None:
            seed = 1000 * self.profile.seed + self._attempts[id]
        diagnosis = problem or check(exercise, answer, seed=seed)
        self._diagnoses[id] = diagnosis
        print(f"{id} · {exercise.title}: {diagnosis}")
        if diagnosis.correct:
            return answer
        if self.profile.strict:
            raise CheckFailed(f"{id} · {exercise.title}: {diagnosis.message}")
        print("The lab goes on with the reference implementation.")
        return lend(exercise)

    def _look_up(self, exercise: Exercise) -> tuple[Any, Diagnosis | None]:
        """The answer by its name in the notebook, or what is to be said without one."""
        try:
            answer = self.namespace[exercise.name]
        except KeyError:
            return None, undefined(exercise)
        # What is to be repaired stays under this name beside the answer.
        given = self.namespace.get(f"buggy_{exercise.name}")
        if callable(given) and answer is given:
            return answer, unchanged(exercise)
        return answer, None

    @property
    def diagnoses(self) -> dict[str, Diagnosis]:
        """What the last check of each exercise found."""
        return dict(self._diagnoses)

    def points(self, id: str) -> float:
        """Points of the last check of an exercise: the last value of a graded cell."""
        self._exercise(id)
        return self._diagnoses[id].points if id in self._diagnoses else 0.0

    def _exercise(self, id: str) -> Exercise:
        if id not in self._exercises:
            raise KeyError(
                f"lab {self.number} has no exercise {id!r}; it has "
                f"{', '.join(self._exercises) or 'none'}"
            )
        return self._exercises[id]

    # Figures and report

    show = staticmethod(show)
    slide = staticmethod(slide)

    def report(self) -> Report:
        """Write results.json and return the table of claims and exercises."""
        seconds = time.perf_counter() - self._started
        claims = list(self._claims.values())
        exercises = [self._result(id) for id in self._exercises]
        memory = peak_memory_gb()
        entry = {
            "seconds": round(seconds, 1),
            "peak_memory_gb": memory,
            "claims": [claim.to_json() for claim in claims],
            "exercises": [row.to_json() for row in exercises],
        }
        header = {
            "profile": self.profile.name,
            "versions": self.versions,
            "device": _device(),
        }
        closing = f"{seconds / 60:.1f} minutes" if seconds > 90 else f"{seconds:.0f} s"
        if memory is not None:
            closing += f", at most {memory:.1f} GB of memory"
        try:
            path = merge_results(results_folder(), self.name, entry, header)
            closing += f". Written to {os.path.relpath(path)}."
        except (OSError, ValueError) as error:
            closing += f". Not saved: {error}"
        predictions = [
            (key, words(value), words(outcome))
            for key, (value, outcome) in self._predictions.items()
        ]
        title = f"{self.title} · profile {self.profile.name}"
        return Report(title, claims, exercises, predictions, closing)

    def _result(self, id: str) -> ExerciseResult:
        exercise, diagnosis = self._exercises[id], self._diagnoses.get(id)
        name = "not checked" if diagnosis is None else diagnosis.name
        possible = float(exercise.points)
        return ExerciseResult(id, exercise.title, self.points(id), possible, name)


def _namespace() -> Mapping[str, Any]:
    ipython = sys.modules.get("IPython")  # not loaded, it runs nothing
    shell = None if ipython is None else ipython.get_ipython()
    return vars(sys.modules["__main__"]) if shell is None else shell.user_ns


def _device() -> str:
    hardware = default_device_and_dtype()
    if hardware.device.type == "cpu":
        return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return torch.cuda.get_device_name()
