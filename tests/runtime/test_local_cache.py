"""Copies of files on this machine, within a limit."""

import multiprocessing

from neurostorm_bids.runtime.local_cache import LocalCache


def files(folder, n=5, size=1000):
    folder.mkdir()
    paths = [folder / f"{i}.npy" for i in range(n)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * size)
    return paths


def test_files_are_copied_until_the_limit_and_read_all_the_same(tmp_path):
    paths, cache = files(tmp_path / "slow"), LocalCache(tmp_path / "fast", 2500)
    for _ in range(2):
        found = [cache(path) for path in paths]
        assert [path.read_bytes() for path in found] == [path.read_bytes() for path in paths]
        assert [path.parent.name for path in found] == ["fast"] * 2 + ["slow"] * 3


def test_a_file_that_was_replaced_is_not_read_from_its_old_copy(tmp_path):
    (path, *_), cache = files(tmp_path / "slow"), LocalCache(tmp_path / "fast", 10000)
    cache(path)
    path.write_bytes(b"new")
    assert cache(path).read_bytes() == b"new"


def test_what_an_earlier_training_left_is_thrown_out(tmp_path):
    (path, *_), cache = files(tmp_path / "slow"), LocalCache(tmp_path / "fast", 1500)
    copy = cache(path)
    cache.begin()
    assert not copy.exists()
    assert cache(path) == copy


def test_a_folder_that_cannot_be_written_to_costs_time_and_nothing_else(tmp_path):
    (path, *_), cache = files(tmp_path / "slow"), LocalCache(tmp_path / "slow" / "0.npy" / "x", 10000)
    assert cache(path) == path


def test_processes_share_the_limit(tmp_path):
    paths = files(tmp_path / "slow", 20)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(LocalCache(tmp_path / "fast", 7500), paths * 4)
    assert len(list((tmp_path / "fast").glob("*.npy"))) == 7
