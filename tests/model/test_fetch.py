"""neurostorm-model fetch, from a hub on this machine: what is interrupted goes on, and how far it is shows."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

WEIGHTS = np.random.default_rng(0).bytes(24_000_000)
KEPT = 10 * 2**20  # the client writes so much at a time


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does; breaks off in the middle of the file as long as `whole` is not set."""

    whole = damaged = False
    asked: ClassVar[list[int]] = []  # first byte of every request for content

    def do_HEAD(self):
        self.answer(200, len(WEIGHTS))

    def do_GET(self):
        begin = int(re.match(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")[1])
        Hub.asked.append(begin)
        if begin and not Hub.whole:
            self.answer(503, 0)
            return
        self.answer(206 if begin else 200, len(WEIGHTS) - begin)
        content = WEIGHTS[begin:] if Hub.whole else WEIGHTS[: KEPT + 1000]
        self.wfile.write(bytes(len(content)) if Hub.damaged else content)
        self.close_connection = True

    def answer(self, status, length):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", f"bytes {len(WEIGHTS) - length}-{len(WEIGHTS) - 1}/{len(WEIGHTS)}")
        self.send_header("ETag", f'"{hashlib.sha256(WEIGHTS).hexdigest()}"')
        self.send_header("X-Repo-Commit", "e96ad7bcbf393d9e4c655f3064a5e42b89ca1664")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def fetch(hub, tmp_path):
    Hub.whole, Hub.damaged = True, False
    Hub.asked.clear()

    def start():
        environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
        environment["TQDM_POSITION"] = "-1"  # progress is shown though this is no terminal
        command = [Path(sys.executable).parent / "neurostorm-model", "fetch", "mae05", "--to", tmp_path]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return start


def ended(process):
    out, err = process.communicate()
    return process.returncode, out.strip(), err


def beside(path):
    return [each.name for each in path.parent.iterdir() if each.name != ".locks"]


def test_what_was_interrupted_goes_on(fetch):
    Hub.whole = False
    status, _, err = ended(fetch())
    assert status == 1
    assert "the same command goes on from there" in err
    Hub.whole = True
    Hub.asked.clear()
    status, out, err = ended(fetch())
    assert status == 0, err
    assert [begin for begin in Hub.asked if begin] == [KEPT]
    assert "100%" in err
    path = Path(out)
    assert path.read_bytes() == WEIGHTS
    assert beside(path) == [path.name]


@pytest.mark.heavy
def test_of_several_processes_one_fetches(fetch):
    results = [ended(process) for process in [fetch() for _ in range(3)]]
    assert [status for status, _, _ in results] == [0, 0, 0], results
    path = Path(results[0][1])
    assert path.read_bytes() == WEIGHTS
    assert beside(path) == [path.name]


@pytest.mark.heavy
def test_damaged_weights_are_not_kept(fetch, tmp_path):
    Hub.damaged = True
    status, _, err = ended(fetch())
    assert status == 1
    assert "damaged on their way (SHA-256); try again" in err
    assert beside(tmp_path / "mae05" / "x") == []


@pytest.mark.heavy
def test_more_than_there_is_begins_anew(fetch, tmp_path):
    Hub.whole = False
    ended(fetch())
    Hub.whole = True
    (partly,) = (path for path in (tmp_path / "mae05").iterdir() if path.name != ".locks")
    partly.write_bytes(WEIGHTS + b"more")
    status, out, err = ended(fetch())
    assert status == 0, err
    assert Path(out).read_bytes() == WEIGHTS
