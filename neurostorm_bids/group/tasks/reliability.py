"""How far a person's runs and sessions agree: intraclass correlations of each channel, and discriminability."""

from typing import Any

import numpy as np
import pandas as pd

from neurostorm_bids.derivatives.tables import channels_named
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.participants import SESSION, SUBJECT
from neurostorm_bids.group.answers import estimate_in_words
from neurostorm_bids.group.figures import reliability_figure
from neurostorm_bids.group.predictions import read_predictions
from neurostorm_bids.group.reliability import FEWEST, balanced, discriminability, icc
from neurostorm_bids.group.scores import bootstrap
from neurostorm_bids.group.study import LOG, Study
from neurostorm_bids.group.task import GroupResult, Section

COLUMNS: dict[str, dict[str, Any]] = {
    "over": {
        "Description": "What is repeated: sessions (each the mean over its runs), or the runs of one task in the first session of a "
        "person that has several"
    },
    "measure": {"Description": "A channel of the embedding, or what the model's head predicts"},
    "people": {"Description": "People with that many measurements"},
    "repeats": {"Description": "Measurements of each"},
    "ICC(2,1)": {"Description": "Intraclass correlation of single measurements, agreement (Shrout and Fleiss 1979)"},
    "ICC(2,1)_lower": {"Description": "Lower end of its 95 % interval"},
    "ICC(2,1)_upper": {"Description": "Upper end"},
    "ICC(3,1)": {"Description": "The same, consistency: a shift of everybody between sessions is left out"},
    "ICC(3,1)_lower": {"Description": "Lower end of its 95 % interval"},
    "ICC(3,1)_upper": {"Description": "Upper end"},
}


def run(study: Study) -> list[GroupResult]:
    """Tell how reliable embeddings and predictions are."""
    repeated = _repeated(study)
    if not repeated:
        raise NeurostormError(
            "reliability needs at least three people with two sessions, or with two runs of a task in a session"
        )
    tables, sentences, notes = [], [], []
    for over, (values, subjects) in repeated.items():
        measurements = balanced(values.to_numpy(float), subjects)
        if len(measurements) < FEWEST:
            notes.append(f"over {over}: {len(measurements)} people with repeated measurements are too few")
            continue
        found, names = icc(measurements), list(map(str, values))
        tables.append(_table(over, names, measurements.shape, found.agreement, found.consistency))
        channels = [name.startswith("channel") for name in names]
        sentences.append(
            _sentence(over, tables[-1][channels], values.loc[:, channels].to_numpy(float), subjects, study)
        )
    for note in notes:
        LOG.warning(note)
    if not tables:
        raise NeurostormError(notes[0])
    table = pd.concat(tables, ignore_index=True)
    name = f"group_desc-{study.cohort.label}_reliability"
    answer = " ".join(sentences)
    return [
        GroupResult(
            name=name,
            title="Reliability",
            answer=answer,
            sections=[
                Section(
                    "Reliability",
                    words=[answer, "An embedding identifies a person: a high value is also a matter of privacy."],
                    table=_summary(table),
                    figures=[
                        ("", "Intraclass correlation of each channel, sorted; the shaded part is its 95 % interval.")
                    ],
                    notes=notes,
                )
            ],
            about={
                "Description": "Agreement of repeated measurements of a person",
                "Method": "Intraclass correlations of single measurements from a two-way analysis of variance; "
                "discriminability by Euclidean distance of standardised channels",
                "Sources": study.sources(),
            },
            page=name,
            tables={"": table},
            columns={"": COLUMNS},
            figures={"": reliability_figure(table)},
        )
    ]


def _repeated(study: Study) -> dict[str, tuple[pd.DataFrame, np.ndarray]]:
    """Return what is repeated: sessions, and runs of one task within a session; each with whose it is."""
    runs, embeddings = study.cohort.runs, study.cohort.embeddings
    values = pd.DataFrame(embeddings, columns=channels_named(embeddings.shape[1]))
    predictions = read_predictions(study)
    if predictions is not None:
        values = pd.concat([values, predictions], axis=1)
    found = {}
    if SESSION in runs and (runs.groupby(SUBJECT)[SESSION].nunique() > 1).sum() >= FEWEST:
        weighted = values.mul(runs["windows"], axis=0).groupby([runs[SUBJECT], runs[SESSION]]).sum()
        weights = runs["windows"].groupby([runs[SUBJECT], runs[SESSION]]).sum()
        means = weighted.div(weights, axis=0)
        found["sessions"] = (means, means.index.get_level_values(0).to_numpy(str))
    rows, kind = _runs_of_a_kind(runs)
    if runs[SUBJECT].iloc[rows].nunique() >= FEWEST:
        over = f"runs of {kind}" if kind else "runs"
        found[over] = (values.iloc[rows].reset_index(drop=True), runs[SUBJECT].to_numpy(str)[rows])
    return found


def _runs_of_a_kind(runs: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Return the repeated runs of one task in one session of each person, of the task that most people have, and its name."""
    kinds = [name for name in ("task", "acq", "dir") if name in runs]
    kind = runs[kinds].fillna("").astype(str).agg(" ".join, axis=1) if kinds else pd.Series("", index=runs.index)
    session = runs[SESSION].fillna("").astype(str) if SESSION in runs else pd.Series("", index=runs.index)
    best: tuple[np.ndarray, str] = (np.empty(0, int), "")
    for name in sorted(kind.unique()):
        chosen: list[int] = []
        of_kind = runs.index[kind == name]
        for _, of_person in runs.loc[of_kind].groupby(SUBJECT).groups.items():
            for _, part in pd.Series(of_person).groupby(session[of_person].to_numpy()):
                if len(part) > 1:  # the first session with repeats stands for the person
                    chosen += part.tolist()
                    break
        if runs[SUBJECT].iloc[chosen].nunique() > runs[SUBJECT].iloc[best[0]].nunique():
            best = (np.array(chosen), str(name).strip())
    return best


def _table(
    over: str, names: list[str], shape: tuple[int, ...], agreement: np.ndarray, consistency: np.ndarray
) -> pd.DataFrame:
    numbers = [[over] * len(names), names, [shape[0]] * len(names), [shape[1]] * len(names), *agreement, *consistency]
    return pd.DataFrame(dict(zip(COLUMNS, numbers, strict=True)))


def _sentence(over: str, table: pd.DataFrame, values: np.ndarray, subjects: np.ndarray, study: Study) -> str:
    """Return the median channel and the discriminability, in words."""
    spread = values.std(axis=0)
    standard = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    shares = discriminability(standard, subjects)
    known = np.isfinite(shares)
    rng = np.random.RandomState(study.settings.conduct.random_seed)
    found = bootstrap(lambda rows: {"value": float(shares[known][rows].mean())}, subjects[known], rng)["value"]
    return (
        f"Over {over}, the median channel has an ICC(2,1) of {table['ICC(2,1)'].median():.2f} and an ICC(3,1) of "
        f"{table['ICC(3,1)'].median():.2f} ({table['people'].iloc[0]} people, {table['repeats'].iloc[0]} each); two measurements of a "
        f"person are nearer to each other than to another person's in a share of {estimate_in_words(found)} of comparisons, by "
        "chance 0.5."
    )


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the quartiles over channels, and each prediction."""
    of_channels = table["measure"].str.match(r"channel\d+$")
    quartiles = {"first quartile": 0.25, "median": 0.5, "third quartile": 0.75}
    rows = [
        [over, f"channels: {name}", *part.quantile(q)]
        for over, part in table[of_channels].groupby("over")[["ICC(2,1)", "ICC(3,1)"]]
        for name, q in quartiles.items()
    ]
    summary = pd.DataFrame(rows, columns=["over", "measure", "ICC(2,1)", "ICC(3,1)"])
    return pd.concat([summary, table.loc[~of_channels, list(summary)]], ignore_index=True)
