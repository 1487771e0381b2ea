"""What notebooks call gives what the command writes."""

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from helpers import RUN, Results, signal

import neurostorm_bids
from neurostorm_bids import NeurostormError, embed_run, find_runs, grid_run, load_model, probe, read_embeddings
from neurostorm_bids.derivatives.tables import channels_of, read_table

mpl.use("Agg")
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "python.md"


def test_all_that_is_public_is_there():
    for name in neurostorm_bids.__all__:
        assert getattr(neurostorm_bids, name).__doc__
    with pytest.raises(AttributeError):
        neurostorm_bids.nothing  # noqa: B018 (the attribute is what is tested)


def test_runs_are_found_and_embedded_as_by_the_command(tree, tmp_path, neurostorm, narrow):
    tree.run(data=signal(0, n_volumes=14))
    tree.run("sub-02_task-nback", data=signal(1, n_volumes=14))
    call = (
        tree.path,
        tmp_path / "out",
        "participant",
        "--model",
        narrow,
        "--window-stride",
        "3",
        "--interpolation",
        "cubic",
    )
    assert neurostorm(*call)[0] == 0
    runs = find_runs(tree.path)
    assert [run.name for run in runs] == [RUN, "sub-02_task-nback"]
    assert [run.name for run in find_runs(tree.path, task_id=["nback"])] == ["sub-02_task-nback"]
    assert runs[1].entities == {"sub": "02", "task": "nback"}
    found = embed_run(runs[0], narrow, window_stride=3, interpolation="cubic")
    written = read_table(next((tmp_path / "out" / "sub-01" / "func").glob("*_embeddings.tsv")))
    assert list(found) == list(written)
    np.testing.assert_allclose(channels_of(found), channels_of(written), atol=1e-6)
    model = load_model(narrow)
    run = grid_run(runs[0], model, interpolation="cubic")
    clip = model.embed(run[..., :6][None, None]).numpy()
    np.testing.assert_allclose(clip[0], channels_of(found)[0], atol=1e-5)


def test_what_cannot_be_is_said(tree, narrow):
    tree.run()
    with pytest.raises(NeurostormError, match="sub-09"):
        find_runs(tree.path, participant_label=["01", "09"])
    run = find_runs(tree.path)[0]
    with pytest.raises(NeurostormError, match="too short"):
        embed_run(run, "demo", target_tr=None)
    for options, message in (
        ({"stride": 3}, "No such option '--stride'"),
        ({"precision": "FP32"}, "'FP32' is not one of 'fp32', 'bf16', 'fp16'"),
        ({"window_stride": 7.5}, "'7.5' is not a whole number"),
        ({"window_stride": 0}, "0 has to be"),
        ({"embedding_level": ["token"]}, "embedding_level means nothing for one run"),
    ):
        with pytest.raises(NeurostormError, match=message):
            embed_run(run, narrow, **options)
    with pytest.raises(NeurostormError, match="one of those that find_runs returns, not str"):
        embed_run(RUN, narrow)


def test_values_are_read_as_the_command_reads_them(tree):
    tree.run()
    tree.run("sub-12_task-nback")
    for options in (
        {"task_id": "nback"},
        {"task_id": ["task-nback"]},
        {"participant_label": 12},
        {"participant_label": ["sub-12"]},
    ):
        assert [run.name for run in find_runs(tree.path, **options)] == ["sub-12_task-nback"]
    assert len(find_runs(str(tree.path), task_id=None, participant_label=[])) == 2
    with pytest.raises(NeurostormError, match="'ukbb' is not one of"):
        find_runs(tree.path, input_type="ukbb")


@pytest.fixture
def results(tmp_path):
    """Forty people whose embeddings tell their age."""
    made, rng, rows = Results(tmp_path), np.random.default_rng(0), []
    for i in range(40):
        age = 20 + i
        made.add(f"sub-{i:02d}_task-rest", rng.standard_normal((4, 6)) + [age / 10, 0, 0, 0, 0, 0])
        rows.append(f"sub-{i:02d}\t{age}")
    (made.raw / "participants.tsv").write_text("participant_id\tage\n" + "\n".join(rows) + "\n")
    return made


def test_results_are_one_table_with_the_phenotype(results, tmp_path):
    alone = read_embeddings(results.out)
    assert len(alone) == 40
    assert "age" not in alone
    for more in ({"bids_dir": results.raw}, {"phenotype": results.raw / "participants.tsv"}):
        table = read_embeddings(results.out, "base", **more)
        assert table["age"].tolist() == list(range(20, 60))
        pd.testing.assert_frame_equal(table[list(alone)], alone)
    with pytest.raises(NeurostormError, match="of no model"):
        read_embeddings(tmp_path / "raw")
    results.add("sub-00_task-rest", label="other")
    with pytest.raises(NeurostormError, match=r"several models \(base, other\); say which"):
        read_embeddings(results.out)


def test_results_know_the_people_that_they_are_of(tree, tmp_path, neurostorm, narrow):
    tree.run("sub-01_task-rest")
    (tree.path / "participants.tsv").write_text("participant_id\tage\nsub-01\t33\n")
    assert neurostorm(tree.path, tmp_path / "o", "participant", "--model", narrow)[0] == 0
    assert read_embeddings(tmp_path / "o")["age"].tolist() == [33]
    other = tmp_path / "other.tsv"
    other.write_text("participant_id\theight\n01\t180\n")
    assert "age" not in read_embeddings(tmp_path / "o", phenotype=other)
    without_zeros = tmp_path / "numbers.tsv"
    without_zeros.write_text("participant_id\tage\n1\t44\n")
    assert read_embeddings(tmp_path / "o", phenotype=without_zeros)["age"].tolist() == [44]
    (tree.path / "participants.tsv").write_text("id\tage\nsub-01\t33\n")  # which nobody asked for
    assert "age" not in read_embeddings(tmp_path / "o")
    tree.path.rename(tmp_path / "elsewhere")
    alone = read_embeddings(tmp_path / "o")
    assert "age" not in alone
    assert len(alone) == 1


def test_a_probe_is_that_of_the_command(results, neurostorm):
    found = probe(results.raw, results.out, "age", n_permutations=39, cv_repeats=2)
    call = (results.raw, results.out, "group", "--group-task", "probe", "--target", "age", "--n-permutations", "39")
    status, printed, said = neurostorm(*call, "--cv-repeats", "2")
    assert status == 0, said
    assert found.verdict in printed
    written = pd.read_csv(results.out / "group_desc-base_target-age_metrics.tsv", sep="\t")
    np.testing.assert_allclose(found.metrics["value"], written["value"])
    assert len(found.predictions) == 40
    assert found.plot()._repr_png_().startswith(b"\x89PNG")  # as notebooks show it
    with pytest.raises(NeurostormError, match="one model, not 2"):
        probe(results.raw, results.out, "age", model=["base", "other"])
    assert "probe: " in repr(found)


def test_the_probe_of_the_page_on_notebooks_runs(tmp_path, monkeypatch):
    made, rng = Results(tmp_path, label="demo"), np.random.default_rng(0)
    for i in range(30):
        made.add(f"sub-{i:02d}_task-rest", rng.standard_normal((4, 6)) + [i / 5, 0, 0, 0, 0, 0])
    rows = [f"sub-{i:02d}\t{20 + i}\t{'MF'[i % 2]}\n" for i in range(30)]
    (made.raw / "participants.tsv").write_text("participant_id\tage\tsex\n" + "".join(rows))
    made.raw.rename(tmp_path / "BIDS_DIR")
    made.out.rename(tmp_path / "OUT_DIR")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1], names)
    assert len(names["table"]) == 30
    assert "age" in names["found"].verdict
    assert (tmp_path / "age.png").stat().st_size > 5_000


def test_what_a_probe_cannot_take_is_said(results):
    for options, message in (
        ({"pooling": "attn"}, "'attn' is not one of 'mean', 'attention'"),
        ({"cv_repeats": -3}, "-3"),
        ({"group_task": "qc"}, "group_task is not an option of probe"),
    ):
        with pytest.raises(NeurostormError, match=message):
            probe(results.raw, results.out, "age", **options)
    with pytest.raises(NeurostormError, match="one target, not 2"):
        probe(results.raw, results.out, ["age", "sex"])
