"""What this machine has, what the labs need, and what to do about the difference.

Packages come first and need none: the rest is looked at once the labs can be imported.
"""

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
from labs_tools.endings import DISTRIBUTION, extra_of, install

# Without the first the labs do not run; the others are for some people.
NEEDED_EXTRA = "lab"
MINIMUM_MEMORY_GB = 3.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ok, note (labs run without it) or MISSING."""

    state: str
    name: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.state:<7}  {self.name:<14} {self.text}"
        remedy = f"\n{'':25}-> {self.remedy}" if self.remedy else ""
        return printable(line + remedy)


def diagnose() -> int:
    """Print every finding; return 0 if the labs can run, else 1."""
    able = True
    for finding in examine():
        print(finding)
        able = able and finding.state != "MISSING"
    print("\nThe labs can run." if able else "\nThe labs cannot run yet: see MISSING.")
    return 0 if able else 1


def examine() -> Iterator[Finding]:
    """Look at Python, packages, machine, profile, models and folders."""
    # An older Python could not have installed the package.
    yield Finding("ok", "Python", f"{platform.python_version()} ({sys.executable})")
    yield from packages(metadata.requires(DISTRIBUTION) or [])
    yield from _machine()
    try:
        yield from _labs()
    except ImportError as error:
        yield Finding("MISSING", "labs", f"cannot start: {error}", "see packages above")


def packages(requirements: list[str]) -> Iterator[Finding]:
    """Compare what is installed with a distribution's requirements.

    Packages that the labs need are listed one by one, others in one line an extra.
    """
    extras: dict[str, list[str]] = {}
    for requirement in map(Requirement, requirements):
        extra = extra_of(requirement)
        found, text = _installed(requirement)
        if extra in ("", NEEDED_EXTRA):
            remedy = "" if found else install(NEEDED_EXTRA)
            state = "ok" if found else "MISSING"
            yield Finding(state, requirement.name, text, remedy)
        elif not found:
            extras.setdefault(extra, []).append(requirement.name)
    for extra, names in extras.items():
        text = f"not there: {', '.join(names)}; the labs run without"
        remedy = f"if you want it: {install(extra)}"
        yield Finding("note", f"[{extra}]", text, remedy)


def _installed(requirement: Requirement) -> tuple[bool, str]:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False, f"not installed, wanted {requirement.specifier or 'any'}"
    if not requirement.specifier.contains(version, prereleases=True):
        return False, f"{version}, wanted {requirement.specifier}"
    return True, version


def _machine() -> Iterator[Finding]:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    slow = "" if cores >= 2 else "the labs take about twice as long on one"
    yield Finding("note" if slow else "ok", "cores", str(cores), slow)
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        yield Finding("note", "memory", "this system does not say how much")
    else:
        lacking = f"close other programs: a lab needs up to {MINIMUM_MEMORY_GB:g} GB"
        enough = total >= MINIMUM_MEMORY_GB
        text, remedy = f"{total:.1f} GB", "" if enough else lacking
        yield Finding("ok" if enough else "note", "memory", text, remedy)


def _labs() -> Iterator[Finding]:
    """What only the labs themselves can tell: device, profile, models, folder.

    Raises:
        ImportError: a package is missing.
    """
    from labs_helpers.course.profile import UnknownProfile, load_profile
    from labs_helpers.course.results import results_folder
    from labs_helpers.models import default_device_and_dtype
    from labs_tools.grading.sandbox import wall
    from labs_tools.studies import stale

    hardware = default_device_and_dtype()
    yield Finding("ok", "device", f"{hardware.device.type}: {hardware.reason}")
    try:
        profile = load_profile()
    except UnknownProfile as error:
        yield Finding("MISSING", "profile", str(error))
    else:
        yield Finding("ok", "profile", f"{profile.title}: {profile.purpose}")
        yield from named(profile)
        yield from _embedded(profile.model)
    yield folder(results_folder())
    for line in stale.lines():
        yield Finding("note", "studies", line)
    reason = wall().reason
    if reason:
        remedy = "see docs/instructors.md, if you grade"
        yield Finding("note", "bubblewrap", reason, remedy)
    else:
        yield Finding("ok", "bubblewrap", "keeps submissions apart when you grade")


def named(profile: "labs_helpers.course.profile.Profile") -> Iterator[Finding]:  # noqa: F821
    """Say where model and data of a profile come from, if not from the project."""
    from labs_helpers.course.needs import needs, way_out

    for need in needs(profile):
        if problem := need.problem:
            said = f"{need.name}: {problem}"
            yield Finding("MISSING", need.what, said, way_out(profile, [need]))
        else:
            yield Finding("ok", need.what, f"{need.name}, {need.place}")


def _embedded(wanted: str) -> Iterator[Finding]:
    from labs_helpers.course.profile import embedded_models

    remedy = "get it with git, or: python -m labs_tools.town.build"
    for name, place in embedded_models().items():
        weights = place / "model.safetensors"
        if weights.exists():
            yield Finding("ok", name, f"{weights.stat().st_size / 1e6:.1f} MB")
        else:
            state = "MISSING" if str(place) == wanted else "note"
            yield Finding(state, name, f"no weights in {place}", remedy)


def folder(path: Path) -> Finding:
    """Say whether results can be written to a folder, and how much room there is."""
    from labs_helpers.course.results import require_writable

    try:
        require_writable(path)
        free = shutil.disk_usage(path).free / 1e9
    except OSError as error:
        remedy = "choose another with LABS_OUT"
        return Finding("MISSING", "results", f"cannot write: {error}", remedy)
    return Finding("ok", "results", f"{path}, {free:.0f} GB free")
