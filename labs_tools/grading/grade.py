"""Grade a folder of notebooks: everything that `labs grade` does, in order.

Collects submissions, scores them in several processes, hands the results to nbgrader's
gradebook, writes tables, feedback and a report. Each result is on disk before the next
one counts, so that an interruption loses nothing but what was running.
"""

import contextlib
import ctypes
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm.auto import tqdm

from labs_helpers.common.files import write_atomically
from labs_tools.grading import reports, sandbox
from labs_tools.grading.assignment import Assignment, read_assignment
from labs_tools.grading.execute import Limits
from labs_tools.grading.reports import Entry
from labs_tools.grading.scoring import Result, nothing_of, score
from labs_tools.grading.submissions import Submission, collect, digest, read_roster

# Raise it when the same submission may get another result.
VERSION = 1
GRADER_ERROR = "grader error"
NO_SUBMISSION = "no submission"
TRIES = 2


@dataclass(frozen=True)
class Job:
    """A submission with the key of its result."""

    submission: Submission
    key: str


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
        folder: of the submissions.
        out: the CSV of grades; everything else goes to a folder of the same name.
        sources: notebooks of the labs that may have been handed in, by number.
        roster: a CSV of students.
        jobs: submissions at once; by default one for each core.
        limits: of time and memory for each.
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
    seed = _seed(assignments, limits)
    all_jobs = [Job(submission, _key(submission, seed)) for submission in found]
    hidden = [folder.resolve(), workspace.resolve()]
    hidden += sorted({path.parent.resolve() for path in sources.values()})
    _score_all(all_jobs, workspace, assignments, limits, hidden, jobs)
    entries = _entries(all_jobs, workspace, assignments)
    entries += _missing(entries, students, assignments)
    _record(entries, workspace, assignments)
    reports.write(entries, out, workspace, sandbox.wall().reason)
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


def _seed(assignments: Sequence[Assignment], limits: Limits) -> str:
    parts = [VERSION, asdict(limits), bool(sandbox.wall().reason)]
    parts += sorted(assignment.digest for assignment in assignments)
    return json.dumps(parts)


def _key(submission: Submission, seed: str) -> str:
    text = f"{digest(submission.path)} {seed}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# Scoring


def _score_all(
    jobs: Sequence[Job],
    workspace: Path,
    assignments: Sequence[Assignment],
    limits: Limits,
    hidden: Sequence[Path],
    processes: int | None,
) -> None:
    """Score what has no result yet."""
    waiting = {job.key: job for job in jobs if not _is_done(workspace, job.key)}
    ready = len(jobs) - sum(job.key in waiting for job in jobs)
    if ready:
        print(f"{ready} of {len(jobs)} submissions were graded before.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    processes = min(processes or cores, max(1, len(waiting)))
    tries: dict[str, int] = {}
    with tqdm(
        total=len(waiting), desc="grading", unit="submission", disable=None
    ) as bar:
        while waiting:
            # After an accident one at a time: the next one names its cause.
            size = 1 if tries else processes
            with contextlib.suppress(BrokenProcessPool), _pool(size) as pool:
                _work(pool, waiting, tries, workspace, assignments, limits, hidden, bar)
            for key in [key for key in waiting if tries.get(key, 0) >= TRIES]:
                message = "the process that grades died twice on this submission."
                _save(workspace, key, Result(0, GRADER_ERROR, message, [GRADER_ERROR]))
                del waiting[key]
                bar.update()


def _work(
    pool: ProcessPoolExecutor,
    waiting: dict[str, Job],
    tries: dict[str, int],
    workspace: Path,
    assignments: Sequence[Assignment],
    limits: Limits,
    hidden: Sequence[Path],
    bar: tqdm,
) -> None:
    """Keep the pool busy; what is done leaves `waiting`."""
    running: dict[Future, Job] = {}
    queue = iter(list(waiting.values()))
    try:
        while True:
            # Few at a time: when the pool breaks, few are under suspicion.
            while len(running) < pool._max_workers and (job := next(queue, None)):
                tries[job.key] = tries.get(job.key, 0) + 1
                given = (job.submission.path, assignments, limits, hidden)
                target = _result_path(workspace, job.key)
                running[pool.submit(_score_one, target, *given)] = job
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                future.result()
                del waiting[job.key]
                bar.update()
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list((pool._processes or {}).values()):
            process.terminate()
        left = len(waiting)
        print(f"\n{left} submissions are left. Run the same command to go on.")
        raise


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
    )


def _begin() -> None:
    """Prepare a process that grades: ends with its parent, leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        die_with_parent = 1
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL, 0, 0, 0)
    import torch

    torch.set_num_threads(1)


def _score_one(
    target: Path,
    path: Path,
    assignments: Sequence[Assignment],
    limits: Limits,
    hidden: Sequence[Path],
) -> None:
    try:
        result = score(path, assignments, limits, hidden)
    except Exception as error:  # nobody else's grade may depend on it
        message = f"{type(error).__name__}: {str(error)[:300]}"
        result = Result(0, GRADER_ERROR, message, [GRADER_ERROR])
    write_atomically(target, json.dumps(result.to_json()))


def _is_done(workspace: Path, key: str) -> bool:
    """Whether there is a result; a fault of the grader is none."""
    try:
        text = _result_path(workspace, key).read_text(encoding="utf-8")
        return json.loads(text)["refused"] != GRADER_ERROR
    except FileNotFoundError:
        return False


def _save(workspace: Path, key: str, result: Result) -> None:
    write_atomically(_result_path(workspace, key), json.dumps(result.to_json()))


def _result_path(workspace: Path, key: str) -> Path:
    return workspace / "results" / f"{key}.json"


# Whose result counts


def _entries(
    jobs: Sequence[Job], workspace: Path, assignments: Sequence[Assignment]
) -> list[Entry]:
    """Pair submissions with their results, one that counts for each student and lab."""
    by_lab = {assignment.lab: assignment for assignment in assignments}
    groups: dict[tuple[str, int], list[tuple[Job, Result]]] = {}
    for job in jobs:
        text = _result_path(workspace, job.key).read_text(encoding="utf-8")
        result = Result.from_json(json.loads(text))
        if result.refused:
            result.lab = _lab_by_name(job.submission.name, assignments)
        groups.setdefault((job.submission.student, result.lab), []).append(
            (job, result)
        )
    entries = []
    for (student, lab), several in sorted(groups.items()):
        job, result = max(several, key=lambda pair: _counts(*pair))
        flags = list(result.flags)
        if not job.submission.known:
            flags.append("not in the roster")
        others = [j.submission.name for j, _ in several if j is not job]
        if others:
            flags.append(
                f"{len(several)} submissions: {job.submission.name} counts, not "
                f"{', '.join(others)}"
            )
        assignment = by_lab.get(lab)
        scores = result.scores
        if result.refused and assignment is not None:
            scores = nothing_of(assignment, result.refused, result.message)
        entries.append(
            Entry(
                student=student,
                lab=lab,
                title="" if assignment is None else assignment.name,
                file=job.submission.name,
                result=result,
                scores=scores,
                flags=flags,
                key=job.key,
            )
        )
    return entries


def _counts(job: Job, result: Result) -> tuple[bool, float, str]:
    """What can be graded counts, of that the latest."""
    path = job.submission.path
    return not result.refused, path.stat().st_mtime, job.submission.name


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
    students: Mapping[str, Sequence[str]] | None,
    assignments: Sequence[Assignment],
) -> list[Entry]:
    """Make an entry for each student of the roster who handed in nothing."""
    labs = {entry.lab for entry in entries}
    there = {(entry.student, entry.lab) for entry in entries}
    absent = [
        (student, assignment)
        for student in students or {}
        for assignment in assignments
        if assignment.lab in labs and (student, assignment.lab) not in there
    ]
    return [
        Entry(
            student=student,
            lab=assignment.lab,
            title=assignment.name,
            file="",
            result=Result(assignment.lab, NO_SUBMISSION, "nothing was handed in."),
            scores=nothing_of(assignment, NO_SUBMISSION, ""),
            flags=[NO_SUBMISSION],
            key="",
        )
        for student, assignment in absent
    ]


def _record(
    entries: Sequence[Entry], workspace: Path, assignments: Sequence[Assignment]
) -> None:
    """Hand results to nbgrader; take points back, corrections by people included."""
    from labs_tools.grading.gradebook import Book

    book = Book(workspace / "nbgrader")
    by_lab = {assignment.lab: assignment for assignment in assignments}
    handed_in = [e for e in entries if e.lab in by_lab and e.file]
    for lab in sorted({entry.lab for entry in handed_in}):
        book.prepare(by_lab[lab])
    for entry in tqdm(handed_in, desc="gradebook", unit="student", disable=None):
        assignment = by_lab[entry.lab]
        student = reports.identifier(entry.student)
        book.record(student, entry.student, assignment, entry.graded(), entry.key)
        entry.take(book.points(student, assignment))


def _summary(entries: Sequence[Entry], out: Path, workspace: Path) -> None:
    refused = [e for e in entries if e.result.refused and e.file]
    for line in _refusals(refused):
        print(line)
    graded = sum(1 for e in entries if not e.result.refused)
    print(
        f"{graded} graded, {len(refused)} refused. Grades: {out}. Feedback, report and "
        f"gradebook: {workspace}{os.sep}"
    )


def _refusals(refused: Sequence[Entry]) -> Iterator[str]:
    for entry in refused[:20]:
        yield f"refused: {entry.file}: {entry.result.refused}"
    if len(refused) > 20:
        yield f"and {len(refused) - 20} more"
