"""From a name or a file to a model that is ready to run."""

import hashlib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import torch
from torch import Tensor

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.checkpoint import Checkpoint, read_checkpoint, sha256_of
from neurostorm_bids.model.network import NeuroSTORM, NeuroSTORMConfig
from neurostorm_bids.model.registry import DEMO, find_weights, published, registry
from neurostorm_bids.model.task import Task
from neurostorm_bids.model.tuned import AT_RANDOM, backbone_of, is_head_alone, put_into, weights_file
from neurostorm_bids.model.untrained import DEMO_CONFIG, DEMO_TASK, UNTRAINED, demo_weights
from neurostorm_bids.resample.grid import Grid, get_grid
from neurostorm_bids.runtime.files import LONGEST_CHAIN, MODEL_FILE

# What only pretraining needs (mask tokens, the decoder), and a norm in older heads that their forward never used.
NOT_USED = re.compile(
    r"model\.((window_|atlas_)?mask_token$|first_patch_expanding\.|layers_up\.|norm_up\.|decoder_pred\.)"
    r"|output_head\.head\.norm\."
)
RANDOM_WEIGHTS = "random weights, for comparison"
ENDINGS = (".ckpt", ".safetensors", ".pt", ".pth")
SEVERAL = ("img_size", "patch_size", "depths", "first_window_size", "window_size")
SINGLE = ("in_chans", "embed_dim", "c_multiplier")
NEEDED = ("window_size", "first_window_size", "last_layer_full_MSA")  # these change no shape of a weight
LARGEST_NETWORK = 2 * 10**9  # weights
LARGEST = 4096  # no size in a configuration is larger; keeps a damaged file from filling memory


@dataclass(frozen=True)
class Model:
    """A NeuroSTORM model with its weights.

    Attributes
    ----------
    name : str
        Registry name, or the file's name without suffix.
    label : str
        `name` in letters and digits, for the BIDS entity ``desc-``.
    hyper_parameters : dict
        As stored in the checkpoint; plain values.
    grid : Grid
        The grid the model was trained in.
    task : Task or None
        What the head predicts; `None` without a head, or if the checkpoint does not say what its head is.
    sha256 : str
        Of the weights file; for the demo model, of its tensors.
    source : str
        Where the weights came from.
    about : str
        What is known of their training, in one line; empty if nothing is.
    warning : str or None
        Goes into every output, such as "untrained, for demonstration".
    encoder_of : str or None
        SHA-256 of the model whose encoder this is, if not its own.
    """

    name: str
    label: str
    network: NeuroSTORM
    hyper_parameters: dict
    grid: Grid
    task: Optional[Task]
    sha256: str
    source: str
    device: torch.device
    about: str = ""
    warning: Optional[str] = None
    encoder_of: Optional[str] = None

    @property
    def encoder(self) -> str:
        """Stands for the encoder's weights: models with the same one give the same embeddings."""
        return self.encoder_of or self.sha256

    @property
    def n_frames(self) -> int:
        """Frames in one clip."""
        return self.network.config.n_frames

    @torch.inference_mode()
    def features(self, clips: Tensor) -> Tensor:
        """Output tokens of clips, (B, 1, X, Y, Z, T) -> (B, C, x, y, z, T)."""
        return self.network.features(self._checked(clips))

    @torch.inference_mode()
    def embed(self, clips: Tensor, precision: str = "fp32") -> Tensor:
        """Embeddings of clips, (B, 1, X, Y, Z, T) -> (B, C): the mean over all output tokens.

        ``precision`` is "fp32", or "bf16" or (on a GPU) "fp16" for matrix products in that type.
        """
        return self.network.embed(self._checked(clips), precision)

    @torch.inference_mode()
    def predict(self, clips: Tensor) -> Tensor:
        """Raw outputs of the head (logits, or a standardised value), (B, 1, X, Y, Z, T) -> (B, outputs)."""
        return self.predict_from(self.embed(clips))

    @torch.inference_mode()
    def predict_from(self, embeddings: Tensor) -> Tensor:
        """Raw outputs of the head from embeddings, (B, C) -> (B, outputs)."""
        if self.network.output_head is None:
            raise NeurostormError(f"model '{self.name}' has no head: it gives embeddings, not predictions")
        return self.network.output_head(embeddings.to(self.device))

    def _checked(self, clips) -> Tensor:
        clips = torch.as_tensor(clips, dtype=torch.float32)
        config = self.network.config
        if clips.ndim != 6 or clips.shape[1] != config.in_chans or clips.shape[5] != config.n_frames:
            raise NeurostormError(
                f"clips have shape {tuple(clips.shape)}; model '{self.name}' takes "
                f"(batch, {config.in_chans}, X, Y, Z, {config.n_frames})"
            )
        sizes = {self.grid.shape, tuple(config.img_size[:3])}
        if tuple(clips.shape[2:5]) not in sizes:
            raise NeurostormError(
                f"clips have {tuple(clips.shape[2:5])} voxels; model '{self.name}' takes {' or '.join(map(str, sorted(sizes)))}"
                " (to_model_grid places a run in its grid)"
            )
        return clips.to(self.device)


def load_model(name_or_path: "str | Path", device: str = "auto") -> Model:
    """Load a NeuroSTORM model.

    Parameters
    ----------
    name_or_path : str or path
        A name that ``neurostorm-model list`` shows, a ``.ckpt`` or ``.safetensors`` file, or the folder of a
        fine-tuned model. With ``@random`` after it: a network of its shape with random weights, to compare with.
    device : {"auto", "cpu", "cuda"}
        "auto" takes a GPU if there is one.

    Returns
    -------
    Model

    Raises
    ------
    NeurostormError
        If the model is unknown, its weights are not on this machine, the file is damaged or unsafe, or its weights
        do not fit its hyper-parameters.
    """
    return _load(name_or_path, device, LONGEST_CHAIN)


def _load(name_or_path: "str | Path", device: str, chain: int) -> Model:
    where = _device(device)
    if str(name_or_path).endswith(AT_RANDOM):
        return _at_random(_load(str(name_or_path).removesuffix(AT_RANDOM), device, chain))
    if str(name_or_path).lower() == DEMO:
        return _demo(where)
    if _is_file_name(name_or_path):
        path, known = Path(name_or_path).expanduser(), None
    else:
        known = published(str(name_or_path))
        path = find_weights(known)
    checkpoint, backbone = read_whole(path, chain)
    network, config = build_network(checkpoint)
    task = known.task if known and known.task and config.head else task_of(checkpoint.hyper_parameters, config)
    if known and task and task.n_outputs not in (None, config.n_outputs):
        raise NeurostormError(
            f"{path}: its head has {config.n_outputs} outputs, '{known.name}' has {task.n_outputs}; fetch it again"
        )
    is_linear = checkpoint.hyper_parameters.get("tuning") == "linear"
    if task and "tuning" in checkpoint.hyper_parameters:  # written by us, so it says what it predicts
        named = len(task.classes) == (2 if task.kind == "binary" else config.n_outputs)
        if task.kind == "unknown" or not (task.is_scaled_back if task.kind == "regression" else named):
            raise NeurostormError(f"{checkpoint.path} is damaged: it does not say what the outputs of its head mean")
    name = known.name if known else _stem(path)
    return Model(
        name=name,
        label=_label(name),
        network=network.to(where),
        hyper_parameters=checkpoint.hyper_parameters,
        grid=get_grid(known.grid) if known else _grid_of(checkpoint),
        task=task,
        sha256=sha256_of(checkpoint.path),
        source=f"{known.repository}@{known.revision}:{known.file}" if known else str(path),
        device=where,
        about=known.about if known else _trained_on(checkpoint.hyper_parameters),
        warning=backbone.warning if backbone else None,
        encoder_of=backbone.encoder if backbone and is_linear and _same_encoder(config, backbone) else None,
    )


def _same_encoder(config: NeuroSTORMConfig, backbone: Model) -> bool:
    return replace(config, head=None, n_outputs=0) == replace(backbone.network.config, head=None, n_outputs=0)


def read_whole(path: Path, chain: int = LONGEST_CHAIN) -> "tuple[Checkpoint, Optional[Model]]":
    """Read a checkpoint; of a fine-tuned model the tuned parts are put into the backbone, which is returned too.

    Parameters
    ----------
    chain : int
        How many models may be tuned from one another.
    """
    checkpoint = read_checkpoint(weights_file(path))
    if checkpoint.hyper_parameters.get("backbone") is None:
        return checkpoint, None
    if not chain:
        raise NeurostormError(f"{checkpoint.path}: more than {LONGEST_CHAIN} models are tuned from one another")
    backbone = backbone_of(checkpoint, lambda name: _load(name, "cpu", chain - 1))
    if checkpoint.hyper_parameters.get("tuning") == "linear" and not is_head_alone(checkpoint.tensors):
        raise NeurostormError(f"{checkpoint.path}: it says that its head alone was tuned, and holds more")
    return put_into(backbone.network, checkpoint), backbone


def build_network(checkpoint: Checkpoint) -> "tuple[NeuroSTORM, NeuroSTORMConfig]":
    """Build the network that a checkpoint describes and fill it with its weights, strictly.

    Raises
    ------
    NeurostormError
        If names or shapes differ from what the hyper-parameters call for.
    """
    size = sum(t.numel() for t in checkpoint.tensors.values())
    if size > LARGEST_NETWORK:  # a tensor can claim more numbers than its storage has, all the same one
        raise NeurostormError(f"{checkpoint.path} was refused: it claims {size:.2g} weights")
    tensors = {name: t.float() for name, t in checkpoint.tensors.items() if not NOT_USED.match(name)}
    if checkpoint.hyper_parameters.get("pretraining"):  # a contrastive projection head is not a prediction
        tensors = {name: t for name, t in tensors.items() if not name.startswith("output_head.")}
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
    network.requires_grad_(False)
    return network.eval(), config


def config_of(hyper_parameters: dict, tensors: dict) -> NeuroSTORMConfig:
    """Read the network's configuration from a checkpoint's hyper-parameters and the shapes of its weights."""
    fields = {}
    if missing := [name for name in NEEDED if hyper_parameters.get(name) is None]:
        raise ValueError(f"{missing[0]} is missing, and the weights do not tell it")
    for name in SEVERAL:
        if hyper_parameters.get(name) is not None:
            fields[name] = tuple(_size(name, n) for n in hyper_parameters[name])
    for name in SINGLE:
        if hyper_parameters.get(name) is not None:
            fields[name] = _size(name, hyper_parameters[name])
    if hyper_parameters.get("last_layer_full_MSA") is not None:
        fields["last_layer_full_MSA"] = _truth(hyper_parameters["last_layer_full_MSA"])
    prompts = {t.shape[1] for name, t in tensors.items() if name.endswith(".prompt") and t.ndim == 3}
    if len(prompts) > 1:
        raise ValueError(f"prompts of several lengths: {sorted(prompts)}")
    fields["prompt_len"] = prompts.pop() if prompts else 0
    head = tensors.get("output_head.head.head.weight")
    if head is not None:
        fields["head"] = "v2" if "output_head.head.hidden.weight" in tensors else "v1"
        fields["n_outputs"] = head.shape[0]
    config = NeuroSTORMConfig(**fields)
    for name in ("img_size", "patch_size", "first_window_size", "window_size"):
        if len(getattr(config, name)) != 4:
            raise ValueError(f"{name} has {len(getattr(config, name))} numbers, not 4")
    if any(n % p for n, p in zip(config.img_size, config.patch_size, strict=True)):
        raise ValueError(f"img_size {config.img_size} is not a multiple of patch_size {config.patch_size}")
    if not config.depths or config.n_channels > 2**16:
        raise ValueError(f"depths {config.depths} and c_multiplier {config.c_multiplier} are beyond reason")
    if sum(config.depths) > 256 or math.prod(config.img_size) > 2**31:
        raise ValueError("depths or img_size is beyond reason")
    return config


def task_of(hyper_parameters: dict, config: NeuroSTORMConfig) -> Optional[Task]:
    """What a checkpoint's head predicts, as far as the checkpoint says."""
    if config.head is None:
        return None
    kinds = {"classification": "binary" if config.n_outputs == 1 else "multiclass", "regression": "regression"}
    kind = kinds.get(str(hyper_parameters.get("downstream_task_type")), "unknown")
    if kind == "regression" and config.n_outputs != 1:
        kind = "unknown"
    scaling = {key: hyper_parameters.get(key) for key in ("label_mean", "label_std")}
    scaling = {key: float(v) if type(v) in (int, float) and abs(v) < 1e30 else None for key, v in scaling.items()}
    minmax = "min" in str(hyper_parameters.get("label_scaling_method"))  # scaled to a range, not by mean and std
    if minmax or None in scaling.values() or not scaling["label_std"] > 0:
        scaling = {}
    return Task(
        kind,
        target=_one_line(hyper_parameters.get("task_name") or "target"),
        classes=_class_names(hyper_parameters.get("classes"), 2 if kind == "binary" else config.n_outputs),
        unit=_one_line(hyper_parameters["unit"]) if isinstance(hyper_parameters.get("unit"), str) else None,
        label_range=_range(hyper_parameters.get("label_range")),
        trained_on=_one_line(hyper_parameters.get("dataset_name") or "") or None,
        **scaling,
    )


def _trained_on(hyper_parameters: dict) -> str:
    name, backbone = hyper_parameters.get("dataset_name"), hyper_parameters.get("backbone")
    where = f" on {_one_line(name)}" if isinstance(name, str) and name.strip() else ""
    if isinstance(backbone, dict):
        tuning = hyper_parameters.get("tuning")
        return f"fine-tuned from {_one_line(_stem(Path(str(backbone.get('name')))))} ({_one_line(tuning)}){where}"
    return f"trained{where}" if where else ""


def _range(value) -> "tuple[float, float] | None":
    good = isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) in (int, float) for v in value)
    return (float(value[0]), float(value[1])) if good and -1e30 < value[0] <= value[1] < 1e30 else None


def _class_names(names, expected: int) -> tuple:
    if not isinstance(names, list) or len(names) != expected:
        return ()
    names = tuple(map(_one_line, names))
    return names if len(set(names)) == expected and all(names) else ()


def _one_line(text) -> str:
    """Text that a cell of a table can hold."""
    return " ".join(str(text).split())[:80]


def with_label_scaling(model: Model, mean: Optional[float], std: Optional[float]) -> Model:
    """The model with the user's label scaling in place of the registry's or the checkpoint's."""
    if model.task is None or (mean is None and std is None):
        return model
    return replace(model, task=model.task.with_scaling(mean, std))


def _grid_of(checkpoint: Checkpoint) -> Grid:
    name = checkpoint.hyper_parameters.get("grid")
    if name is not None and not isinstance(name, str):
        raise NeurostormError(f"{checkpoint.path}: its hyper-parameter grid is {name!r}, not a name")
    try:
        return get_grid(name)
    except NeurostormError as error:
        raise NeurostormError(f"{checkpoint.path}: {error}") from None


def _at_random(model: Model) -> Model:
    """A network of the same shape with random weights: what an encoder tells that has learnt nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NeuroSTORM(replace(model.network.config, head=None, n_outputs=0))
    network.requires_grad_(False).eval()
    digest = hashlib.sha256(model.sha256.encode() + b"random").hexdigest()
    return replace(
        model, name=f"{model.name}{AT_RANDOM}", label=f"{model.label}Random", network=network.to(model.device), task=None,
        sha256=digest, source=f"random weights in the shape of {model.name}", about="", warning=RANDOM_WEIGHTS,
    )  # fmt: skip


def _demo(device: torch.device) -> Model:
    weights = demo_weights()
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    network = NeuroSTORM(DEMO_CONFIG)
    network.load_state_dict(weights)
    network.requires_grad_(False).eval()
    return Model(
        DEMO, DEMO, network.to(device), {}, get_grid(None), DEMO_TASK, digest.hexdigest(),
        "embedded in neurostorm_bids", device, warning=UNTRAINED,
    )  # fmt: skip


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda") and not re.fullmatch(r"cuda:\d+", str(device)):
        raise NeurostormError(f"unknown device '{device}'; there are: auto, cpu, cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise NeurostormError("--device cuda: PyTorch sees no GPU here; use --device cpu, or run where there is one")
    return torch.device(device)


def _is_file_name(name_or_path: "str | Path") -> bool:
    text = str(name_or_path)
    is_name = text.lower() in {name.lower() for name in registry()}
    looks_like_one = "/" in text or text.endswith(ENDINGS)
    is_there = Path(text).is_file() or (Path(text) / MODEL_FILE).is_file()
    return isinstance(name_or_path, Path) or looks_like_one or (not is_name and is_there)


def reference_to(name_or_path: "str | Path") -> str:
    """What finds a model again from any folder: a name of the registry, or an absolute path."""
    text, at, _ = str(name_or_path).partition(AT_RANDOM)
    if text.lower() == DEMO:
        return DEMO + at
    return (str(Path(text).expanduser().absolute()) if _is_file_name(text) else published(text).name) + at


def _stem(path: Path) -> str:
    """A file's name without its ending; a folder's whole name."""
    return path.stem if path.name.endswith(ENDINGS) else path.name


def label_of_name(name_or_path: "str | Path") -> str:
    """What a model's files are labelled with (``desc-<label>``); the weights need not be there."""
    text, at, rest = str(name_or_path).partition(AT_RANDOM)
    suffix = " random" if at and not rest else ""
    if _is_file_name(text):
        return _label(_stem(Path(text)) + suffix)
    return _label((DEMO if text.lower() == DEMO else published(text).name) + suffix)


def _label(name: str) -> str:
    words = re.split(r"[^A-Za-z0-9]+", name)
    return words[0] + "".join(word[:1].upper() + word[1:] for word in words[1:]) or "model"


def _size(name: str, value) -> int:
    if type(value) not in (int, float) or not 1 <= value <= LARGEST or int(value) != value:
        raise ValueError(f"{name} is {value!r}")
    return int(value)


def _truth(value) -> bool:
    return value.strip().lower() in ("1", "true", "yes") if isinstance(value, str) else bool(value)


def _difference(expected: dict, got: dict) -> str:
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
