"""TemplateFlow's files: what is said where one cannot be had."""

import errno

import pytest
from helpers import FMRIPREP_SPACE, FSL_SPACE
from templateflow import api

from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find import templateflow
from neurostorm_bids.find.templateflow import TemplateWarp, find_template, find_warp

WARP = TemplateWarp(source=FMRIPREP_SPACE, target=FSL_SPACE)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    templateflow._fetched.cache_clear()
    yield tmp_path
    templateflow._fetched.cache_clear()


def failing(error):
    def get(*_args, **_kwargs):
        raise error

    return get


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_takes_nothing_is_named(home, monkeypatch, number):
    reason = {errno.ENOSPC: "No space left on device", errno.EACCES: "Permission denied", errno.EROFS: "Read-only"}[
        number
    ]
    monkeypatch.setattr(api, "get", failing(OSError(number, reason)))
    with pytest.raises(NeurostormError, match=f"fetching it failed: {reason}"):
        find_warp(WARP)


def test_without_a_network_it_says_where_to_put_the_file(home, monkeypatch):
    monkeypatch.setattr(api, "get", failing(ConnectionError("no route to host")))
    with pytest.raises(NeurostormError) as error:
        find_warp(WARP)
    assert str(home / f"tpl-{FSL_SPACE}" / WARP.name) in str(error.value)
    assert "fetching it failed" not in str(error.value)
    with pytest.raises(NeurostormError, match="res-02_desc-brain_mask"):
        find_template(FSL_SPACE, "brain", "mask")


def test_the_empty_files_that_templateflow_keeps_do_not_count(home, monkeypatch):
    path = home / f"tpl-{FSL_SPACE}" / WARP.name
    path.parent.mkdir()
    path.touch()
    monkeypatch.setattr(api, "get", failing(ConnectionError()))
    with pytest.raises(NeurostormError, match="not on this machine"):
        find_warp(WARP)
    path.write_bytes(b"x")
    assert find_warp(WARP) == path
