"""Read and write checkpoint files without executing anything that is in them.

A Lightning ``.ckpt`` is a zip archive: ``<name>/data.pkl`` holds a pickle of nested dictionaries, ``<name>/data/<key>``
the bytes of each tensor. Unpickling normally calls whatever the file names. Here the only callables that a pickle can
reach are the inert ones below: tensors come back as tensors, containers and plain values as themselves, and anything
else as an `Inert` object that does nothing and is dropped. ``torch.load(weights_only=True)`` would refuse the published
checkpoints as a whole, because their hyper-parameters hold argparse Namespaces.
"""

import hashlib
import json
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurostorm_bids.errors import NeurostormError

STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
PLAIN_TYPES = (str, int, float, bool, type(None))
MAX_PICKLE = 64 * 2**20  # bytes; published checkpoints hold some hundred kB beside the tensors
MAX_ITEMS, MAX_DEPTH = 100_000, 8  # of nested hyper-parameters


@dataclass
class Checkpoint:
    """What is used of a checkpoint file.

    Attributes
    ----------
    path : Path
    tensors : dict
        By the names of the file.
    hyper_parameters : dict
        Those that are plain values.
    dropped : list of str
        Names of those that are not.
    """

    path: Path
    tensors: dict[str, Tensor]
    hyper_parameters: dict[str, Any]
    dropped: list[str] = field(default_factory=list)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a Lightning ``.ckpt`` or a ``.safetensors`` written by `write_safetensors`.

    Raises
    ------
    NeurostormError
        If the file is missing, damaged, of another format, or holds something that cannot be read safely.
    """
    path = Path(path)
    if not path.is_file():
        raise NeurostormError(
            f"model file not found: {path.absolute()}; give a file or folder that is there, or a name of 'neurostorm-model list'"
        )
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_lightning(path)


def write_lightning(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write tensors and hyper-parameters as the published code reads them: a checkpoint of Lightning 1.9 without its training."""
    content = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "1.9.4",
        "state_dict": OrderedDict((name, tensor.contiguous()) for name, tensor in checkpoint.tensors.items()),
        "hparams_name": "kwargs",
        "hyper_parameters": dict(checkpoint.hyper_parameters),
    }
    torch.save(content, path)


def write_safetensors(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write tensors as safetensors, with the hyper-parameters as JSON in the metadata of the file."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in checkpoint.tensors.items()}
    save_file(tensors, str(path), metadata={"hyper_parameters": json.dumps(checkpoint.hyper_parameters)})


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits (what ``sha256sum`` prints)."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            hyper_parameters = json.loads((file.metadata() or {}).get("hyper_parameters", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise NeurostormError(f"{path} is not a readable safetensors file ({error}); fetch it again") from None
    if not isinstance(hyper_parameters, dict):
        raise NeurostormError(f"{path}: its metadata 'hyper_parameters' is not a JSON object; convert the .ckpt again")
    return Checkpoint(path, tensors, hyper_parameters)


def _read_lightning(path: Path) -> Checkpoint:
    try:
        with zipfile.ZipFile(path) as archive:
            content = _Unpickler(archive, path).read()
    except NeurostormError:
        raise
    except zipfile.BadZipFile:
        raise NeurostormError(
            f"{path} is not a PyTorch checkpoint (not a zip archive, or cut short); fetch it again"
        ) from None
    except Exception as error:  # a pickle from outside can raise anything
        raise NeurostormError(
            f"{path} was refused: its pickle cannot be read safely ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise NeurostormError(f"{path} has no state_dict: it is not a Lightning checkpoint")
    tensors = {str(name): value for name, value in _items(content["state_dict"]) if isinstance(value, Tensor)}
    hyper_parameters: dict[str, Any] = {}
    dropped, budget = [], [MAX_ITEMS]
    for name, value in _items(content.get("hyper_parameters")):
        try:
            hyper_parameters[str(name)] = _plain(value, budget)
        except TypeError:
            dropped.append(str(name))
    return Checkpoint(path, tensors, hyper_parameters, dropped)


class Inert(dict[str, Any]):
    """Stands for any object of a pickle that is neither tensor nor plain value; takes everything, does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "Inert":
        """Make an empty one, whatever the pickle gives."""
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any):
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):  # argparse.Namespace and the like: their attributes are the content
            self.update(state)

    def append(self, _item: Any) -> None:
        """Do nothing."""

    def extend(self, _items: Any) -> None:
        """Do nothing."""

    def add(self, _item: Any) -> None:
        """Do nothing."""


# The unpickler in Python, not the one in C, which allocates memory for any index that a file claims
class _Unpickler(pickle._Unpickler):
    """An unpickler that can build tensors from the archive's members and `Inert` objects, nothing else."""

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        self.archive, self.path = archive, path
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise NeurostormError(f"{path} is not a PyTorch checkpoint (no data.pkl in the archive)")
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise NeurostormError(f"{path} was refused: a PyTorch checkpoint is not compressed, this archive is")
        if members[pickles[0]].file_size > MAX_PICKLE:
            raise NeurostormError(f"{path} was refused: its pickle is {members[pickles[0]].file_size / 2**20:.0f} MiB")
        byteorder = pickles[0].removesuffix("data.pkl") + "byteorder"
        if byteorder in members and archive.read(byteorder) != b"little":
            raise NeurostormError(f"{path} was saved on a big-endian machine; save it again on a little-endian one")
        self.members, self.folder = members, pickles[0].removesuffix("data.pkl") + "data/"
        self.storages: dict[str, Tensor] = {}
        super().__init__(archive.open(pickles[0]), encoding="utf-8")

    def read(self) -> Any:
        return self.load()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module in ("torch", "torch.storage") and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        return Inert

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, *_ = pid
        member = self.members.get(f"{self.folder}{key}")
        if kind != "storage" or not isinstance(dtype, torch.dtype) or member is None:
            raise NeurostormError(f"{self.path} was refused: it refers to a tensor storage it does not hold ({key!r})")
        if key not in self.storages:
            self.storages[key] = (
                torch.frombuffer(bytearray(self.archive.read(member)), dtype=dtype)
                if member.file_size
                else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]

    def _rebuild_tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        if not isinstance(storage, Tensor):
            raise NeurostormError(f"{self.path} was refused: a tensor without a storage")
        size, stride = tuple(size), tuple(stride)
        numbers = (offset, *size, *stride)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if not all(type(n) is int and n >= 0 for n in numbers) or (0 not in size and last >= len(storage)):
            raise NeurostormError(f"{self.path} was refused: a tensor reaches outside its storage")
        return torch.as_strided(storage, size, stride, offset)


def _items(value: Any) -> list[tuple[Any, Any]]:
    # dict.items, not value.items: a pickle can give an object an attribute of that name
    return list(dict.items(value)) if isinstance(value, dict) else []


def _plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Copy a plain value; raise TypeError for anything else, or once the budget of items is spent."""
    budget[0] -= 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise TypeError
    if type(value) in PLAIN_TYPES:
        return value
    if type(value) in (list, tuple):
        return [_plain(item, budget, depth + 1) for item in value]
    if type(value) in (dict, OrderedDict) or (type(value) is Inert and value):
        return {str(key): _plain(item, budget, depth + 1) for key, item in _items(value)}
    raise TypeError
