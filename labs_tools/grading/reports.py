"""What comes of grading: grades.csv, feedback for each student, a report on the class.

In go entries, out come files. Everything that a submission wrote is escaped.
"""

import base64
import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from labs_helpers.common.files import write_atomically
from labs_helpers.common.html import page, render, table
from labs_helpers.plots.style import COLOURS, GREY, new_figure, style, styled
from labs_tools.grading.scoring import Result, Score

CLAIM_COLUMNS = ("claim", "measured", "bound", "verdict")
OWN_COLUMNS = ("student", "lab", "profile", *CLAIM_COLUMNS, "re_executed")
EARNED_COLUMNS = ("exercise", "points", "max_points", "diagnosis")
COLUMNS = ("student", "lab", *EARNED_COLUMNS, "flags", "file")
CORRECTED = "points by hand"
MOST_MISTAKES = 15
MOST_CODE = 20_000


@dataclass
class Entry:
    """A student's work on a lab, graded or refused.

    Attributes:
        student: as people write the name.
        file: that counts; empty where there is none.
        result: what came of it, with a score for every exercise.
        key: of the result.
    """

    student: str
    file: str
    result: Result
    key: str = ""

    @property
    def earned(self) -> float:
        """Points of all exercises."""
        return sum(score.points or 0 for score in self.result.scores)

    @property
    def possible(self) -> float:
        """Points that could be earned."""
        return sum(score.max_points for score in self.result.scores)

    def take(self, points: Mapping[str, float | None]) -> None:
        """Take points from the gradebook, where people may have changed them."""
        scores = self.result.scores
        for i, score in enumerate(scores):
            taken = points.get(score.grade_id, score.points)
            if taken != score.points:
                flags = list(dict.fromkeys([*score.flags, CORRECTED]))
                scores[i] = replace(score, points=taken, flags=flags)


def write(entries: Sequence[Entry], out: Path, workspace: Path, no_wall: str) -> None:
    """Write all that people read: grades to `out`, the rest to `workspace`.

    Args:
        no_wall: why submissions did not run apart; empty where they did.
    """
    write_atomically(out, grades_csv(entries))
    write_atomically(workspace / "own_runs.csv", own_runs_csv(entries))
    feedback = workspace / "feedback"
    feedback.mkdir(exist_ok=True)
    for student in dict.fromkeys(entry.student for entry in entries):
        own = [entry for entry in entries if entry.student == student]
        html = feedback_html(student, own)
        write_atomically(feedback / f"{identifier(student)}.html", html)
    picture = io.BytesIO()
    with style():
        common_mistakes(entries).savefig(picture, format="png")
    (workspace / "mistakes.png").write_bytes(picture.getvalue())
    html = class_html(entries, picture.getvalue(), no_wall)
    write_atomically(workspace / "report.html", html)


def identifier(student: str) -> str:
    """Turn a name into one that every file system takes; different names stay so."""
    plain = re.sub(r"[^a-z0-9.-]+", "-", student.lower()).strip("-.")[:40] or "student"
    if plain == student and not re.search(r"-[0-9a-f]{10}$", plain):
        return plain
    return f"{plain}-{hashlib.sha256(student.encode()).hexdigest()[:10]}"


# Tables


def grades_csv(entries: Sequence[Entry]) -> str:
    """One row for each student, lab and exercise."""
    rows = []
    for entry in entries:
        result, common = entry.result, (entry.student, entry.result.lab or "")
        if not result.scores:
            nothing = (0, 0, result.refused, "; ".join(result.flags))
            rows.append((*common, "", *nothing, entry.file))
        for score in result.scores:
            points = "" if score.points is None else f"{score.points:g}"
            flags = "; ".join(dict.fromkeys([*result.flags, *score.flags]))
            earned = (score.exercise, points, f"{score.max_points:g}")
            rows.append((*common, *earned, score.diagnosis, flags, entry.file))
    return _csv(COLUMNS, rows)


def own_runs_csv(entries: Sequence[Entry]) -> str:
    """Claims as the students' own runs state them."""
    runs = [(entry, entry.result.own) for entry in entries if entry.result.own]
    rows = [
        (entry.student, entry.result.lab, own.profile, *claim, "no")
        for entry, own in runs
        for claim in own.claims
    ]
    return _csv(OWN_COLUMNS, rows)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue()


def _cell(value: object) -> object:
    """Keep spreadsheets from taking a name for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


# Pages

FEEDBACK = """\
<h1>{{ student }}</h1>
{% for entry in entries %}
{% set result = entry.result %}
<h2>{{ "Lab %s" % result.lab if result.lab else "A file" }}: \
{{ "%g of %g" % (entry.earned, entry.possible) }} points</h2>
{% if entry.file %}<p class="quiet">{{ entry.file }}</p>{% endif %}
{% if result.refused %}
<p class="wrong">Not graded. {{ result.refused }}: {{ result.message }}</p>
{% else %}
{{ noted(result.flags) }}
{% for score in result.scores %}
<h3 class="{{ "right" if score.points == score.max_points else "wrong" }}">\
{{ score.exercise }} · {{ score.title }}: \
{{ "?" if score.points is none else "%g" % score.points }} of \
{{ "%g" % score.max_points }}</h3>
{% if score.message %}<pre>{{ score.message }}</pre>
{% else %}<p>{{ score.diagnosis }}</p>{% endif %}
{{ noted(score.flags) }}
{% if result.answers.get(score.solution) %}
<details><summary>Your code</summary>\
<pre>{{ result.answers[score.solution][:most_code] }}</pre></details>
{% endif %}
{% endfor %}
{% if result.own %}
<p>Your own run, on profile {{ result.own.profile }}, says \
{{ result.own.points or "nothing of points" }}. It was read and not run again.</p>
{% if result.own.claims %}{{ table(claim_columns, result.own.claims) }}{% endif %}
{% endif %}
{% endif %}
{% endfor %}
"""
NOTED = """\
{% macro noted(flags) %}
{% if flags %}<p class="quiet">Noted: {{ flags | join("; ") }}</p>{% endif %}
{% endmacro %}
"""
CLASS = """\
<h1>How the class did</h1>
{% if no_wall %}
<p class="wrong">Submissions did not run apart: {{ no_wall }}. Their code could read \
files of this computer.</p>
{% endif %}
{{ table(("lab", "exercise", "", "full points", "mean points"), exercises) }}
<h2>Common mistakes</h2>
<img alt="Common mistakes" src="data:image/png;base64,{{ picture }}">
{{ table(("exercise", "mistake", "students"), mistakes) }}
<h2>Worth a look</h2>
{{ table(("student", "lab", "exercise", "flags", "file"), flagged) }}
<h2>Students</h2>
{{ table(("student", "lab", "points", "of"), totals) }}
"""


def feedback_html(student: str, entries: Sequence[Entry]) -> str:
    """Write what a student needs to know: points, diagnoses, own code."""
    body = render(
        NOTED + FEEDBACK,
        student=student,
        entries=entries,
        table=table,
        claim_columns=CLAIM_COLUMNS,
        most_code=MOST_CODE,
    )
    return page(student, body)


def class_html(entries: Sequence[Entry], picture: bytes, no_wall: str) -> str:
    """Write how the class did: points, common mistakes, what deserves a look."""
    body = render(
        CLASS,
        no_wall=no_wall,
        exercises=_exercises(entries),
        picture=base64.b64encode(picture).decode(),
        mistakes=_mistakes(entries),
        flagged=_flagged(entries),
        totals=[
            (e.student, e.result.lab or "", f"{e.earned:g}", f"{e.possible:g}")
            for e in entries
        ],
        table=table,
    )
    return page("How the class did", body)


def _exercises(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    found: dict[tuple[int, str, str], list[Score]] = {}
    for entry in entries:
        if entry.file and not entry.result.refused:
            for score in entry.result.scores:
                key = (entry.result.lab, score.exercise, score.title)
                found.setdefault(key, []).append(score)
    rows = []
    for key, scores in found.items():
        right = sum(score.points == score.max_points for score in scores)
        mean = sum(score.points or 0 for score in scores) / len(scores)
        points = f"{mean:.2f} of {scores[0].max_points:g}"
        rows.append((*key, f"{right} of {len(scores)}", points))
    return rows


def _mistakes(entries: Sequence[Entry]) -> list[tuple[str, str, int]]:
    """Exercise, diagnosis and number of students, the most common first."""
    counts = Counter(
        (score.exercise, score.diagnosis)
        for entry in entries
        if not entry.result.refused
        for score in entry.result.scores
        if score.points is not None and score.points < score.max_points
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(exercise, name, count) for (exercise, name), count in ordered]


def _flagged(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    return [
        (entry.student, entry.result.lab or "", exercise, "; ".join(flags), entry.file)
        for entry in entries
        for exercise, flags in (
            ("", entry.result.flags),
            *((score.exercise, score.flags) for score in entry.result.scores),
        )
        if flags
    ]


# The figure


@styled
def common_mistakes(entries: Sequence[Entry]) -> Figure:
    """Draw the most common mistakes, an exercise a colour."""
    rows = _mistakes(entries)[:MOST_MISTAKES][::-1]
    places, names = range(len(rows)), [f"{id} · {name}" for id, name, _ in rows]
    exercises = sorted({exercise for exercise, _, _ in rows})
    colours = [COLOURS[exercises.index(id) % len(COLOURS)] for id, _, _ in rows]
    figure, axes = new_figure(8.0, 1.4 + 0.32 * max(len(rows), 1))
    axes.barh(places, [count for _, _, count in rows], color=colours)
    axes.set_yticks(places, names)
    axes.set_xlabel("students")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", visible=False)
    if not rows:
        axes.text(0.5, 0.5, "no mistakes", color=GREY, transform=axes.transAxes)
    return figure
