"""What happens to results when processes are killed, disks fill up, inputs change, and many processes meet."""

import gzip
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import NARROW, lightning, random_network
from helpers import signal as make_signal

from neurostorm_bids.participant import one_run

pytestmark = pytest.mark.heavy

KILLS = int(os.environ.get("NEUROSTORM_KILLS", "3"))  # CI's script asks for 50
PROCESSES = 16 if KILLS > 3 else 5
NEUROSTORM = Path(sys.executable).with_name("neurostorm")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def data(tree, tmp_path):
    """Two runs of a subject and a quick model, as a command line without OUT_DIR."""
    for name in ("sub-01_task-a", "sub-01_task-b"):
        tree.run(name, data=make_signal(len(name)))
    network = random_network(img_size=NARROW["img_size"], patch_size=NARROW["patch_size"], head="v1", n_outputs=1)
    model = lightning(tmp_path / "narrow.ckpt", network.state_dict(), downstream_task_type="classification", **NARROW)
    return lambda out, *options: [
        str(w) for w in (NEUROSTORM, tree.path, out, "participant", "--model", model, *options)
    ]


def start(call, **more):
    return subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
        **more,
    )


def finish(call):
    done = subprocess.run(call, capture_output=True, text=True, env=ENVIRONMENT)
    return done.returncode, done.stdout + done.stderr


def content(out):
    """Every file that tells of results, with what it holds; logs tell of calls. Images are unpacked: how they are packed tells nothing."""
    return {
        str(path.relative_to(out)): gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in out.rglob("*") if path.is_file() and "/log/" not in str(path) and ".locks" not in path.parts
    }  # fmt: skip


def difference(got, expected):
    """Where two files part, for whoever reads that they do."""
    at = next((i for i, pair in enumerate(zip(got, expected, strict=False)) if pair[0] != pair[1]), None)
    n = sum(a != b for a, b in zip(got, expected, strict=False))
    around = slice(max(0, (at or 0) - 20), (at or 0) + 20)
    return f"{len(got)} and {len(expected)} bytes, {n} differ, first at {at}: {got[around]!r}, {expected[around]!r}"


def half_written(out):
    """Files that a reader would take for results and that are not whole."""
    bad = []
    for path in out.rglob("*"):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(out).parts):
            continue
        data = path.read_bytes()
        ending = {".png": b"IEND\xaeB`\x82", ".json": b"}\n", ".tsv": b"\n", ".html": b"</html>", ".toml": b"\n"}
        if not data.rstrip(b"\n").endswith(ending.get(path.suffix, b"").rstrip(b"\n")) or not data:
            bad.append(path)
    return bad


def test_killed_at_any_moment_it_ends_as_if_undisturbed(data, tmp_path):
    """SIGKILL at random moments, over and over; what is visible is whole, and in the end it is as in one go."""
    out, quiet = tmp_path / "out", tmp_path / "quiet"
    started = time.monotonic()
    assert finish(data(quiet, "--save-grid"))[0] == 0
    whole = time.monotonic() - started
    rng = random.Random(0)
    for _ in range(KILLS):
        process = start(data(out, "--save-grid", *(["--force"] if rng.random() < 0.5 else [])))
        time.sleep(rng.uniform(0.2, 1.1) * whole)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert half_written(out) == []
    assert finish(data(out, "--save-grid"))[0] == 0
    expected = {name.replace(str(quiet), str(out)): data for name, data in content(quiet).items()}
    got = content(out)
    assert got.keys() == expected.keys()
    places = (str(quiet).encode(), str(out).encode())
    different = [name for name in got if got[name].replace(*places[::-1]) != expected[name]]
    assert different == [], [difference(got[name], expected[name]) for name in different]


def test_many_processes_share_one_folder(data, tmp_path):
    """All on the same subject: every run is encoded once, all succeed, and nothing is lost."""
    out, quiet = tmp_path / "out", tmp_path / "quiet"
    assert finish(data(quiet))[0] == 0
    processes = [start(data(out, "--work-dir", tmp_path / "work")) for _ in range(PROCESSES)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, said
    for task in ("a", "b"):
        assert sum(f"sub-01_task-{task}: encoding" in text for text in said) == 1
    names = content(out).keys()
    assert names == content(quiet).keys()
    func = [name for name in names if "/func/" in name or "/figures/" in name]
    places = (str(out).encode(), str(quiet).encode())
    assert all(content(out)[name].replace(*places) == content(quiet)[name] for name in func)


def test_a_dead_process_holds_no_lock(data, tmp_path):
    out = tmp_path / "out"
    process = start(data(out, "--window-stride", "1"))
    wait_for(out / ".locks" / "sub-01_task-a.lock")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert finish(data(out))[0] == 0


@pytest.mark.parametrize("options", [(), ("--nprocs", "2")])
def test_sigterm_stops_cleanly(data, tmp_path, options):
    out = tmp_path / "out"
    process = start(data(out, "--window-stride", "1", "-t", "a", "b", *options))
    wait_for(out / ".locks" / "sub-01_task-a.lock")
    time.sleep(0.3)
    process.terminate()
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 143
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said
    assert not list(out.rglob("*.partial"))
    assert half_written(out) == []


def test_ctrl_c_stops_with_a_summary(data, tmp_path):
    process = start(data(tmp_path / "out", "--window-stride", "1"))
    wait_for(tmp_path / "out" / ".locks" / "sub-01_task-a.lock")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert "stopped by SIGINT: 0 of 2 runs are done" in said
    assert "Traceback" not in said


def test_input_that_changes_while_it_is_read_is_noticed(tree, tmp_path, neurostorm, monkeypatch):
    bold = tree.run()
    real = one_run.resample_run

    def meanwhile(*args):
        result = real(*args)
        os.utime(bold)
        return result

    monkeypatch.setattr(one_run, "resample_run", meanwhile)
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo")
    assert status == 1
    assert "its input changed while it was read" in said
    assert not list((tmp_path / "o").rglob("*.tsv"))


def mounted(path, size):
    """A small file system of its own."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], capture_output=True)
    if done.returncode:
        pytest.skip("no file system can be mounted here")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_is_reported_and_loses_nothing(data, tmp_path):
    out = tmp_path / "out"
    mounted(out, "6m")
    try:
        work = ("--work-dir", tmp_path / "work")
        assert finish(data(out, *work, "-t", "a"))[0] == 0
        before = {name: text for name, text in content(out).items() if "task-a" in name}
        free = os.statvfs(out).f_bavail * os.statvfs(out).f_frsize
        (out / "ballast").write_bytes(bytes(max(0, free - 200_000)))
        status, said = finish(data(out, *work))
        assert status == 1
        assert re.search(r"error: .*cannot write .*No space left on device", said), said
        assert "Traceback" not in said
        assert half_written(out) in ([], [out / "ballast"])
        after = content(out)
        assert {name: after[name] for name in before} == before
        (out / "ballast").unlink()
        assert finish(data(out, *work))[0] == 0
    finally:
        subprocess.run(["umount", str(out)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_work_folder_that_is_full_is_reported(data, tmp_path):
    work = tmp_path / "work"
    mounted(work, "100k")
    try:
        status, said = finish(data(tmp_path / "out", "--work-dir", work))
        assert status == 1
        assert (
            "cannot hold the resampled run (No space left on device); make room, or give another with --work-dir"
            in said
        )
    finally:
        subprocess.run(["umount", str(work)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_read_only_output_is_reported_and_stays(data, tmp_path):
    out = tmp_path / "out"
    mounted(out, "20m")
    try:
        assert finish(data(out))[0] == 0
        before = content(out)
        subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
        status, said = finish(data(out, "--force"))
        assert status == 1
        assert re.search("error: OUT_DIR .* cannot be written to: Read-only file system", said)
        assert content(out) == before
    finally:
        subprocess.run(["umount", str(out)])


@pytest.mark.parametrize("place", ["sub-01", "sub-01/func", "sub-01/figures", "sub-01/log"])
def test_links_do_not_lead_a_write_out(tree, tmp_path, neurostorm, place):
    tree.run()
    outside, link = tmp_path / "outside", tmp_path / "o" / place
    outside.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo")
    assert status == 1
    assert "leads out of the output folder" in said
    assert list(outside.rglob("*")) == []


def test_a_second_process_waits_for_the_first(data, tmp_path):
    """The lock is held here, by this process: the call finds it busy, says so, and goes on when it is free."""
    from filelock import FileLock

    path = tmp_path / "out" / ".locks" / "sub-01_task-a.lock"
    path.parent.mkdir(parents=True)
    lock = FileLock(path)
    lock.acquire()
    process = start(data(tmp_path / "out"))
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout))
    reader.start()
    for _ in range(600):
        if any("task-b  " in line or "drawing" in line for line in lines):
            break
        time.sleep(0.1)
    assert any("sub-01_task-a: another process is working on it" in line for line in lines)
    assert not list((tmp_path / "out").rglob("*task-a*embeddings.tsv"))
    lock.release()
    assert process.wait(timeout=60) == 0
    reader.join()
    assert list((tmp_path / "out").rglob("*task-a*embeddings.tsv"))


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not come")


def test_a_subject_whose_logs_cannot_be_written_stops_no_other(tree, tmp_path, neurostorm):
    for subject in ("01", "02"):
        tree.run(f"sub-{subject}_task-rest")
    (tmp_path / "o" / "sub-01").mkdir(parents=True)
    (tmp_path / "o" / "sub-01" / "log").write_text("a file")
    status, printed, said = neurostorm(
        tree.path, tmp_path / "o", "participant", "--model", "demo", "--window-stride", "9"
    )
    assert status == 1
    assert re.search("error: sub-01: cannot write .*Not a directory", said)
    assert re.search("sub-02_task-rest .* done", printed)


def test_what_looks_like_a_leftover_and_is_not_ours_stays(tree, tmp_path, neurostorm):
    tree.run()
    out = tmp_path / "o"
    (out / ".README.abcdefgh.partial").mkdir(parents=True)
    (out / ".download.partial").write_text("mine")
    (out / ".CHANGES.abcdefgh.partial").write_text("of a process that was killed")
    assert neurostorm(tree.path, out, "participant", "--model", "demo", "--window-stride", "9")[0] == 0
    assert (out / ".download.partial").read_text() == "mine"
    assert not (out / ".CHANGES.abcdefgh.partial").exists()
