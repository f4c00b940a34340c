"""What each column of a pool means: the text behind `nao-ray pool POOL columns` and the tables of docs/pool.md."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from nao_ray._pool.rows import EVENTS, FINAL, TRIALS

TABLES = {"trials": TRIALS, "events": EVENTS, "final": FINAL}
"""By folder of the pool, the schema of its Parquet files. `fits/` has other columns with each strategy."""


class Column(NamedTuple):
    """One column of one table."""

    table: str
    name: str
    type: str
    """As Arrow names it: `int64`, `double`, `string`, `list<int64>`, `timestamp[us, UTC]`."""
    meaning: str
    """With its range and unit; begins with "null" where it may be null, and when."""


def columns() -> list[Column]:
    """All columns, table by table, in the order of the files."""
    return [
        Column(table, field.name, _type(field.type), _meaning(table, field.name))
        for table, schema in TABLES.items()
        for field in schema
    ]


def markdown(table: str) -> str:
    """The columns of one table as a Markdown table."""
    rows = [f"| `{each.name}` | {each.type} | {each.meaning} |" for each in columns() if each.table == table]
    return "\n".join(["| column | type | means |", "| --- | --- | --- |", *rows])


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{kind.value_type}>"
    return "timestamp[us, UTC]" if pa.types.is_timestamp(kind) else str(kind)


def _meaning(table: str, name: str) -> str:
    return _OF_TABLE.get(table, {}).get(name) or _OF_ALL[name]


_OF_ALL = {
    # who
    "trial_id": "0, 1, 2, ... in the order in which trials were asked",
    "attempt": "which attempt at the trial this is, from 1; a worker that is lost makes another one",
    "strategy": "name of the strategy, or `package.module:Class`",
    "space": "name of the search space, or `package.module:Class`",
    "genotype": "the architecture as canonical text: equal text, equal architecture. Where `phase` is given a stand-in "
    "that names the shared weights",
    "tokens": "the architecture as integers, as controllers read it; null where `phase` is given",
    "embedding": "the proposed point in the controller's embedding space; null where there is none",
    "predicted_score": "what the controller predicted, more is better, in the unit of the score (of a measure that is "
    "minimised its negative); null where it predicted nothing",
    "predicted_spread": "standard deviation of that prediction; null where the controller has none",
    "source_trial_id": "the trial that this one was derived from; null where it was derived from none",
    "source_step_size": "length of the step in embedding space from the source; null where no step was taken",
    "round": "index of the controller's fit that proposed it, 0 for those before any; null where there are no rounds",
    "origin": "`control`: drawn at random to compare with, no find of the search; `imported`: of somebody else's "
    "table; null: its own",
    "file_row": "of an imported trial the row of its table, from 1; null in all others",
    "settings": "JSON by name: settings of the recipe of this trial alone; null: the evaluator's",
    "retry_of": "the failed trial that the user asked for once more as this one; null in all others",
    "parent_trial_id": "on a ladder of fidelities the trial of the rung below, whose training this one goes on with; "
    "null where it begins",
    "heard_trial_ids": "trials under way whose scores the strategy was told of between the proposal before and this "
    "one; null where of none",
    "heard_epochs": "of each of those the epochs it had done; null where of none",
    "heard_scores": "of each of those its score then, more is better, in the unit of the score; null where of none",
    "phase": "JSON: the stretch of a training of shared weights that this is; null where an architecture is scored",
    # how thoroughly
    "epochs": "passes over the training data, of the rungs below too; null where nothing was trained for this trial",
    "cells_per_stage": "size of the network: cells between two reductions; null where its skeleton has no such size",
    "channels": "size of the network: channels of its first cells; null where its skeleton has no such size",
    "layers": "size of the network: cells or layers in all; null where its skeleton has no such size",
    "hidden": "size of the network: numbers of a recurrent state; null where its skeleton has no such size",
    "embedding_width": "size of the network: numbers of an embedded word; null where its skeleton has no such size",
    "own_size": "JSON by name: sizes of a skeleton of one's own that have no column; null where there are none",
    "data_share": "share of the training split that was learnt from, in (0, 1]; null where nothing was trained",
    "weights_version": "the shared weights that the score was taken with; null: the network had weights of its own",
    "valid_share": "share of the validation split that the score was taken on, in (0, 1]; null: as the config says",
    # what it was
    "normal_ops": "operations of the normal cell, edge by edge in order of the nodes; null where the space has none",
    "reduction_ops": "operations of the reduction cell, likewise",
    "task": "name of the task, or `package.module:Class`; null where nothing is trained on",
    "state": "`COMPLETED` or `FAILED`",
    "failure_kind": "`error`, `nan`, `out_of_memory`, `timeout`, `lost`, `limit`, `cancelled`; "
    "null where it was completed",
    "failure_message": "what went wrong, in a line; null where it was completed",
    # what came of it
    "valid_accuracy": "validation accuracy in [0, 1]; null where something else is measured, or nothing was",
    "valid_perplexity": "validation perplexity, 1 or more, less is better; null where something else is measured",
    "valid_loss": "validation loss in nats; null where none was measured",
    "valid_score": "validation measure of any other name, in its own unit; null where it has a column of its own",
    "goal": "`maximize` or `minimize`: which `valid_score` is better; null where that is null",
    "train_loss": "training loss in nats, mean over the last epoch; null where none was measured",
    "derived_genotype": "the architecture that a phase has come to; null where it comes to none",
    "derived_score": "its score in a table that knows it, by which no search decides; null where none does",
    "derived_rank": "its rank in that table, 1 the best; null where none knows it",
    "alphas": "the architecture parameters that a phase has come to, before the softmax; null where it trains none",
    "alpha_eigenvalue": "largest eigenvalue of the Hessian of the validation loss in the alphas; null where not asked",
    "supernet_score": "score of the supernet as its alphas mix it, in the measure's unit; null where it was not taken",
    "curve": "the validation measure after each epoch; null where nothing was trained",
    "num_params": "parameters of the network without its auxiliary head; null where they were not counted",
    "macs": "multiply-adds of one image or word, without the auxiliary head; null where they were not counted",
    "wall_seconds": "seconds from the start to the end of the measurement; null where none ended",
    "device_seconds": "seconds that it held its device: of a GPU its share of one, of a CPU processor time; null where "
    "none ended",
    "peak_memory_bytes": "bytes: on a GPU the most that torch gave out, on a CPU the most that the process held; null "
    "where not measured",
    "device": "what it ran on; null where that was not said",
    "latency_ms": "milliseconds of an evaluation of one example, measured before training where it is limited or aimed "
    "at; of a table its column; null elsewhere",
    "execution": "how a GPU ran the steps: `graph`, `eager`, or `eager: ` and why it was no graph; null elsewhere",
    "network": "what the network was built for: `cifar10`, `imagenet`, `small`, ...; null where nothing was built",
    "num_classes": "classes, or words of the vocabulary; null where nothing was built",
    "in_channels": "channels of an image; null of texts and where nothing was built",
    # where, when
    "node": "name of the machine; null where that was not said",
    "seed": "names all draws of its training, in [0, 2^31)",
    "asked_at": "when it was asked",
    "started_at": "when the last attempt began; null where none did",
    "finished_at": "when it ended",
    "asked_after": "finished trials that the strategy had been told when it asked for this one",
    "log_index": "position among finished trials, which is the order in which the strategy was told them",
    # events
    "seq": "position in the log of events",
    "kind": "`asked`: a proposal; `attempt`: an attempt is about to start; `left`: its driver ended in order "
    "before it did",
    "at": "when",
    "message": "of an attempt how the one before it ended; null where there was none",
    # full trainings
    "name": "name of the training, which its checkpoint and card have too",
    "recipe": "name of the recipe",
    "data": "`all`: trained on every example that a search may see; `train`: on those that train in it, the "
    "others validate",
    "test_accuracy": "test accuracy in [0, 1]; null where something else is measured",
    "test_perplexity": "test perplexity, 1 or more, less is better; null where something else is measured",
    "test_score": "test measure of any other name, in its own unit; null where it has a column of its own",
    "test_top5": "share of the test examples whose class is among the five likeliest; null where classes are few",
    "test_loss": "test loss in nats",
    "checkpoint": "path of its weights from the pool on; null where it has none",
    "latency_ms_1": "milliseconds of an evaluation of one image or word, float32, median; null where not measured",
    "latency_ms_128": "milliseconds of an evaluation of 128 of them; null where not measured, or memory is too small",
    "latency_device": "what these two were measured on; null where they were not",
    "latency_threads": "threads that they were measured with; null where they were not, and of a GPU",
}
_OF_TABLE = {
    "events": {
        "attempt": "0 where it is asked; else which attempt it is, from 1",
        "node": "machine of the attempt; null where it is not known, and where it is asked",
        "space": "as in trials/; null but where it is asked, and so is all of the proposal that follows",
    },
    "final": {
        "trial_id": "the trial whose architecture this is; null where the genotype was given",
        "epochs": "that it was trained in all",
        "curve": "the validation measure after each epoch; null where nothing was validated",
        "started_at": "when the training began, the first time",
        "valid_loss": "validation loss in nats; null where all of the data were trained on",
    },
}
