"""The page in a real browser: every view of it, its links, keyboard, and what axe-core has to say."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

from nao_ray.cli.pool import make_space
from nao_ray.page import server
from nao_ray.page.bundle import write_report
from nao_ray.page.guard import Guard
from nao_ray.page.live import LivePool
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import resume

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH to show the page"),
    pytest.mark.slow,
]
AXE = Path(__file__).parent / "axe" / "axe.min.js"
VIEWS = {
    "overview": "Best so far",
    "progress": "Best so far, over device time",
    "predictor": "Predicted and measured",
    "tradeoffs": "Parameters and score",
    "operations": "Share among the best",
    "best": "The best 20 of the",
    "trust": "Noise floor",
    "failures": "Kinds of failure",
    "workers": "Timeline of the workers",
    "trials": "Download the selection",
    "compare": "Differences",
    "pools": "device time",
    "record": "The frozen run.yaml",
}
SHARED = {
    "is_shared": True,
    "audit": {
        "figures": "Kendall's tau 0.36",
        "meaning": "The order of shared scores says little.",
        "shared": [0.3, 0.4, 0.5],
        "alone": [0.8, 0.7, 0.9],
        "is_audited": [True, True, False],
    },
    "versions": [{"round": 0, "mean": 0.31, "best": 0.42}, {"round": 1, "mean": 0.37, "best": 0.48}],
    "comparison": ["Derived cells are better by 0.01."],
    "derived": {"derived": [0.9, 0.92], "random control": [0.88]},
    "trainings": {"headings": ["training", "cell"], "rows": [["seed 0", "1 0 <2> 1"]]},
    "alarms": [{"training": "seed 0", "moment": "epoch 12", "alarm": "skips", "instead": "0 1 0 1"}],
    "ends": [{"training": "seed 1", "epoch": 7, "kind": "nan", "has_cell": True}],
    "tests": [
        {"name": "a", "trial": "3", "test": "0.91", "valid": "0.92", "recipe": "r", "epochs": "6", "params": "9"}
    ],
    "fits": {"headings": ["round", "tau"], "rows": [["1", "0.5"]]},
    "fit_curves": {"pairwise accuracy": {"round": [1, 2], "value": [0.6, None]}},
    "film": "film/0",
}
"""What a report tells of a search with shared weights and of one by alphas."""
SEEN = "figure:not([hidden]) .chart:not([hidden])"
SETTLED = "window.NaoRay?.app?.pool?.report && NaoRay.app.pools.every(pool => pool.frame.rows)"


@pytest.fixture(scope="module")
def noted(searched, tmp_path_factory):
    """A pool of its own: notes are written into it."""
    return shutil.copytree(searched, tmp_path_factory.mktemp("noted") / "pool")


@pytest.fixture(scope="module")
def address(noted, made_up):
    """Where the page of both pools is."""
    pools = [LivePool(str(made_up), make_space), LivePool(str(noted), make_space)]
    loop, ready, told = asyncio.new_event_loop(), threading.Event(), []

    def tell(where):
        told.append(where)
        ready.set()

    task = loop.create_task(server.serve(pools, Guard(None), "127.0.0.1", 0, tell))

    def work():
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(600)
    yield told[0]
    loop.call_soon_threadsafe(task.cancel)
    thread.join()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One browser for all tests."""
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(made_up, tmp_path_factory):
    """The address of a report on the disk."""
    pool = PoolReader.open(str(made_up))
    return Path(write_report(pool, make_space(pool), tmp_path_factory.mktemp("report") / "report.html")).as_uri()


@pytest.fixture
def page(chromium, address):
    """The page just opened, without a selection, on the overview."""
    chromium.leave()
    chromium.resize(1400)
    chromium.prefer("light")
    chromium.open(address)
    chromium.wait(SETTLED)
    yield chromium
    assert chromium.faults == []


def show(page, view, said=""):
    """Goes to a view and waits until it says something."""
    page.run(f"location.hash = {json.dumps('#' + view)}")
    root = f"document.querySelector('#view > .view-{view.partition('/')[0]}')"  # not that of the view before
    page.wait(f"{root}?.textContent.includes({json.dumps(said)})")
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def axe(page):
    """What axe-core finds that is serious or critical."""
    if not page.run("Boolean(window.axe)"):
        page.run(AXE.read_text(encoding="utf-8") + "\n;0")
    script = "axe.run().then(found => found.violations.map(one => [one.impact, one.id, one.nodes[0].html]))"
    return [one for one in page.run(script) if one[0] in ("serious", "critical")]


def painted(page):
    """Per chart that is seen: its heading, and how many pixels of its own are not blank."""
    return page.run(
        f"""[...document.querySelectorAll("{SEEN}")].map(box => [box.ariaLabel.split(".")[0],
          [...box.querySelectorAll("canvas")].filter(one => one.width && !one.hidden).map(one =>
            one.getContext("2d").getImageData(0, 0, one.width, one.height).data.filter((v, k) => k % 4 == 3 && v).length
          ).reduce((a, b) => a + b, 0)])"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_draws_fits_its_window_and_is_accessible(page, scheme):
    page.prefer(scheme)
    for view, said in VIEWS.items():
        for width in (1400, 400):
            page.resize(width)
            show(page, f"{view}/0", said)
            wide = page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{view} is {wide} px wider than a window of {width}"
        assert axe(page) == [], view
        for heading, pixels in painted(page):
            assert pixels > 500, f"{view}: {heading} is blank"
    assert page.run("document.documentElement.dataset.theme") == scheme
    page.run("document.querySelector('#nav a').style.color = 'var(--faint)'")
    assert [one[1] for one in axe(page)] == ["color-contrast"], "it sees what is wrong"


def test_trials_are_counted_from_one(page):
    page.run("NaoRay.app.pool.order, 0")  # whichever is asked for first
    assert page.run("(pool => [...pool.order].map(row => pool.column('order')[row]))(NaoRay.app.pool)")[:3] == [1, 2, 3]


def test_every_chart_says_in_words_what_it_shows_and_gives_its_figures(page):
    for view in VIEWS:
        show(page, f"{view}/0", VIEWS[view])
        labels = page.run(f"[...document.querySelectorAll('{SEEN}')].map(one => one.ariaLabel)")
        assert all(len(label.split()) > 4 for label in labels), (view, labels)
    show(page, "progress/0", VIEWS["progress"])
    page.run("document.querySelector('.figures').open = true")
    page.wait("document.querySelectorAll('.figures table tbody tr').length > 2")


def test_what_is_selected_in_one_view_holds_in_the_others(page):
    show(page, "tradeoffs/0", VIEWS["tradeoffs"])
    box = page.run(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('.chart').getBoundingClientRect())"
    )
    left, top, width, height = box
    page.drag((left + 0.3 * width, top + 0.1 * height), (left + 0.6 * width, top + 0.8 * height))
    page.wait("document.querySelectorAll('.chip').length === 2")
    chosen = page.run("NaoRay.selection.countOf(NaoRay.app.pool)")
    assert 10 < chosen < 200
    assert page.run("document.querySelector('.told').textContent") == f"{chosen} of 300 trials selected"
    show(page, "trials/0", f"50 of {chosen}")
    low, high = page.run("(({low, high}) => [low, high])(NaoRay.selection.conditions[0])")
    first = page.run(
        "(p => p.column('num_params')[p.rowOf(+document.querySelector('.trials td a').textContent)])(NaoRay.app.pool)"
    )
    assert low <= first <= high
    show(page, "operations/0", f"among all ({chosen})")
    page.run("document.querySelector('.clear').click()")
    page.wait("document.querySelector('.told').textContent === 'All 300 finished trials'")


def test_the_keyboard_reaches_and_does_everything(page):
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    page.press("Enter")
    assert page.run("document.activeElement.id") == "main"
    page.run("document.querySelector('#nav a[href^=\"#trials\"]').focus()")
    page.press("Enter")
    page.wait("document.activeElement.id === 'title' && document.activeElement.textContent === 'Trials'")
    page.run("document.querySelector('.filter summary').focus()")
    page.press("Enter")
    page.wait("document.querySelector('.filter').open && document.querySelector('[name=low]')")
    page.press("Tab")
    page.press("Tab")
    assert page.run("document.activeElement.name") == "low"
    page.type("0.94")
    page.press("Enter")
    page.wait("document.querySelectorAll('.chip').length === 1")
    assert "≥ 0.94" in page.run("document.querySelector('.chip').textContent")
    page.run("document.querySelector('.sort[data-by=value]').focus()")
    page.press("Enter")
    page.wait("document.activeElement.dataset.by && document.activeElement.closest('th').ariaSort === 'descending'")
    best = page.run("(pool => pool.frame.get('trial_id')[pool.best(pool.scored)])(NaoRay.app.pool)")
    page.wait(f"document.querySelector('.trials td a').textContent === '{best}'")
    page.run("document.querySelector('.trials td a').focus()")
    page.press("Enter")
    page.wait(
        f"document.getElementById('title').textContent === 'Trial {best}' && document.querySelector('.cells svg')"
    )


def test_a_limit_is_typed_and_moved_by_keys(page):
    show(page, "tradeoffs/0", VIEWS["tradeoffs"])
    page.run("document.querySelector('.at-most input').focus()")
    page.type("2 M")
    page.press("Enter")
    page.wait("!document.querySelector('.limit').hidden")
    value = "Number(document.querySelector('.limit').ariaValueNow)"
    assert page.run(value) == 2e6
    page.run("document.querySelector('.limit').focus()")
    page.press("ArrowRight")
    assert 2e6 < page.run(value) < 2.2e6
    told = page.run("document.querySelector('.limit-row .said').textContent")
    within = page.run("(p => p.scored.filter(r => p.column('num_params')[r] <= 2e6).length)(NaoRay.app.pool)")
    assert abs(int(told.split()[0]) - within) < 10
    page.run("document.querySelector('.limit-row button').click()")
    page.wait("document.querySelectorAll('.chip').length === 1")


def test_a_trial_has_a_page_with_lineage_failure_and_a_note_that_stays(page, noted):
    failed = page.run("(p => p.frame.get('trial_id')[p.failed[0]])(NaoRay.app.pools[1])")
    show(page, f"trial/1/{failed}", "Log")
    page.wait("[...document.querySelectorAll('.log')].some(one => /Error|nan/.test(one.textContent))")
    child = page.run(
        "(p => p.frame.get('trial_id')[p.order.find(r => p.frame.get('source')[r] >= 0)])(NaoRay.app.pools[1])"
    )
    show(page, f"trial/1/{child}", "Lineage")
    page.wait("document.querySelector('.kin a')")
    assert axe(page) == []
    page.run("document.querySelector('#view textarea').focus()")
    page.type("look <b>again</b>")
    page.run("document.querySelector('.starred').click()")
    page.wait("document.body.textContent.includes('Saved.')")
    show(page, "overview/1", "look <b>again</b>")
    assert json.loads((noted / "notes.json").read_text(encoding="utf-8"))
    show(page, f"trial/1/{child}", "Lineage")
    page.run("document.querySelector('#view textarea').value = ''")
    page.run("document.querySelector('.starred').click()")
    page.wait("document.body.textContent.includes('Saved.')")


def test_two_architectures_stand_side_by_side_with_their_differences(page):
    show(page, "compare/1/0/1:1", "they are marked")
    page.wait("document.querySelectorAll('.cells svg').length === 2")
    assert page.run("document.querySelectorAll('.sides .differs').length") > 1
    assert page.run("document.querySelectorAll('table tbody tr').length") > 0
    assert axe(page) == []


def test_sql_answers_and_its_trials_become_the_selection(page):
    show(page, "trials/0", "SQL")
    page.run("document.querySelector('#query').value = 'SELECT trial_id FROM trials WHERE trial_id < 7'")
    page.run("document.querySelector('.sql form').requestSubmit()")
    page.wait("document.querySelector('.sql').textContent.includes('7 rows')")
    page.run("[...document.querySelectorAll('.sql button')].at(-1).click()")
    page.wait("document.querySelector('.told').textContent.startsWith('7 of 300')")


def test_a_refresh_brings_what_is_new_and_leaves_the_rest(page, noted):
    page.resize(1400, 500)
    show(page, "trials/1", "of 30")
    page.run("NaoRay.selection.add({column: 'state', low: 0, high: 0}), 0")
    page.wait("document.querySelector('.told').textContent.endsWith('of 30 trials selected')")
    page.run("document.querySelector('.sort[data-by=value]').focus({preventScroll: true})")
    page.run("document.querySelector('.trials').scrollTop = 40")
    resume(str(noted), ("budget.trials=33",), in_process=True)
    page.wait("document.querySelector('.told').textContent.endsWith('of 33 trials selected')")
    assert page.run("document.querySelector('.trials').scrollTop") == 40
    assert page.run("document.activeElement.dataset.by") == "value"
    assert page.run("document.querySelectorAll('.chip').length") == 1
    entries = "performance.getEntriesByType('resource').filter(one => one.name.includes('since=33'))"
    sizes = f"{entries}.map(one => one.decodedBodySize)"
    page.wait(f"{sizes}.length")
    assert max(page.run(sizes)) < 4000, "what is there is not read again"


def test_a_report_opens_from_the_disk_and_loads_nothing(chromium, report):
    chromium.leave()
    chromium.prefer("light")
    for width in (1400, 400):
        chromium.resize(width)
        chromium.open(report)
        chromium.wait(SETTLED)
        for view, said in VIEWS.items():
            if view != "pools":
                show(chromium, f"{view}/0", said)
                assert chromium.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
                assert all(pixels > 500 for _, pixels in painted(chromium)), view
    assert axe(chromium) == []
    best = chromium.run("(pool => pool.frame.get('trial_id')[pool.best(pool.scored)])(NaoRay.app.pool)")
    show(chromium, f"trial/0/{best}", "Genotype")
    show(chromium, "trial/0/3", "This needs the live page")
    show(chromium, "trials/0", "This needs the live page")
    assert [url for url in chromium.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert chromium.faults == []


def test_paper_is_light_and_shows_no_buttons(page):
    page.prefer("dark")
    show(page, "progress/0", VIEWS["progress"])
    page.wait("document.documentElement.dataset.theme === 'dark'")
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.documentElement.dataset.theme") == "light"
    page.send("Emulation.setEmulatedMedia", media="print")
    hidden = "['header', 'nav', '.filter'].map(one => getComputedStyle(document.querySelector(one)).display)"
    assert page.run(hidden) == ["none"] * 3
    page.send("Emulation.setEmulatedMedia", media="")
    page.prefer("dark")
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("document.documentElement.dataset.theme") == "dark"


def test_what_searches_with_shared_weights_tell_is_shown(page):
    page.run("NaoRay.app.pools[0].refreshReport = async () => 0, 0")  # what is told stays
    page.run(f"Object.assign(NaoRay.app.pools[0].report, {json.dumps(SHARED)}), 0")
    wanted = {
        "overview": ["the rule skips went off", "the search as a film"],
        "progress": ["Mean 0.3700 and best 0.4800 with the newest shared weights"],
        "predictor": ["Quality of the controller's fits", "pairwise accuracy", "tau"],
        "trust": ["Kendall's tau 0.36. The order of shared scores says little.", "finalist", "0.91"],
        "record": [
            "better by 0.01",
            "It would have returned 0 1 0 1",
            "this training diverged",
            "cell of epoch 6",
            "1 0 <2> 1",
        ],
    }
    for view, texts in wanted.items():
        for text in texts:
            show(page, f"{view}/0", text)
        assert axe(page) == [], view
        assert all(pixels > 500 for _, pixels in painted(page)), view


def test_of_three_objectives_the_whole_front_is_drawn_and_the_best_tell_all(chromium, made_up, tmp_path):
    url = shutil.copytree(made_up, tmp_path / "aimed")
    run = (url / "run.yaml").read_text()
    aims = "objectives: [valid_accuracy, -num_params, -wall_seconds]"
    (url / "run.yaml").write_text(run.replace("  name: scale\n", f"  name: scale\n  {aims}\n"))
    pool = PoolReader.open(url)
    chromium.leave()
    chromium.resize(1400)
    chromium.open(Path(write_report(pool, make_space(pool), tmp_path / "report.html")).as_uri())
    chromium.wait(SETTLED)
    show(chromium, "tradeoffs/0", "that none beats in valid_accuracy, -num_params, -wall_seconds")
    front = pool.front()
    drawn = chromium.run(
        """[...document.querySelectorAll('.chart *')].map(box => echarts.getInstanceByDom(box)).filter(Boolean)
          .flatMap(chart => chart.getOption().series).filter(one => one.name === 'front of all objectives')
          .map(one => one.data.map(pair => pair[0]))"""
    )
    rows = pool.trials(["trial_id", "num_params", "macs"], ids=list(front.trials))
    assert sorted(map(sorted, drawn)) == sorted([sorted(rows["num_params"]), sorted(rows["macs"])])
    assert "front of all objectives" in chromium.run("document.getElementById('view').textContent")
    assert axe(chromium) == []
    ranked = pool.best(20)["trial_id"].tolist()
    assert ranked != pool.trials().nlargest(20, "valid_accuracy")["trial_id"].tolist(), "those with the best scores"
    show(chromium, "best/0", "By Pareto rank in validation accuracy, parameters, wall time, in a rank by the first.")
    shown = chromium.run(
        """[...document.querySelectorAll('details.best a[href^="#trial"]')]
          .map(one => Number(one.hash.split('/').at(-1)))"""
    )
    assert shown == ranked
    best = shown[:8]
    for view in ("best/0", "overview/0"):
        show(chromium, view, "wall time")
        text = chromium.run("document.getElementById('view').textContent")
        shown = chromium.run(
            f"{best}.map(trial => NaoRay.columnText(NaoRay.app.pool, 'wall_seconds', NaoRay.app.pool.rowOf(trial)))"
        )
        assert all(seconds in text for seconds in shown), (view, shown, text)
    assert chromium.faults == []


def test_of_a_ladder_every_view_compares_one_rung_and_says_which(chromium, climbed, tmp_path):
    pool = PoolReader.open(climbed)
    chromium.leave()
    chromium.resize(1400)
    chromium.open(Path(write_report(pool, make_space(pool), tmp_path / "report.html")).as_uri())
    chromium.wait(SETTLED)

    def told(view, said):
        show(chromium, f"{view}/0", said)
        return chromium.run("document.getElementById('view').textContent")

    assert "Best 0.6380, reached by trial 86" in told("progress", "Trials after 8 epochs alone")
    assert "The best 3 of the 3 selected trials with a score after 8 epochs." in told("best", "The best")
    assert "Trials after 8 epochs alone" in told("tradeoffs", "Pareto front")
    predictor = told("predictor", "over 24 trials")  # of rounds 2 and 3, after the epochs predicted
    assert "controller proposed: 24," in predictor
    assert predictor.count("Trials after 4 epochs alone") == 2
    assert "among all (24)" in told("operations", "Trials after 4 epochs alone")
    assert "validation accuracy 0.6380 after 8 epochs" in told("compare", "they are marked")
    chromium.run("NaoRay.selection.add({column: 'epochs', low: 2, high: 2}), 0")
    assert "among all (60)" in told("operations", "Trials after 2 epochs alone")
    assert "the 60 selected trials with a score after 2 epochs." in told("best", "The best 20")
    assert "Best 0.9590, reached by trial 59" in told("progress", "Trials after 2 epochs alone")
    chromium.run("NaoRay.selection.clear(), 0")
    show(chromium, "trial/0/60", "Rungs")
    said, targets = chromium.run(
        """(kin => [kin.textContent, [...kin.querySelectorAll('a')].map(one => one.hash)])
          (document.querySelector('.kin'))"""
    )
    assert said == "Rungs 36 (0.9360 after 2 epochs) → 60 after 4 epochs → 84 (0.6360 after 8 epochs)"
    assert targets == ["#trial/0/36", "#trial/0/84"]
    best = "(link => [link.textContent, link.hash])([...document.querySelectorAll('form a')].at(-1))"
    for trial, epochs, other in ((60, 4, 83), (84, 8, 86)):
        show(chromium, f"trial/0/{trial}", "with the best")
        assert chromium.run(best) == [
            f"with the best after {epochs} epochs ({other})",
            f"#compare/0/{trial}/0%3A{other}",
        ]
    show(chromium, "trial/0/36", "Rungs 36 after 2 epochs")
    assert " after 4 epochs" in chromium.run("document.querySelector('.facts').textContent")
    assert chromium.run("document.querySelectorAll('[data-edge]').length"), "cells of a lower rung of one of the best"
    assert axe(chromium) == []
    assert chromium.faults == []
