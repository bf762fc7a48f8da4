"""The command `labs`: one subcommand for each thing that people do with the course."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from labs_helpers import __version__
from labs_helpers.course.needs import require
from labs_helpers.course.profile import ROOT, load_profile
from labs_helpers.course.results import require_writable, results_folder
from labs_tools.endings import silence, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Whatever happens, what people see is a line: no traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show "·" is no reason to stop.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(
        prog="labs", description="Four labs on preference alignment of language models."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_release(commands)
    _add_grade(commands)
    _add_doctor(commands)
    _add_study(commands)
    _add_train(commands)
    _add_bench(commands)
    options = argparse.Namespace(extra="lab")
    try:
        parser.parse_args(arguments, options)
        code = options.action(options)
        sys.stdout.flush()
    except SystemExit:  # by argparse, which has said why
        silence(sys.stdout)
        raise
    except (Exception, KeyboardInterrupt) as error:
        return tell(error, options.extra)
    return code


def _add_run(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "run", help="execute labs and judge their claims", description=run.__doc__
    )
    command.add_argument(
        "labs", nargs="*", type=int, metavar="LAB", help="numbers; all by default"
    )
    command.add_argument(
        "--profile", help="smoke, tiny, small or gpu; by default LABS_PROFILE"
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="by default build/labs"
    )
    command.add_argument(
        "--in-place", action="store_true", help="also write notebooks back, cleaned"
    )
    command.set_defaults(action=run)


def _add_release(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "release", help="make the student versions", description=release.__doc__
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="by default notebooks/student"
    )
    command.set_defaults(action=release)


def _add_grade(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "grade", help="grade a folder of notebooks", description=grade.__doc__
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="of submissions")
    command.add_argument(
        "--out", type=Path, required=True, metavar="CSV", help="the table of grades"
    )
    command.add_argument(
        "--roster",
        type=Path,
        metavar="CSV",
        help="first column: students; others: names under which their files come",
    )
    command.add_argument(
        "--jobs", type=_count, metavar="N", help="submissions at once; by default cores"
    )
    command.add_argument(
        "--lab", type=int, metavar="N", help="take everything for this lab"
    )
    command.set_defaults(action=grade, extra="lab,grade")


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "doctor",
        help="say what this machine has and what is missing",
        description=doctor.__doc__,
    )
    command.set_defaults(action=doctor)


def _add_study(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "study", help="run a long experiment into a CSV", description=study.__doc__
    )
    command.add_argument("name", nargs="?", help="without it, the studies are listed")
    command.set_defaults(action=study)


def _add_train(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "train",
        help="align a language model by reinforcement, as a file says",
        description=train.__doc__,
    )
    command.add_argument(
        "algorithm", metavar="ALGORITHM", help="ppo, trpo, actor_critic or reinforce"
    )
    command.add_argument("--config", type=Path, required=True, metavar="FILE")
    command.set_defaults(action=train)


def _add_bench(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "bench",
        help="time the library beside TRL and transformers",
        description=bench.__doc__,
    )
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="by default build/bench.json"
    )
    command.add_argument(
        "--trl-ppo",
        type=Path,
        metavar="DIR",
        help="where `pip install --no-deps --target DIR trl==1.12.0` put TRL's PPO",
    )
    command.add_argument("--runs", type=_count, default=5, metavar="N", help="of each")
    command.set_defaults(action=bench)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Execute lab notebooks and write them, HTML and results.json to one folder.

    The exit code is 1 if a cell raises or, on tiny, a claim does not hold.
    """
    paths = find_notebooks(options.labs)
    profile = load_profile(options.profile)
    require(profile)
    from labs_tools import notebooks

    print(f"Profile {profile.title}: {', '.join(path.name for path in paths)}")
    return notebooks.run(
        paths, profile, options.out or results_folder(), options.in_place
    )


def release(options: argparse.Namespace) -> int:
    """Write the labs without solutions, hidden tests and outputs."""
    from labs_tools import release as student

    paths = find_notebooks([])
    out = options.out or paths[0].parent / student.FOLDER
    for path in student.release(paths, out):
        print(f"written to {os.path.relpath(path)}")
    return 0


def grade(options: argparse.Namespace) -> int:
    """Run every submission's answers apart from the others and check them.

    Writes the grades and, to a folder of the same name, a gradebook, feedback for each
    student and a report on the class. Interrupted, it goes on where it was.
    """
    paths = find_notebooks([] if options.lab is None else [options.lab])
    import nbgrader  # noqa: F401 - better known now than after the grading

    from labs_tools import notebooks

    sources = {notebooks.lab_number(path): path for path in paths}
    return notebooks.grade(
        options.folder, options.out, sources, options.roster, options.jobs
    )


def doctor(options: argparse.Namespace) -> int:
    """Say what machine, profile and versions there are, and what to do about gaps.

    The exit code is 0 if the labs can run.
    """
    from labs_tools.doctor import diagnose

    return diagnose()


def study(options: argparse.Namespace) -> int:
    """Run one study and write data/studies/NAME.csv."""
    from labs_tools import studies

    if options.name is None:
        for name, experiment in studies.studies().items():
            print(f"{name:28}{(experiment.__doc__ or '').splitlines()[0]}")
        return 0
    print(f"written to {studies.run(options.name)}")
    return 0


def train(options: argparse.Namespace) -> int:
    """Train a policy on its own answers, as a TOML or YAML file says.

    The file names policy, prompts, reward and out, and in [settings] what RLConfig
    takes; labs_helpers/course/training.py shows one. The same command resumes a run
    that was broken off. Several processes share the work, on GPUs as on CPUs, under
    torchrun --standalone --nproc-per-node 2 --no-python labs train METHOD --config FILE
    where each answers `samples` prompts of its own.
    """
    from labs_tools import training

    return training.run(options.algorithm, options.config)


def bench(options: argparse.Namespace) -> int:
    """Do the same work in our way and in TRL's or transformers', in turns, and time it.

    A ratio above 1 means that ours is faster. The exit code is 1 if a bar is missed.
    """
    out = options.out or results_folder().parent / "bench.json"
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file in it")
    require_writable(out.parent)
    import trl  # noqa: F401 - better known now than after the first benchmark

    from labs_tools import bench as benchmarks

    rows = benchmarks.run(out, options.trl_ppo, options.runs)
    print(f"written to {os.path.relpath(out)}")
    return int(any(row.ratio < row.bar for row in rows))


def find_notebooks(labs: Sequence[int]) -> list[Path]:
    """Find the notebooks of labs, all if none is named, in order."""
    folders = [Path.cwd() / "notebooks", ROOT / "notebooks"]
    folder = next((f for f in folders if f.is_dir()), folders[0])
    named = {p: re.match(r"(\d+)_", p.name) for p in sorted(folder.glob("*.ipynb"))}
    found = {int(number[1]): path for path, number in named.items() if number}
    if not found:
        raise FileNotFoundError(
            f"no notebooks in {folder}. Run labs in the folder of the project."
        )
    missing = sorted(set(labs) - set(found))
    if missing:
        raise FileNotFoundError(
            f"there is no lab {', '.join(map(str, missing))} in {folder}; there is "
            f"{', '.join(map(str, found))}"
        )
    return [found[number] for number in sorted(set(labs) or found)]
