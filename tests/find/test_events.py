"""Events of the raw data set."""

import pytest

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.dataset import Dataset
from neurostorm_bids.find.events import find_events, read_events


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onset\ttrial_type\n1\ta\n", "has no column duration"),
        ("onset\tduration\ttrial_type\nsoon\t1\ta\n", "column onset holds 'soon' where a number is needed"),
    ],
)
def test_bad_events_are_reported(tmp_path, text, message):
    path = tmp_path / "events.tsv"
    path.write_text(text)
    with pytest.raises(NeurostormError, match=message):
        read_events(path)


def test_events_of_a_session_and_of_one_echo_are_found(tmp_path):
    folder = tmp_path / "sub-01" / "ses-a" / "func"
    folder.mkdir(parents=True)
    path = folder / "sub-01_ses-a_task-x_events.tsv"
    path.write_text("onset\tduration\n1\t2\nn/a\t1\n")
    found = find_events(Dataset(tmp_path, "x", {}, raw=tmp_path), "sub-01_ses-a_task-x_echo-2")
    assert found == path
    assert read_events(found).to_dict("records") == [{"onset": 1.0, "duration": 2.0, "trial_type": "event"}]
