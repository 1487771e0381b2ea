"""Phenotype tables and how they are joined to runs."""

import numpy as np
import pandas as pd

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
