"""What comes of grading: grades.csv, feedback for each student, a report on the class.

In go entries, out come files. Everything that a submission wrote is escaped.
"""

import base64
import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from labs_helpers.common.files import write_atomically
from labs_helpers.plots.style import COLOURS, GREY, new_figure, style
from labs_tools.grading.scoring import BY_HAND, Result, Score

COLUMNS = (
    *("student", "lab", "exercise", "points", "max_points", "diagnosis"),
    *("flags", "file"),
)
OWN_COLUMNS = (
    *("student", "lab", "profile", "claim", "measured", "bound", "verdict"),
    "re_executed",
)
CORRECTED = "points by hand"
MOST_MISTAKES = 15
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56em; margin: 2em auto;
  padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; margin: 1em 0 }}
th, td {{ text-align: left; vertical-align: top; padding: 0.3em 0.8em;
  border-bottom: 1px solid #ddd }}
pre {{ background: #f6f6f6; padding: 0.8em; overflow-x: auto; white-space: pre-wrap }}
.right {{ color: #1b7837 }} .wrong {{ color: #b2182b }} .quiet {{ color: #666 }}
img {{ max-width: 100% }}
</style></head><body>
{body}
</body></html>
"""


@dataclass
class Entry:
    """A student's work on a lab, graded or refused.

    Attributes:
        student: as people write the name.
        lab: its number; 0 where it cannot be told.
        title: name of the lab's notebook.
        file: that counts; empty where there is none.
        result: what came of it.
        scores: by exercise.
        flags: of the notebook as a whole.
        key: of the result.
    """

    student: str
    lab: int
    title: str
    file: str
    result: Result
    scores: list[Score]
    flags: list[str] = field(default_factory=list)
    key: str = ""

    def graded(self) -> Result:
        """The result with a score for every exercise, also where it was refused."""
        return replace(self.result, scores=self.scores)

    def take(self, points: Mapping[str, float | None]) -> None:
        """Take points from the gradebook, where people may have changed them."""
        for i, score in enumerate(self.scores):
            if score.grade_id not in points or points[score.grade_id] == score.points:
                continue
            flags = list(dict.fromkeys([*score.flags, CORRECTED]))
            taken = points[score.grade_id]
            self.scores[i] = replace(score, points=taken, flags=flags)


def write(entries: Sequence[Entry], out: Path, workspace: Path, no_wall: str) -> None:
    """Write all that people read.

    Args:
        entries: of all students and labs.
        out: grades.csv.
        workspace: for the rest.
        no_wall: why submissions did not run apart; empty where they did.
    """
    write_atomically(out, grades_csv(entries))
    write_atomically(workspace / "own_runs.csv", own_runs_csv(entries))
    feedback = workspace / "feedback"
    feedback.mkdir(exist_ok=True)
    for student in dict.fromkeys(entry.student for entry in entries):
        own = [entry for entry in entries if entry.student == student]
        page = feedback_html(student, own)
        write_atomically(feedback / f"{identifier(student)}.html", page)
    picture = _png(common_mistakes(entries))
    (workspace / "mistakes.png").write_bytes(picture)
    write_atomically(workspace / "report.html", class_html(entries, picture, no_wall))


def identifier(student: str) -> str:
    """Turn a name into one that every file system takes; different names stay so."""
    plain = re.sub(r"[^a-z0-9.-]+", "-", student.lower()).strip("-.")[:40] or "student"
    if plain == student:
        return plain
    return f"{plain}-{hashlib.sha256(student.encode()).hexdigest()[:6]}"


# Tables


def grades_csv(entries: Sequence[Entry]) -> str:
    """One row for each student, lab and exercise."""
    rows = []
    for entry in entries:
        common = (entry.student, entry.lab or "")
        if not entry.scores:
            nothing = (0, 0, entry.result.refused, "; ".join(entry.flags))
            rows.append((*common, "", *nothing, entry.file))
        for score in entry.scores:
            points = "" if score.points is None else f"{score.points:g}"
            flags = "; ".join(dict.fromkeys([*entry.flags, *score.flags]))
            earned = (score.exercise, points, f"{score.max_points:g}")
            rows.append((*common, *earned, score.diagnosis, flags, entry.file))
    return _csv(COLUMNS, rows)


def own_runs_csv(entries: Sequence[Entry]) -> str:
    """Claims as the students' own runs state them."""
    rows = [
        (entry.student, entry.lab, own["profile"], *claim, "no")
        for entry in entries
        if (own := entry.result.own) is not None
        for claim in own["claims"]
    ]
    return _csv(OWN_COLUMNS, rows)


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
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


def feedback_html(student: str, entries: Sequence[Entry]) -> str:
    """Write what a student needs to know: points, diagnoses, own code."""
    body = [f"<h1>{escape(student)}</h1>"]
    for entry in entries:
        body += _feedback(entry)
    return PAGE.format(title=escape(student), body="\n".join(body))


def _feedback(entry: Entry) -> Iterator[str]:
    earned = sum(score.points or 0 for score in entry.scores)
    possible = sum(score.max_points for score in entry.scores)
    lab = f"Lab {entry.lab}" if entry.lab else "A file"
    yield f"<h2>{lab}: {earned:g} of {possible:g} points</h2>"
    if entry.file:
        yield f'<p class="quiet">{escape(entry.file)}</p>'
    if entry.result.refused:
        words = f"{entry.result.refused}: {entry.result.message}"
        yield f'<p class="wrong">Not graded. {escape(words)}</p>'
        return
    if entry.flags:
        yield f'<p class="quiet">Noted: {escape("; ".join(entry.flags))}</p>'
    solutions = dict(entry.result.answers)
    for score in entry.scores:
        full = score.points == score.max_points
        points = "?" if score.points is None else f"{score.points:g}"
        title = escape(f"{score.exercise} · {score.title}")
        yield (
            f'<h3 class="{"right" if full else "wrong"}">{title}: {points} of '
            f"{score.max_points:g}</h3>"
        )
        if score.diagnosis == BY_HAND:
            yield "<p>This answer is graded by hand.</p>"
        elif score.message:
            yield f"<pre>{escape(score.message)}</pre>"
        else:
            yield f"<p>{escape(score.diagnosis)}</p>"
        if score.flags:
            yield f'<p class="quiet">Noted: {escape("; ".join(score.flags))}</p>'
        answer = solutions.get(score.solution)
        if answer:
            yield (
                f"<details><summary>Your code</summary><pre>{escape(answer[:20000])}"
                "</pre></details>"
            )
    if entry.result.own is not None:
        own = entry.result.own
        yield (
            f"<p>Your own run, on profile {escape(own['profile'])}, says "
            f"{escape(own['points'] or 'nothing of points')}. It was read and not run "
            "again.</p>"
        )
        if own["claims"]:
            yield _table(("claim", "measured", "bound", "verdict"), own["claims"])


def class_html(entries: Sequence[Entry], picture: bytes, no_wall: str) -> str:
    """Write how the class did: points, common mistakes, what deserves a look."""
    body = ["<h1>How the class did</h1>"]
    if no_wall:
        body.append(
            f'<p class="wrong">Submissions did not run apart: {escape(no_wall)}. Their '
            "code could read files of this computer.</p>"
        )
    body += _exercises(entries)
    data = base64.b64encode(picture).decode()
    body += [
        "<h2>Common mistakes</h2>",
        f'<img alt="Common mistakes" src="data:image/png;base64,{data}">',
        _table(("exercise", "mistake", "students"), _mistakes(entries)),
        "<h2>Worth a look</h2>",
        _table(("student", "lab", "exercise", "flags", "file"), _flagged(entries)),
        "<h2>Students</h2>",
        _table(("student", "lab", "points", "of"), _totals(entries)),
    ]
    return PAGE.format(title="How the class did", body="\n".join(body))


def _exercises(entries: Sequence[Entry]) -> Iterator[str]:
    handed_in = [e for e in entries if e.file and not e.result.refused]
    rows = []
    for (lab, exercise, title), scores in _by_exercise(handed_in).items():
        right = sum(score.points == score.max_points for score in scores)
        mean = sum(score.points or 0 for score in scores) / len(scores)
        points = f"{mean:.2f} of {scores[0].max_points:g}"
        rows.append((lab, exercise, title, f"{right} of {len(scores)}", points))
    yield _table(("lab", "exercise", "", "full points", "mean points"), rows)


def _by_exercise(
    entries: Sequence[Entry],
) -> dict[tuple[int, str, str], list[Score]]:
    found: dict[tuple[int, str, str], list[Score]] = {}
    for entry in entries:
        for score in entry.scores:
            key = (entry.lab, score.exercise, score.title)
            found.setdefault(key, []).append(score)
    return found


def _mistakes(entries: Sequence[Entry]) -> list[tuple[str, str, int]]:
    """Exercise, diagnosis and number of students, the most common first."""
    counts = Counter(
        (score.exercise, score.diagnosis)
        for entry in entries
        if not entry.result.refused
        for score in entry.scores
        if score.points is not None and score.points < score.max_points
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(exercise, name, count) for (exercise, name), count in ordered]


def _flagged(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for entry in entries:
        if entry.flags:
            words = "; ".join(entry.flags)
            rows.append((entry.student, entry.lab or "", "", words, entry.file))
        for score in entry.scores:
            if score.flags:
                words = "; ".join(score.flags)
                one = (entry.student, entry.lab, score.exercise, words, entry.file)
                rows.append(one)
    return rows


def _totals(entries: Sequence[Entry]) -> list[tuple[object, ...]]:
    return [
        (
            entry.student,
            entry.lab or "",
            f"{sum(score.points or 0 for score in entry.scores):g}",
            f"{sum(score.max_points for score in entry.scores):g}",
        )
        for entry in entries
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


# The figure


def common_mistakes(entries: Sequence[Entry]) -> Figure:
    """Draw the most common mistakes, an exercise a colour."""
    rows = _mistakes(entries)[:MOST_MISTAKES][::-1]
    with style():
        figure, axes = new_figure(8.0, 1.4 + 0.32 * max(len(rows), 1))
        exercises = sorted({exercise for exercise, _, _ in rows})
        axes.barh(
            range(len(rows)),
            [count for _, _, count in rows],
            color=[COLOURS[exercises.index(e) % len(COLOURS)] for e, _, _ in rows],
        )
        axes.set_yticks(range(len(rows)), [f"{e} · {name}" for e, name, _ in rows])
        axes.set_xlabel("students")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", visible=False)
        if not rows:
            axes.text(0.5, 0.5, "no mistakes", color=GREY, transform=axes.transAxes)
    return figure


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    with style():
        figure.savefig(picture, format="png")
    return picture.getvalue()
