"""--pooling attention: what one place tells is found where the mean over places blurs it, and nothing is found where there is nothing."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import Results
from scipy.special import softmax

from neurostorm_bids.group.estimators import GroupedRidge, RidgeOfPlaces
from neurostorm_bids.group.evaluation import Design, evaluate
from neurostorm_bids.group.folds import repeated_folds

N, PLACES, CHANNELS = 60, 8, 6


def cohort(seed, effect, n=N):
    """Tokens of eight places, one of which tells the score; what all places share is noise."""
    rng = np.random.default_rng(seed)
    score = rng.standard_normal(n)
    tokens = rng.standard_normal((n, PLACES, CHANNELS)) + rng.standard_normal((n, 1, CHANNELS))
    tokens[:, 5] += effect * np.outer(score, rng.standard_normal(CHANNELS))
    return tokens, score


def design_of(score, seed=0, repeats=2):
    people = np.arange(len(score)).astype(str)
    return Design(score, people, repeated_folds(score, people, False, seed, repeats), False, seed, people)


def test_one_place_is_that_place_s_ridge():
    tokens, score = cohort(0, 1.0)
    groups = np.arange(N)
    ours = RidgeOfPlaces(seed=3, n_kept=1).fit([tokens[:, 5]], score, groups)
    theirs = GroupedRidge(seed=3, n_kept=1).fit(tokens[:, 5], score, groups)
    np.testing.assert_array_equal(ours.predict([tokens[:, 5]]), theirs.predict(tokens[:, 5]))
    np.testing.assert_array_equal(ours.inner_, theirs.inner_)


def test_shares_are_those_of_model_averaging():
    """By hand: each place's error out of the inner folds, as a normal likelihood."""
    tokens, score = cohort(0, 1.0)
    found = RidgeOfPlaces(seed=0).fit(
        list(tokens.transpose(1, 0, 2)), np.column_stack([score, score[::-1]]), np.arange(N)
    )
    each = [
        GroupedRidge(seed=0, n_kept=2).fit(tokens[:, k], np.column_stack([score, score[::-1]]), np.arange(N))
        for k in range(PLACES)
    ]
    logs = np.array(
        [-N / 2 * np.log(np.square(one.inner_ - np.column_stack([score, score[::-1]])).mean(axis=0)) for one in each]
    )
    np.testing.assert_allclose(found.shares_, softmax(logs, axis=0), rtol=1e-6)
    assert found.shares_[:, 0].argmax() == 5
    assert found.shares_[5, 0] > 0.9


def test_what_one_place_tells_is_not_blurred():
    tokens, score = cohort(1, 1.0)
    design = design_of(score)
    places, mean = evaluate(tokens, design, None, 39), evaluate(tokens.mean(axis=1), design, None, 39)
    assert places.first[0] > mean.first[0] + 0.2
    assert places.p_value == 1 / 40


@pytest.mark.heavy
def test_a_null_is_called_significant_as_often_as_stated():
    hits = []
    for seed in range(200):
        tokens, score = cohort(seed, 0.0, 40)
        hits.append(evaluate(tokens, design_of(score, seed, 1), None, 39).p_value <= 0.05)
    assert 0.01 <= np.mean(hits) <= 0.10  # 5 %, two and a half standard errors on either side


@pytest.fixture
def people(tmp_path):
    """Thirty people whose tokens of one place tell their age; the tables hold the means."""
    results = Results(tmp_path)
    tokens, score = cohort(0, 2.0, 30)
    rows = []
    for i in range(30):
        name = f"sub-{i:02d}_task-rest"
        results.add(name, np.repeat(tokens[i].mean(axis=0)[None], 2, axis=0))
        rows.append(f"sub-{i:02d}\t{40 + 5 * score[i]:.3f}")
        of_windows = np.broadcast_to(tokens[i].reshape(1, 2, 2, 2, 1, CHANNELS), (2, 2, 2, 2, 4, CHANNELS)).copy()
        of_windows[1] += 100  # a censored window
        world = np.zeros((2, 2, 2, 3))
        write(results, name, 4, embeddings=of_windows, censored=np.array([False, True]), world=world)
    (results.raw / "participants.tsv").write_text("participant_id\tage\n" + "\n".join(rows) + "\n")
    return results


def write(results, name, stage, **arrays):
    table = next(results.out.rglob(f"{name}_*_embeddings.tsv"))
    path = table.with_name(table.name.replace("_embeddings.tsv", f"_stage-{stage}_tokens.npz"))
    np.savez_compressed(path, **arrays)
    path.with_suffix(".json").write_text(json.dumps({"SettingsHash": "x", "InputFiles": {}}))
    return path


def with_nan(path):
    arrays = dict(np.load(path))
    arrays["embeddings"][0, 0] = np.nan
    np.savez_compressed(path, **arrays)


def probe(people, neurostorm, *options):
    call = (people.raw, people.out, "group", "--group-task", "probe", "--model", "base", "--target", "age", *options)
    return neurostorm(*call, "--n-permutations", "19", "--cv-repeats", "1")


def test_the_probe_sets_places_beside_the_mean(people, neurostorm):
    status, printed, said = probe(people, neurostorm, "--pooling", "attention")
    assert status == 0, said
    table = pd.read_csv(people.out / "group_desc-base_target-age_metrics.tsv", sep="\t")
    r = table[table["metric"] == "r"].set_index("features")["value"]
    assert r["embedding, places weighted"] > max(0.7, r["embedding"])
    assert "places weighted" in printed
    assert (
        "not clearly better than: embedding, places"
        not in (people.out / "group_desc-base_target-age_probe.html").read_text()
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "1 run of 30 have no tokens"),
        (lambda path: path.with_suffix(".json").write_text("{}"), "have no tokens of these settings"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "is damaged"),
        (lambda path: with_nan(path), "values that are no numbers"),
        (lambda path: path.rename(path.with_name(path.name.replace("stage-4", "stage-3"))), "no tokens"),
    ],
)
def test_tokens_that_lack_are_said(people, neurostorm, damage, message):
    damage(next(people.out.rglob("sub-00_*_tokens.npz")))
    status, _, said = probe(people, neurostorm, "--pooling", "attention")
    assert status == 1
    assert message in said


def test_samples_of_one_group_count_once():
    tokens, score = cohort(0, 1.0)
    once = RidgeOfPlaces(seed=0).fit(list(tokens.transpose(1, 0, 2)), score, np.arange(N))
    fourfold = RidgeOfPlaces(seed=0).fit(
        list(np.repeat(tokens, 4, axis=0).transpose(1, 0, 2)), np.repeat(score, 4), np.repeat(np.arange(N), 4)
    )
    assert fourfold.shares_.max() < 1.05 * once.shares_.max()


def test_older_tokens_of_a_later_stage_do_not_hide_those_that_are_right(people, neurostorm):
    for path in people.out.rglob("*_stage-4_tokens.npz"):
        path.with_suffix(".json").write_text(json.dumps({"SettingsHash": "old", "InputFiles": {}}))
        rightly = path.with_name(path.name.replace("stage-4", "stage-3"))
        rightly.write_bytes(path.read_bytes())
        rightly.with_suffix(".json").write_text(json.dumps({"SettingsHash": "x", "InputFiles": {}}))
    assert probe(people, neurostorm, "--pooling", "attention")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--save-as", "kept"), "leave out --pooling"), (("--harmonise", "site"), "leave out --harmonise")],
)
def test_what_does_not_go_together_is_refused(people, neurostorm, options, message):
    status, _, said = probe(people, neurostorm, "--pooling", "attention", *options)
    assert status == 1
    assert message in said


def test_too_many_places_are_refused(people, neurostorm):
    for i in range(30):
        world = np.zeros((5, 5, 5, 3))
        write(people, f"sub-{i:02d}_task-rest", 2, embeddings=np.zeros((1, 5, 5, 5, 1, 2)), world=world)
    status, _, said = probe(people, neurostorm, "--pooling", "attention", "--stage", "2")
    assert status == 1
    assert "have 125 places" in said
