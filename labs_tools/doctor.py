"""What this machine has, what the labs need, and what to do about the difference."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from labs_helpers.common.printable import printable
from labs_helpers.course.needs import WAY_OUT, ask_hub, needs
from labs_helpers.course.profile import (
    Profile,
    UnknownProfile,
    embedded_models,
    load_profile,
)
from labs_helpers.course.results import require_writable, results_folder
from labs_tools.endings import DISTRIBUTION, install
from labs_tools.grading.sandbox import wall

# Without the first the labs do not run; the others are for some people.
NEEDED_EXTRA = "lab"
MINIMUM_MEMORY_GB = 3.0
MARKS = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ok, note (labs run without it) or missing."""

    state: str
    name: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{MARKS[self.state]}  {self.name:<14} {self.text}"
        remedy = f"\n{'':25}-> {self.remedy}" if self.remedy else ""
        return printable(line + remedy)


def diagnose() -> int:
    """Print every finding; return 0 if the labs can run, else 1."""
    able = True
    for finding in examine():
        print(finding)
        able = able and finding.state != "missing"
    print("\nThe labs can run." if able else "\nThe labs cannot run yet: see MISSING.")
    return 0 if able else 1


def examine() -> Iterator[Finding]:
    """Look at Python, packages, machine, profile, models and folders."""
    yield _python()
    yield from packages(metadata.requires(DISTRIBUTION) or [])
    yield _device()
    yield _cores()
    yield _memory()
    try:
        profile = load_profile()
    except UnknownProfile as error:
        yield Finding("missing", "profile", str(error))
    except ImportError as error:
        yield Finding("missing", "profile", f"unknown: {error}", "see packages above")
    else:
        yield Finding("ok", "profile", f"{profile.title}: {profile.purpose}")
        yield from _profile_needs(profile)
        yield from _hub(profile)
        yield from _embedded(embedded_models(), profile.model)
    yield _folder(results_folder())
    yield _walls()


def packages(requirements: list[str]) -> Iterator[Finding]:
    """Compare what is installed with a distribution's requirements.

    Packages that the labs need are listed one by one, others in one line an extra.
    """
    extras: dict[str, list[str]] = {}
    for line in requirements:
        requirement = Requirement(line)
        extra = _extra(requirement)
        state, text = _installed(requirement)
        if extra not in ("", NEEDED_EXTRA):
            if state != "ok":
                extras.setdefault(extra, []).append(requirement.name)
            continue
        remedy = "" if state == "ok" else install(extra or NEEDED_EXTRA)
        yield Finding(state, requirement.name, text, remedy)
    for extra, names in extras.items():
        yield Finding(
            "note",
            f"[{extra}]",
            f"not there: {', '.join(names)}; the labs run without",
            f"if you want it: {install(extra)}",
        )


def _walls() -> Finding:
    """Say whether `labs grade` can keep submissions apart."""
    reason = wall().reason
    if not reason:
        return Finding("ok", "bubblewrap", "keeps submissions apart when you grade")
    return Finding(
        "note", "bubblewrap", reason, "see docs/instructors.md, if you grade"
    )


def _extra(requirement: Requirement) -> str:
    """Return the extra that a requirement belongs to; empty for the package itself."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return ""
    declared = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    extras = (e for e in declared if requirement.marker.evaluate({"extra": e}))
    return next(extras, "other")


def _installed(requirement: Requirement) -> tuple[str, str]:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "missing", f"not installed, wanted {requirement.specifier or 'any'}"
    if not requirement.specifier.contains(version, prereleases=True):
        return "missing", f"{version}, wanted {requirement.specifier}"
    return "ok", version


def _python() -> Finding:
    # An older Python could not have installed the package.
    return Finding("ok", "Python", f"{platform.python_version()} ({sys.executable})")


def _device() -> Finding:
    try:
        from labs_helpers.models import default_device_and_dtype
    except ImportError as error:
        return Finding("missing", "device", f"unknown: {error}", "see packages above")
    hardware = default_device_and_dtype()
    return Finding("ok", "device", f"{hardware.device.type}: {hardware.reason}")


def _cores() -> Finding:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if cores >= 2:
        return Finding("ok", "cores", str(cores))
    return Finding("note", "cores", "1", "the labs take about twice as long on one")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return Finding("note", "memory", "this system does not say how much")
    if total >= MINIMUM_MEMORY_GB:
        return Finding("ok", "memory", f"{total:.0f} GB")
    remedy = f"close other programs: a lab needs up to {MINIMUM_MEMORY_GB:g} GB"
    return Finding("note", "memory", f"{total:.1f} GB", remedy)


def _profile_needs(profile: Profile) -> Iterator[Finding]:
    """Say where model and data of the profile come from, if not from the project."""
    for need in needs(profile):
        if need.on_disk:
            yield Finding("ok", need.what, f"{need.name}, on this disk")
        elif need.is_path:
            remedy = f"set {need.variable} to what is there, or unset it"
            yield Finding("missing", need.what, f"there is no {need.name}", remedy)
        elif need.downloaded:
            yield Finding("ok", need.what, f"{need.name}, downloaded before")
        else:
            remedy = f"fetched from the hub, or set {need.variable} to a local one"
            yield Finding("note", need.what, f"{need.name} is not on this disk", remedy)


def _hub(profile: Profile) -> Iterator[Finding]:
    """Say whether what is to be fetched can be."""
    for need in needs(profile):
        if need.on_disk or need.is_path or need.downloaded:
            continue
        if problem := ask_hub(need):
            yield Finding("missing", "hub", f"{need.name}: {problem}", WAY_OUT)
        else:
            yield Finding("ok", "hub", f"has {need.name}")


def _embedded(models: dict[str, Path], wanted: str) -> Iterator[Finding]:
    for name, folder in models.items():
        weights = folder / "model.safetensors"
        if weights.exists():
            size = weights.stat().st_size / 1e6
            yield Finding("ok", name, f"{size:.1f} MB")
        else:
            yield Finding(
                "missing" if str(folder) == wanted else "note",
                name,
                f"no weights in {folder}",
                "get it with git, or: python -m labs_tools.town.build",
            )


def _folder(folder: Path) -> Finding:
    try:
        require_writable(folder)
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        remedy = "choose another with LABS_OUT"
        return Finding("missing", "results", f"cannot write: {error}", remedy)
    return Finding("ok", "results", f"{folder}, {free:.0f} GB free")
