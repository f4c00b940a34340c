"""Pictures that are decoded as they are read: the same from every form, whoever decodes them; what is refused."""

import io
import multiprocessing
import os
import pickle
import select
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from nao_ray import registry, rng
from nao_ray.bench import _imagenet as made
from nao_ray.errors import DataError
from nao_ray.networks.supernet import batch_statistics
from nao_ray.tasks.images import pictures, shards, views
from nao_ray.tasks.images.base import Images
from nao_ray.tasks.images.streamed import Crops, StreamedImages
from nao_ray.training import image_splits
from nao_ray.training.objective import Shard
from nao_ray.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe.model_validate({"name": "darts_imagenet", "batch": 16})


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    return {name: make(root / name) for name, make in made.FORMS.items()}


def task(path, name="imagenet", **settings):
    made_task = registry.load("task", name)
    return made_task(made_task.Config(path=str(path), **{"image_shape": (3, 32, 32), **settings}))


def batches(loaded, *, seed=3, recipe=RECIPE, skip=0, shard=None):
    objective = loaded.objective(CPU, recipe)
    if shard is not None:
        objective = objective.under(recipe, shard=shard)
    return list(objective.batches(rng.torch_generator(seed, "order"), skip))


def same(one, two):
    return len(one) == len(two) and all(
        torch.equal(*pair) for a, b in zip(one, two, strict=True) for pair in zip(a, b, strict=True)
    )


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# -- the same, whatever it is read from -------------------------------------------------------------------------------


def test_every_form_gives_the_same_batches(forms):
    first, *others = (batches(task(place)) for place in forms.values())
    assert len(first) == 7  # 120 pictures, of which 12 validate
    assert first[0][0].shape == (16, 3, 32, 32)
    assert first[0][0].dtype == torch.uint8
    assert all(same(first, other) for other in others)


def test_every_form_tests_on_its_validation_pictures(forms):
    for place in forms.values():
        loaded = task(place)
        train, valid = loaded.load()
        test = loaded.load_test()
        assert (len(train), len(valid), len(test), loaded.num_classes) == (108, 12, 40, 20)
        assert isinstance(train, StreamedImages)
        assert test.labels.tolist() == sorted(list(range(20)) * 2)
        assert "streamed): 108 images train, 12 validate, drawn by split_seed 0; 20 classes" in loaded.facts().line
        assert len(loaded.data_hash()) == 64


def test_an_epoch_is_named_by_its_generator_and_goes_on_in_the_middle(forms):
    loaded = task(forms["folders"])
    whole = batches(loaded)
    assert same(whole, batches(loaded))
    assert same(whole[4:], batches(loaded, skip=4))
    assert not same(whole, batches(loaded, seed=4))


def test_workers_decode_their_own_part_of_the_same_batches(forms, monkeypatch):
    loaded = task(forms["folders"])
    whole = batches(loaded)
    read = []
    monkeypatch.setattr(
        StreamedImages,
        "_seen",
        lambda self, position, crops, seen=StreamedImages._seen: read.append(position) or seen(self, position, crops),
    )
    parts = [batches(loaded, shard=Shard(rank, 2)) for rank in range(2)]
    assert len(read) == len(set(read)) == 108
    for (images, labels), first, second in zip(whole, *parts, strict=True):
        assert torch.equal(images[0::2], first[0])
        assert torch.equal(images[1::2], second[0])
        assert torch.equal(labels[1::2], second[1])


@pytest.mark.slow
def test_processes_that_decode_give_the_same_batches(forms):
    assert same(batches(task(forms["parquet"])), batches(task(forms["parquet"], loaders=2)))
    broken = forms["folders"] / "train" / made.wnids(1)[0] / "zz_broken.JPEG"
    broken.write_bytes(b"\xff\xd8\xff broken")
    try:
        with pytest.raises(DataError, match=r"zz_broken.JPEG: .* bytes that .*") as raised:
            batches(task(forms["folders"], loaders=1))
    finally:
        broken.unlink()
    assert "\n" not in str(raised.value)


def test_processes_that_decode_end_with_the_one_that_trains():
    """Killed it tells nobody; what it forked holds a pipe open, and is seen to be gone by its end."""
    context = multiprocessing.get_context("fork")
    there, here = os.pipe()

    def decode():
        image_splits._begin(0)
        os.write(here, b"1")
        threading.Event().wait(600)

    def train():
        context.Process(target=decode).start()
        threading.Event().wait(600)

    trains = context.Process(target=train)
    trains.start()
    os.close(here)
    assert os.read(there, 1) == b"1"
    trains.kill()
    trains.join()
    assert select.select([there], [], [], 60)[0]
    assert os.read(there, 1) == b""
    os.close(there)


def test_the_global_generator_is_left_alone(forms):
    before = torch.get_rng_state()
    batches(task(forms["folders"]))
    assert torch.equal(before, torch.get_rng_state())


def test_what_travels_to_a_process_reads_the_same(forms):
    for place in forms.values():
        train, _ = task(place).load()
        train.read([0, 50])
        again = pickle.loads(pickle.dumps(train))
        assert np.array_equal(again.read([100, 3])[0], train.read([100, 3])[0])


# -- which part of a picture is seen ----------------------------------------------------------------------------------


def test_evaluation_sees_the_centre_of_the_picture_resized():
    """224 of 256, as torchvision's Resize and CenterCrop; measured against Pillow doing these two."""
    draws = np.random.default_rng(0)
    smooth = Image.fromarray(draws.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
        (500, 375), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    smooth.save(buffer, "PNG")
    resized = smooth.resize((round(500 * 256 / 375), 256), Image.Resampling.BILINEAR)
    left = round((resized.size[0] - 224) / 2)
    expected = np.asarray(resized.crop((left, 16, left + 224, 240))).transpose(2, 0, 1)
    seen = pictures.view(buffer.getvalue(), (3, 224, 224), "x", lambda h, w: views.centre_box(h, w, 1.0, 224 / 256))
    assert seen.shape == (3, 224, 224)
    assert np.abs(seen.astype(int) - expected).mean() < 1.5
    squashed = np.asarray(smooth.resize((224, 224), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(seen.astype(int) - squashed).mean() > 10


def test_crops_are_of_the_areas_and_shapes_that_torchvision_draws():
    boxes = [views.random_box(375, 500, 0.08, rng.child(0, "t", index)) for index in range(2000)]
    areas = np.array([box.height * box.width for box in boxes]) / (375 * 500)
    ratios = np.array([box.width / box.height for box in boxes])
    assert all(0 <= box.top <= 375 - box.height and 0 <= box.left <= 500 - box.width for box in boxes)
    assert 0.079 < areas.min() < 0.1
    assert areas.max() > 0.9
    assert ratios.min() > 0.74
    assert ratios.max() < 1.35
    # of 20,000 of torchvision's `RandomResizedCrop.get_params`: what does not fit is drawn again
    assert abs(areas.mean() - 0.4348) < 0.02
    assert abs(np.log(ratios).mean() - 0.0315) < 0.02


def test_a_picture_in_which_no_crop_fits_gives_its_centre():
    box = views.random_box(10, 1000, 1.0, rng.child(0, "t", 0))
    assert (box.height, round(box.width, 6)) == (10, round(10 * 4 / 3, 6))
    assert round(box.left, 3) == round((1000 - 10 * 4 / 3) / 2, 3)


def test_of_a_large_jpeg_no_more_is_decoded_than_is_needed():
    """Its corner is the same as of the whole picture, to what a smaller decoding differs by."""
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 6, 3), dtype=np.uint8)).resize((2400, 2000))
    buffer = io.BytesIO()
    smooth.save(buffer, "JPEG", quality=95)
    seen = pictures.view(buffer.getvalue(), (3, 64, 64), "x", lambda h, w: views.Box(0, 0, h / 2, w / 2))
    expected = np.asarray(smooth.resize((64, 64), Image.Resampling.BILINEAR, box=(0, 0, 1200, 1000)))
    assert np.abs(seen.astype(int) - expected.transpose(2, 0, 1)).mean() < 3


def test_a_picture_that_lies_on_its_side_is_turned_before_it_is_cut():
    upright = Image.new("RGB", (300, 600))
    upright.paste((255, 0, 0), (0, 0, 300, 300))  # its upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    buffer = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", exif=exif)
    seen = pictures.view(buffer.getvalue(), (3, 32, 32), "x", lambda h, w: views.Box(0, 0, h / 2, w))
    assert seen[0].mean() > 230
    assert seen[1].mean() < 20


def test_grey_and_transparent_pictures_are_streamed_as_they_are_read(tmp_path):
    for number, (mode, name) in enumerate((("L", "a"), ("CMYK", "b"), ("RGB", "a"), ("P", "b"))):
        (tmp_path / name).mkdir(exist_ok=True)
        for index in range(3):
            Image.new("RGB", (20, 10 + index), (10 * index, 99, 50)).convert(mode).save(
                tmp_path / name / f"{number}{index}.{'png' if mode == 'P' else 'jpg'}"
            )
    train, _ = task(tmp_path, "image_folder", stream=True, image_shape=(3, 8, 8)).load()
    assert train.images.shape[1:] == (3, 8, 8)
    grey = task(tmp_path, "image_folder", stream=True, image_shape=(1, 8, 8))
    assert grey.load()[0].images.shape[1:] == (1, 8, 8)
    assert grey.objective(CPU, RECIPE.model_copy(update={"batch": 4})).normaliser.mean.shape == (1,)


# -- when ------------------------------------------------------------------------------------------------------------


def test_pictures_are_streamed_where_they_are_large_or_where_it_is_said(forms, monkeypatch):
    def loaded(**settings):
        return task(forms["folders"], "image_folder", **settings)

    assert isinstance(loaded().load()[0], Images)
    assert isinstance(loaded(stream=True).load()[0], StreamedImages)
    monkeypatch.setattr("nao_ray.tasks.images.picture_task._MOST_BYTES", 160 * 3 * 32 * 32 - 1)
    assert loaded().streams
    assert not loaded(stream=False).streams
    assert not loaded(limit=159).streams


def test_the_hash_is_of_names_sizes_and_how_pictures_are_seen(forms, tmp_path):
    made.folders(tmp_path / "here")
    digest = task(tmp_path / "here").data_hash()
    assert digest == task(forms["folders"]).data_hash()
    assert digest == task(tmp_path / "here", loaders=3, broken="replace").data_hash()
    for settings in ({"centre": 1.0}, {"mean": (0.5, 0.5, 0.5)}, {"limit": 100}, {"split_seed": 1}):
        assert task(tmp_path / "here", **settings).data_hash() != digest
    path = next((tmp_path / "here/train").rglob("*.JPEG"))
    path.write_bytes(path.read_bytes() + b"\0")
    assert task(tmp_path / "here").data_hash() != digest


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_read_is_named_or_its_neighbour_trains(tmp_path):
    made.folders(tmp_path)
    broken = sorted((tmp_path / "train").rglob("*.JPEG"))[30]
    broken.write_bytes(broken.read_bytes()[:200])
    loaded = task(tmp_path)
    with pytest.raises(
        DataError, match=f"{broken.name}: a picture of 200 bytes that cannot be read.*task.broken=replace"
    ):
        batches(loaded)
    assert loaded.data_hash() == task(tmp_path, broken="replace").data_hash()
    train, _ = task(tmp_path, broken="replace").load()
    (position,) = [at for at, keep in enumerate(train.parts[0][1]) if keep == 30]
    images, labels = train.read([position, position + 1], Crops(0, None))
    assert np.array_equal(images[0], images[1])
    assert labels[0] == labels[1]
    with pytest.raises(DataError, match=broken.name):  # a score is of every picture
        train.read([position])


def test_a_folder_that_is_not_there_says_where_it_looked_and_how_imagenet_is_had(tmp_path):
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/nowhere: there is no ImageNet; .*image-net.org/download"
    ) as raised:
        task(tmp_path / "nowhere").load()
    assert "\n" not in str(raised.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no ImageNet in it; expected train/CLASS"):
        task(tmp_path / "empty").load()


def test_classes_that_differ_are_refused(tmp_path):
    made.folders(tmp_path, classes=4)
    loaded = task(tmp_path)
    assert loaded.check_test() == ()
    (tmp_path / "val" / "n99999999").mkdir()
    assert task(tmp_path).check_test() == ()  # a class without pictures is none
    picture = next((tmp_path / "val").rglob("*.JPEG"))
    (tmp_path / "val" / "n99999999" / "a.JPEG").write_bytes(picture.read_bytes())
    with pytest.raises(DataError, match="label 'n99999999' in row 8, expected one of the training labels"):
        task(tmp_path).check_test()
    (tmp_path / "train" / "n00000001").mkdir()
    with pytest.raises(DataError, match="train: no picture of class n00000001; expected"):
        task(tmp_path).load()


def test_pictures_without_labels_may_lie_beside(tmp_path):
    made.folders(tmp_path, classes=3)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.JPEG").write_bytes(b"")
    assert task(tmp_path).num_classes == 3


def test_shards_are_listed_once_and_refused_with_what_is_wrong(tmp_path, monkeypatch):
    made.shards(tmp_path / "s", classes=3)
    first = task(tmp_path / "s", "image_shards", stream=True)
    listed = first.load()[0].images
    monkeypatch.setattr(shards, "_list", lambda path, ending: pytest.fail("listed again"))
    assert np.array_equal(task(tmp_path / "s", "image_shards", stream=True).load()[0].images, listed)
    monkeypatch.undo()
    path = tmp_path / "s" / "made-train-000000.tar"
    with tarfile.open(path) as shard:
        member = shard.getmembers()[4]
    whole = path.read_bytes()
    cuts = {
        member.offset: "ends without",
        member.offset + 100: "ends without",
        member.offset_data + 10: "unexpected end",
    }
    for length, reason in cuts.items():  # before a header, which tarfile takes for the end, within it, after it
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"made-train-000000\.tar: .*{reason}"):
            task(tmp_path / "s", "image_shards").load()
    path.write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(DataError, match=r"made-train-000000\.tar: cannot be read as a tar file that is not compressed"):
        task(tmp_path / "s", "image_shards").load()
    made.shards(tmp_path / "t", classes=3)
    with pytest.raises(DataError, match=r"has no \.label; a shard holds key.jpg beside key.label"):
        task(tmp_path / "t", "image_shards", label_ending="label").load()


def test_large_row_groups_are_told(tmp_path, monkeypatch):
    made.parquet(tmp_path, classes=4)
    assert not [note for note in task(tmp_path).facts().odd if "row group" in note]
    monkeypatch.setattr("nao_ray.tasks.images.row_groups._LARGE", 100)
    note, *_ = task(tmp_path).facts().odd
    assert note.startswith("a picture costs the reading of its row group, 6 rows of")


def test_raw_bytes_are_not_streamed(tmp_path):
    from tests.tasks import _made_up_data

    _made_up_data.table(tmp_path / "t.parquet", form="raw")
    with pytest.raises(DataError, match=r"raw bytes are not streamed; set task\.stream=false"):
        task(tmp_path / "t.parquet", "image_table", image_shape=(3, 12, 12), stream=True).load()


# -- what searches ask of an objective ---------------------------------------------------------------------------------


def test_shares_halves_and_validation_train_by_their_indices(forms):
    recipe = RECIPE.model_copy(update={"batch": 9})
    whole = task(forms["folders"]).objective(CPU, recipe)
    half = whole.under(recipe, share=0.5)
    assert (whole.num_train, half.num_train, half.steps) == (108, 54, 6)
    assert torch.equal(half.normaliser.mean, torch.tensor([0.485, 0.456, 0.406]))
    weights, alphas = whole.cut(rng.torch_generator(0, "cut"))
    assert not set(weights.rows.tolist()) & set(alphas.rows.tolist())
    both = [iter(part.batches(rng.torch_generator(1, "order"))) for part in (weights, alphas)]
    for _ in range(weights.steps):  # side by side, as alphas and weights are trained
        (one, _), (two, _) = (next(part) for part in both)
        assert len(one) == len(two) == 9
    (images, labels), *_ = whole.on_validation().batches(rng.torch_generator(0, "order"))
    assert images.shape == (9, 3, 32, 32)
    assert set(labels.tolist()) <= set(whole.valid.labels.tolist())


def test_choices_are_compared_on_the_same_streamed_pictures(forms, monkeypatch):
    objective = task(forms["folders"]).objective(CPU, RECIPE)
    seen = []

    def logits(network, inputs, choices, statistics):
        assert statistics is batch_statistics
        seen.append(inputs)
        return torch.stack(
            [torch.eye(20)[objective.valid.labels[:1]].expand(len(inputs), -1) * choice for choice in choices]
        )

    monkeypatch.setattr("nao_ray.training.images.pool_logits", logits)
    scores = objective.compare(None, [1.0, -1.0], rng.torch_generator(0, "order"), batch=4, count=8)
    assert [len(inputs) for inputs in seen] == [4, 4]
    assert scores[0].loss != scores[1].loss
    again = objective.compare(None, [1.0], rng.torch_generator(0, "order"), batch=4, count=8)
    assert again[0] == scores[0]


def test_top_5_counts_the_five_likeliest(forms):
    objective = task(forms["folders"]).objective(CPU, RECIPE)

    class Ranks(torch.nn.Module):
        """The likeliest of all pictures are the classes 0, 1, ..., in this order."""

        def forward(self, inputs):
            return torch.arange(20, 0, -1, dtype=torch.float32).expand(len(inputs), -1)

    labels = objective.valid.labels
    scores = objective.evaluate(Ranks())
    assert scores.top5 == (labels < 5).double().mean().item()
    assert scores.value == (labels == 0).double().mean().item()
    few = task(forms["folders"], "image_folder", network="cifar10", stream=True).objective(CPU, RECIPE)
    assert few.evaluate(Ranks()).top5 is None


def test_a_folder_named_in_other_words_is_the_same_data(forms, monkeypatch):
    digest = task(forms["folders"]).data_hash()
    monkeypatch.chdir(forms["folders"])
    assert task(".").data_hash() == digest
    monkeypatch.chdir(forms["folders"].parent)
    assert task("./folders/").data_hash() == digest
    assert task("folders/train", "image_folder", stream=True).load()[0].read([0])[0].shape == (1, 3, 32, 32)
