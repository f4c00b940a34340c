"""The loader beside the step that it feeds."""

from nao_ray.bench import loader


def test_the_loader_is_measured_in_every_form_beside_the_step():
    result = loader.run(pictures=20, repeats=1, loaders=[0], batch=4, steps=1, layers=3, channels=4, threads=1)
    assert [row[0] for row in result.rows] == [
        "loader, folders", "loader, parquet", "loader, shards", "step, images held", "step, shards",
    ]  # fmt: skip
    assert all(0 < row[3] <= row[2] <= row[4] for row in result.rows)
    assert "JPEGs of 500x375, 20 a measurement, made 224x224; DARTS_V2 of 3 cells and 4 channels" in result.notes[0]
