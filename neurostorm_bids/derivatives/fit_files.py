"""Write and read how a run compares with the data of a model: ``_datafit.json``."""

import logging
from pathlib import Path
from typing import Any

from neurostorm_bids.derivatives.names import RunOutputs
from neurostorm_bids.derivatives.sidecars import PRIVACY, model_entry
from neurostorm_bids.derivatives.tables import kept_embeddings
from neurostorm_bids.encode.data_fit import BANDS, Measures, as_plain
from neurostorm_bids.encode.data_fit import from_plain as measures_from_plain
from neurostorm_bids.encode.encoded import EncodedRun
from neurostorm_bids.encode.reference import Finding, Reference, compare, from_plain, make_reference
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.model import Model
from neurostorm_bids.resample.parcels import Parcels, blocks
from neurostorm_bids.runtime.json_files import plain_number, read_json, write_json

LOG = logging.getLogger("neurostorm")
DATA_FIT = "_datafit.json"
NO_REFERENCE = "no reference figures are known for this model; make them of a cohort with neurostorm-model reference"


def reference_of(model: Model) -> Reference | None:
    """Return the reference figures that travel with a model; `None` if there are none, or they are damaged."""
    if model.reference is None:
        return None
    try:
        return from_plain(model.reference)
    except NeurostormError as error:  # a run is no worse for it
        LOG.warning("model %s: %s", model.name, error)
        return None


def write_data_fit(encoded: EncodedRun, measures: Measures, out_dir: Path) -> list[Finding]:
    """Compare what was measured of a run with the model's reference, and write both; returns what was found."""
    gridded, model = encoded.gridded, encoded.model
    assert gridded.source is not None
    reference = reference_of(model)
    kept = encoded.windows.embeddings[~encoded.censored] if not encoded.censored.all() else encoded.windows.embeddings
    found = compare(measures, kept, reference)
    outputs = RunOutputs(gridded.source.run, gridded.grid.template, model.label)
    write_json(out_dir / outputs.data_fit, _entry(measures, found, reference, model, blocks(gridded.grid)))
    return found


def _entry(
    measures: Measures, found: list[Finding], reference: Reference | None, model: Model, parts: Parcels
) -> dict[str, Any]:
    plain = as_plain(measures)
    return {
        "Description": "How the run compares with the data of the model",
        "Model": model_entry(model),
        "Privacy": PRIVACY,
        "Reference": f"{reference.n} runs" if reference else NO_REFERENCE,
        "Measures": {
            each.name: {
                "Description": each.about,
                "Units": each.unit,
                "Value": plain_number(each.value),
                "Band": [plain_number(each.low), plain_number(each.high)] if reference else None,
                "Middle": plain_number(each.middle) if reference else None,
                "Flag": each.words or None,
            }
            for each in found
        },
        "MeanImage": plain["MeanImage"],
        "PowerSpectrum": {
            "Description": "Share of the variance over time by band, median over voxels",
            "BandEdges": BANDS.round(3).tolist(),
            "Units": "Hz",
            "Share": plain["PowerSpectrum"],
        },
        "BlockCoverage": dict(zip(parts.labels, plain["BlockCoverage"], strict=False)),
    }


def read_measures(path: Path) -> Measures:
    """Read what was measured of a run.

    Raises
    ------
    NeurostormError
        If the file is damaged.
    """
    about = read_json(path)
    try:
        values = {name: entry["Value"] for name, entry in about["Measures"].items()}
        spectrum = (about.get("PowerSpectrum") or {}).get("Share")
        return measures_from_plain({"Values": values, "MeanImage": about["MeanImage"], "PowerSpectrum": spectrum})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NeurostormError(
            f"{path} is damaged ({type(error).__name__}); run the participant level again with --force"
        ) from None


def reference_from(out_dir: Path, label: str) -> Reference:
    """Make a reference of all runs of an output folder.

    Raises
    ------
    NeurostormError
        If there are too few, or one is damaged.
    """
    paths = sorted(out_dir.glob(f"sub-*/**/func/*_desc-{label}{DATA_FIT}"))
    if not paths:
        raise NeurostormError(f"{out_dir} has no results of model '{label}'; run the participant level first")
    models = {path: str((read_json(path).get("Model") or {}).get("WeightsSHA256")) for path in paths}
    newest = models[max(paths, key=lambda path: path.stat().st_mtime_ns)]
    if others := [path for path in paths if models[path] != newest]:
        LOG.warning("%d runs are left out, such as %s: of other weights of that name", len(others), others[0].name)
    paths = [path for path in paths if models[path] == newest]
    embeddings = []
    for path in paths:
        embeddings.append(kept_embeddings(path.with_name(path.name.replace(DATA_FIT, "_embeddings.tsv"))))
    if len({each.shape[1] for each in embeddings}) > 1:
        raise NeurostormError(
            f"{out_dir}: results of model '{label}' have different numbers of channels; run them again with --force"
        )
    return make_reference([read_measures(path) for path in paths], embeddings)
