"""Mistakes that people make in every exercise, told by their symptoms.

Messages say what a symptom means and where to look, not what to write.
"""

from collections.abc import Callable
from typing import Any

from labs_helpers.course.exercises.exercise import Exercise, Finding
from labs_helpers.course.exercises.symptoms import form, places, values
from labs_helpers.course.exercises.trials import Trials

Symptoms = dict[str, Callable[[Exercise, Any, Trials], str | None]]

# The first symptom that speaks is the diagnosis.
FORM: Symptoms = {
    "leaves torch": form.leaves_torch,
    "raises an error": form.raises,
    "another kind of result": form.other_kind,
    "is random": form.is_random,
}
WRONG_VALUES: Symptoms = {
    "an axis too many": form.extra_axis,
    "broadcast": form.squared,
    "not reduced": form.not_reduced,
    "another shape": form.other_shape,
    "whole numbers": values.whole_numbers,
    "half precision": values.half_precision,
    "never finite": values.never_finite,
    "lets padding in": values.lets_padding_in,
    "unstable": values.unstable,
    "too few digits": values.too_few_digits,
    "constant": values.constant,
    "opposite sign": values.opposite_sign,
    "sum for mean": values.sum_for_mean,
    "constant factor": values.constant_factor,
    "changes its input": values.changes_input,
    "a function of the right result": places.function_of_it,
    "values in other places": places.other_places,
}
RIGHT_VALUES: Symptoms = {
    "changes its input": values.changes_input,
    "no gradient": values.no_gradient,
    "another gradient": values.other_gradient,
    "another dtype": values.other_dtype,
}
# Those that know only where to look: an input on which the answer is wrong says more.
PLACES: Symptoms = {
    "one of several results": places.one_result,
    "an input without effect": places.no_effect,
    "padding takes part": places.padding_takes_part,
    "a special case": places.special_case,
    "one number's part": places.part_of_a_number,
    "rows mix": places.one_row,
    "one input's part": places.part_of_an_input,
}


def unfinished(trials: Trials) -> Finding | None:
    """Tell an answer that was never written or never returned."""
    seen = [trial.seen for trial in trials]
    if any(isinstance(note.error, NotImplementedError) for note in seen):
        return Finding(
            "not written yet",
            "the function still raises NotImplementedError. Write your code in place "
            "of that line.",
        )
    if all(note.kind == "ellipsis" for note in seen):
        return Finding("not written yet", "the function still returns `...`.")
    if any(note.error is not None or note.kind != "None" for note in seen):
        return None
    if any(note.printed for note in seen):
        return Finding(
            "prints its result",
            "the function prints and returns nothing, so nobody can compute with its "
            "result.",
        )
    return Finding(
        "returns nothing", "the function ends without a return, so its result is None."
    )


def general(exercise: Exercise, answer: Any, trials: Trials) -> Finding | None:
    """Find the first symptom of a mistake that belongs to no exercise."""
    right = all(trial.right_value for trial in trials)
    symptoms = FORM | (RIGHT_VALUES if right else WRONG_VALUES | PLACES)
    for name, symptom in symptoms.items():
        message = symptom(exercise, answer, trials)
        if message is not None:
            return Finding(name, message)
    return None
