"""How unusual each person is: distance of the embedding from a reference group, and z-scores of what it predicts."""

from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SUBJECT, as_written, column, numbers
from neurostorm_bids.group.cohort import QUALITY, weighted_means
from neurostorm_bids.group.covariates import covariates_of
from neurostorm_bids.group.figures import deviations_figure
from neurostorm_bids.group.naming import name_of_analysis
from neurostorm_bids.group.norm import Norm, deviations, target_z
from neurostorm_bids.group.relations import RELATIONS_COLUMNS, phenotype_columns, relations_of
from neurostorm_bids.group.study import Study, some
from neurostorm_bids.group.task import GroupResult, Section

FEWEST = 20  # people of the reference group
COLUMNS: dict[str, dict[str, Any]] = {
    SUBJECT: {"Description": "The person; the mean over their runs, weighted by windows"},
    "reference": {
        "Description": "Whether the person is of the reference group; such a person is compared with the others of it"
    },
    "distance": {
        "Description": "Mahalanobis distance from the reference group, covariance shrunk (Ledoit and Wolf 2004)"
    },
    "percentile": {"Description": "Share of the reference group, each left out in turn, that is nearer; %"},
    "p_value": {"Description": "Share of the reference group at least as far away, this person counted"},
}


def run(study: Study) -> list[GroupResult]:
    """Compare people with a reference group."""
    options = study.settings.group
    values, names, members = _people(study)
    first = study.table.iloc[[int(rows[0]) for rows in members]].reset_index(drop=True)
    is_reference = _reference(first, options.reference_group)
    covariates = covariates_of(study.table, members, options.covariates, study.phenotype.coded)
    found = deviations(values, is_reference, covariates.confounds, study.settings.conduct.random_seed)
    table = _table(names, is_reference, found)
    about_columns = _add_targets(table, values, is_reference, members, study)
    taken = {name.partition(":")[0] for name in options.covariates} | set(QUALITY)
    columns = phenotype_columns(first, study.phenotype.table, taken)
    related = relations_of(found.distance, columns, covariates.confounds, names)
    unusual = table.sort_values("distance", ascending=False)
    who = options.reference_group or "everybody else"
    answer = _answer(unusual, options.reference_group)
    name = name_of_analysis(study.cohort.label, "normative", study.settings)
    words = "Far means unlike the group in this embedding: motion, scanner and preprocessing make distances too. Not a diagnosis."
    return [
        GroupResult(
            name=name,
            title="Normative deviation",
            answer=answer,
            sections=[
                Section(
                    "Normative deviation",
                    words=[answer, words],
                    table=unusual.head(20),
                    figures=[("", "Distances of the reference group and of the others.")],
                    notes=covariates.notes,
                ),
                Section(
                    "What it is related to",
                    words=["Partial correlations of the distance, with the covariates taken out; q over all columns."],
                    table=related,
                ),
            ],
            about={
                "Description": "How far each person's embedding is from a reference group",
                "Model": study.cohort.label,
                "ReferenceGroup": who,
                "Components": found.n_components,
                "Covariates": list(covariates.names),
                "Sources": study.sources(),
            },
            page=name,
            tables={"": table, "_relations": related},
            columns={"": about_columns, "_relations": RELATIONS_COLUMNS},
            figures={"": deviations_figure(table)},
        )
    ]


def _add_targets(
    table: pd.DataFrame, values: np.ndarray, is_reference: np.ndarray, members: list[np.ndarray], study: Study
) -> dict[str, dict[str, Any]]:
    """Add a column for every target to the table; returns what the table's columns are.

    Raises
    ------
    NeurostormError
        If a target is known of too few people of the reference group, or the same in all of them.
    """
    about_columns = dict(COLUMNS)
    for target in study.settings.group.target:
        y = of_people(numbers(column(study.table, target)).to_numpy(float), members)
        if np.nanstd(y[is_reference]) == 0:
            raise NeurostormError(f"--target {target}: it is the same in all people of the reference group")
        if (np.isfinite(y) & is_reference).sum() < FEWEST:
            raise NeurostormError(f"--target {target}: fewer than {FEWEST} people of the reference group have a value")
        table[f"z_{target}"] = target_z(values, y, is_reference, study.settings.conduct.random_seed)
        about_columns[f"z_{target}"] = {
            "Description": f"{target} as predicted from the embedding by models of the reference group, minus {target} as observed, "
            "without what depends on the latter; in standard deviations of the reference group"
        }
    return about_columns


def _answer(unusual: pd.DataFrame, wanted: str | None) -> str:
    """Return who is unusual, in words; of a group that is compared with itself always some are as far as 5 % of it."""
    reference = unusual["reference"]
    if wanted is None:
        return (
            f"The farthest of {len(unusual)} people from everybody else: {some(unusual[SUBJECT].tolist(), 5)}. In any group some are "
            "farthest; --reference-group says whom to compare with."
        )
    others = unusual[~reference]
    if others.empty:
        return f"Everybody is of the reference group ({wanted}); the farthest: {some(unusual[SUBJECT].tolist(), 5)}."
    far = others.loc[others["p_value"] <= 0.05, SUBJECT].tolist()
    return (
        f"{len(far)} of {len(others)} people are as far from the reference group ({wanted}, {int(reference.sum())} people) as 5 % of it or "
        f"fewer are{': ' + some(far, 10) if far else ''}. Their median percentile: {others['percentile'].median():.0f} (50 is usual)."
    )


def of_people(values: np.ndarray, members: list[np.ndarray]) -> np.ndarray:
    """Return the mean of what is known over the runs of each person; NaN without any."""
    known = np.isfinite(values)
    return np.array([values[rows][known[rows]].mean() if known[rows].any() else np.nan for rows in members])


def _people(study: Study) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return the mean embedding of each person, their names, and which runs they are made of."""
    cohort = study.cohort
    grouped = study.table.groupby(SUBJECT, sort=True).indices
    weights = cohort.runs["windows"].to_numpy(float)
    members = [np.asarray(rows) for rows in grouped.values()]
    values = weighted_means(cohort.embeddings, members, weights)
    return values, np.array(list(grouped), str), members


def _reference(first: pd.DataFrame, wanted: str | None) -> np.ndarray:
    """Return who is of the reference group, (people,) bool.

    Raises
    ------
    NeurostormError
        If that cannot be told, or they are too few.
    """
    if wanted is None:
        chosen = np.ones(len(first), bool)
    else:
        name, equals, value = wanted.partition("=")
        if not equals:
            raise NeurostormError(f"--reference-group {wanted} is not COLUMN=VALUE, such as group=control")
        values = column(first, name)
        chosen = (values.map(as_written) == value).to_numpy()
        if not chosen.any():
            there = ", ".join(sorted(set(values.dropna().map(as_written)))[:10])
            raise NeurostormError(f"--reference-group {wanted}: nobody has this value; there are: {there}")
    if chosen.sum() < FEWEST:
        raise NeurostormError(f"the reference group has {chosen.sum()} people; at least {FEWEST} are needed")
    return np.asarray(chosen)


def _table(names: np.ndarray, is_reference: np.ndarray, found: Norm) -> pd.DataFrame:
    return pd.DataFrame(
        {
            SUBJECT: names,
            "reference": is_reference,
            "distance": found.distance,
            "percentile": found.percentile,
            "p_value": found.p_value,
        }
    )
