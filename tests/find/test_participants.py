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
