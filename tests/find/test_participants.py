"""Phenotype tables and how they are joined to runs."""

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.participants import join, read_phenotype


def test_sessions_of_a_table_are_joined_by_session(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\nsub-1\tF\n02\tM\n")
    (tmp_path / "sub-1").mkdir()
    (tmp_path / "sub-1" / "sub-1_sessions.tsv").write_text("session_id\tage\nses-a\t30\nses-b\t31\n")
    table = read_phenotype(Dataset(tmp_path, "x", {}), None).table
    runs = pd.DataFrame({"participant_id": ["sub-1", "sub-1", "sub-02"], "session_id": ["ses-b", "ses-a", np.nan]})
    joined, notes = join(runs, table)
    assert notes == []
    assert joined["age"].tolist()[:2] == [31, 30]
    assert joined["sex"].tolist()[:2] == ["F", "F"]


def test_columns_named_like_those_of_runs_are_kept_under_another_name(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\ttask\tmean_fd\tage\nsub-1\tshift\t9\t30\n")
    table = read_phenotype(Dataset(tmp_path, "x", {}), None).table
    runs = pd.DataFrame({"participant_id": ["sub-1"], "task": ["rest"], "mean_fd": [0.1]})
    joined, notes = join(runs, table)
    row = joined.iloc[0]
    assert (row["task"], row["phenotype_task"], row["mean_fd"], row["phenotype_mean_fd"]) == ("rest", "shift", 0.1, 9)
    assert (
        notes[0] == "column 'task' of the phenotype is called phenotype_task here: the runs have a column of that name"
    )
    joined, _ = join(runs[["participant_id"]], table, reserved=("mean_fd",))
    assert list(joined) == ["participant_id", "task", "phenotype_mean_fd", "age"]


def test_sessions_of_subjects_without_sessions_say_nothing(tmp_path):
    (tmp_path / "table.tsv").write_text("participant_id\tsession_id\tage\nsub-1\tn/a\t30\n")
    table = read_phenotype(Dataset(tmp_path, "x", {}), tmp_path / "table.tsv").table
    joined, _ = join(pd.DataFrame({"participant_id": ["sub-1"]}), table)
    assert joined["age"].tolist() == [30]


def subjects(folder, *labels):
    """A data set of these subjects."""
    for label in labels:
        (folder / f"sub-{label}").mkdir()
    return Dataset(folder, "x", {})


def test_ids_without_zeros_match_where_one_subject_fits(tmp_path):
    data = subjects(tmp_path, "01", "002", "02", "10")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\n1\t20\n2\t30\nsub-10\t40\n")
    read = read_phenotype(data, None)
    assert read.table["participant_id"].tolist() == ["sub-01", "sub-2", "sub-10"]  # 2 may be 02 or 002
    assert read.notes == ["ids of the phenotype that are written otherwise in the data: 1, such as sub-1 for sub-01"]


def test_two_ids_for_one_subject_match_nobody(tmp_path):
    data = subjects(tmp_path, "01")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\n1\t20\n001\t30\n")
    assert read_phenotype(data, None).table["participant_id"].tolist() == ["sub-1", "sub-001"]


def test_entries_that_are_no_numbers_are_left_out_of_a_column_of_numbers(tmp_path):
    ages = [*map(str, range(70, 89)), "89+"]
    lines = [f"sub-{i:02d}\t{age}\t{'FM'[i % 2]}" for i, age in enumerate(ages)]
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\n" + "\n".join(lines) + "\n")
    read = read_phenotype(Dataset(tmp_path, "x", {}), None)
    assert read.table["age"].isna().sum() == 1
    assert read.table["age"].max() == 88
    assert read.table["sex"].notna().all()
    assert read.notes == ["column 'age': 1 of 20 entries are no numbers ('89+'); they are left out"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.tsv", "participant_id\tville\n01\tOrléans\n".encode("latin-1"), "is not UTF-8 text .* save it as UTF-8"),
        ("p.tsv", b"participant_id,age\n01,20\n", "separated by ','; a .tsv needs tabs"),
        ("p.csv", b"participant_id;age\n01;20\n", "separated by ';'; a .csv needs commas"),
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NeurostormError, match=message):
        read_phenotype(Dataset(tmp_path, "x", {}), tmp_path / name)
