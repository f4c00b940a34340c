"""The page: complete, self-contained, and alive on pools with nothing in them."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pandas as pd
import pytest

from nao_ray.report.render import render


class _Page(HTMLParser):
    """Collects headings and everything that could load something; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "img", "br", "rect", "path", "use"):
            self.open.append(tag)
        self.loads += [
            value
            for name, value in attributes
            if name in ("src", "href", "xlink:href", "data", "action") and not value.startswith(("#", "data:"))
        ]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in ("rect", "path", "use"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h2", "h3") and data.strip():
            self.headings.append(" ".join(data.split()))


def test_a_full_pool(make_trials, fits, manifest, space):
    page = render(manifest, make_trials(60, failed=5), fits, 2, space)
    parsed = _Page(page)
    assert parsed.loads == []
    assert "://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    for heading in (
        "Best so far, over trials",
        "Best so far, over device time",
        "Score per round",
        "Predicted and measured",
        "Map of the embeddings",
        "Size and score",
        "Controller fits",
        "Best architectures",
        "Failures",
        "Manifest",
    ):
        assert heading in parsed.headings, heading
    assert page.count('role="img" aria-label="cells of trial') == 6
    assert "&lt;went&gt;" in page, "messages are escaped"
    assert "config.space.name" in page
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)


@pytest.mark.parametrize(("n", "failed"), [(0, 0), (1, 0), (2, 0), (1, 1), (3, 1)])
def test_young_pools(n, failed, make_trials, fits, manifest, space):
    page = render(manifest, make_trials(n, failed), fits.head(0), 1, space)
    _Page(page)
    assert ("No trial is complete yet" in page) == (n == failed)
    assert ("Best so far, over trials" in page) == (n > failed)


def test_perplexities_are_ranked_downwards(make_trials, manifest, space):
    trials = make_trials(30)
    trials["valid_perplexity"] = 100 - 30 * trials["valid_accuracy"]
    trials["valid_accuracy"] = None
    page = render(manifest, trials, pd.DataFrame(), 0, space)
    best = trials["valid_perplexity"].min()
    assert f"1. validation perplexity {best:.2f}" in page


def test_same_tables_same_bytes(make_trials, fits, manifest, space):
    assert render(manifest, make_trials(30), fits, 0, space) == render(manifest, make_trials(30), fits, 0, space)


def test_large_pools_make_small_pages(make_trials, fits, manifest, space):
    few = make_trials(60)
    many = pd.concat([few] * 100, ignore_index=True)
    many["trial_id"] = many["log_index"] = range(len(many))
    page = render(manifest, many, fits, 0, space)
    assert _Page(page).loads == []
    assert len(page) < 3 * len(render(manifest, few, fits, 0, space))


def test_the_page_says_who_read_the_test_split(make_trials, fits, manifest, space):
    def footer(tested):
        return render(manifest, make_trials(6), fits, 0, space, tested).partition("<footer>")[2]

    assert "the test split was not read." in footer(0)
    assert "was read by one full training alone" in footer(1)
    assert "was read by 2 full trainings alone" in footer(2)
