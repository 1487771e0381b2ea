"""Control inputs: the run's temporal mean alone, and the run without it."""

import numpy as np
import pytest
from helpers import RUN, ellipsoid, save, signal

from neurostorm_bids import load_model, to_model_grid
from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.encode.controls import as_fed
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.model.names import label_of_name

OPTIONS = ("--target-tr", "native")


@pytest.fixture
def gridded(tmp_path):
    bold = save(tmp_path / "b.nii.gz", signal(n_volumes=45))
    return to_model_grid(bold, save(tmp_path / "m.nii.gz", ellipsoid()), target_repetition_time=None)


def test_the_mean_is_every_frame_and_the_rest_has_no_mean(gridded):
    whole = np.asarray(gridded, float)
    mean, rest = (as_fed(gridded, control) for control in ("@mean", "@fluctuation"))
    inside = np.zeros(whole[..., 0].size, bool)
    inside[gridded.brain] = True
    inside = inside.reshape(whole.shape[:3])
    np.testing.assert_allclose(
        mean.window(40, 45)[inside], np.repeat(whole[inside].mean(axis=-1)[:, None], 5, axis=1), atol=1e-5
    )
    fluctuation = rest.window(0, whole.shape[3])
    np.testing.assert_allclose(fluctuation[inside], whole[inside] - whole[inside].mean(axis=-1)[:, None], atol=1e-5)
    assert fluctuation[inside].std() > 0.01
    for window in (mean.window(40, 45), fluctuation):
        assert (window[~inside] == np.float32(gridded.background)).all()
    assert as_fed(gridded, "") is gridded


def test_the_participant_level_embeds_them(tree, tmp_path, neurostorm, narrow):
    tree.run(RUN, data=signal(n_volumes=14))
    out, names = tmp_path / "o", [f"{narrow}{at}" for at in ("", "@mean", "@fluctuation")]
    status, _, said = neurostorm(tree.path, out, "participant", "--model", *names, *OPTIONS)
    assert status == 0, said
    assert "control input, for comparison: every frame is the run's temporal mean" in said
    tables = {
        label_of_name(name): read_table(next(out.rglob(f"func/*desc-{label_of_name(name)}_embeddings.tsv")))
        for name in names
    }
    assert set(tables["narrowFluctuation"]["weights"]) == {
        "control input, for comparison: the run minus its temporal mean"
    }
    assert len(list(out.rglob("*_predictions.tsv"))) == 1  # the head was not made for control inputs
    (bold,), (mask,) = (list(tree.path.rglob(f"*desc-{end}.nii.gz")) for end in ("preproc_bold", "brain_mask"))
    model = load_model(narrow)
    run = to_model_grid(bold, mask, grid=model.grid, target_repetition_time=None)
    n = model.n_frames
    for label, control in (("narrowMean", "@mean"), ("narrowFluctuation", "@fluctuation")):
        fed, table = as_fed(run, control), tables[label]
        clips = np.stack([fed.window(n * i, n * i + n) for i in range(len(table))])[:, None]
        expected = model.embed(np.ascontiguousarray(clips)).numpy()
        np.testing.assert_allclose(channels_of(table), expected, atol=1e-5 * np.abs(expected).max())
    apart = channels_of(tables["narrow"])
    assert not np.allclose(apart, channels_of(tables["narrowMean"]), rtol=1e-2)
    assert neurostorm(tree.path, out, "participant", "--model", *names, *OPTIONS)[0] == 0
    methods = (out / "logs" / "CITATION.md").read_text()
    assert 'Model "narrow@mean" was not fed the runs themselves (control input' in " ".join(methods.split())
    page = next(out.glob("sub-*.html")).read_text()
    assert "narrow@mean: control input, for comparison" in page


def test_a_control_input_is_not_tuned(tree, tmp_path, neurostorm, narrow):
    tree.run(RUN)
    status, _, said = neurostorm(
        tree.path, tmp_path, "group", "--group-task", "finetune", "--target", "x", "--model", f"{narrow}@mean"
    )
    assert status == 1
    assert "narrow.ckpt@mean is a control input to compare with" in said


def test_there_are_no_other_variants():
    with pytest.raises(NeurostormError, match="unknown model 'demo@median'"):
        load_model("demo@median")
