"""Damaged files of every kind: one of our errors or a reading, never another exception, a hang, or a filled memory."""

import contextlib
import gzip
import json
import os
import resource
import signal as signals
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import AFFINE, SMALL, ellipsoid, lightning, random_network, rewrite, save, signal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurostorm_bids import to_model_grid
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.confounds import read_confounds
from neurostorm_bids.find.metadata import acquisition_times
from neurostorm_bids.find.selection import read_filter_file
from neurostorm_bids.model.checkpoint import read_checkpoint
from neurostorm_bids.model.load import build_network
from neurostorm_bids.resample.timing import choose_repetition_time
from neurostorm_bids.resample.transforms import read_transform

bounded = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
SECONDS, MEGABYTES = 20, 1500
# where, and what is put there
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
)


@contextlib.contextmanager
def limits():
    """End what takes more time or memory than it may."""

    def late(*_):
        raise AssertionError(f"more than {SECONDS} s")

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signals.signal(signals.SIGALRM, late)
    signals.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEGABYTES * 2**20, hard))
    try:
        yield
    except NeurostormError as error:
        if not 0 < len(str(error)) < 2000:
            raise AssertionError("not a line to read") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        signals.alarm(0)
        signals.signal(signals.SIGALRM, before)


def edited(content: bytes, edits, cut: float) -> bytes:
    content = bytearray(content)
    for where, what in edits:
        at = int(where * len(content))
        content[at : at + len(what)] = what
    return bytes(content[: max(1, int(cut * len(content)))])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    save(folder / "bold.nii", signal(n_volumes=3)[::2, ::2, ::2], AFFINE @ np.diag([2.0, 2, 2, 1]), 2.0)
    save(folder / "mask.nii", ellipsoid()[::2, ::2, ::2], AFFINE @ np.diag([2.0, 2, 2, 1]))
    lightning(folder / "small.ckpt", random_network().state_dict(), task_name="age", **SMALL)
    return folder


@pytest.mark.heavy
@settings(bounded, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 347), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    st.sampled_from([1.0, 1.0, 0.9, 0.01]),
    st.booleans(),
)
def test_headers_of_images(files, edits, cut, zipped):
    content = edited(
        (files / "bold.nii").read_bytes(),
        [(at / len((files / "bold.nii").read_bytes()), what) for at, what in edits],
        cut,
    )
    path = files / ("x.nii.gz" if zipped else "x.nii")
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    with limits(), np.errstate(all="ignore"):
        to_model_grid(path, files / "mask.nii", repetition_time=2.0)


@bounded
@given(EDITS, st.floats(0.01, 1))
def test_masks_that_are_damaged_anywhere(files, edits, cut):
    path = files / "m.nii.gz"
    path.write_bytes(edited(gzip.compress((files / "mask.nii").read_bytes(), 1), edits, cut))
    with limits(), np.errstate(all="ignore"):
        to_model_grid(files / "bold.nii", path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@bounded
@given(
    JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(("RepetitionTime", "StartTime", "VolumeTiming"), JSON)),
    st.binary(max_size=6),
)
def test_sidecars(files, content, junk):
    path = files / "s.json"
    path.write_bytes(json.dumps(content).encode() + junk)
    with limits():
        times = acquisition_times([path])
        assert np.isfinite(times.start_time)
        seconds, _, _ = choose_repetition_time("a run", sidecar=times.repetition_time)
        assert seconds > 0


@bounded
@given(JSON | st.fixed_dictionaries({"bold": JSON}), st.binary(max_size=6))
def test_filter_files(files, content, junk):
    path = files / "f.json"
    path.write_bytes(json.dumps(content).encode() + junk)
    with limits():
        read_filter_file(path)


@bounded
@given(st.binary(max_size=300) | st.text("0123456789.na/\t\n-e", max_size=200).map(str.encode))
def test_confounds(files, content):
    path = files / "c.tsv"
    path.write_bytes(b"framewise_displacement\tnon_steady_state_outlier00\n" + content)
    with limits():
        read_confounds(path, 3)


@bounded
@given(EDITS, st.floats(0.01, 1))
def test_checkpoints_damaged_anywhere(files, edits, cut):
    path = files / "x.ckpt"
    path.write_bytes(edited((files / "small.ckpt").read_bytes(), edits, cut))
    with limits():
        build_network(read_checkpoint(path))


@bounded
@given(EDITS, st.sampled_from([1.0, 1.0, 0.8]))
def test_checkpoints_with_a_damaged_pickle(files, edits, cut):
    """In an archive that is whole, so that the reader comes as far as the pickle."""
    with zipfile.ZipFile(files / "small.ckpt") as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    path = rewrite(files / "small.ckpt", files / "y.ckpt", pickled=edited(pickled, edits, cut))
    with limits():
        build_network(read_checkpoint(path))


@bounded
@given(EDITS, st.floats(0.01, 1), st.integers(0, 2**63 - 1))
def test_safetensors_damaged_in_the_header(files, edits, cut, length):
    header = json.dumps(
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"a": "b"}}
    ).encode()
    path = files / "x.safetensors"
    path.write_bytes(
        (length if cut < 0.2 else len(header)).to_bytes(8, "little") + edited(header, edits, cut) + bytes(8)
    )
    with limits():
        build_network(read_checkpoint(path))


@bounded
@given(EDITS, st.floats(0.01, 1))
def test_transforms_damaged_anywhere(files, edits, cut):
    text = (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: MatrixOffsetTransformBase_double_3_3\n"
        "Parameters: 1 0 0 0 1 0 0 0 1 1 2 3\nFixedParameters: 0 0 0\n"
    )
    path = files / "x.txt"
    path.write_bytes(edited(text.encode(), edits, cut))
    with limits():
        read_transform(path)


@pytest.mark.parametrize("which", ["bold", "mask"])
def test_a_pipe_is_not_waited_for(files, tmp_path, which):
    paths = {"bold": files / "bold.nii", "mask": files / "mask.nii"}
    paths[which] = tmp_path / "pipe.nii"
    os.mkfifo(paths[which])
    with pytest.raises(NeurostormError, match="is not a file"), limits_raise():
        to_model_grid(paths["bold"], paths["mask"])


@contextlib.contextmanager
def limits_raise():
    """As `limits`, but our errors pass."""
    signals.alarm(SECONDS)
    try:
        yield
    finally:
        signals.alarm(0)
