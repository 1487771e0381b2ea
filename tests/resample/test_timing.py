"""Time."""

import pytest
from helpers import RUN

from neurostorm_bids.derivatives.tables import read_table


def test_start_time_moves_the_onsets(tree, tmp_path, neurostorm, narrow):
    bold = tree.run(RUN)
    bold.with_name(bold.name.replace(".nii.gz", ".json")).write_text('{"RepetitionTime": 2.0, "StartTime": 0.9}')
    neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow)
    windows = read_table(next((tmp_path / "o").rglob("func/*embeddings.tsv")))
    assert windows["onset"].tolist() == pytest.approx([0.9 + 4.8 * i for i in range(5)])
