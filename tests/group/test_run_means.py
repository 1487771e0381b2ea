"""Tables of windows are read exactly and refused clearly, and the means of runs that are kept are those of the tables."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from helpers import Results

from neurostorm_bids.derivatives.tables import read_windows
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.group.cohort import read_cohort
from neurostorm_bids.group.run_means import CACHE
from neurostorm_bids.runtime.locks import hold


@pytest.fixture
def results(tmp_path):
    results = Results(tmp_path)
    for i in range(12):
        results.add(f"sub-{i:02d}_task-rest")
    return results


def cache_of(results):
    return results.out / CACHE / "desc-base.npz"


def table_of(results, i):
    return next(results.out.glob(f"sub-{i:02d}/func/*_desc-base_embeddings.tsv"))


def same(one, other):
    pd.testing.assert_frame_equal(one.runs, other.runs, check_exact=True)
    assert one.embeddings.tobytes() == other.embeddings.tobytes()
    assert (one.files, one.notes) == (other.files, other.notes)


# ---- tables


@pytest.mark.parametrize("weights", ["random weights, for comparison", 'of "A"\tand n/a', None])
def test_numbers_are_restored_to_the_bit(tmp_path, weights):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((50, 40)) * 10.0 ** rng.integers(-40, 40, (50, 40))
    values[3, 1] = np.nan
    table = pd.DataFrame(values, columns=[f"channel{i:03d}" for i in range(40)])
    table if weights is None else table.insert(20, "weights", weights)
    table.to_csv(tmp_path / "t.tsv", sep="\t", index=False, na_rep="n/a")
    names, read = read_windows(tmp_path / "t.tsv")
    assert list(names) == [name for name in table if name != "weights"]
    assert np.array_equal(read, values, equal_nan=True)


def test_the_mean_is_of_the_windows_that_are_not_censored(results):
    values = results.rng.standard_normal((8, results.CHANNELS)).astype(np.float32)
    results.add("sub-20_task-rest", values)
    path = table_of(results, 20)
    table = pd.read_csv(path, sep="\t").assign(censored=[1, 0, 0, 1, 0, 0, 0, 1])
    table.to_csv(path, sep="\t", index=False)
    cohort = read_cohort(results.out, "base")
    np.testing.assert_allclose(cohort.embeddings[-1], values[[1, 2, 4, 5, 6]].mean(axis=0), rtol=1e-6)
    assert cohort.runs[["windows", "censored_windows"]].iloc[-1].tolist() == [5, 3]


def cell(text, row, column, value):
    lines = [line.split("\t") for line in text.splitlines()]
    lines[row][column] = value
    return "\n".join("\t".join(line) for line in lines) + "\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: cell(text, 3, 6, "n/a"), "lacks numbers in its channels"),
        (lambda text: cell(text, 3, 6, "inf"), "lacks numbers in its channels"),
        (lambda text: cell(text, 3, 6, "x"), "cannot be read .*'x'"),
        (lambda text: cell(text, 3, 6, "1\t2"), "cannot be read .*Expected 10 fields in line 4, saw 11"),
        (lambda text: "\n".join(line.rpartition("\t")[0] for line in text.splitlines()), "has 8 windows of 5 channels"),
        (lambda text: text.rpartition("\t")[0], "cannot be read .*''"),
        (lambda text: text.partition("\n")[0], "has 0 windows of 6 channels, its sidecar says 8 of 6: it is cut short"),
        (lambda _: "", "cannot be read .*No columns to parse"),
    ],
)
def test_a_damaged_table_is_refused(results, change, message):
    path = table_of(results, 3)
    path.write_text(change(path.read_text()))
    with pytest.raises(NeurostormError, match=f"{path} {message}"):
        read_cohort(results.out, "base")


def test_quoted_cells_are_numbers_too(results):
    before = read_cohort(results.out, "base")
    path = table_of(results, 3)
    path.write_text(
        "\n".join("\t".join(f'"{c}"' for c in line.split("\t")) for line in path.read_text().split("\n")[:-1])
    )
    same(read_cohort(results.out, "base"), before)


# ---- the cache


def test_results_with_and_without_the_cache_are_equal(results):
    without = read_cohort(results.out, "base")
    assert cache_of(results).is_file()
    same(read_cohort(results.out, "base"), without)


def test_only_what_changed_is_read_again(results):
    """Tables that are overwritten with nonsense of their size and age are not looked at, others are."""
    before = read_cohort(results.out, "base")
    for i in (0, 5):
        path, status = table_of(results, i), table_of(results, i).stat()
        path.write_bytes(b"?" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    table_of(results, 7).unlink()
    values = np.full((3, results.CHANNELS), 2.5)
    results.add("sub-03_task-rest", values)
    results.add("sub-50_task-rest", values)
    after = read_cohort(results.out, "base")
    names = after.runs["run_name"].tolist()
    assert names == [f"sub-{i:02d}_task-rest" for i in (*range(7), *range(8, 12), 50)]
    assert (after.embeddings[[3, -1]] == 2.5).all()
    assert np.array_equal(after.embeddings[[0, 5]], before.embeddings[[0, 5]])
    os.utime(table_of(results, 5))
    with pytest.raises(NeurostormError, match=r"sub-05.* has 0 windows"):
        read_cohort(results.out, "base")


def test_a_sidecar_that_changed_is_noticed(results):
    read_cohort(results.out, "base")
    sidecar = table_of(results, 2).with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"SettingsHash": "x"', '"SettingsHash": ""'))
    cohort = read_cohort(results.out, "base")
    assert "sub-02_task-rest" not in cohort.runs["run_name"].tolist()
    assert "not finished, or changed since" in cohort.notes[0]


def test_what_was_read_before_a_damaged_table_is_kept(results):
    good = table_of(results, 11).read_text()
    table_of(results, 11).write_text("nothing")
    with pytest.raises(NeurostormError, match="sub-11"):
        read_cohort(results.out, "base")
    kept = cache_of(results).stat().st_size
    table_of(results, 11).write_text(good)
    read_cohort(results.out, "base")
    assert 0 < kept < cache_of(results).stat().st_size


def test_a_damaged_cache_is_made_anew(results):
    good = read_cohort(results.out, "base")
    content = cache_of(results).read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(len(content), size=60), 0, len(content) - 1]:
        broken = bytearray(content)
        broken[place] ^= 1 << rng.integers(8)
        cache_of(results).write_bytes(broken)
        same(read_cohort(results.out, "base"), good)
    for length in (0, 10, len(content) // 2, len(content) - 3):
        cache_of(results).write_bytes(content[:length])
        same(read_cohort(results.out, "base"), good)
    assert cache_of(results).stat().st_size == len(content)


def test_a_folder_that_cannot_be_written_to_needs_no_cache(results):
    cache_of(results).parent.parent.mkdir()
    cache_of(results).parent.write_text("a file where the folder should be")
    first = read_cohort(results.out, "base")
    same(read_cohort(results.out, "base"), first)


def test_the_cache_keeps_runs_of_another_space(results):
    other = table_of(results, 4)
    for path in (other, other.with_suffix(".json")):
        path.rename(path.with_name(path.name.replace("MNI152NLin6Asym", "MNI152NLin2009cAsym")))
    assert len(read_cohort(results.out, "base", "MNI152NLin2009cAsym").runs) == 1
    assert len(read_cohort(results.out, "base", "MNI152NLin6Asym").runs) == 11
    size = cache_of(results).stat().st_size
    read_cohort(results.out, "base", "MNI152NLin2009cAsym")
    assert cache_of(results).stat().st_size == size


def test_calls_at_the_same_time_leave_a_sound_cache(results):
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: read_cohort(results.out, "base"), range(8))
    for other in (*others, read_cohort(results.out, "base")):
        same(other, first)


def test_a_cache_that_another_call_is_writing_is_left_to_it(results):
    with hold(results.out, "cache"):
        read_cohort(results.out, "base")
    assert not cache_of(results).exists()
