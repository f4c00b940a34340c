"""Recurrent cells and an LSTM, trained alike: rows are kept, the LSTM is of their size."""

import json

import pytest
import torch

from benchmarks import recurrent_cells
from nao_ray.errors import ConfigError
from nao_ray.networks.recurrent_network import RecurrentConfig
from tests.tasks import _made_up_data as made


def test_rows_are_kept_and_go_on(tmp_path, capsys):
    path, rows = made.text(tmp_path), tmp_path / "rows.jsonl"
    size = {"hidden": 3, "epochs": 2, "random": 1, "share": 1, "batch": 2}
    given = ["--path", str(path), "--rows", str(rows), *(f"--{name}={value}" for name, value in size.items())]
    with pytest.raises(ConfigError, match=r"--cells random 2: there are NAO-RNN, .*, random 1, LSTM"):
        recurrent_cells.main([*given, "--cells", "LSTM,random 2"])
    recurrent_cells.main([*given, "--seeds", "1"])
    first = rows.read_text().splitlines()
    told = [json.loads(line) for line in first]
    names = ["NAO-RNN", "NAO-WS-RNN", "ENAS-RNN", "DARTS-RNN", "random 1", "LSTM"]
    assert [(row["cell"], row["seed"], len(row["curve"])) for row in told] == [(name, 0, 2) for name in names]
    of = {row["cell"]: row["parameters"] for row in told}
    assert of["NAO-RNN"] == of["random 1"] == 7 * 4 + 4 * 9 + 11 * 2 * 9
    assert abs(of["LSTM"] - of["NAO-RNN"]) < 40, "one unit more or less"
    rows.write_text("\n".join(first[:5]) + "\n" + first[5][:30])
    capsys.readouterr()
    recurrent_cells.main([*given, "--seeds", "1", "--cells", "LSTM,NAO-RNN"])
    said = capsys.readouterr().out
    again = [json.loads(line) for line in rows.read_text().splitlines() if line.endswith("}")]
    assert [{**row, "cpu_seconds": 0} for row in again] == [{**row, "cpu_seconds": 0} for row in told]
    assert "LSTM, seed 0: epoch 2" in said
    assert "NAO-RNN, seed 0" not in said
    with pytest.raises(ConfigError, match="has rows of other settings"):
        recurrent_cells.main([*given, "--lr", "2"])


def test_the_lstm_carries_both_its_states():
    torch.manual_seed(0)
    network = recurrent_cells.Lstm(RecurrentConfig(vocabulary=9, hidden=4, slowness_penalty=1.0))
    tokens = torch.randint(9, (3, 8))
    whole, _, penalty = network(tokens)
    one, carry, _ = network(tokens[:, :5])
    two, _, _ = network(tokens[:, 5:], carry)
    torch.testing.assert_close(torch.cat((one, two), dim=1), whole)
    assert penalty > 0
    assert len(network.eval()(tokens)) == 2
    assert len(list(network.parameters())) == 6, "embedding, bias of the decoder, and torch's four"
    with pytest.raises(ConfigError, match="dropout_hidden"):
        recurrent_cells.Lstm(RecurrentConfig(vocabulary=9, hidden=4, dropout_hidden=0.1))
