"""Names of a task's files: another analysis has another name, so that none replaces another."""

import re
from dataclasses import replace
from pathlib import Path

from neurostorm_bids.group.study import word
from neurostorm_bids.runtime.json_files import digest
from neurostorm_bids.runtime.options import options_of
from neurostorm_bids.settings import Settings
from neurostorm_bids.settings.group import GroupAnalysis

LONGEST = 60  # of an analysis' name


def name_of_analysis(model: str, target: str, settings: Settings) -> str:
    """Return what the names of an analysis' files begin with: the model, the target, and the options that change the numbers."""
    label = analysis_label(settings)
    return f"group_desc-{model}_target-{word(target)}{f'_analysis-{label}' if label else ''}"


def analysis_label(settings: Settings) -> str:
    """Return a label of the options that make this analysis another one; empty for the default.

    >>> analysis_label(Settings.of(Path("a"), Path("b"), "group", group_task="probe", covariates=("age", "sex"), group_by="site"))
    'CovAgeSexBySite'
    """
    group, selection = with_effect(settings.group), settings.selection
    parts = {
        "Cov": group.covariates,
        "By": group.group_by,
        "Out": group.leave_out,
        "Harm": group.harmonise,
        "Pheno": None if group.phenotype is None else _of_file(group.phenotype),
        "Type": None if group.target_type == "auto" else group.target_type,
        "Of": None if group.samples == "auto" else group.samples,
        "Exchange": None if group.exchange == "auto" else group.exchange,
        "Ref": group.reference_group,
        "Task": selection.task_id,
        "Ses": selection.session_label,
        "Run": selection.run_label,
        "Filter": None if selection.bids_filter_file is None else _content(selection.bids_filter_file),
        "Sub": (digest({"labels": sorted(selection.participant_label)})[:6],) if selection.participant_label else (),
    }
    words = []
    for name, value in parts.items():
        values = (value,) if isinstance(value, str) else tuple(value or ())
        if values:
            words.append(name + "".join(_capital(each) for each in values))
    label = "".join(words)
    return label if len(label) <= LONGEST else label[: LONGEST - 8] + digest({"label": label})[:8]


def with_effect(group: GroupAnalysis) -> GroupAnalysis:
    """Return the options with defaults in place of those that mean nothing to the task."""
    defaults = GroupAnalysis()
    idle = [
        each.name
        for each, details in options_of(GroupAnalysis)
        if details.tasks and group.group_task not in details.tasks
    ]
    return replace(group, **{name: getattr(defaults, name) for name in idle})


def _capital(text: str) -> str:
    """Return text in letters and digits, each part with a capital; what loses something by it gets a digest."""
    joined = "".join(part[0].upper() + part[1:] for part in re.findall("[A-Za-z0-9]+", text))
    return joined if joined.lower() == text.lower() else f"{joined}{digest({'text': text})[:4]}"


def _of_file(path: Path) -> str:
    """Return a name for a file: its own, and a digest of where it is."""
    return "".join(re.findall("[A-Za-z0-9]+", path.stem)) + digest({"path": str(path)})[:4]


def _content(path: Path) -> str:
    return digest({"text": path.read_text(encoding="utf-8")})[:6]
