"""What ``fMRIPrep --level minimal`` leaves of a run: transforms that lead from the raw series to everything else.

Names of files: fMRIPrep 22.1 to 25.2, and those announced for 26.
"""

import re
from pathlib import Path
from typing import Any

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.entities import ECHO, entities_of, name_of
from neurostorm_bids.find.fmriprep_record import fmriprep_record
from neurostorm_bids.find.inheritance import raw_sidecars_of
from neurostorm_bids.find.metadata import look_up, read_sidecar
from neurostorm_bids.find.raw_dataset import raw_series
from neurostorm_bids.find.run import RAW, BoldFile, Fieldmap, MotionFile, RawParts
from neurostorm_bids.settings.participant import RAW_SPACE

HEAD_MOTION = re.compile(r"_from-(orig_to-(boldref|run)_mode-image_desc-hmc|scanner_to-boldref_mode-image)_xfm\.txt$")
REFERENCES = (  # that volumes were aligned with: 23.2 and later, 26, before
    "desc-hmc_boldref.nii.gz",
    "space-orig_desc-hmc_boldref.nii.gz",
    "boldref.nii.gz",
)
MASKS = ("desc-brain_mask.nii.gz", "space-run_desc-brain_mask.nii.gz")
TO_FIELDMAP = re.compile(r"_from-(?:boldref|run)_to-(?P<id>[A-Za-z0-9]+)_mode-image(?:_desc-fmap)?_xfm\.txt$")
NO_FIELDMAPS = ("T1w", "T2w", "anat", "orig", "scanner", "boldref", "run", "session", "subject")
PREPROC = "desc-preproc_fieldmap.json"  # says what a fieldmap was made from
PEPOLAR, NOT_PEPOLAR = (
    {"epi", "bold", "sbref"},
    {"phasediff", "phase1", "phase2", "fieldmap", "magnitude1", "magnitude2"},
)
JACOBIAN_OF_PEPOLAR_ALONE = 25  # the version of fMRIPrep since which other fieldmaps leave intensities alone
NO_RAW = (
    "there are fMRIPrep's transforms of it (--level minimal, or it did not finish), but not its raw series {name}; give the raw data set "
    "with -d raw=PATH"
)


def is_head_motion(path: Path) -> bool:
    """Whether a file holds the head motion of a run, one transform a volume."""
    return HEAD_MOTION.search(path.name) is not None


def age_of_name(path: Path) -> int:
    """Return a number by which names of transforms are sorted, those of older versions of fMRIPrep first."""
    return ("_from-run_" in path.name or "_to-run_" in path.name) * 2 + ("_desc-" in path.name)


def run_of(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the entities of the run that a file of head motion is of."""
    return tuple(entities_of(HEAD_MOTION.sub("", path.name)).items())


def raw_file(path: Path, dataset: Dataset) -> BoldFile:
    """Return the raw series of a run with what leads to it.

    Parameters
    ----------
    path : Path
        Its head motion.

    Raises
    ------
    NeurostormError
        If it is not there, or has several echoes.
    """
    entities = dict(run_of(path))
    name = name_of(entities)
    raw = _series(path, entities, dataset)
    assert dataset.raw is not None
    here = path.parent
    sidecars = raw_sidecars_of(raw, dataset.raw)
    fieldmap, missing = _fieldmap(here, name, dataset, raw, sidecars)
    evidence = _of_fieldmap(dataset, here, fieldmap.identifier, PREPROC) if fieldmap else []
    record = fmriprep_record(dataset.path, f"sub-{entities['sub']}", name)
    parts = RawParts(
        path,
        _first(here, name, REFERENCES),
        fieldmap,
        missing,
        record.slice_timing,
        record.slice_time_ref,
        0 < next(iter(dataset.version), 0) < JACOBIAN_OF_PEPOLAR_ALONE,  # 0: a version that is not known
        record.jacobian,
        (*record.evidence, *evidence),
    )
    mask = _first(here, name, MASKS)
    return BoldFile(raw, RAW_SPACE, None, mask, (), tuple(sidecars), parts.reference, None, RAW, parts)


def motion_file(file: BoldFile) -> MotionFile:
    """Return where the head motion of a raw series is written."""
    assert file.raw is not None
    return MotionFile(file.raw.head_motion, "itk", file.raw.reference)


def _series(path: Path, entities: dict[str, str], dataset: Dataset) -> Path:
    """Return the raw series of a run."""
    name = name_of(entities)
    if dataset.raw is None:
        raise NeurostormError(NO_RAW.format(name=f"{name}_bold.nii.gz"))
    found = raw_series(dataset.raw, path.parent.relative_to(dataset.path), entities) or _by_sources(path, dataset.raw)
    if len(found) > 1:
        there = ", ".join(each.name for each in found)
        if len({entities_of(each).get(ECHO) for each in found}) == 1:
            raise NeurostormError(
                f"{found[0].parent} holds {there}: it is not clear which one is the run; remove all but one"
            )
        raise NeurostormError(
            f"{found[0].parent} holds {len(found)} echoes of it ({there}), which only fMRIPrep combines; run it with --level resampling or full"
        )
    if not found:
        folder = dataset.raw / path.parent.relative_to(dataset.path)
        nearby = [each.name for each in sorted(folder.glob("*_bold.nii*"))[:4]]
        found_there = f"; there are: {', '.join(nearby)}" if nearby else ""
        raise NeurostormError(NO_RAW.format(name=folder / f"{name}_bold.nii.gz") + found_there)
    return found[0]


def _by_sources(path: Path, raw: Path) -> list[Path]:
    """Return the raw series that the sidecar of a file of head motion names, which may be a path on another machine."""
    sidecar = read_sidecar(path.with_suffix(".json"))
    for source in _sources(sidecar):
        inside = re.search(r"sub-[^/]+/(?:ses-[^/]+/)?func/[^/]+_bold\.nii(?:\.gz)?$", source)
        if inside and ((raw / inside[0]).is_file() or (raw / inside[0]).is_symlink()):
            return [raw / inside[0]]
    return []


def _sources(sidecar: dict[str, Any]) -> list[str]:
    found = [sidecar.get("RawSources"), sidecar.get("Sources")]
    return [each for some in found for each in (some if isinstance(some, list) else [some]) if isinstance(each, str)]


def _fieldmap(folder: Path, run: str, dataset: Dataset, raw: Path, sidecars: list[Path]) -> tuple[Fieldmap | None, str]:
    """Return the fieldmap of a run, or why there is none.

    Raises
    ------
    NeurostormError
        If there is a transform to it, but it is not there, or it is not clear which one is meant.
    """
    candidates = sorted(
        folder.glob(f"{run}_from-*_xfm.txt"), key=age_of_name
    )  # of several names, that of the newest version
    transforms = {found["id"]: path for path in candidates if (found := _to_fieldmap(path, run))}
    if not transforms:
        others = sorted((dataset.path / folder.relative_to(dataset.path).parts[0]).glob("**/fmap/*_fieldmap.nii*"))
        why = f"there is no {run}_from-boldref_to-<fieldmap>_mode-image_desc-fmap_xfm.txt"
        before = f", though there is {others[0].name} (fMRIPrep before 23.2 wrote no such transform)" if others else ""
        return None, why + before
    identifier = next(iter(transforms))
    if len(transforms) > 1:
        named, _ = look_up("B0FieldSource", sidecars)
        wanted = [re.sub("[^A-Za-z0-9]", "", str(each)) for each in (named if isinstance(named, list) else [named])]
        fitting = [each for each in transforms if each in wanted] or [
            each for each in transforms if _is_intended(raw, dataset, _of_fieldmap(dataset, folder, each, PREPROC))
        ]
        if len(fitting) != 1:
            there = ", ".join(path.name for path in transforms.values())
            raise NeurostormError(
                f"transforms lead to several fieldmaps ({there}), and B0FieldSource of the raw series, or "
                f"IntendedFor of the fieldmaps, names {'none' if not fitting else 'several'} of them; name one of them in B0FieldSource"
            )
        identifier = fitting[0]
    coefficients = _of_fieldmap(dataset, folder, identifier, "desc-coeff*_fieldmap.nii*")
    levels = sorted(entities_of(path)["desc"] for path in coefficients)
    if coefficients and levels not in (["coeff"], [f"coeff{i}" for i in range(len(levels))]):
        raise NeurostormError(
            f"{', '.join(path.name for path in coefficients)}: coefficients of several versions of fMRIPrep, or not all levels; keep either "
            "desc-coeff alone, or desc-coeff0, desc-coeff1, ..."
        )
    if not coefficients:
        raise NeurostormError(
            f"{transforms[identifier].name} leads to a fieldmap, but no fmap/*_fmapid-{identifier}_desc-coeff_fieldmap.nii.gz of "
            f"sub-{entities_of(run)['sub']} is there; fetch it, or remove the transform to go without distortion correction"
        )
    reference = [
        each
        for desc in ("epi", "magnitude")
        for each in _of_fieldmap(dataset, folder, identifier, f"desc-{desc}_fieldmap.nii*")
    ]
    is_pepolar = _is_pepolar(reference, _of_fieldmap(dataset, folder, identifier, PREPROC))
    return Fieldmap(
        identifier, tuple(coefficients), reference[0] if reference else None, transforms[identifier], is_pepolar
    ), ""


def _is_intended(raw: Path, dataset: Dataset, sidecars: list[Path]) -> bool:
    """Whether a fieldmap, or one of the raw images that it was made from, is IntendedFor a raw series."""
    intended: list[str] = []
    for about in map(read_sidecar, sidecars):
        images = [re.search(r"(sub-[^/]+/(?:ses-[^/]+/)?fmap/[^/.]+)\.nii", source) for source in _sources(about)]
        own = [read_sidecar(dataset.raw / f"{image[1]}.json") for image in images if image and dataset.raw is not None]
        for value in (each.get("IntendedFor") for each in (about, *own)):
            intended += [str(each) for each in (value if isinstance(value, list) else [value])]
    return any(each.rsplit("/", 1)[-1] == raw.name for each in intended)


def _to_fieldmap(path: Path, run: str) -> re.Match[str] | None:
    """Return the match of a transform to a fieldmap, whose identifier is its ``id``."""
    found = TO_FIELDMAP.fullmatch(path.name.removeprefix(run))
    return found if found and found["id"] not in NO_FIELDMAPS else None


def _of_fieldmap(dataset: Dataset, folder: Path, identifier: str, ending: str) -> list[Path]:
    """Return the files of a fieldmap: those of the run's session, else of no session, else of the others."""
    subject = dataset.path / folder.relative_to(dataset.path).parts[0]
    for places in ([folder.parent / "fmap"], [subject / "fmap"], sorted(subject.glob("ses-*/fmap"))):
        found = [path for place in places for path in sorted(place.glob(f"*_fmapid-{identifier}_{ending}"))]
        if len({path.parent for path in found}) > 1:
            raise NeurostormError(
                f"fieldmap {identifier} is in several sessions ({found[0]}, {found[-1]}); it is not clear which one is meant"
            )
        if found:
            return found
    return []


def _is_pepolar(references: list[Path], sidecars: list[Path]) -> bool | None:
    """Tell whether a fieldmap was made from images of opposite phase encoding."""
    if any("_desc-epi_" in path.name for path in references):
        return True
    sources = {source for path in sidecars for source in _sources(read_sidecar(path))}
    suffixes = [source.rsplit("_", 1)[-1].split(".")[0] for source in sources]
    if not suffixes:
        return None
    # of one image, with an anatomical one (SyN), there is no opposite
    return sum(suffix in PEPOLAR for suffix in suffixes) > 1 and not NOT_PEPOLAR & set(suffixes)


def _first(folder: Path, run: str, endings: tuple[str, ...]) -> Path:
    """Return the first of a run's files that is there, else what the first would be called."""
    paths = [folder / f"{run}_{ending}" for ending in endings]
    return next((path for path in paths if path.exists() or path.is_symlink()), paths[0])
