"""Names of models: what they are found by, and what their files are labelled with. Nothing here imports PyTorch."""

import re
from collections.abc import Sequence
from pathlib import Path

from neurostorm_bids.model.registry import DEMO, Published, published, registry

MODEL_FILE = "model.safetensors"  # in the folder of a fine-tuned model
MAX_CHAIN = 8  # models that are tuned from one another
AT_RANDOM = "@random"  # after a model's name: its network with random weights
AT_MEAN, AT_FLUCTUATION = "@mean", "@fluctuation"  # the model, fed the run's temporal mean or the run minus its mean
LABELS = {AT_RANDOM: "Random", AT_MEAN: "Mean", AT_FLUCTUATION: "Fluctuation"}  # what follows a variant's label
EXTENSIONS = (".ckpt", ".safetensors", ".pt", ".pth")


def is_file_name(name_or_path: str | Path) -> bool:
    """Whether this is a file or folder of a model, and not a name of the registry."""
    text = str(name_or_path)
    is_name = text.lower() in {name.lower() for name in registry()}
    looks_like_one = "/" in text or text.endswith(EXTENSIONS)
    is_there = Path(text).is_file() or (Path(text) / MODEL_FILE).is_file()
    return isinstance(name_or_path, Path) or looks_like_one or (not is_name and is_there)


def without_variant(name: str) -> tuple[str, str]:
    """Return a model's name and what makes a variant of it; an empty text for the model itself.

    >>> without_variant("base@random"), without_variant("base")
    (('base', '@random'), ('base', ''))
    """
    at = next((each for each in LABELS if name.endswith(each)), "")
    return name.removesuffix(at), at


def reference_to(name_or_path: str | Path) -> str:
    """Return what a model is found by from any folder: a name of the registry, or an absolute path."""
    text, at = without_variant(str(name_or_path))
    if text.lower() == DEMO:
        return DEMO + at
    return (str(Path(text).expanduser().absolute()) if is_file_name(text) else published(text).name) + at


def label_of_name(name_or_path: str | Path) -> str:
    """Return what a model's files are labelled with (``desc-<label>``); its weights need not be there."""
    text, at = without_variant(str(name_or_path))
    suffix = f" {LABELS[at]}" if at else ""
    if is_file_name(text):
        return label_of(stem_of_model(Path(text)) + suffix)
    return label_of((DEMO if text.lower() == DEMO else published(text).name) + suffix)


def label_of(name: str) -> str:
    """Return a name in letters and digits, as BIDS wants labels.

    >>> label_of("my model-v2")
    'myModelV2'
    """
    words = re.split(r"[^A-Za-z0-9]+", name)
    return words[0] + "".join(word[:1].upper() + word[1:] for word in words[1:]) or "model"


def stem_of_model(path: Path) -> str:
    """Return a file's name without its extension; of a folder, the whole name."""
    return path.stem if path.name.endswith(EXTENSIONS) else path.name


def not_fetched(names: Sequence[str]) -> list[Published]:
    """Return the models of the registry among these names whose weights are not on this machine."""
    named = [registry().get(without_variant(name)[0]) for name in names]
    return [model for model in named if model and not (model.path.is_file() or model.safetensors_path.is_file())]


def model_files(names: Sequence[str]) -> list[Path]:
    """Return the files of weights that names of models stand for, without those of the registry."""
    paths = [Path(without_variant(name)[0]) for name in names]
    return [path for each in paths for path in (each, each / MODEL_FILE) if path.is_file()]
