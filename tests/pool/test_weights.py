"""Which versions of shared weights a pool keeps."""

import json

from nao_ray._pool import weights as kept


def there(folder):
    return {path.stem for path in (folder / "weights").glob("*.safetensors")}


def test_the_last_versions_of_each_training_are_kept(pool, lease, folder):
    """The last three of all were kept: of four trainings side by side none could go on."""
    for epoch in range(1, 6):
        for training in range(4):
            pool.write_weights(f"s{training}e{epoch}", b"%d %d" % (training, epoch), training)
    assert there(folder) == {f"s{training}e{epoch}" for training in range(4) for epoch in (3, 4, 5)}
    assert pool.read_weights("s2e4") == b"2 4"


def test_a_version_that_is_written_again_is_kept_once(pool, lease, folder):
    for name in ("e1", "e2", "e2", "e3", "e4"):
        pool.write_weights(name, name.encode(), 7)
    assert there(folder) == {"e2", "e3", "e4"}


def test_a_pool_that_listed_names_alone_goes_on_as_one_training(pool, lease, folder):
    for name in ("e1", "e2", "e3"):
        pool.write_weights(name, b"")
    (folder / "weights" / "versions.json").write_text(json.dumps(["e1", "e2", "e3"]))
    pool.write_weights("e4", b"")
    assert there(folder) == {"e2", "e3", "e4"}


def test_trainings_that_are_over_do_not_pile_up(pool, lease, folder, monkeypatch):
    monkeypatch.setattr(kept, "KEPT_TRAININGS", 2)
    for name, training in (("a1", 0), ("b1", 1), ("a2", 0), ("c1", 2), ("c2", 2)):
        pool.write_weights(name, b"", training)
    assert there(folder) == {"a1", "a2", "c1", "c2"}
