"""Find TemplateFlow's files: in its folder, or fetched where there is a network."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Optional

from neurostorm_bids.errors import NeurostormError


@dataclass(frozen=True)
class TemplateWarp:
    """The transform of images from one template to another; of points, from ``target`` to ``source``."""

    source: str
    target: str

    @property
    def name(self) -> str:
        """TemplateFlow's name of the file."""
        return f"tpl-{self.target}_from-{self.source}_mode-image_xfm.h5"


def templateflow_home() -> Path:
    """TemplateFlow's folder on this machine."""
    return Path(os.environ.get("TEMPLATEFLOW_HOME") or Path.home() / ".cache" / "templateflow")


def find_warp(warp: TemplateWarp, fetch: bool = True) -> Path:
    """The file of a warp on this machine.

    Raises
    ------
    NeurostormError
        If it is not there and cannot be fetched; with its name, the place for it, and the way without it.
    """
    query = {"from": warp.source, "mode": "image", "suffix": "xfm", "extension": ".h5"}
    path = _find(warp.target, warp.name, fetch, **query)
    if path is None:
        raise NeurostormError(
            f"the warp between the templates is not on this machine: {templateflow_home() / f'tpl-{warp.target}' / warp.name}. "
            'On a machine with a network: python -c "from templateflow.api import get; '
            f"get('{warp.target}', **{query})\", and copy the file there (the folder is TEMPLATEFLOW_HOME). "
            f"Or --template-warp skip: {warp.source} is taken for {warp.target}, a misfit of a few mm"
        )
    return path


def find_template(template: str, desc: Optional[str], suffix: str, fetch: bool = True) -> Path:
    """A template's image at 2 mm, fetched if it is not on this machine and that is wanted.

    Raises
    ------
    NeurostormError
        If it is not there and cannot be fetched.
    """
    name = f"tpl-{template}_res-02_{f'desc-{desc}_' if desc else ''}{suffix}.nii.gz"
    path = _find(template, name, fetch, resolution=2, desc=desc, suffix=suffix, extension=".nii.gz")
    if path is None:
        raise NeurostormError(
            f"the template is not on this machine: {templateflow_home() / f'tpl-{template}' / name}. Fetch it with "
            f"TemplateFlow on a machine with a network and put it there (the folder is TEMPLATEFLOW_HOME)"
        )
    return path


@cache
def _fetched(template: str, query: tuple) -> Optional[Path]:
    """Ask TemplateFlow, once a process: without a network each attempt takes time."""
    try:
        from templateflow import api

        path = Path(api.get(template, **dict(query), raise_empty=True))
    except Exception:  # no network, read-only cache, unknown file: all mean that it could not be fetched
        return None
    return path if path.is_file() and path.stat().st_size else None


def _find(template: str, name: str, fetch: bool, **query) -> Optional[Path]:
    local = templateflow_home() / f"tpl-{template}" / name
    if local.is_file() and local.stat().st_size:  # TemplateFlow keeps files of 0 bytes for what it did not fetch
        return local
    return _fetched(template, tuple(query.items())) if fetch else None
