"""Windows by events: those that lie in a condition, and one for each trial."""

import numpy as np
import pandas as pd
import pytest

from neurostorm_bids.encode.conditions import choose_windows, conditions_of
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.events import read_events
from neurostorm_bids.settings.participant import Conditions

ONSETS = 0.8 * np.arange(250)  # 200 s
EVENTS = pd.DataFrame(
    {
        "onset": [10.0, 50, 90, 130, 195],
        "duration": [20.0, 20, 20, 20, 4],
        "trial_type": ["face", "house", "face", "cue", "house"],
    }
)


def chosen(**options):
    return choose_windows(ONSETS, 0.8, EVENTS, 20, 20, Conditions(conditions=("face", "house"), **options))


def test_windows_lie_in_their_condition_at_least_by_half():
    found = chosen(lag=5.0)
    assert found.trial is None
    for start, name in zip(found.starts, found.trial_type, strict=True):
        of = EVENTS[EVENTS["trial_type"] == name]
        begin = ONSETS[start]
        overlap = np.clip(
            np.minimum(of["onset"] + of["duration"] + 5, begin + 16) - np.maximum(of["onset"] + 5, begin), 0, None
        )
        assert overlap.sum() >= 8
    assert found.starts.tolist() == [20, 60, 80, 120]  # of 16 s from 16, 48, 64 and 96 s
    assert set(found.trial_type) == {"face", "house"}


def test_overlapping_events_count_once_and_of_two_that_fill_as_much_neither_names_a_window():
    def of(rows, **more):
        events = pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])
        return conditions_of(np.array([0.0]), np.array([16.0]), events, 0.0, **more)[0]

    assert of([(0, 4, "face"), (0, 4, "face")]) is None
    assert of([(0, 6, "face"), (4, 4, "face")]) == "face"
    assert of([(0, 8, "house"), (8, 8, "face")]) is None
    assert of([(0, 7, "house"), (7, 9, "face")]) == "face"


def test_a_window_that_another_condition_fills_as_much_is_no_face():
    events = pd.DataFrame({"onset": [0.0, 8, 32], "duration": [8.0, 8, 16], "trial_type": ["face", "cue", "face"]})
    found = choose_windows(ONSETS, 0.8, events, 20, 20, Conditions(conditions=("face",), lag=0.0))
    assert found.starts.tolist() == [40]


def test_a_trial_is_numbered_as_in_the_file(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tduration\ttrial_type\n0\tn/a\tfix\n50\t2\tface\n90\t2\tface\n")
    options = Conditions(conditions=("face",), window_per_trial=True)
    assert choose_windows(ONSETS, 0.8, read_events(path), 20, 20, options).trial.tolist() == [2, 3]


def test_a_trial_has_the_window_around_its_response():
    found = chosen(lag=5.0, window_per_trial=True)
    assert found.trial.tolist() == [1, 2, 3]  # the last one's would go beyond the run
    assert found.trial_type == ("face", "house", "face")
    middles = ONSETS[found.starts] + 8
    np.testing.assert_allclose(middles, [25, 65, 105], atol=0.4)


def test_what_is_not_there_is_named():
    with pytest.raises(NeurostormError, match="no such trial_type; there are: cue, face, house"):
        choose_windows(ONSETS, 0.8, EVENTS, 20, 20, Conditions(conditions=("faces",)))
    late = EVENTS.assign(onset=199.0)
    with pytest.raises(NeurostormError, match=r"around its [0-9] events all go beyond the run of 200 s"):
        choose_windows(ONSETS, 0.8, late, 20, 20, Conditions(conditions=("face", "house"), window_per_trial=True))
    short = EVENTS.assign(duration=1.0)
    with pytest.raises(NeurostormError, match="--window-per-trial takes a window around each"):
        choose_windows(ONSETS, 0.8, short, 20, 20, Conditions(conditions=("face",)))
