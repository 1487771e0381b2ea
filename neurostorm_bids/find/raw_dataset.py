"""Find the raw data set that derivatives were made from, and a run's file in it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from neurostorm_bids.find.entities import ECHO, entities_of
from neurostorm_bids.runtime.json_files import read_json

PART = "part"  # of complex-valued data; programs drop it or not
LOOKED_AT = 5  # subjects of derivatives that have to be in a raw data set that was looked for
NOT_OF_A_RUN = (ECHO, PART)


def find_raw_dataset(derivatives: Path, description: dict[str, Any]) -> Path | None:
    """Return the raw data set of derivatives; `None` if it is not on this machine, or nothing says where.

    Looked for in this order: ``DatasetLinks`` and ``SourceDatasets`` of their description; ``sourcedata/raw`` in them; the
    folder whose ``derivatives`` they are in.
    """
    for place in (
        *described_sources(derivatives, description),
        derivatives / "sourcedata" / "raw",
        *_around(derivatives),
    ):
        if place != derivatives and _holds_raw_subjects(place, derivatives):
            return place.resolve()
    return None


def raw_series(raw: Path, folder: Path, run: dict[str, str]) -> list[Path]:
    """Return a run's series in the raw data set: one; several if it has several echoes; none if it is not there.

    Parameters
    ----------
    folder : Path
        Such as sub-01/func.
    run : dict
        Entities.
    """
    wanted = {key: label for key, label in run.items() if key not in NOT_OF_A_RUN}
    fitting = []
    for name in _listed(raw / folder):
        if name.endswith(("_bold.nii.gz", "_bold.nii")):
            entities = entities_of(name)
            is_phase = entities.get(PART, "mag") not in ("mag", run.get(PART))
            if not is_phase and {k: v for k, v in entities.items() if k not in NOT_OF_A_RUN} == wanted:
                fitting.append(raw / folder / name)
    if ECHO in run:
        fitting = [path for path in fitting if entities_of(path).get(ECHO) == run[ECHO]]
    return fitting


def described_sources(derivatives: Path, description: dict[str, Any]) -> Iterator[Path]:
    """Yield the folders on this machine that a description names as its sources."""
    links, sources = description.get("DatasetLinks"), description.get("SourceDatasets")
    places = [links.get("raw")] if isinstance(links, dict) else []
    places += [each.get("URL") for each in sources if isinstance(each, dict)] if isinstance(sources, list) else []
    for place in places:
        if not isinstance(place, str) or not place:
            continue
        try:
            url = urlparse(place)
        except ValueError:
            continue
        if url.scheme in ("", "file"):
            yield derivatives / unquote(url.path)


def _around(derivatives: Path) -> Iterator[Path]:
    """Yield the folder whose ``derivatives`` this is in."""
    if derivatives.parent.name == "derivatives":
        yield derivatives.parent.parent


def _holds_raw_subjects(place: Path, derivatives: Path) -> bool:
    """Whether a folder is a raw data set and holds the first subjects of the derivatives: a path may be another machine's."""
    there = {name for name in _listed(place) if name.startswith("sub-")}
    if not there or read_json(place / "dataset_description.json").get("DatasetType") == "derivative":
        return False
    subjects = [name for name in _listed(derivatives) if name.startswith("sub-") and (derivatives / name).is_dir()]
    return there.issuperset(subjects[:LOOKED_AT])


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):  # the latter of names that no file can have
        return []
