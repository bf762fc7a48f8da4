"""Grade a folder of notebooks: everything that `labs grade` does, in order.

Collects submissions, scores each in a process of its own, hands the results to
nbgrader's gradebook, writes tables, feedback and a report. Each result is on disk
before the next one counts: an interruption loses nothing but what was running.
"""

import ctypes
import hashlib
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from pydantic import TypeAdapter
from tqdm.auto import tqdm

from labs_helpers.common.files import write_atomically
from labs_tools.grading import reports, sandbox
from labs_tools.grading.assignment import Assignment, read_assignment
from labs_tools.grading.reports import Entry
from labs_tools.grading.scoring import Result, nothing_of, score
from labs_tools.grading.session import Limits
from labs_tools.grading.submissions import Submission, collect, digest, read_roster

# Raise it when the same submission may get another result.
VERSION = 2
GRADER_ERROR = "grader error"
NO_SUBMISSION = "no submission"
RESULT = TypeAdapter(Result)
MOST_REFUSALS = 20


@dataclass(frozen=True)
class Job:
    """A submission, and the file that its result belongs in."""

    submission: Submission
    target: Path

    @property
    def key(self) -> str:
        """Changes when the submission, a lab or a limit does."""
        return self.target.stem

    def result(self) -> Result | None:
        """What came of it; None as long as nothing did."""
        if not self.target.exists():
            return None
        return RESULT.validate_json(self.target.read_bytes())

    def save(self, result: Result) -> None:
        """Put the result on disk, whole."""
        write_atomically(self.target, RESULT.dump_json(result))


def grade(
    folder: Path,
    out: Path,
    sources: Mapping[int, Path],
    roster: Path | None = None,
    jobs: int | None = None,
    limits: Limits | None = None,
) -> int:
    """Grade the submissions in a folder; return the exit code, 1 for our own faults.

    Args:
        out: the CSV of grades; everything else goes to a folder of the same name.
        sources: notebooks of the labs that may have been handed in, by number.
        roster: a CSV of students.
        jobs: submissions at once; by default one for each core.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder of submissions")
    limits = limits or Limits()
    workspace = out.with_suffix("") if out.suffix else out.with_suffix(".files")
    (workspace / "results").mkdir(parents=True, exist_ok=True)
    assignments = [read_assignment(path, lab) for lab, path in sources.items()]
    students = None if roster is None else read_roster(roster)
    ignored = [out, workspace, *([] if roster is None else [roster])]
    names = [assignment.name for assignment in assignments]
    found = collect(folder, students, names, ignored)
    print(_isolation())
    if not found:
        raise FileNotFoundError(f"there are no submissions in {folder}")
    no_wall = sandbox.wall().reason
    seed = (VERSION, limits, bool(no_wall), sorted(a.digest for a in assignments))
    results = workspace / "results"
    all_jobs = [Job(one, results / f"{_key(one, seed)}.json") for one in found]
    hidden = [folder.resolve(), workspace.resolve()]
    hidden += sorted({path.parent.resolve() for path in sources.values()})
    scored = partial(score, assignments=assignments, limits=limits, hidden=hidden)
    _score_all(all_jobs, scored, jobs)
    entries = _entries(all_jobs, assignments)
    entries += _missing(entries, students or {}, assignments)
    try:
        _record(entries, workspace, assignments)
    finally:  # what was scored is on paper, whatever becomes of nbgrader's database
        reports.write(entries, out, workspace, no_wall)
    _summary(entries, out, workspace)
    return int(any(entry.result.refused == GRADER_ERROR for entry in entries))


def _isolation() -> str:
    reason = sandbox.wall().reason
    if not reason:
        return "Submissions run apart: bubblewrap, no network, no files of yours."
    return (
        f"Submissions do NOT run apart: {reason}. Their code can read your files, the "
        "solutions among them. Grade where bubblewrap works."
    )


def _key(submission: Submission, seed: tuple[object, ...]) -> str:
    text = repr((digest(submission.path), *seed))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# Scoring


def _score_all(
    jobs: Sequence[Job], scored: Callable[[Path], Result], processes: int | None
) -> None:
    """Score what has no result yet; a fault of the grader is none."""
    results = [(job, job.result()) for job in jobs]
    undone = [job for job, r in results if r is None or r.refused == GRADER_ERROR]
    waiting = {job.key: job for job in undone}
    ready = sum(job.key not in waiting for job in jobs)
    if ready:
        print(f"{ready} of {len(jobs)} submissions were graded before.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    queue = list(waiting.values())[::-1]
    running: dict[int, tuple[BaseProcess, Job]] = {}
    # What imports torch once is copied for each submission.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    bar = tqdm(total=len(queue), desc="grading", unit="submission", disable=None)
    try:
        while queue or running:
            while queue and len(running) < (processes or cores):
                job = queue.pop()
                process = context.Process(target=_score_one, args=(job, scored))
                process.start()
                running[process.sentinel] = process, job
            for sentinel in wait(list(running)):
                process, job = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    _blame(job, f"the process that grades died ({process.exitcode}).")
                bar.update()
    except KeyboardInterrupt:
        left = len(queue) + len(running)
        print(f"\n{left} submissions are left. Run the same command to go on.")
        raise
    finally:
        bar.close()
        for process, _ in running.values():
            process.terminate()


def _score_one(job: Job, scored: Callable[[Path], Result]) -> None:
    """Score in a process that ends with its parent and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        die_with_parent = 1
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL, 0, 0, 0)
    torch.set_num_threads(1)
    try:
        job.save(scored(job.submission.path))
    except Exception as error:  # nobody else's grade may depend on it
        _blame(job, f"{type(error).__name__}: {str(error)[:300]}")


def _blame(job: Job, message: str) -> None:
    job.save(Result(0, GRADER_ERROR, message, [GRADER_ERROR]))


# Whose result counts


def _entries(jobs: Sequence[Job], assignments: Sequence[Assignment]) -> list[Entry]:
    """Pair submissions with their results, one that counts for each student and lab."""
    by_lab = {assignment.lab: assignment for assignment in assignments}
    groups: dict[tuple[str, int], list[tuple[Job, Result]]] = {}
    for job in jobs:
        result = job.result()
        if result.refused:
            result.lab = _lab_by_name(job.submission.name, assignments)
        key = job.submission.student, result.lab
        groups.setdefault(key, []).append((job, result))
    entries = []
    for (student, lab), several in sorted(groups.items()):
        job, result = max(several, key=_weight)
        name, assignment = job.submission.name, by_lab.get(lab)
        if not job.submission.known:
            result.flags.append("not in the roster")
        others = ", ".join(j.submission.name for j, _ in several if j is not job)
        if others:
            words = f"{len(several)} submissions: {name} counts, not {others}"
            result.flags.append(words)
        if result.refused and assignment is not None:
            result.scores = nothing_of(assignment, result.refused, result.message)
        entries.append(Entry(student, name, result, job.key))
    return entries


def _weight(pair: tuple[Job, Result]) -> tuple[bool, float, str]:
    """What can be graded counts, of that the latest."""
    submission, refused = pair[0].submission, pair[1].refused
    return not refused, submission.path.stat().st_mtime, submission.name


def _lab_by_name(name: str, assignments: Sequence[Assignment]) -> int:
    """Guess a lab from a file's name; the only one if there is one; else 0."""
    if len(assignments) == 1:
        return assignments[0].lab
    labs = {assignment.lab for assignment in assignments}
    for assignment in assignments:
        if assignment.name.lower() in name.lower():
            return assignment.lab
    number = re.search(r"(?<![a-z])lab[-_ ]?(\d)(?!\d)", name, re.IGNORECASE)
    return int(number[1]) if number and int(number[1]) in labs else 0


def _missing(
    entries: Sequence[Entry],
    students: Mapping[str, Sequence[str]],
    assignments: Sequence[Assignment],
) -> list[Entry]:
    """Make an entry for each student of the roster who handed in nothing."""
    labs = {entry.result.lab for entry in entries}
    there = {(entry.student, entry.result.lab) for entry in entries}
    absent = [
        (student, assignment)
        for student in students
        for assignment in assignments
        if assignment.lab in labs and (student, assignment.lab) not in there
    ]
    about = (NO_SUBMISSION, "nothing was handed in.", [NO_SUBMISSION])
    return [
        Entry(student, "", Result(a.lab, *about, nothing_of(a, *about[:2])))
        for student, a in absent
    ]


def _record(
    entries: Sequence[Entry], workspace: Path, assignments: Sequence[Assignment]
) -> None:
    """Hand results to nbgrader; take points back, corrections by people included."""
    from labs_tools.grading.gradebook import Book

    book = Book(workspace / "nbgrader")
    by_lab = {assignment.lab: assignment for assignment in assignments}
    handed_in = [e for e in entries if e.result.lab in by_lab and e.file]
    for lab in sorted({entry.result.lab for entry in handed_in}):
        book.prepare(by_lab[lab])
    for entry in tqdm(handed_in, desc="gradebook", unit="student", disable=None):
        assignment, student = (
            by_lab[entry.result.lab],
            reports.identifier(entry.student),
        )
        book.record(student, entry.student, assignment, entry.result, entry.key)
        entry.take(book.points(student, assignment))


def _summary(entries: Sequence[Entry], out: Path, workspace: Path) -> None:
    refused = [entry for entry in entries if entry.result.refused and entry.file]
    for entry in refused[:MOST_REFUSALS]:
        print(f"refused: {entry.file}: {entry.result.refused}")
    if len(refused) > MOST_REFUSALS:
        print(f"and {len(refused) - MOST_REFUSALS} more")
    graded = sum(not entry.result.refused for entry in entries)
    print(
        f"{graded} graded, {len(refused)} refused. Grades: {out}. Feedback, report and "
        f"gradebook: {workspace}{os.sep}"
    )
