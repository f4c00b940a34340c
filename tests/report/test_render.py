"""The page: complete, self-contained, and alive on pools with nothing in them."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pandas as pd
import pytest

from nao_ray import registry, rng
from nao_ray.report.render import render
from nao_ray.report.tracks import trainings


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
    tested = pd.DataFrame([{"name": "trial5", "trial_id": 5, "test_perplexity": 71.5, "num_params": 12345}])
    page = render(manifest, trials, pd.DataFrame(), 0, space, tested)
    best = trials["valid_perplexity"].min()
    assert f"1. validation perplexity {best:.2f}" in page
    assert "<th>test perplexity</th><th>validation perplexity</th>" in page


def test_a_loss_is_ranked_by_the_least_and_told_with_its_unit(make_trials, manifest, space):
    trials = make_trials(30)
    trials["valid_score"], trials["valid_accuracy"] = 4 - 3 * trials["valid_accuracy"], None
    trials["predicted_score"] = -trials["valid_score"]
    loss = {"name": "loss", "unit": "nats", "goal": "minimize"}
    page = render({**manifest, "metric": loss}, trials, pd.DataFrame(), 0, space)
    assert f"1. validation loss in nats {trials['valid_score'].min():.5g}" in page
    assert "Of the validation loss in nats less is better" in " ".join(page.split())
    assert "Accuracies are in" not in page


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
    scores = [{"name": "trial5", "trial_id": 5, "recipe": "short", "test_accuracy": 0.87654, "num_params": 12345}]
    scores.append({"name": "NAONet-A", "trial_id": None, "test_accuracy": 0.9})

    def page(tested):
        made = render(manifest, make_trials(6), fits, 0, space, pd.DataFrame(scores[:tested]))
        _Page(made)
        return made

    assert "the test split was not read." in page(0).partition("<footer>")[2]
    assert 'read by\n<a href="#test-scores">one full training</a> alone.' in page(1).partition("<footer>")[2]
    two = page(2)
    assert '<a href="#test-scores">2 full trainings</a> alone.' in two
    assert '<h2 id="test-scores">Test scores</h2>' in two
    assert "<td>trial5</td><td>5</td><td>0.8765</td>" in two
    assert "<td>NAONet-A</td><td></td><td>0.9000</td>" in two


def test_the_page_begins_with_what_was_searched(make_trials, fits, manifest, space):
    config = manifest["config"] | {"strategy": {"name": "nao"}, "task": {"name": "digits"}, "evaluator": "standalone"}
    config["budget"] = {"trials": 1200, "hours": 1.5}
    page = render({"config": config}, make_trials(3), fits, 0, space)
    top = " ".join(re.sub("<[^>]*>", " ", page.partition("<h1>")[2].partition('<div class="tiles">')[0]).split())
    assert top == (
        "digits space nao_cnn &middot; strategy nao &middot; evaluator standalone &middot; task digits &middot; "
        "budget 1,200 trials or 1 h 30 min"
    )


def test_dashed_lines_are_spoken_of_where_there_are_some(make_trials, fits, manifest, space):
    trials = make_trials(60)
    page = render(manifest, trials, fits, 0, space)
    assert "Dashed arrows bring nothing" not in page
    assert "On the dashed line they were exact" in page
    trials["predicted_score"] += 7  # nothing predicted is near what was measured
    assert "dashed line" not in render(manifest, trials, fits, 0, space)
    other = registry.load("space", "nas_bench_201")()
    trials["genotype"] = [other.sample(rng.child(0, "report", k)).key for k in range(60)]
    page = render(manifest, trials, fits, 0, other)
    assert "Dashed arrows bring nothing" in page
    assert ">none</text>" in page, "as the space calls it"


def test_trainings_of_alphas_have_a_section_with_their_alarms(make_trainings, manifest):
    """There was a table of every epoch under "Controller fits", and talk of shared scores, of which there are none."""
    phases, watched = make_trainings(6)
    trials = phases.assign(**dict.fromkeys(["predicted_score", "valid_perplexity", "num_params", "embedding"]))
    trials = trials.assign(**dict.fromkeys(["failure_kind", "failure_message", "retry_of"]))
    trials = trials.assign(wall_seconds=1.0, device_seconds=1.0, asked_at=pd.NaT, finished_at=pd.NaT)
    derived = trainings(phases, watched)
    page = render(manifest, trials, watched, 0, registry.load("space", "darts_cnn")(), trainings=derived)
    headings = _Page(page).headings
    assert "What the trainings derived" in headings
    assert "The comparison with the random control comes at the end of the search." in page
    assert not {"Controller fits", "Can the shared scores be believed?", "No trial is complete yet"} & set(headings)
    assert page.count('<p class="alarm">') == 1
    assert "seed 0, epoch 4: the rule <b>skips</b> went off" in page
    assert page.count(watched["alarm_genotype"].dropna().iloc[0]) == 1


def test_trainings_that_failed_are_told_and_the_others_keep_their_numbers(make_trainings, manifest):
    """The training that failed at once was none, and the second one was called `seed 0`."""
    phases, watched = make_trainings(2)
    phases.loc[phases["trial_id"] == 0, ["state", "derived_genotype", "alphas"]] = ["FAILED", None, None]
    phases = phases[phases["trial_id"] != 2]
    watched = watched[watched["seed_index"] == 1]
    row = {"round": 1, "seed_index": 0, "ended": "nan"}
    fits = pd.concat([watched, pd.DataFrame([row])], ignore_index=True)
    found = trainings(phases, fits)
    assert [(track.name, len(track.frames)) for track in found] == [("seed 1", 2)]
    trials = phases.assign(**dict.fromkeys(["predicted_score", "valid_perplexity", "num_params", "embedding"]))
    trials = trials.assign(**dict.fromkeys(["failure_kind", "failure_message", "retry_of"]))
    trials = trials.assign(wall_seconds=1.0, device_seconds=1.0, asked_at=pd.NaT, finished_at=pd.NaT)
    page = " ".join(render(manifest, trials, fits, 0, registry.load("space", "darts_cnn")(), trainings=found).split())
    assert "<b>Ended</b> seed 0, epoch 1: this training diverged. It returns no cell." in page


@pytest.mark.parametrize(("best", "verdict"), [(0.8, "found no better cell than"), (0.81, "found a better cell than")])
def test_derived_cells_are_compared_with_the_random_control(
    best, verdict, make_trainings, make_trials, manifest, space
):
    phases, watched = make_trainings(2)
    row = {"round": 3, "best_derived": best, "best_control": 0.8, "num_derived": 2, "num_control": 4}
    row |= {"search_seconds": 100.0, "derived_seconds": 20.0, "control_seconds": 119.0}
    fits = pd.concat([watched, pd.DataFrame([row])], ignore_index=True)
    scores = [0.7, 0.79 if best == 0.8 else 0.81, 0.8, 0.7, 0.71, 0.72]
    trials = make_trials(6).assign(round=None, origin=[None, None, *["control"] * 4], valid_accuracy=scores)
    page = render(manifest, trials, fits, 0, space, trainings=trainings(phases, fits))
    text = " ".join(page.split())
    assert (
        f"the best of 2 derived cells has a validation accuracy of {best:.4f}, the best of 4 random ones 0.8000" in text
    )
    assert "The search took 2 min 00 s of device time, the random cells 1 min 59 s." in text
    assert f"The search {verdict} its control." in text
    assert page.count("&middot; random control") == 4, "as they are marked, whatever their round"
    assert ("best validation accuracy, of the random control" in page) == (best == 0.8)
    headings = _Page(page).headings
    assert "Derived cells and the random control" in headings
    assert not {"Course of the search", "Best so far, over device time", "Controller fits"} & set(headings)
