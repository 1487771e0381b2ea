"""From a name or a file to a model that is ready to run."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.checkpoint import Checkpoint, read_checkpoint, sha256_of
from neurostorm_bids.model.hyper_parameters import REFERENCE, HyperParameters, config_of, one_line, task_of
from neurostorm_bids.model.initial import random_network
from neurostorm_bids.model.model import Model
from neurostorm_bids.model.names import (
    AT_FLUCTUATION,
    AT_MEAN,
    AT_RANDOM,
    LABELS,
    MAX_CHAIN,
    is_file_name,
    label_of,
    stem_of_model,
    without_variant,
)
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
from neurostorm_bids.model.registry import (
    DEMO,
    DEMO_FILE,
    DEMO_LICENCE,
    DEMONSTRATION,
    Published,
    find_weights,
    published,
)
from neurostorm_bids.model.task import Task
from neurostorm_bids.model.tuned import (
    PERMUTED_HEADS,
    is_head_alone,
    load_backbone,
    put_into,
    reference_beside,
    weights_file,
)
from neurostorm_bids.resample.grid import Grid, get_grid

# What only pretraining needs (mask tokens, the decoder, the head that compares clips), and a norm in older heads that their forward never used
NOT_USED = re.compile(
    r"model\.((window_|atlas_)?mask_token$|atlas_map$|first_patch_expanding\.|layers_up\.|norm_up\.|decoder_pred\.)"
    r"|output_head\.(head\.norm|fc1|bn1|permuted)\."
)
OF_HEAD_V3 = ("output_head.head.cls_token", "output_head.head.transformer_encoder.")
MAX_WEIGHTS = 2 * 10**9
RANDOM_WEIGHTS = "random weights, for comparison"
CONTROLS = {
    AT_MEAN: "control input, for comparison: every frame is the run's temporal mean",
    AT_FLUCTUATION: "control input, for comparison: the run minus its temporal mean",
}


def load_model(name_or_path: str | Path, device: str = "auto") -> Model:
    """Load a NeuroSTORM model.

    Parameters
    ----------
    name_or_path : str or path
        A name that ``neurostorm-model list`` shows, a ``.ckpt`` or ``.safetensors`` file, or the folder of a
        fine-tuned model. With ``@random`` after it: a network of its shape with random weights, to compare with. With
        ``@mean`` or ``@fluctuation``: the model, which the participant level feeds the run's temporal mean, or the run
        minus its mean.
    device : {"auto", "cpu", "cuda"}
        "auto" takes a GPU if there is one.

    Returns
    -------
    Model

    Raises
    ------
    NeurostormError
        If the model is unknown, its weights are not on this machine, the file is damaged or unsafe, or its weights do
        not fit its hyper-parameters.

    Examples
    --------
    >>> model = load_model("demo", device="cpu")
    >>> model.grid.template, model.task.classes
    ('MNI152NLin6Asym', ('apart', 'together'))
    """
    return _load(name_or_path, device, MAX_CHAIN)


def load_models(
    names: Sequence[str], device: str, label_mean: float | None = None, label_std: float | None = None
) -> list[Model]:
    """Load models for a call, each of them once per process.

    Parameters
    ----------
    label_mean, label_std : float, optional
        The user's label scaling.

    Raises
    ------
    NeurostormError
        If there is none, their files would have the same names, or a scaling is given for several.
    """
    if len(names) > 1 and (label_mean, label_std) != (None, None):
        raise NeurostormError("--label-mean and --label-std are for one model; give one --model")
    models = [_once(name, device).with_label_scaling(label_mean, label_std) for name in dict.fromkeys(names)]
    if not models:
        raise NeurostormError("no model is given; give --model NAME, such as base")
    labels = [model.label for model in models]
    for label in labels:
        if labels.count(label) > 1:
            raise NeurostormError(f"two models would both be written as desc-{label}; rename one of the files")
    return models


_once = lru_cache(maxsize=None)(load_model)


def _load(name_or_path: str | Path, device: str, chain: int) -> Model:
    where = device_of(device)
    name, at = without_variant(str(name_or_path))
    if at:
        model = _load(name, device, chain)
        return _at_random(model) if at == AT_RANDOM else _with_control(model, at)
    if str(name_or_path).lower() == DEMO:
        return _demo(where)
    if is_file_name(name_or_path):
        return _from_file(Path(name_or_path).expanduser(), where, chain)
    return _from_registry(published(str(name_or_path)), where, chain)


def _from_file(path: Path, device: torch.device, chain: int) -> Model:
    checkpoint, backbone = read_whole(path, chain)
    network, config = build_network(checkpoint)
    hyper_parameters = checkpoint.hyper_parameters
    task = task_of(hyper_parameters, config)
    if task and "tuning" in hyper_parameters:  # written by us, so it says what it predicts
        named = len(task.classes) == (2 if task.kind == "binary" else config.n_outputs // task.members)
        if task.kind == "unknown" or not (task.is_scaled_back if task.kind == "regression" else named):
            raise NeurostormError(f"{checkpoint.path} is damaged: it does not say what the outputs of its head mean")
    shares_encoder = (
        backbone is not None
        and hyper_parameters.get("tuning") == "linear"
        and _headless(config) == _headless(backbone.network.config)
    )
    name = stem_of_model(path)
    return Model(
        name=name,
        label=label_of(name),
        network=network.to(device),
        hyper_parameters=hyper_parameters,
        grid=_grid_of(checkpoint),
        task=task,
        sha256=sha256_of(checkpoint.path),
        source=str(path),
        device=device,
        about=_about(hyper_parameters),
        warning=backbone.warning if backbone else None,
        encoder_of=backbone.encoder if backbone and shares_encoder else None,
        permuted_heads=_permuted_heads(checkpoint, config, task) if task else None,
        reference=reference_beside(checkpoint.path)
        or hyper_parameters.get(REFERENCE)
        or (backbone.reference if backbone and shares_encoder else None),
    )


def _from_registry(known: Published, device: torch.device, chain: int) -> Model:
    path = find_weights(known)
    model = _from_file(path, device, chain)
    n_outputs = model.network.config.n_outputs
    task = known.task if known.task and model.network.config.head else model.task
    if task and task.n_outputs not in (None, n_outputs):
        raise NeurostormError(
            f"{path}: its head has {n_outputs} outputs, '{known.name}' has {task.n_outputs}; fetch it again"
        )
    return replace(
        model,
        name=known.name,
        label=label_of(known.name),
        grid=get_grid(known.grid),
        task=task,
        source=f"{known.repository}@{known.revision}:{known.file}",
        about=known.about,
        licence=known.licence,
    )


def weights_of(name_or_path: str) -> Path:
    """Return the file of weights of a model.

    Raises
    ------
    NeurostormError
        If it is not on this machine.
    """
    name = without_variant(str(name_or_path))[0]
    if name.lower() == DEMO:
        return DEMO_FILE
    return weights_file(Path(name).expanduser()) if is_file_name(name) else find_weights(published(name))


def read_whole(path: Path, chain: int = MAX_CHAIN) -> tuple[Checkpoint, Model | None]:
    """Read a checkpoint; of a fine-tuned model, with the tuned parts put into the backbone, which is returned too.

    Parameters
    ----------
    chain : int
        How many models may be tuned from one another.

    Raises
    ------
    NeurostormError
        If the file, or that of the backbone, cannot be used.
    """
    checkpoint = read_checkpoint(weights_file(path))
    if checkpoint.hyper_parameters.get("backbone") is None:
        return checkpoint, None
    if not chain:
        raise NeurostormError(f"{checkpoint.path}: more than {MAX_CHAIN} models are tuned from one another")
    backbone = load_backbone(checkpoint, lambda name: _load(name, "cpu", chain - 1))
    if checkpoint.hyper_parameters.get("tuning") == "linear" and not is_head_alone(checkpoint.tensors):
        raise NeurostormError(f"{checkpoint.path}: it says that its head alone was tuned, and holds more")
    return put_into(backbone.network, checkpoint), backbone


def build_network(checkpoint: Checkpoint) -> tuple[NeuroSTORM, NeuroSTORMConfig]:
    """Build the network that a checkpoint describes and fill it with its weights, strictly.

    Raises
    ------
    NeurostormError
        If names or shapes differ from what the hyper-parameters call for.
    """
    size = sum(t.numel() for t in checkpoint.tensors.values())
    if size > MAX_WEIGHTS:  # a tensor can claim more numbers than its storage has, all of them the same one
        raise NeurostormError(f"{checkpoint.path} was refused: it claims {size:.2g} weights")
    tensors = {name: t.float() for name, t in checkpoint.tensors.items() if not NOT_USED.match(name)}
    if checkpoint.hyper_parameters.get("pretraining"):  # a contrastive projection head is not a prediction
        tensors = {name: t for name, t in tensors.items() if not name.startswith("output_head.")}
    if any(name.startswith(OF_HEAD_V3) for name in tensors):
        raise NeurostormError(
            f"{checkpoint.path}: its head is a transformer over tokens (clf_head_version v3), which is not supported; heads v1 and v2 are"
        )
    try:
        config = config_of(checkpoint.hyper_parameters, tensors)
        with torch.device("meta"):  # shapes only: the weights come from the file
            network = NeuroSTORM(config)
    except Exception as error:  # numbers from outside can set off any kind
        raise NeurostormError(f"{checkpoint.path}: its hyper-parameters make no NeuroSTORM ({error})") from None
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    got = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected != got:
        raise NeurostormError(f"{checkpoint.path}: {_difference(expected, got)}")
    if broken := [name for name, t in tensors.items() if not torch.isfinite(t).all()]:
        raise NeurostormError(f"{checkpoint.path} was refused: {broken[0]} holds numbers that are not finite")
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.requires_grad_(False).eval(), config


def _permuted_heads(checkpoint: Checkpoint, config: NeuroSTORMConfig, task: Task) -> Tensor | None:
    """Return the heads for permuted labels that a probe keeps; `None` if there are none of this shape."""
    found = checkpoint.tensors.get(PERMUTED_HEADS)
    if found is None:
        return None
    shape = (config.n_outputs // task.members, config.n_channels)
    if found.ndim != 3 or tuple(found.shape[1:]) != shape or not torch.isfinite(found).all():
        raise NeurostormError(f"{checkpoint.path} is damaged: its heads for permuted labels do not fit")
    return found.float()


def _headless(config: NeuroSTORMConfig) -> NeuroSTORMConfig:
    return replace(config, head=None, n_outputs=0)


def _about(hyper_parameters: HyperParameters) -> str:
    name, backbone = hyper_parameters.get("dataset_name"), hyper_parameters.get("backbone")
    where = f" on {one_line(name)}" if isinstance(name, str) and name.strip() else ""
    if isinstance(backbone, dict):
        start, tuning = stem_of_model(Path(str(backbone.get("name")))), hyper_parameters.get("tuning")
        return f"fine-tuned from {one_line(start)} ({one_line(tuning)}){where}"
    return f"trained{where}" if where else ""


def _grid_of(checkpoint: Checkpoint) -> Grid:
    name = checkpoint.hyper_parameters.get("grid")
    if name is not None and not isinstance(name, str):
        raise NeurostormError(f"{checkpoint.path}: its hyper-parameter grid is {name!r}, not a name")
    try:
        return get_grid(name)
    except NeurostormError as error:
        raise NeurostormError(f"{checkpoint.path}: {error}") from None


def _at_random(model: Model) -> Model:
    """Return a network of the same shape with random weights: what an encoder tells that has learnt nothing."""
    return replace(
        model,
        name=f"{model.name}{AT_RANDOM}",
        label=f"{model.label}{LABELS[AT_RANDOM]}",
        network=random_network(model.network.config).to(model.device),
        task=None,
        sha256=hashlib.sha256(model.sha256.encode() + b"random").hexdigest(),
        source=f"random weights in the shape of {model.name}",
        about="",
        warning=RANDOM_WEIGHTS,
        encoder_of=None,
        reference=None,
    )


def _with_control(model: Model, at: str) -> Model:
    """Return a model that is fed something else than the run: its head was not made for that, and is left off."""
    return replace(
        model,
        name=f"{model.name}{at}",
        label=f"{model.label}{LABELS[at]}",
        task=None,
        sha256=hashlib.sha256(f"{model.encoder}{at}".encode()).hexdigest(),
        about="",
        warning="; ".join(filter(None, (model.warning, CONTROLS[at]))),
        encoder_of=None,
        reference=None,
        control=at,
    )


def _demo(device: torch.device) -> Model:
    model = _from_file(DEMO_FILE, device, 0)
    return replace(
        model, name=DEMO, label=DEMO, source="embedded in neurostorm_bids", warning=DEMONSTRATION, licence=DEMO_LICENCE
    )


def device_of(device: str) -> torch.device:
    """Return the device that a word asks for; "auto" takes a GPU if there is one.

    Raises
    ------
    NeurostormError
        If it is unknown, or no such device is here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda") and not re.fullmatch(r"cuda:\d+", str(device)):
        raise NeurostormError(f"unknown device '{device}'; there are: auto, cpu, cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise NeurostormError("--device cuda: PyTorch sees no GPU here; use --device cpu, or run where there is one")
    return torch.device(device)


def _difference(expected: dict[str, tuple[int, ...]], got: dict[str, tuple[int, ...]]) -> str:
    missing = sorted(expected.keys() - got.keys())
    unexpected = sorted(got.keys() - expected.keys())
    changed = sorted(name for name in expected.keys() & got.keys() if expected[name] != got[name])
    parts = []
    if missing:
        parts.append(f"{len(missing)} weights are missing ({missing[0]}, ...)")
    if unexpected:
        parts.append(f"{len(unexpected)} are not NeuroSTORM's ({unexpected[0]}, ...)")
    if changed:
        name = changed[0]
        parts.append(f"{len(changed)} have another shape ({name}: {got[name]}, the model needs {expected[name]})")
    return "the weights do not fit the hyper-parameters: " + "; ".join(parts)
