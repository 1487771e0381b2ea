"""Find TemplateFlow's files: in its folder, or fetched where there is a network."""

import errno
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from neurostorm_bids.errors import NeurostormError


@dataclass(frozen=True)
class TemplateWarp:
    """The transform of images from one template to another; it maps points from ``target`` to ``source``."""

    source: str
    target: str

    @property
    def name(self) -> str:
        """TemplateFlow's name of the file."""
        return f"tpl-{self.target}_from-{self.source}_mode-image_xfm.h5"


def templateflow_home() -> Path:
    """Return TemplateFlow's folder on this machine."""
    return Path(os.environ.get("TEMPLATEFLOW_HOME") or Path.home() / ".cache" / "templateflow")


def find_warp(warp: TemplateWarp, fetch: bool = True) -> Path:
    """Find the file of a warp on this machine, or fetch it.

    Raises
    ------
    NeurostormError
        If it is not there and cannot be fetched; with its name, where to put it, and how to do without it.
    """
    query = {"from": warp.source, "mode": "image", "suffix": "xfm", "extension": ".h5"}
    path, why = _find(warp.target, warp.name, fetch, **query)
    if path is None:
        raise NeurostormError(
            f"the warp between the templates is not on this machine: {templateflow_home() / f'tpl-{warp.target}' / warp.name}{why}. "
            'On a machine with a network: python -c "from templateflow.api import get; '
            f"get('{warp.target}', **{query})\", then copy the file there (the folder is TEMPLATEFLOW_HOME). "
            f"Or --template-warp skip: {warp.source} is taken for {warp.target}, a misfit of a few mm"
        )
    return path


def find_template(template: str, desc: str | None, suffix: str, fetch: bool = True) -> Path:
    """Find a template's image at 2 mm on this machine, or fetch it.

    Raises
    ------
    NeurostormError
        If it is not there and cannot be fetched.
    """
    name = f"tpl-{template}_res-02_{f'desc-{desc}_' if desc else ''}{suffix}.nii.gz"
    path, why = _find(template, name, fetch, resolution=2, desc=desc, suffix=suffix, extension=".nii.gz")
    if path is None:
        raise NeurostormError(
            f"the template is not on this machine: {templateflow_home() / f'tpl-{template}' / name}{why}. Fetch it with "
            "TemplateFlow on a machine with a network and put it there (the folder is TEMPLATEFLOW_HOME)"
        )
    return path


def is_image(name: str) -> bool:
    """Whether an atlas is given as a file, and not by TemplateFlow's name."""
    return name.endswith((".nii", ".nii.gz"))


def find_atlas(template: str, name: str, fetch: bool = True) -> Path:
    """Find an atlas: a file, or TemplateFlow's, such as Schaefer2018_100Parcels7Networks.

    Raises
    ------
    NeurostormError
        If it is not there and cannot be fetched.
    """
    if is_image(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise NeurostormError(f"--timeseries {name}: there is no such file")
        return path
    atlas, _, desc = name.partition("_")
    file = f"tpl-{template}_res-02_atlas-{atlas}_{f'desc-{desc}_' if desc else ''}dseg.nii.gz"
    query = {"resolution": 2, "atlas": atlas, "desc": desc or None, "suffix": "dseg", "extension": ".nii.gz"}
    found, why = _find(template, file, fetch, **query)
    if found is None:
        raise NeurostormError(
            f"--timeseries {name}: the atlas is not on this machine: {templateflow_home() / f'tpl-{template}' / file}{why}. Fetch it with "
            "TemplateFlow on a machine with a network and put it there (the folder is TEMPLATEFLOW_HOME), or give a file (.nii.gz)"
        )
    return found


@cache
def _fetched(template: str, query: tuple[tuple[str, object], ...]) -> tuple[Path | None, str]:
    """Ask TemplateFlow, once per process: without a network each attempt takes time.

    Returns
    -------
    path : Path or None
        `None` if the file could not be fetched.
    why : str
        What kept it from being fetched, if that is this machine's disk and not the network.
    """
    try:
        from templateflow import api

        path = Path(api.get(template, **dict(query), raise_empty=True))
    except OSError as error:  # of a disk, or of the network
        of_the_disk = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
        return None, f" (fetching it failed: {error.strerror})" if of_the_disk else ""
    except Exception:  # an unknown file, or one of the many kinds that mean that there is no network
        return None, ""
    return (path, "") if path.is_file() and path.stat().st_size else (None, "")


def _find(template: str, name: str, fetch: bool, **query: object) -> tuple[Path | None, str]:
    local = templateflow_home() / f"tpl-{template}" / name
    if local.is_file() and local.stat().st_size:  # TemplateFlow keeps files of 0 bytes for what it has not fetched
        return local, ""
    return _fetched(template, tuple(query.items())) if fetch else (None, "")
