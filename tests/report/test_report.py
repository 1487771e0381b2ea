"""What people see: the report, its figures, the methods text, the validator's word, logs."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import FMRIPREP_SPACE, NARROW, ROOT, Tree, ellipsoid, lightning, random_network, save, signal
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from neurostorm_bids import to_model_grid
from neurostorm_bids.command.main import main, settings_of
from neurostorm_bids.derivatives.tables import channels_of, read_table
from neurostorm_bids.report import citations
from neurostorm_bids.report.figures import alignment, slices
from neurostorm_bids.report.figures.carpet import carpet_of
from neurostorm_bids.report.figures.trajectory import describe, trajectory_of
from neurostorm_bids.resample.grid import AS_FMRIPREP, FSL

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def regression(path, **more):
    """A quick model that predicts an age."""
    sizes = {"img_size": NARROW["img_size"], "patch_size": NARROW["patch_size"]}
    network = random_network(**sizes, head="v1", n_outputs=1)
    more = {"downstream_task_type": "regression", "task_name": "age", "unit": "years", **more}
    return lightning(path, network.state_dict(), **NARROW, **more)


def call(*args):
    """The command, in this process; returns the exit status."""
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code or 0


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two subjects, one with two sessions and a run that fails, one censored window; demo model and one of ages."""
    folder = tmp_path_factory.mktemp("report")
    tree = Tree(folder / "fmriprep")
    tree.run("sub-01_task-rest", data=signal(1, n_volumes=40))
    tree.run("sub-02_ses-1_task-rest_run-1", data=signal(2, n_volumes=40))
    tree.run("sub-02_ses-2_task-rest_run-1", data=signal(3, n_volumes=40))
    save(tree.run("sub-02_ses-2_task-nback"), np.full((32, 38, 32, 12), np.nan, np.float32), repetition_time=2.0)
    confounds = tree.folder("sub-01_task-rest") / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    motion = [0.1] * 30 + [2.0] * 10
    confounds.write_text("framewise_displacement\n" + "\n".join(map(str, motion)) + "\n")
    model = regression(
        folder / "ages.ckpt", label_mean=40.0, label_std=1e-3, label_range=[50.0, 60.0], dataset_name="a study of fifty"
    )
    out = folder / "out"
    status = call(tree.path, out, "participant", "--model", "demo", model, "--fd-threshold", "1")
    assert status == 1  # for the run of NaN
    return out


class Page(HTMLParser):
    """Text by section, and what the page refers to."""

    def __init__(self, path: Path):
        super().__init__()
        self.sections, self.references, self.red = {}, [], []
        self._here, self._red = None, False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "section":
            self._here = attributes["id"]
            self.sections[self._here] = ""
        self._red = "alarm" in (attributes.get("class") or "")
        self.references += [attributes[key] for key in ("src", "href", "data") if key in attributes]

    def handle_data(self, data):
        if self._red:
            self.red.append(data.strip())
        if self._here:
            self.sections[self._here] += f" {data}"


def text(page: Page, section: str) -> str:
    return " ".join(page.sections[section].split())


def test_sections_are_in_fmriprep_s_order(results):
    runs = ["sub-02_ses-1_task-rest_run-1", "sub-02_ses-2_task-rest_run-1"]
    assert list(Page(results / "sub-02.html").sections) == ["summary", *runs, "about", "methods", "errors"]


def test_summary_says_what_became_of_every_run(results):
    summary = text(Page(results / "sub-02.html"), "summary")
    assert "Sessions 1, 2" in summary
    assert "3 found, 2 with results, 1 failed" in summary
    assert "session 2, task nback failed: " in summary
    assert "NaN or infinity" in summary
    assert "MNI152NLin6Asym, 96 × 96 × 96 voxels of 2 × 2 × 2 mm, stored LAS" in summary


def test_facts_of_a_run_are_those_of_its_files(results):
    page = text(Page(results / "sub-01.html"), "sub-01_task-rest")
    sidecar = json.loads(next(results.glob("sub-01/func/*demo_embeddings.json")).read_text())
    assert f"{sidecar['Preprocessing']['BrainVoxels']:,}" in page
    assert "2 s, resampled to 0.8 s" in page
    assert "4 used of 5, 20 frames each, one every 20" in page  # 80 s, the last quarter in motion
    assert "2.00 mm at most" in page


def test_prediction_outside_the_training_says_so(results):
    page = Page(results / "sub-01.html")
    of_run = text(page, "sub-01_task-rest")
    row = read_table(next(results.glob("sub-01/func/*ages_predictions.tsv"))).iloc[0]
    assert row["value"] == pytest.approx(40, abs=0.1)
    assert f"{row['value']:.4g} years" in of_run
    assert "a study of fifty" in of_run
    assert "outside the labels of the training (50 to 60 years)" in of_run


def test_a_model_for_demonstration_is_red(results):
    page = Page(results / "sub-01.html")
    assert any("trained on phantoms, for demonstration" in words for words in page.red)
    probability = read_table(next(results.glob("sub-01/func/*demo_predictions.tsv"))).iloc[0]["probability_together"]
    assert f"{probability:.3f}" in text(page, "sub-01_task-rest")


def test_errors_hold_the_account(results):
    errors = text(Page(results / "sub-02.html"), "errors")
    assert "sub-02_ses-2_task-nback" in errors
    assert "Traceback" in errors
    assert "[32, 38, 32, 12]" in errors
    assert text(Page(results / "sub-01.html"), "errors") == "Errors No errors to report!"


def test_references_are_relative_and_there(results):
    for path in results.glob("sub-*.html"):
        for reference in Page(path).references:
            assert not re.match("[a-z]+:|/", reference), reference
            assert reference.startswith("#") or (results / reference).is_file(), reference


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_loads_every_figure_and_asks_no_one(results, tmp_path):
    shutil.copytree(results, tmp_path / "elsewhere")
    page = tmp_path / "elsewhere" / "sub-01.html"
    script = (
        "<script>addEventListener('load', () => { document.title = JSON.stringify({"
        "widths: [...document.images].map(image => image.naturalWidth),"
        "asked: performance.getEntriesByType('resource').map(entry => entry.name)}) })</script>"
    )
    page.write_text(page.read_text().replace("</body>", script + "</body>"))
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=9000", "--dump-dom"]
    dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=100).stdout
    seen = json.loads(re.search("<title>(.*?)</title>", dom, re.DOTALL)[1])
    n_figures = len(list((results / "sub-01" / "figures").iterdir())) + 1  # the mosaic is of both models
    assert len(seen["widths"]) == n_figures
    assert min(seen["widths"]) > 400
    assert all(url.startswith("file://") for url in seen["asked"])


@pytest.mark.parametrize("kind", ["with predictions, two sessions", "embeddings only"])
def test_bids_validator_has_no_error(results, tmp_path, kind):
    out = results
    if kind == "embeddings only":
        out = tmp_path / "out"
        tree = Tree(tmp_path / "fmriprep")
        tree.run(data=signal(n_volumes=12))
        sizes = {"img_size": NARROW["img_size"], "patch_size": NARROW["patch_size"]}
        model = lightning(tmp_path / "plain.ckpt", random_network(**sizes).state_dict(), **NARROW)
        assert call(tree.path, out, "participant", "--model", model, "--save-grid") == 0
        assert not list(out.rglob("*predictions*"))
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run([validator, "--format", "json", out], capture_output=True, text=True)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == []
    assert done.returncode == 0


# ---- figures


def half_bright(tmp_path, affine):
    """A run whose right half (x > 0 mm) is twice as bright, stored as the affine says."""
    shape = (48, 56, 48)
    world = np.einsum("ij,jklm->iklm", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]
    brain = (world[0] / 66) ** 2 + ((world[1] + 18) / 80) ** 2 + ((world[2] - 8) / 60) ** 2 < 1
    data = np.where(world[0] > 0, 200, 100)[..., None] + np.random.RandomState(0).standard_normal((*shape, 22))
    bold = save(tmp_path / "bold.nii.gz", data.astype(np.float32), affine, 2.0)
    return to_model_grid(bold, save(tmp_path / "mask.nii.gz", brain.astype(np.uint8), affine))


@pytest.mark.parametrize("storage", ["RAS", "LAS"])
def test_right_is_at_the_right_of_the_mosaic(tmp_path, storage):
    affine = np.array([[4.0, 0, 0, -94], [0, 4, 0, -126], [0, 0, 4, -86], [0, 0, 0, 1]])
    if storage == "LAS":
        affine = affine @ np.diag([-1.0, 1, 1, 1])
        affine[0, 3] = 94
    gridded = half_bright(tmp_path, affine)
    alignment.draw_alignment(gridded, tmp_path / "m.png")
    picture = np.asarray(Image.open(tmp_path / "m.png").convert("L"), dtype=float)
    height, width = picture.shape
    rows = picture[: height // 6, round(0.05 * width) : round(0.99 * width)]  # the axial slices of the run
    tiles = np.array_split(rows, slices.SLICES, axis=1)[2:6]
    for tile in tiles:
        left, right = tile[:, : tile.shape[1] // 2], tile[:, tile.shape[1] // 2 :]
        assert right[right > 60].mean() > 1.4 * left[left > 60].mean()


@pytest.mark.parametrize("grid", [FSL, AS_FMRIPREP])
def test_coordinates_of_slices(grid):
    ras = slices.to_ras(np.arange(np.prod(grid.shape)).reshape(grid.shape), grid)
    for axis in range(3):
        index = [10, 20, 30]
        voxel = np.array(np.unravel_index(ras[tuple(index)], grid.shape))
        world = grid.matrix @ [*voxel, 1]
        assert slices.ras_coordinate(grid, axis, index[axis]) == pytest.approx(world[axis])


def test_what_is_outside_the_grid_is_drawn_and_named(tmp_path, tree, neurostorm):
    """A mask with a stalk, which leaves the grid at the bottom."""
    affine = np.array([[6.0, 0, 0, -93], [0, 6, 0, -129], [0, 0, 6, -111], [0, 0, 0, 1]])
    mask = np.zeros((32, 38, 38), np.uint8)
    mask[:, :, 6:] = ellipsoid()
    mask[13:18, 16:21, :20] = 1
    tree.run(affine=affine, mask=mask, data=signal(shape=mask.shape, n_volumes=12))
    neurostorm(tree.path, tmp_path / "out", "participant", "--model", "demo", "--window-stride", "20")
    page = text(Page(tmp_path / "out/sub-01.html"), "sub-01_task-rest")
    assert re.search(r"Brain outside the grid \d+\.\d% \(inferior\)", page)
    assert list((tmp_path / "out/sub-01/figures").glob("*desc-outside_bold.png"))


def test_carpet_is_nilearn_s_detrended_and_standardised_signal(tmp_path):
    from nilearn.signal import clean

    affine = np.array([[4.0, 0, 0, -94], [0, 4, 0, -126], [0, 0, 4, -86], [0, 0, 0, 1]])
    gridded = half_bright(tmp_path, affine)
    carpet = carpet_of(gridded)
    everything = clean(
        gridded.frames[0:22].astype(float), detrend=True, standardize="zscore_sample", standardize_confounds=False
    ).T
    everything *= np.sqrt(22 / 21)  # its standard deviation is of a sample
    found = [np.abs(everything - row).max(axis=1).min() for row in carpet[::200]]
    assert len(carpet) == 800
    assert max(found) < 1e-4


def test_trajectory_is_that_of_scikit_learn_and_described_in_words():
    rng = np.random.RandomState(0)
    motion = np.abs(rng.standard_normal(12))
    embeddings = 5 + rng.standard_normal((12, 40)) * 0.1 + np.outer(motion, rng.standard_normal(40))
    course = trajectory_of(embeddings, motion)
    pca = PCA(3).fit(embeddings)
    np.testing.assert_allclose(course.similarity, cosine_similarity(embeddings), atol=1e-12)
    np.testing.assert_allclose(np.abs(course.scores), np.abs(pca.transform(embeddings)), atol=1e-9)
    np.testing.assert_allclose(course.explained, pca.explained_variance_ratio_, atol=1e-12)
    assert "follows head motion" in describe(course)
    assert "describes" not in describe(trajectory_of(embeddings[:2], motion[:2]))
    embeddings[7] *= -1
    assert "Window 8 is unlike the others" in describe(trajectory_of(embeddings, np.full(12, np.nan)))


# ---- methods


def methods_of(tree, out, *options):
    status = call(tree.path, out, "participant", "--model", "demo", "--md-only-boilerplate", *options)
    assert status == 0
    return " ".join((out / "logs" / "CITATION.md").read_text().split())


def test_methods_say_what_was_done(results):
    said = " ".join((results / "logs" / "CITATION.md").read_text().split())
    for phrase in (
        "preprocessed with fMRIPrep 25.2.0 [@fmriprep]",
        "Series in MNI152NLin6Asym were sampled at 96 × 96 × 96 voxels of 2 × 2 × 2 mm in MNI152NLin6Asym",
        "single trilinear interpolation",
        "(repetition time 2 s) were resampled in time to 0.8 s",
        "windows of 20 frames (16 s)",
        'the numbers of model "demo" (a very small model trained on phantoms, for demonstration) mean nothing',
        "brought back to years with the labels' mean and standard deviation in training (40.0 and 0.001)",
        "more than 50 % of the volumes had a framewise displacement [@power] above 1.0 mm",
    ):
        assert phrase.lower() in said.lower(), phrase


def test_methods_follow_the_options(tree, tmp_path):
    tree.run(space=f"space-{FMRIPREP_SPACE}")
    told = methods_of(
        tree, tmp_path / "o", "--template-warp", "skip", "--target-tr", "native", "--interpolation", "cubic",
        "--denoise", "simple", "--dummy-scans", "3", "--window-stride", "5",
    )  # fmt: skip
    for phrase in (
        "MNI152NLin2009cAsym was taken for MNI152NLin6Asym without the transform",
        "kept their repetition time of 2 s",
        "cubic B-spline",
        '"simple" strategy of nilearn',
        "The first 3 volumes",
        "one every 5 frames",
    ):
        assert phrase in told, phrase
    assert "framewise displacement" not in told
    assert "TemplateFlow" not in told
    assert not list((tmp_path / "o").rglob("*.tsv"))
    assert not (tmp_path / "o/logs/CITATION.html").exists()


def test_what_the_input_asks_to_be_cited_is_cited(tree, tmp_path):
    tree.run()
    path = tree.path / "dataset_description.json"
    content = json.loads(path.read_text()) | {"HowToAcknowledge": "Please cite <b>us</b> & [@them]."}
    path.write_text(json.dumps(content))
    told = methods_of(tree, tmp_path / "o")
    assert 'The description of that data set asks: "Please cite <b>us</b> & [ @them]".' in told
    assert call(tree.path, tmp_path / "o", "participant", "--model", "demo", "--boilerplate-only") == 0
    assert "Please cite &lt;b&gt;us&lt;/b&gt; &amp; [ @them]" in " ".join(
        (tmp_path / "o/logs/CITATION.html").read_text().split()
    )
    assert r"us</b> \& [ @them]" in " ".join((tmp_path / "o/logs/CITATION.tex").read_text().split())
    assert not list((tmp_path / "o").rglob("*.tsv"))


def test_every_citation_has_an_entry_and_every_entry_is_cited():
    folder = ROOT / "boilerplate"
    entries = citations.read_bibliography((folder / "references.bib").read_text())
    cited = set(re.findall(r"@(\w+)", (folder / "methods.md").read_text())) | {"evans", "fonov"}
    cited |= {"fmriprep", "hcp", "ukb"}  # of the program that preprocessed
    assert cited == set(entries)
    for key, entry in entries.items():
        assert entry.fields["year"].isdigit(), key
        assert citations.short(entry)


def test_citation_files_agree(results):
    said = (results / "logs" / "CITATION.md").read_text()
    keys = set(citations.keys_in(said))
    tex = (results / "logs" / "CITATION.tex").read_text()
    assert {k for group in re.findall(r"\\citep\{(.*?)\}", tex) for k in group.split(",")} == keys
    assert set(re.findall(r"@\w+\{(\w+),", (results / "logs" / "CITATION.bib").read_text())) == keys
    html = (results / "logs" / "CITATION.html").read_text()
    assert set(re.findall('id="ref-(.*?)"', html)) == keys
    assert "(Wang et al., 2026)" in re.sub("<.*?>", "", html)
    assert "[@" not in html + tex


def test_tex_of_awkward_letters():
    tex = citations.to_tex('a_b 50 % of "x" & *neurostorm_bids* #1 [@mamba; @bids]')
    assert r"a\_b 50 \% of ``x'' \& \emph{neurostorm\_bids} \#1 \citep{mamba,bids}" in tex


# ---- the folder


def test_description_of_two_inputs_keeps_both(tmp_path):
    out = tmp_path / "out"
    trees = [Tree(tmp_path / name) for name in ("a", "b")]
    for i, tree in enumerate(trees):
        tree.run(f"sub-{i}_task-rest")
        assert call(tree.path, out, "participant", "--model", "demo", "--window-stride", "9") == 0
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert (links["fmriprep"], links["fmriprep2"]) == tuple(tree.path.as_uri() for tree in trees)
    sources = [json.loads(next(out.glob(f"sub-{i}/func/*embeddings.json")).read_text())["Sources"][0] for i in (0, 1)]
    assert sources[0].startswith("bids:fmriprep:sub-0/")
    assert sources[1].startswith("bids:fmriprep2:sub-1/")


def test_mixed_settings_are_warned_of(tree, tmp_path, neurostorm):
    tree.run(data=signal(n_volumes=24))
    out = tmp_path / "out"
    assert "other settings" not in neurostorm(tree.path, out, "participant", "--model", "demo")[2]
    status, _, said = neurostorm(tree.path, out, "participant", "--model", "demo", "--target-tr", "native")
    assert status == 0
    assert "other settings (target_tr was 0.8, is native)" in said
    made = json.loads((out / "dataset_description.json").read_text())["GeneratedBy"]
    assert len({entry["ConfigurationHash"] for entry in made}) == 2
    assert all("for demonstration" in entry["Description"] for entry in made)


def test_readme_of_the_user_and_changes_of_older_versions_stay(tree, tmp_path, neurostorm):
    tree.run()
    out = tmp_path / "out"
    out.mkdir()
    (out / "README").write_text("mine\n")
    (out / "CHANGES").write_text("0.0.1 2026-01-01\n  - first\n")
    for _ in range(2):
        neurostorm(tree.path, out, "participant", "--model", "demo")
    assert (out / "README").read_text() == "mine\n"
    changes = (out / "CHANGES").read_text()
    assert re.fullmatch(
        r"\d\S+ \d{4}-\d\d-\d\d\n  - Results of neurostorm_bids \S+\n\n0\.0\.1 2026-01-01\n  - first\n", changes
    )


def test_configuration_file_gives_the_same_settings_again(tree, tmp_path, neurostorm):
    tree.run()
    options = [
        "--model", "demo", "--target-tr", "native", "--dummy-scans", "2", "--fd-threshold", "0.5", "--task-id", "rest",
        "--derivatives", f"fmriprep={tree.path}", "--window-stride", "7", "--work-dir", tmp_path / 'a "w" é', "-v",
    ]  # fmt: skip
    place = [str(tree.path), str(tmp_path / "o"), "participant"]
    given = settings_of([*place, *map(str, options)])
    path = tmp_path / "c.toml"
    path.write_text(given.as_toml())
    again = settings_of([*place, "--config-file", str(path)])
    assert again == given
    assert again.resampling.target_tr is None


def test_every_call_leaves_its_configuration_and_failures_their_account(results):
    logs = list(results.glob("sub-02/log/*"))
    assert len(logs) == 1
    assert re.fullmatch(r"\d{8}-\d{6}_[0-9a-f-]{36}", logs[0].name)
    assert 'model = ["demo", ' in (logs[0] / "neurostorm.toml").read_text()
    crash = (logs[0] / "crash-sub-02_ses-2_task-nback.txt").read_text()
    assert "while: resampling 12 volumes" in crash
    assert "[32, 38, 32, 12], 6 x 6 x 6 mm, float32" in crash
    assert "NeurostormError" in crash


def test_console_names_the_account_of_a_failure(tree, tmp_path, neurostorm):
    tree.run().write_bytes(b"nothing")
    status, _, said = neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo")
    assert status == 1
    assert Path(re.search(r"details are in (\S+)", said)[1]).is_file()


def test_a_failure_made_good_leaves_the_report(tree, tmp_path, neurostorm):
    good = tree.run()
    content = good.read_bytes()
    good.write_bytes(b"nothing")
    arguments = (tree.path, tmp_path / "o", "participant", "--model", "demo", "--window-stride", "9")
    tree.run("sub-01_task-two")
    neurostorm(*arguments)
    assert "Errors (1)" in (tmp_path / "o/sub-01.html").read_text()
    good.write_bytes(content)
    assert neurostorm(*arguments)[0] == 0
    assert "No errors to report!" in (tmp_path / "o/sub-01.html").read_text()


def test_reports_only_writes_the_reports_anew(results, tmp_path, neurostorm):
    out = tmp_path / "out"
    shutil.copytree(results, out)
    (out / "sub-01.html").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("func/*")}
    status, printed, _ = neurostorm(
        results.parent / "fmriprep", out, "participant", "--reports-only", "--model", "demo"
    )
    assert status == 0
    assert "reports are in" in printed
    assert list(Page(out / "sub-01.html").sections) == ["summary", "sub-01_task-rest", "about", "methods", "errors"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("func/*")} == before


def test_results_of_other_settings_are_told_apart(tree, tmp_path, neurostorm):
    """The methods text is of the last call: what it does not tell of says so."""
    for task in ("a", "b"):
        tree.run(f"sub-01_task-{task}", data=signal(n_volumes=24))
    arguments = (tree.path, tmp_path / "o", "participant", "--model", "demo")
    neurostorm(*arguments, "-t", "a")
    neurostorm(*arguments, "-t", "b", "--target-tr", "native")
    page = Page(tmp_path / "o/sub-01.html")
    assert "From an earlier call with other settings" in text(page, "sub-01_task-a")
    assert "From an earlier call" not in text(page, "sub-01_task-b")
    assert "2 s, resampled to 0.8 s" in text(page, "sub-01_task-a")
    assert "resampled" not in text(page, "sub-01_task-b")


def test_motion_is_that_of_all_volumes(tree, tmp_path, neurostorm):
    """The worst volume is after the last window."""
    tree.run(data=signal(n_volumes=18))
    confounds = tree.folder("sub-01_task-rest") / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    confounds.write_text("framewise_displacement\nn/a\n" + "0.1\n" * 16 + "7.0\n")
    neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo")
    assert f"{(16 * 0.1 + 7) / 17:.2f} mm on average, 7.00 mm at most" in text(
        Page(tmp_path / "o/sub-01.html"), "sub-01_task-rest"
    )


def test_a_failure_of_other_options_goes_when_the_run_is_found_done(tree, tmp_path, neurostorm):
    tree.run()
    arguments = (tree.path, tmp_path / "o", "participant", "--model", "demo", "--window-stride", "9")
    neurostorm(*arguments)
    assert neurostorm(*arguments, "--dummy-scans", "99")[0] == 1
    assert "cannot drop 99 dummy scans" in (tmp_path / "o/sub-01.html").read_text()
    assert "finished earlier" in neurostorm(*arguments)[1]
    assert "No errors to report!" in (tmp_path / "o/sub-01.html").read_text()


def test_a_subject_s_problems_are_its_own(tree, tmp_path, neurostorm):
    tree.run("sub-8_task-rest")
    bold = tree.run("sub-80_task-rest")
    shutil.copy(bold, str(bold).replace("task-rest", "task-rest_echo-1"))
    bold.rename(str(bold).replace("task-rest", "task-rest_echo-2"))
    status, *_ = neurostorm(tree.path, tmp_path / "o", "participant", "--model", "demo", "--window-stride", "9")
    assert status == 1
    assert "No errors to report!" in (tmp_path / "o/sub-8.html").read_text()
    assert "sub-80" in text(Page(tmp_path / "o/sub-80.html"), "errors")


def test_the_command_is_one_that_can_be_given(results):
    shown = re.search("<code>(neurostorm .*?)</code>", (results / "sub-01.html").read_text())[1]
    words = shlex.split(shown)
    assert words[3:6] == ["participant", "--model", "demo"]
    assert words[-2:] == ["--fd-threshold", "1.0"]
    assert settings_of(words[1:]).encoding.model[0] == "demo"


def test_settings_that_made_nothing_are_not_warned_of(tree, tmp_path, neurostorm):
    tree.run()
    arguments = (tree.path, tmp_path / "o", "participant", "--model", "demo")
    neurostorm(*arguments, "--boilerplate-only", "--denoise", "simple")
    assert not (tmp_path / "o" / "dataset_description.json").exists()
    neurostorm(*arguments, "--dummy-scans", "99")
    assert "other settings" not in neurostorm(*arguments, "--window-stride", "9")[2]
    made = json.loads((tmp_path / "o" / "dataset_description.json").read_text())["GeneratedBy"]
    assert [entry["Configuration"]["window_stride"] for entry in made] == [9]


def test_a_damaged_prediction_does_not_take_the_report_along(results, tmp_path, neurostorm):
    out = tmp_path / "out"
    shutil.copytree(results, out)
    damaged = next(out.glob("sub-01/func/*demo_predictions.tsv"))
    damaged.write_text(damaged.read_text().splitlines()[0] + "\n")
    status, *_ = neurostorm(results.parent / "fmriprep", out, "participant", "--reports-only", "--mem-mb", "9")
    assert status == 0
    page = text(Page(out / "sub-01.html"), "sub-01_task-rest")
    assert f"{damaged.name} is damaged" in page
    assert "Brain voxels covered" in page
    assert "Functional images had been preprocessed" in text(Page(out / "sub-01.html"), "methods")


def test_names_from_files_cannot_change_the_page(tree, tmp_path, neurostorm):
    tree.run()
    model = regression(tmp_path / "<img src=x>.ckpt", task_name="<script>alert(1)</script>", dataset_name="<b>x</b>")
    neurostorm(tree.path, tmp_path / "o", "participant", "--model", model)
    page = (tmp_path / "o/sub-01.html").read_text()
    assert "<script" not in page
    assert "<img src=x>" not in page
    assert "<b>x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_figure_that_is_lost_is_drawn_again(tree, tmp_path, neurostorm):
    tree.run()
    arguments = (tree.path, tmp_path / "o", "participant", "--model", "demo", "--window-stride", "9")
    neurostorm(*arguments)
    lost = next((tmp_path / "o").rglob("*desc-alignment_bold.png"))
    content = lost.read_bytes()
    lost.unlink()
    neurostorm(*arguments)
    assert lost.read_bytes() == content  # nothing in it depends on when it was drawn


def test_windows_in_the_report_are_those_of_the_table(results):
    table = read_table(next(results.glob("sub-02/ses-1/func/*demo_embeddings.tsv")))
    neighbours = np.diag(cosine_similarity(channels_of(table)), 1).mean()
    page = text(Page(results / "sub-02.html"), "sub-02_ses-1_task-rest_run-1")
    assert neighbours > 0.9995
    assert "mean cosine similarity of above 0.999" in page
