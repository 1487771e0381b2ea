"""What fMRIPrep did to a run beside what its files are named for: its configuration, the run's reportlet, its methods text."""

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.metadata import is_number
from neurostorm_bids.runtime.files import check_fetched
from neurostorm_bids.runtime.toml import parse_toml

LOG = logging.getLogger("neurostorm")
CONFIGURATIONS = ("fmriprep.toml", "nibabies.toml")
DECISIVE = ("ignore", "force", "slice_time_ref")
SUMMARY = re.compile(r"Slice timing correction: (Applied|Not applied)")  # of a run, in its reportlet
# of the methods text, which wraps its lines; versions before 20.2 do not say to which moment
SHIFTED = re.compile(r"slice-time\s+corrected\s+to\s+[\d.e+-]+\s*s\s+\((?P<fraction>[\d.]+)\s+of\s+slice")


@dataclass(frozen=True)
class FmriprepRecord:
    """What fMRIPrep says that it did, or was told to do.

    Attributes
    ----------
    slice_timing : bool
        Whether it did not leave slice timing alone.
    slice_time_ref : float or None
        Where in the acquisition of a volume it shifted slices to, 0 to 1, if it says.
    jacobian : bool or None
        What it was told of scaling intensities by the Jacobian of the distortion; `None` if nothing.
    evidence : tuple of Path
        Files that say so.
    """

    slice_timing: bool = True
    slice_time_ref: float | None = None
    jacobian: bool | None = None
    evidence: tuple[Path, ...] = ()


def fmriprep_record(derivatives: Path, subject: str, run: str) -> FmriprepRecord:
    """Return what fMRIPrep did to a run.

    The newest configuration counts, of fMRIPrep or NiBabies. Where it leaves something open, so do the other two: the reportlet tells whether this
    run's slices were shifted, the methods text to which moment. That the text does not mention slice timing says nothing,
    since ``--level minimal`` leaves that step to later.

    Parameters
    ----------
    derivatives : Path
        Outputs of fMRIPrep.
    subject : str
        Such as sub-01.
    run : str
        Entities of its raw series, such as sub-01_task-rest.
    """
    configurations = _configurations(derivatives / subject)
    configured = configurations[-1][1] if configurations else {}
    ignored, forced = _listed(configured, "ignore"), _listed(configured, "force")
    evidence = [path for path, _ in configurations[-1:]]
    if len({str([each.get(key) for key in DECISIVE]) for _, each in configurations}) > 1:
        LOG.warning(
            "%s: calls of fMRIPrep that differ in what they left out have written into it; the last one counts, %s (--slice-timing, "
            "--slice-time-ref and --jacobian say otherwise)",
            derivatives / subject,
            evidence[0],
        )
    applied = "slicetiming" not in ignored
    reportlet = derivatives / subject / "figures" / f"{run}_desc-summary_bold.html"
    if applied and (said := SUMMARY.search(_text_of(reportlet))):
        applied = said[1] == "Applied"
        evidence.append(reportlet)
    moment = ref if is_number(ref := configured.get("slice_time_ref")) else None
    if applied and moment is None:
        texts = (
            derivatives / f"{subject}.html",
            *(derivatives / "logs" / f"CITATION.{end}" for end in ("md", "html", "tex")),
        )
        found = next((path for path in texts if SHIFTED.search(_text_of(path))), None)
        if found is not None and (match := SHIFTED.search(_text_of(found))):
            moment = float(match["fraction"])
            evidence.append(found)
    jacobian = False if "fmap-jacobian" in ignored else True if "fmap-jacobian" in forced else None
    return FmriprepRecord(applied, moment, jacobian, tuple(evidence))


def _configurations(subject: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the configurations of all calls that wrote a subject's files, with what they say of the workflow, the newest last.

    One that is not fetched, or cannot be read, is named: it may say that something was left out.
    """
    folders = [folder for log in (*subject.glob("log*"), *subject.glob("ses-*/log*")) for folder in log.glob("*")]
    found = []
    for path in sorted(
        (folder / name for folder in folders for name in CONFIGURATIONS), key=lambda path: path.parent.name
    ):
        if not (path.exists() or path.is_symlink()):
            continue
        try:
            check_fetched(path)
            workflow = parse_toml(_text(path, path.stat().st_mtime_ns)).get("workflow")
        except (NeurostormError, OSError, ValueError) as error:
            LOG.warning("what fMRIPrep was told is not known of one call: %s: %s", path, error)
            continue
        found.append((path, workflow if isinstance(workflow, dict) else {}))
    return found


def _text_of(path: Path) -> str:
    """Return a text; nothing if it is not there: it is only asked what was done."""
    try:
        return _text(path, path.stat().st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=64)
def _text(path: Path, _written: int) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _listed(configured: dict[str, Any], key: str) -> list[Any]:
    found = configured.get(key)
    return found if isinstance(found, list) else []
