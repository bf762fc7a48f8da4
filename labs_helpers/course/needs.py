"""Whether the model and the data of a profile are there, before a lab begins.

A profile comes in; a sentence goes out where something is neither on this disk nor on
the hub, or the hub cannot be reached. Downloads nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labs_helpers.common.printable import one_line
from labs_helpers.course.profile import Profile, embedded_models

TIMEOUT = 5.0  # seconds to wait for the hub
FILES = (".jsonl", ".json", ".gz", ".parquet", ".csv")
WAY_OUT = (
    "Set LABS_PROFILE=tiny, which needs no network, or LABS_MODEL and LABS_DATA to "
    "what is on this disk"
)


class Unreachable(OSError):
    """What a profile names cannot be had; the message says the way out."""


@dataclass(frozen=True)
class Need:
    """Something that a profile names and the project does not bring.

    Attributes:
        what: model, reward model or data.
        name: a path, or a name on the hub.
    """

    what: str
    name: str

    @property
    def kind(self) -> str:
        """What the hub calls it."""
        return "dataset" if self.what == "data" else "model"

    @property
    def repository(self) -> str:
        """Its name on the hub, without a split."""
        return self.name.partition(":")[0]

    @property
    def downloaded(self) -> bool:
        """Whether it came from the hub before."""
        from huggingface_hub import constants

        folder = f"{self.kind}s--{self.repository.replace('/', '--')}"
        if any((Path(constants.HF_HUB_CACHE) / folder).glob("snapshots/*/*")):
            return True
        prepared = Path(constants.HF_HOME) / "datasets"
        name = self.repository.replace("/", "___").lower()
        return self.kind == "dataset" and any(prepared.glob(f"{name}/*"))

    @property
    def place(self) -> str:
        """Where it is."""
        if Path(self.name).exists():
            return "on this disk"
        return "downloaded before" if self.downloaded else "on the hub"

    def lacking(self) -> str:
        """What stands in the way of having it, and the way out; empty if nothing."""
        variable = f"LABS_{self.what.upper().replace(' ', '_')}"
        if (path := Path(self.name)).exists():
            if self.what == "data" or any(path.glob("*config.json")):
                return ""
            return (
                f"{variable} names {self.name}, which is no folder of a model: "
                "expected config.json and *.safetensors in it"
            )
        if self.name.startswith(("/", ".")) or self.name.endswith(FILES):
            return (
                f"{variable} names {self.name}, and there is no such file or folder: "
                "set it to what is there, or unset it"
            )
        if self.downloaded or not (problem := ask_hub(self)):
            return ""
        return (
            f"{self.what} {self.name!r} is not on this disk, and {problem}. {WAY_OUT}"
        )


def needs(profile: Profile) -> Iterator[Need]:
    """What a profile names beside the embedded models."""
    named = {"model": profile.model, "reward model": profile.reward_model}
    for what, name in {**named, "data": profile.data}.items():
        if name is not None and Path(name).name not in embedded_models():
            yield Need(what, name)


def require(profile: Profile) -> None:
    """See that everything is there or can be fetched, within seconds.

    Raises:
        Unreachable: something is not; the message names it and the way out.
    """
    for need in needs(profile):
        if lacking := need.lacking():
            raise Unreachable(f"The profile {profile.name} needs more: {lacking}")


def ask_hub(need: Need) -> str:
    """What stands in the way of fetching something from the hub; empty if nothing."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        HfApi().repo_info(need.repository, repo_type=need.kind, timeout=TIMEOUT)
    except GatedRepoError:
        return "the hub shows it only to people whom its owner lets in"
    except RepositoryNotFoundError:
        return f"the hub has no {need.kind} of this name"
    except HFValidationError:
        return "this is no name that the hub could have"
    except Exception as error:  # no network has many faces
        return f"the hub cannot be reached ({one_line(str(error), 120)})"
    return ""
