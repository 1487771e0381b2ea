"""What a sidecar says about time."""

import json

import pytest

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.metadata import acquisition_times


def times_of(tmp_path, content, given=None):
    path = tmp_path / "bold.json"
    path.write_text(json.dumps(content))
    times = acquisition_times([path], given)
    return times.repetition_time, times.start_time, times.slice_timing_corrected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, (None, 0.0, False)),
        ({"RepetitionTime": 2}, (2.0, 0.0, False)),
        ({"RepetitionTime": 2.0, "StartTime": 0.973, "SliceTimingCorrected": True}, (2.0, 0.973, True)),
        ({"VolumeTiming": [0, 1.5, 3.0, 4.5]}, (1.5, 0.0, False)),
        ({"VolumeTiming": [6.0, 7.5, 9.001]}, (1.5, 6.0, False)),
    ],
)
def test_what_is_there(tmp_path, content, expected):
    found = times_of(tmp_path, content)
    assert found == (pytest.approx(expected[0], abs=2e-3) if expected[0] else None, *expected[1:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"VolumeTiming": [0, 10, 20, 35]}, r"bold\.json: VolumeTiming"),
        ({"VolumeTiming": "often"}, r"VolumeTiming is .*not a list of onsets in s"),
        ({"VolumeTiming": [0]}, "not a list of onsets in s"),
        (
            {"RepetitionTime": "two"},
            r"bold\.json: RepetitionTime is 'two', not a number; correct it, or give --repetition",
        ),
        ({"RepetitionTime": 2.0, "StartTime": "late"}, r"StartTime is 'late', not a number; correct it$"),
    ],
)
def test_times_that_cannot_be_used(tmp_path, content, message):
    with pytest.raises(NeurostormError, match=message):
        times_of(tmp_path, content)


def test_a_repetition_time_that_is_text_is_taken_and_told(tmp_path):
    (tmp_path / "bold.json").write_text('{"RepetitionTime": "2.0"}')
    times = acquisition_times([tmp_path / "bold.json"])
    assert times.repetition_time == 2.0
    assert times.notes == (f"{tmp_path / 'bold.json'}: RepetitionTime is text, '2.0'; it is taken for 2 s",)


def test_the_nearer_sidecar_is_right_and_the_others_give_what_it_lacks(tmp_path):
    contents = (
        {"StartTime": 1.0},
        {"StartTime": 7.0, "RepetitionTime": 0},
        {"RepetitionTime": 2.5},
        {"RepetitionTime": 9},
    )
    paths = [tmp_path / f"{i}.json" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content))
    times = acquisition_times(paths)
    assert (times.repetition_time, times.start_time) == (2.5, 1.0)


def test_sparse_sampling_with_a_repetition_time_that_the_user_gives(tmp_path):
    """Volumes at uneven times have no repetition time: the user's counts."""
    with pytest.raises(NeurostormError, match="VolumeTiming"):
        times_of(tmp_path, {"VolumeTiming": [0, 10, 20, 35]})
    assert times_of(tmp_path, {"VolumeTiming": [0, 10, 20, 35]}, given=10.0)[1] == 0.0
