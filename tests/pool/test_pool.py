"""Making, opening, recording and reading a pool."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from _made_up_trials import MANIFEST, START, make_proposal, make_trial, record

from nao_ray._pool import local, rows
from nao_ray._pool.ledger import IdSet
from nao_ray.errors import FencedError, PoolError
from nao_ray.pool import Counts, PoolReader, PoolWriter
from nao_ray.spaces.base import Genotype
from nao_ray.strategies.random_search import RandomSearch
from nao_ray.trial import Interim, Measurement, Trial, TrialState

COLUMNS_TEXT = """
trial_id attempt strategy space genotype tokens embedding predicted_score predicted_spread
source_trial_id source_step_size round origin file_row settings retry_of parent_trial_id heard_trial_ids
heard_epochs heard_scores phase
epochs cells_per_stage channels layers hidden embedding_width own_size data_share
weights_version valid_share normal_ops reduction_ops task
state failure_kind failure_message valid_accuracy valid_perplexity valid_loss valid_score goal train_loss
derived_genotype derived_score derived_rank alphas alpha_eigenvalue supernet_score
curve num_params macs wall_seconds device_seconds
peak_memory_bytes device execution latency_ms network num_classes in_channels node seed asked_at started_at
finished_at asked_after log_index
"""
DESIGN_COLUMNS = COLUMNS_TEXT.split()


# -- making and opening -----------------------------------------------------------------------------------


def test_a_new_pool_is_readable_by_pandas_before_its_first_trial(pool):
    frame = pd.read_parquet(pool.url + "/trials")
    assert list(frame.columns) == DESIGN_COLUMNS
    assert len(frame) == 0
    assert pool.log() == []
    assert pool.counts() == Counts()
    assert len(pool.best()) == 0
    assert pool.check() == []


def test_the_manifest_is_frozen_and_readable(pool, folder):
    assert PoolReader.open(folder).manifest == MANIFEST
    assert yaml.safe_load((folder / "run.yaml").read_text())["config"] == MANIFEST["config"]


@pytest.mark.parametrize("manifest", [{"config": object()}, {"pool_schema_version": 1}])
def test_a_manifest_is_plain_data(tmp_path, manifest):
    with pytest.raises(ValueError, match="manifest"):
        PoolWriter.create(tmp_path / "p", manifest)
    assert not (tmp_path / "p").exists()


def test_create_refuses_a_pool_and_a_folder_with_other_files(pool, tmp_path):
    with pytest.raises(PoolError, match="is a pool already"):
        PoolWriter.create(pool.url, MANIFEST)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    with pytest.raises(PoolError, match=r"holds other files \(chapter.tex\)"):
        PoolWriter.create(tmp_path / "thesis", MANIFEST)
    (tmp_path / "file").write_text("")
    with pytest.raises(PoolError, match="cannot be a pool"):
        PoolWriter.create(tmp_path / "file", MANIFEST)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_create_finishes_a_creation_that_was_interrupted(pool, folder):
    (folder / "run.yaml").unlink()
    assert not PoolReader.exists(folder)
    with PoolWriter.create(folder, MANIFEST).acquire():
        pass
    assert PoolReader.exists(folder)
    assert PoolReader.open(folder).check() == []


def test_create_never_takes_rows_of_another_pool_for_its_own(pool, lease, folder):
    record(pool, 0, 1)
    (folder / "run.yaml").unlink()
    with pytest.raises(PoolError, match="holds other files"):
        PoolWriter.create(folder, MANIFEST)


@pytest.mark.parametrize("url", ["", "a\0b", "nosuch://x", "mem ory://x"])
def test_impossible_places_are_refused(url):
    with pytest.raises(PoolError):
        PoolReader.open(url)


def test_open_refuses_what_is_no_pool(tmp_path, pool, folder):
    with pytest.raises(PoolError, match="there is no pool"):
        PoolReader.open(tmp_path / "nothing")
    run = folder / "run.yaml"
    text = run.read_text()
    run.write_text(text.replace("pool_schema_version: 2", "pool_schema_version: 3"))
    with pytest.raises(PoolError, match=r"schema version 3, .* update nao_ray"):
        PoolReader.open(folder)
    run.write_text("- 1\n")
    with pytest.raises(PoolError, match="not the manifest of a pool"):
        PoolReader.open(folder)
    run.write_text("a: [")
    with pytest.raises(PoolError, match="is not YAML") as caught:
        PoolReader.open(folder)
    assert "\n" not in str(caught.value)
    run.write_bytes(b"\xff\xfe")
    with pytest.raises(PoolError, match=r"run\.yaml is damaged"):
        PoolReader.open(folder)


def test_a_file_url_is_a_local_folder(tmp_path):
    made = PoolWriter.create(f"file://{tmp_path}/p", MANIFEST)
    with made.acquire():
        record(made, 0, 2)
        made.compact()
    assert len(pd.read_parquet(tmp_path / "p" / "trials")) == 2


# -- recording --------------------------------------------------------------------------------------------


def test_pandas_reads_each_trial_once_with_sensible_types(pool, lease):
    record(pool, 0, 7)
    frame = pd.read_parquet(pool.url + "/trials").sort_values("trial_id", ignore_index=True)
    assert frame["trial_id"].tolist() == list(range(7))
    assert str(frame["finished_at"].dtype) == "datetime64[us, UTC]"
    assert frame.dtypes[["trial_id", "seed", "attempt", "log_index"]].unique().tolist() == [np.dtype("int64")]
    assert {str(kind) for kind in frame.dtypes[["source_trial_id", "num_params", "epochs", "macs"]]} == {"Int64"}
    assert frame["source_trial_id"].isna().tolist() == [True] + [False] * 6
    assert frame["strategy"].unique().tolist() == ["nao"]
    assert frame["task"].unique().tolist() == ["digits"]
    assert frame["tokens"][3].tolist() == [4, 2, 3]
    assert frame["state"].tolist() == ["COMPLETED"] * 4 + ["FAILED"] + ["COMPLETED"] * 2
    metadata = pq.read_schema(next(Path(pool.url, "trials").glob("*.parquet"))).metadata
    assert metadata[b"schema_version"] == b"2"
    pd.testing.assert_frame_equal(pool.trials(), frame)


def test_proposals_and_attempts_are_recorded_in_one_write(pool, lease):
    pool.record_asked([make_proposal(0)], START)
    before = len(list(Path(pool.url, "events").glob("*.parquet")))
    pool.record_asked([make_proposal(0), make_proposal(1)], START, [(0, 1, None, START), (1, 1, "a", START)])
    assert len(list(Path(pool.url, "events").glob("*.parquet"))) == before + 1
    log = PoolReader.open(pool.url).log()
    assert [(trial.proposal, trial.attempt, trial.node) for trial in log] == [
        (make_proposal(0), 1, None),
        (make_proposal(1), 1, "a"),
    ]
    pool.record_attempts([(0, 2, None, START)])
    assert [trial.attempt for trial in PoolReader.open(pool.url).log()] == [2, 1]
    assert pool.check() == ["2 trials were asked and have no final row (resume to finish them): 0, 1"]


def test_the_log_rebuilds_every_trial(pool, lease):
    finished = record(pool, 0, 5)
    pool.record_asked([make_proposal(5), make_proposal(6), make_proposal(7)], START)
    pool.record_attempts([(5, 1, "a", START), (6, 1, None, START)])
    pool.record_attempts([(5, 2, "b", START)])
    log = PoolReader.open(pool.url).log()
    assert log[:5] == finished
    assert [trial.proposal for trial in log[5:]] == [make_proposal(k) for k in (5, 6, 7)]
    assert [(t.state, t.attempt, t.node) for t in log[5:]] == [
        (TrialState.RUNNING, 2, "b"),
        (TrialState.RUNNING, 1, None),
        (TrialState.RUNNING, 0, None),
    ]
    assert {trial.asked_at for trial in log[5:]} == {START}


def test_what_was_heard_of_others_stands_with_the_proposal_that_knew_it(pool, lease):
    heard = Interim(0, 3, 0.1 + 0.2), Interim(2, 1, -4.25)
    asked = [replace(make_proposal(k), heard=heard if k == 3 else ()) for k in range(5)]
    pool.record_asked(asked, START)
    done = Trial(proposal=asked[3], attempt=1).complete(Measurement(valid_accuracy=0.5), log_index=0)
    pool.record_finished([done])
    log = PoolReader.open(pool.url).log()
    assert [trial.proposal.heard for trial in log] == [(), (), (), heard, ()], "finished or not, to the last bit"
    row = pd.read_parquet(Path(pool.url, "trials")).iloc[0]
    told = [row[f"heard_{name}"].tolist() for name in ("trial_ids", "epochs", "scores")]
    assert told == [[0, 2], [3, 1], [0.1 + 0.2, -4.25]]
    pool.record_asked([replace(make_proposal(5), heard=(Interim(4, 2, 0.5),))], START)
    events = pd.read_parquet(Path(pool.url, "events"))
    assert events.loc[events["trial_id"] == 5, "heard_trial_ids"].iloc[0].tolist() == [4]


def test_a_second_final_row_is_dropped(pool, lease):
    first, second = make_trial(0), make_trial(0, accuracy=0.99)
    assert pool.record_finished([first, second]) == [first]
    assert pool.record_finished([second, make_trial(1)]) == [make_trial(1)]
    assert pool.trials()["trial_id"].tolist() == [0, 1]
    assert pool.log()[0] == first


def test_the_ids_are_known_again_after_a_restart(pool, lease):
    record(pool, 0, 3)
    lease.release()
    again = PoolWriter.open(pool.url)
    with again.acquire() as second:
        assert second.epoch == lease.epoch + 1
        assert again.record_finished([make_trial(2), make_trial(3)]) == [make_trial(3)]
        again.record_asked([make_proposal(1), make_proposal(4)], START)
        seqs = pd.read_parquet(pool.url + "/events").sort_values("seq")
    assert seqs["seq"].tolist() == list(range(7))
    assert seqs["trial_id"].tolist() == [0, 0, 1, 1, 2, 2, 4]


def test_proposals_asked_twice_are_recorded_once(pool, lease):
    pool.record_asked([make_proposal(0), make_proposal(0)], START)
    pool.record_asked([make_proposal(0), make_proposal(1)], START)
    assert [trial.trial_id for trial in pool.log()] == [0, 1]
    assert pool.counts().asked == 2


def test_wrong_calls_write_nothing(pool, lease, folder):
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match="not finished"):
        pool.record_finished([make_trial(0), Trial(proposal=make_proposal(1))])
    with pytest.raises(ValueError, match=r"trial_id -1 is not in"):
        pool.record_finished([replace(make_trial(0), proposal=replace(make_proposal(0), trial_id=-1))])
    with pytest.raises(ValueError, match=r"trial_id 4611686018427387904 is not in"):
        pool.record_asked([replace(make_proposal(0), trial_id=2**62)], START)
    with pytest.raises(ValueError, match="integer round"):
        pool.record_fits([{"loss": 1.0}])
    pool.record_finished([])
    pool.record_asked([], START)
    assert sorted(folder.rglob("*")) == before


def test_nothing_is_written_without_a_lease(pool):
    for call in (
        lambda: pool.record_asked([make_proposal(0)], START),
        lambda: pool.record_attempts([(0, 1, None, START)]),
        lambda: pool.record_finished([make_trial(0)]),
        lambda: pool.record_finished([]),
        lambda: pool.record_fits([{"round": 0}]),
    ):
        with pytest.raises(FencedError, match="acquire"):
            call()


def test_an_interrupt_in_the_middle_of_a_write_doubles_nothing(pool, lease, monkeypatch):
    take_name = local.take_name

    def interrupted(source, target, *, locked):
        take_name(source, target, locked=locked)
        if "trials" in str(target):
            raise KeyboardInterrupt

    monkeypatch.setattr(local, "take_name", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.record_finished([make_trial(0)])
    monkeypatch.undo()
    assert pool.record_finished([make_trial(0), make_trial(1)]) == [make_trial(1)]
    assert pool.trials()["trial_id"].tolist() == [0, 1]


def test_a_strategy_restored_from_the_log_goes_on_as_if_never_stopped(tmp_path):
    from nao_ray.spaces.nao_cnn_small import NaoCnnSmall

    def strategy():
        return RandomSearch(NaoCnnSmall(), RandomSearch.Config(), 5, make_proposal(0).fidelity)

    unbroken = strategy().ask(6)
    made = PoolWriter.create(tmp_path / "p", MANIFEST)
    with made.acquire():
        made.record_asked(strategy().ask(4), START)
    resumed = strategy()
    resumed.restore(PoolReader.open(made.url).log())
    assert resumed.ask(2) == unbroken[4:]


# -- reading ----------------------------------------------------------------------------------------------


def test_best_ranks_by_the_metric_and_breaks_ties_by_id(pool, lease):
    accuracies = [0.5, 0.9, 0.7, 0.9, 0.1]
    pool.record_finished([make_trial(k, accuracy=value) for k, value in enumerate(accuracies)])
    pool.record_finished([make_trial(9)])  # failed
    assert pool.best(4)["trial_id"].tolist() == [1, 3, 2, 0]
    assert pool.best()["trial_id"].tolist() == [1, 3, 2, 0, 4]
    assert list(pool.best(1).columns) == DESIGN_COLUMNS
    assert pool.counts() == Counts(asked=6, completed=5, failed=1, best_score=0.9, best_trial_id=1)
    assert PoolReader.open(pool.url).counts() == pool.counts()


def test_the_lowest_perplexity_is_best(pool, lease):
    for k, perplexity in enumerate([80.0, 60.0, 70.0]):
        trial = Trial(proposal=make_proposal(k), log_index=k, asked_at=START)
        pool.record_finished([trial.complete(Measurement(valid_perplexity=perplexity))])
    assert pool.best()["trial_id"].tolist() == [1, 2, 0]
    assert (pool.counts().best_trial_id, pool.counts().best_score) == (1, -60.0)


def test_scores_with_shared_weights_are_best_until_a_network_has_its_own(pool, lease):
    def finish(k, accuracy, version):
        fidelity = replace(make_proposal(k).fidelity, weights_version=version)
        trial = replace(make_trial(k, accuracy=accuracy), proposal=replace(make_proposal(k), fidelity=fidelity))
        pool.record_finished([trial])
        assert PoolReader.open(pool.url).counts() == pool.counts()
        return pool.best()["trial_id"].tolist(), pool.counts().best_trial_id

    assert finish(0, 0.9, "e1") == ([0], 0)
    assert finish(1, 0.6, "e1") == ([0, 1], 0)
    assert finish(3, 0.2, "e2") == ([3], 3), "of the newest version alone"
    assert finish(2, 0.3, "e2") == ([2, 3], 2)
    assert finish(4, 0.1, None) == ([4], 4), "with weights of its own"
    assert finish(5, 0.15, None) == ([5, 4], 5)


def test_columns_can_be_chosen(pool, lease):
    record(pool, 0, 3)
    assert list(pool.trials(["genotype", "state"]).columns) == ["genotype", "state"]
    with pytest.raises(PoolError, match="no column 'accuracy'"):
        pool.trials(["accuracy"])


def test_fits_are_kept_once_per_round_whatever_their_columns(pool, lease):
    pool.record_fits([{"round": 1, "loss": 1, "note": None}])
    pool.record_fits([{"round": 0, "loss": 0.5, "rank": 2}, {"round": 1, "loss": 9.0}])
    pool.record_fits([{"round": 2, "loss": float("nan"), "note": "dry"}, {"round": 3, "note": 4}])
    for frame in (pool.fits(), pd.read_parquet(pool.url + "/fits")):
        assert frame["round"].tolist() == [0, 1, 2, 3]
        assert frame["loss"].tolist()[:2] == [0.5, 1.0]
        assert str(frame["rank"].dtype) == "Int64"
        assert frame["note"].tolist()[2:] == ["dry", "4"]


def test_fits_of_trainings_side_by_side_are_kept_once_for_each(pool, lease):
    rows = [{"round": epoch, "seed_index": seed, "skips": 10 * epoch + seed} for epoch in (1, 2) for seed in (0, 1)]
    pool.record_fits(rows[:3])
    pool.record_fits([*rows[2:], {"round": 1, "seed_index": 1, "skips": 99}, {"round": 3, "best": 0.5}])
    frame = pool.fits()
    assert frame["skips"].dropna().tolist() == [10, 11, 20, 21]
    assert frame["round"].tolist() == [1, 1, 2, 2, 3]


def test_a_column_of_numbers_may_become_text_and_stays_it(pool, lease):
    pool.record_fits([{"round": 0, "note": 1, "loss": 2}])
    pool.record_fits([{"round": 1, "note": "dry", "loss": 0.5}])
    pool.record_fits([{"round": 2, "note": 3, "loss": 4}])
    for frame in (pool.fits(), pd.read_parquet(pool.url + "/fits")):
        assert frame["note"].tolist() == ["1", "dry", "3"]
        assert frame["loss"].tolist() == [2.0, 0.5, 4.0]


def test_a_damaged_fits_file_is_named(pool, lease, folder):
    pool.record_fits([{"round": 1}])
    (folder / "fits" / "fits.parquet").write_bytes(b"PAR1")
    with pytest.raises(PoolError, match=r"fits\.parquet is damaged"):
        pool.fits()


def test_ids_take_a_bit_each():
    ids = IdSet()
    for k in range(0, 100_000, 3):
        ids.add(k)
    assert [k for k in range(100_000) if k in ids] == list(range(0, 100_000, 3))
    assert ids._bits.nbytes < 20_000
    assert 2**30 not in ids


def test_a_driver_killed_while_it_records_loses_and_doubles_nothing(tmp_path):
    """kill -9 at any moment: what was reported as recorded is there, once; at most the write under way is extra."""
    code = """
import sys
from _made_up_trials import *
pool = PoolWriter.create(sys.argv[1], MANIFEST)
with pool.acquire():
    for k in range(10_000):
        record(pool, k, 1)
        print(k, flush=True)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "p")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent) as run:
        for _ in range(40):
            run.stdout.readline()
        run.send_signal(signal.SIGKILL)
        last = 39 + len(run.stdout.read().split())
    again = PoolWriter.open(tmp_path / "p")
    assert last + 1 <= len(again.trials()) <= last + 2
    assert again.trials()["trial_id"].is_unique
    with again.acquire(wait=0):
        record(again, last + 1, 3)
    assert again.trials()["trial_id"].tolist() == list(range(last + 4))
    assert again.check() == []


def test_strategy_and_task_come_from_config_text_too(tmp_path):
    text = yaml.safe_dump({"strategy": "random_search", "task": {"name": "ptb"}})
    made = PoolWriter.create(tmp_path / "p", {"config": text})
    with made.acquire():
        made.record_finished([make_trial(0)])
    assert made.trials()[["strategy", "task"]].values.tolist() == [["random_search", "ptb"]]


def test_genotypes_keep_their_space(pool, lease):
    trial = replace(make_trial(0), proposal=replace(make_proposal(0), genotype=Genotype("s", "x")))
    pool.record_finished([trial])
    assert pool.log()[0].genotype == Genotype("s", "x")
    assert rows.TRIALS.names == DESIGN_COLUMNS
