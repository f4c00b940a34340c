import numpy as np

from nao_ray.tasks.made_up_text import MadeUpText, MadeUpTextConfig
from nao_ray.tasks.texts.base import TokenShapes


def test_words_end_as_they_begin():
    task = MadeUpText(MadeUpTextConfig(letters=3, gap=2, words=40))
    train, valid = task.load()
    assert (len(train), len(valid), len(task.load_test())) == (160, 40, 40)
    words = train.reshape(-1, 4)
    assert (words[:, 0] == words[:, -1]).all()
    assert (words[:, 1:-1] == 3).all()
    assert set(words[:, 0]) == {0, 1, 2}
    assert task.shapes == TokenShapes(4)
    assert task.shapes.recorded == {"network": "text", "num_classes": 4}


def test_its_hash_names_the_text_and_one_line_tells_of_it():
    task, again, other = (MadeUpText(MadeUpTextConfig(words=words)) for words in (40, 40, 44))
    assert task.data_hash() == again.data_hash() != other.data_hash()
    assert len(task.data_hash()) == 64
    assert task.facts().line == "task made_up_text: 200 tokens train, 50 validate, of 9"
    assert task.check_test() == ()
    for first, second in zip(task.load(), again.load(), strict=True):
        np.testing.assert_array_equal(first, second)
