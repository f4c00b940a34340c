"""The report: one file that holds what the page would ask for, and runs nothing else."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from nao_ray.cli.pool import make_space
from nao_ray.page import bundle, frames
from nao_ray.page.bundle import assemble, render, unpacked
from nao_ray.page.live import LivePool
from nao_ray.pool import PoolReader, PoolWriter

INDEX = """<!doctype html>
<html><head>
<meta charset="utf-8">
<link rel="stylesheet" href="static/page.css">
<script src="static/first.js" defer></script>
<script src="static/second.js" defer></script>
</head>
<body><main></main></body>
</html>
"""
FILES = {
    "index.html": INDEX,
    "page.css": "main{color:red}\n",
    "first.js": 'const a = "</script><!-- \\u0041";\r\nlet b;\n',
    "second.js": "b = a;\n",
}


class _Parsed(HTMLParser):
    """Scripts, styles, and what would be loaded."""

    def __init__(self, page):
        super().__init__()
        self.inside, self.found, self.loads, self.policy = None, [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.loads += [given[name] for name in ("src", "href", "action") if name in given]
        self.inside = (tag, given.get("id")) if tag in ("script", "style") else None
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]

    def handle_data(self, data):
        if self.inside:
            self.found.append((*self.inside, data))
            self.inside = None


def test_one_file_has_everything_in_order_and_lets_nothing_else_run():
    page = assemble(FILES, '{"made": "now", "responses": {"api/pools": 1}}')
    parsed = _Parsed(page)
    assert parsed.loads == []
    assert [(tag, name) for tag, name, _ in parsed.found] == [
        ("style", None),
        ("script", "nao-ray-data"),
        ("script", None),
        ("script", None),
    ]
    scripts = [text for tag, name, text in parsed.found if tag == "script" and name is None]
    assert scripts == ['const a = "<\\/script><\\!-- \\u0041";\nlet b;\n', "b = a;\n"]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert parsed.policy.partition("script-src ")[2] == " ".join(f"'sha256-{value}'" for value in hashes)
    assert parsed.policy.startswith("default-src 'none';")
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert unpacked(page) == {"made": "now", "responses": {"api/pools": 1}}


@pytest.mark.parametrize(
    "line", ['<script src="static/first.js"></script>', '<link href="static/page.css" rel="stylesheet">']
)
def test_a_file_that_is_named_otherwise_is_no_page(line):
    with pytest.raises(ValueError, match="in another form"):
        assemble({**FILES, "index.html": INDEX.replace("</head>", f"{line}\n</head>")}, "{}")
    with pytest.raises(ValueError, match="no report of a pool"):
        unpacked(INDEX)


@pytest.fixture
def responses(live):
    return unpacked(render([live], "film.html"))["responses"]


def test_the_file_has_what_the_page_asks_for(responses, live, searched):
    assert responses["api/pools"]["live"] is False
    assert [pool["id"] for pool in responses["api/pools"]["pools"]] == ["0"]
    whole = {path.removeprefix("api/pools/0/") for path in responses} - {"api/pools"}
    assert {"columns", "map", "status", "report", "notes", "texts"} <= whole
    _, sent = frames.decode(base64.b64decode(responses["api/pools/0/columns"]["base64"]))
    _, asked = frames.decode(live.columns())
    for name, values in asked.items():
        np.testing.assert_array_equal(sent[name], values)
    rows = PoolReader.open(searched).trials().set_index("trial_id")
    assert set(responses["api/pools/0/texts"]) == set(map(str, rows.index))
    best = responses["api/pools/0/report"]["best"]
    failures = responses["api/pools/0/report"]["failures"]
    pages = {path.removeprefix("trials/") for path in whole if path.startswith("trials/")}
    assert pages == {row["trial"] for row in best} | {str(row["trial_id"]) for row in failures}
    assert responses["api/pools/0/report"]["film"] == "film.html"
    for row in failures:
        if row["kind"] == "error":
            assert "Traceback" in responses[f"api/pools/0/trials/{row['trial_id']}"]["logs"][0]
    for row in best:
        assert responses[f"api/pools/0/trials/{row['trial']}"]["svg"].startswith("<svg")


def test_what_is_starred_has_a_page_and_a_large_pool_is_thinned(made_up, tmp_path, monkeypatch):
    url = tmp_path / "pool"
    shutil.copytree(made_up, url)
    worst = int(PoolReader.open(url).sql("SELECT trial_id FROM trials ORDER BY valid_accuracy LIMIT 1").iloc[0, 0])
    PoolReader.open(url).put_note(worst, True, "why?")
    for name, value in (("TRIALS", 100), ("BEST", 30), ("TEXTS", 40), ("PAGES", 5)):
        monkeypatch.setattr(bundle, name, value)
    found = unpacked(render([LivePool(str(url), make_space)]))["responses"]
    header, columns = frames.decode(base64.b64decode(found["api/pools/0/columns"]["base64"]))
    assert header["total"] == 300
    assert 90 <= header["rows"] <= 100
    best = PoolReader.open(url).best(30)["trial_id"]
    assert set(best) | {worst} <= set(columns["trial_id"])
    gaps = np.diff(np.sort(columns["trial_id"]))
    assert gaps.max() <= 6
    assert f"api/pools/0/trials/{worst}" in found
    assert sum(path.startswith("api/pools/0/trials/") for path in found) == 5 + 1 + 1  # the best, a failure, the star
    texts = found["api/pools/0/texts"]
    assert len(texts) == 40
    assert {*map(str, best[:20]), "299", str(worst)} <= set(texts)
    assert found["api/pools/0/notes"]["notes"][str(worst)]["text"] == "why?"


def test_of_a_ladder_the_highest_rungs_are_kept(climbed, monkeypatch):
    for name, value in (("TRIALS", 40), ("BEST", 27)):
        monkeypatch.setattr(bundle, name, value)
    found = unpacked(render([LivePool(str(climbed), make_space)]))["responses"]
    _, columns = frames.decode(base64.b64decode(found["api/pools/0/columns"]["base64"]))
    assert set(range(60, 87)) <= set(columns["trial_id"]), "scores after fewer epochs are better, and no match"
    pages = {int(path.rpartition("/")[2]) for path in found if path.startswith("api/pools/0/trials/")}
    best = {*range(84, 87), *range(67, 84)}
    assert pages == best | {*range(60, 63)} | {*range(36, 39), *range(43, 60)}, "the best, and of each all rungs"
    assert found["api/pools"]["pools"][0]["rungs"] == [2, 4, 8]
    assert found["api/pools/0/report"]["predicted_rungs"] == {"2": 4, "3": 4}


def test_young_pools_have_a_report(tmp_path):
    PoolWriter.create(tmp_path / "pool", {"config": {"name": "young </script>", "space": "nao_cnn", "strategy": "nao"}})
    page = render([LivePool(str(tmp_path / "pool"), make_space)])
    assert "young" not in page, "whatever it is called, it is data"
    found = unpacked(page)["responses"]
    assert found["api/pools/0/report"]["name"] == "young </script>"
    assert found["api/pools/0/texts"] == {}


def test_the_page_of_the_package_can_be_one_file(live):
    page = render([live])
    parsed = _Parsed(page)
    assert not [place for place in parsed.loads if not place.startswith(("#", "data:"))]
    scripts = [text for tag, name, text in parsed.found if tag == "script" and name is None]
    assert len(scripts) == len(re.findall("'sha256-", parsed.policy)) > 0
    assert json.dumps(unpacked(page))
