"""The models that have a name: where their weights are published, and where they are on this machine."""

import os
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.task import Task
from neurostorm_bids.runtime.json_files import digest
from neurostorm_bids.runtime.locks import hold
from neurostorm_bids.runtime.toml import parse_toml

DEMO = "demo"
NOTHING_THERE = 416  # HTTP status: what is asked for lies behind the end of the file
NOT_STATED = (
    "not stated for the weights; the repository of the code has a LICENSE file of Apache-2.0 and a badge of MIT"
)
DEMO_LICENCE = "Apache-2.0, as neurostorm_bids itself"
DEMONSTRATION = "a very small model trained on phantoms, for demonstration"
DEMO_FILE, DEMO_CARD = (Path(__file__).with_name(f"demo.{suffix}") for suffix in ("safetensors", "md"))


@dataclass(frozen=True)
class Published:
    """One published model; see registry.toml for the meaning of the fields."""

    name: str
    repository: str
    revision: str
    file: str
    about: str
    grid: str
    bytes: int | None = None
    task: Task | None = None
    licence: str = NOT_STATED

    @property
    def path(self) -> Path:
        """Where the weights are, or would be, on this machine."""
        return home() / self.name / Path(self.file).name

    @property
    def safetensors_path(self) -> Path:
        """The same weights after ``neurostorm-model convert``."""
        return self.path.with_suffix(".safetensors")


def home() -> Path:
    """Return the folder of the weights: ``$NEUROSTORM_HOME``, or the user's cache folder."""
    if os.environ.get("NEUROSTORM_HOME"):
        return Path(os.environ["NEUROSTORM_HOME"])
    from platformdirs import user_cache_path

    return user_cache_path("neurostorm")


def registry() -> dict[str, Published]:
    """Return all published models by name."""
    tables = parse_toml(files(__package__).joinpath("registry.toml").read_text(encoding="utf-8"))
    models = {}
    for name, fields in tables.items():
        task = Task(**fields.pop("task")) if "task" in fields else None
        models[name] = Published(name=name, task=task, **fields)
    return models


def published(name: str) -> Published:
    """Look up a model by its name, in upper or lower case.

    Raises
    ------
    NeurostormError
        If there is no such model.
    """
    models = registry()
    if name.lower() == DEMO:
        raise NeurostormError("the demo model is built in: there is nothing to fetch")
    for known, model in models.items():
        if known.lower() == name.lower():
            return model
    raise NeurostormError(
        f"unknown model '{name}': neither a file nor a registry name; there are: {', '.join([*models, DEMO])}"
    )


def find_weights(model: Published) -> Path:
    """Find the file with a published model's weights on this machine.

    Raises
    ------
    NeurostormError
        If it is not there, with the commands that fetch it and where to put it; or if its size is wrong.
    """
    for path in (model.safetensors_path, model.path):
        if path.is_file():
            if path == model.path and model.bytes not in (None, path.stat().st_size):
                raise NeurostormError(
                    f"{path} has {path.stat().st_size} bytes, the published file {model.bytes}: "
                    f"fetch it again with 'neurostorm-model fetch {model.name}'"
                )
            return path
    raise NeurostormError(
        f"the weights of model '{model.name}' are not on this machine ({model.path}).\n"
        f"  With a network:     neurostorm-model fetch {model.name}\n"
        f"  Offline: on a machine that has one,\n"
        f"                      hf download {model.repository} {model.file} --revision {model.revision} --local-dir .\n"
        f"  then copy the file  {model.file}\n"
        f"  to                  {model.path}\n"
        f"  (the folder is NEUROSTORM_HOME/{model.name}; NEUROSTORM_HOME is now {home()})"
    )


def fetch(model: Published, to: Path | None = None) -> Path:
    """Download a published model's weights to `home`, or to the folder ``to``, which gets the same layout.

    What was fetched of them before and interrupted is not fetched again.

    Raises
    ------
    NeurostormError
        If the hub cannot be reached or refuses.
    """
    target = model.path if to is None else Path(to) / model.name / Path(model.file).name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NeurostormError(
            f"{target.parent} cannot be written to ({error.strerror}); give a folder with --to, or set NEUROSTORM_HOME"
        ) from None
    was_there = target.is_file()
    with hold(target.parent, target.name, wait=-1):
        if was_there or not target.is_file():  # else another process has fetched it meanwhile
            _fetch_to(target, model)
    return target


def _fetch_to(target: Path, model: Published) -> None:
    """Fetch what is not there yet of a file, look whether it is whole, and put it in its place."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    from neurostorm_bids.model.checkpoint import sha256_of

    begun = None
    try:
        url = hf_hub_url(model.repository, model.file, revision=model.revision)
        about = get_hf_file_metadata(url)
        version = digest({"commit": about.commit_hash, "etag": about.etag, "size": about.size})
        begun = target.with_name(f".{target.name}.{version}")  # another version of the file has another name
        if about.etag is None or (about.size is not None and _size(begun) > about.size):
            begun.unlink(missing_ok=True)
        _go_on(url, begun, about.size, target.name)
    except Exception as error:  # the hub's client raises many kinds, which all mean that not all was fetched
        if begun is not None and getattr(getattr(error, "response", None), "status_code", None) == NOTHING_THERE:
            begun.unlink(missing_ok=True)
        kept = begun is not None and _size(begun) > 0
        goes_on = "  What was fetched is kept: the same command goes on from there.\n" if kept else ""
        raise NeurostormError(
            f"could not fetch '{model.name}' from the hub ({type(error).__name__}: {error}).\n{goes_on}"
            f"  On a machine with a network: hf download {model.repository} {model.file} "
            f"--revision {model.revision} --local-dir .\n"
            f"  then copy {model.file} to {target}"
        ) from None
    size = _size(begun)
    if model.bytes not in (None, size):
        begun.unlink()
        raise NeurostormError(f"the hub sent {size} bytes for '{model.name}', {model.bytes} were published; try again")
    if re.fullmatch("[0-9a-f]{64}", about.etag or "") and sha256_of(begun) != about.etag:  # of large files it is that
        begun.unlink()
        raise NeurostormError(f"the weights of '{model.name}' were damaged on their way (SHA-256); try again")
    begun.replace(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _go_on(url: str, path: Path, size: int | None, shown: str) -> None:
    """Fetch what a file lacks, and show how far it is.

    `hf_hub_download` begins anew in every process, so that processes whose file system ignores locks do not write to one file.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    with open(path, "ab") as file:
        http_get(
            url,
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(),
            expected_size=size,
            displayed_filename=shown,
        )
