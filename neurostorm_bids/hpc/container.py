"""The call of neurostorm that a job makes: on the node itself, or in a container that sees what the call needs."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import find_selected
from neurostorm_bids.find.templateflow import is_image
from neurostorm_bids.model.names import MAX_CHAIN, MODEL_FILE, model_files, without_variant
from neurostorm_bids.settings import Settings

# Where the image looks for what these folders hold
HOMES = {"NEUROSTORM_HOME": "/opt/neurostorm", "TEMPLATEFLOW_HOME": "/opt/templateflow"}


def call_of(settings: Settings, container: Path | None, gpu: bool, *, subjects: bool = False) -> list[str]:
    """Return the words of a call of neurostorm; all paths in it are absolute.

    Parameters
    ----------
    container : Path, optional
        Apptainer image.
    gpu : bool
        Make the GPU visible in it.
    subjects : bool
        Keep the subjects that are asked for; in an array, its tasks say them.

    Raises
    ------
    NeurostormError
        If a path cannot be seen from the container.
    """
    settings = _with_absolute_paths(settings if subjects else settings.replacing(participant_label=()))
    words = settings.as_words()
    if container is None:
        return words
    call = ["apptainer", "run", "--cleanenv", "--containall", "--writable-tmpfs", *(["--nv"] if gpu else [])]
    # what lies deeper comes later, or the folder above would cover it
    for (outside, inside), mode in sorted(_binds(settings).items(), key=lambda bind: len(bind[0][1].parts)):
        if set(":,\n") & set(f"{outside}{inside}"):
            raise NeurostormError(f"{outside}: Apptainer cannot bind a path with a colon or a comma; use another name")
        call += ["--bind", f"{outside}:{inside}{mode}"]
    return [*call, str(container), *words[1:]]


def _with_absolute_paths(settings: Settings) -> Settings:
    names, filters = settings.encoding.model, settings.selection.bids_filter_file
    start = settings.pretraining.start_from
    return settings.replacing(
        model=tuple(str(Path(name).absolute()) if model_files([name]) else name for name in names),
        bids_filter_file=filters.absolute() if filters else None,
        start_from=str(Path(start).absolute()) if start and model_files([start]) else start,
    )


def _binds(settings: Settings) -> dict[tuple[Path, Path], str]:
    """Return the folders that the call needs, as (outside, inside) -> ":ro", or "" for those that are written to."""
    selection = settings.selection
    files = [Path(without_variant(name)[0]) for name in settings.encoding.model if model_files([name])]
    weights = [path for file in files for path in _with_backbones(file)]
    pretraining = settings.pretraining
    given = [*weights, selection.bids_filter_file, selection.exclude, settings.group.phenotype, settings.training.split]
    given += [pretraining.parcellation, settings.explaining.attribution_parcels]
    given += [Path(name) for name in settings.parcellation.timeseries if is_image(name)]
    if pretraining.start_from and model_files([pretraining.start_from]):
        given += _with_backbones(Path(without_variant(pretraining.start_from)[0]))
    if settings.resampling.mean_from:
        given.append(_fixed_part(Path(settings.resampling.mean_from)))
    inputs = [settings.bids_dir, *(path for _, path in selection.derivatives), *pretraining.pretrain_on]
    if (raw := _raw_data_set(settings)) is not None:
        inputs.append(raw)
    # of a link, its own folder and the one it leads to
    inputs += [folder for path in given if path for folder in (path.absolute().parent, path.resolve().parent)]
    written = (settings.out_dir, settings.resources.work_dir, selection.bids_database_dir, pretraining.cache_dir)
    outputs = [path for path in written if path]
    for path in outputs:
        path.mkdir(parents=True, exist_ok=True)
    homes = {(Path(os.environ[name]), Path(inside)): ":ro" for name, inside in HOMES.items() if os.environ.get(name)}
    return {(path, path): ":ro" for path in inputs} | {(path, path): "" for path in outputs} | homes


def _raw_data_set(settings: Settings) -> Path | None:
    """Return the raw data set that is found by itself here, so that it is found in the container too."""
    selection = settings.selection
    try:
        return find_selected(settings.bids_dir, selection).raw
    except NeurostormError:  # the call itself will say what is wrong
        return None


def _fixed_part(pattern: Path) -> Path:
    """Return the part of a path before the first folder with {...} in it; its parent is what has to be bound."""
    parts = [*pattern.parents][::-1] + [pattern]
    return next((path for path in parts if "{" in path.name), pattern)


def _with_backbones(path: Path) -> Iterator[Path]:
    """Yield the file of a model, and those of the models that it was tuned from."""
    from safetensors import SafetensorError, safe_open

    for _ in range(MAX_CHAIN):
        if not (path / MODEL_FILE).is_file():
            yield path
            return
        yield path / MODEL_FILE
        try:
            with safe_open(str(path / MODEL_FILE), framework="np") as file:
                path = Path(json.loads((file.metadata() or {})["hyper_parameters"])["backbone"]["name"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return  # a whole model; or the call itself will say what is wrong
        if not path.exists():  # a name of the registry, or a copy in the model's own folder
            return
