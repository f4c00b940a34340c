"""Pictures and film in a real browser, with its fonts: no label leaves its box, nothing overlaps or is cut off."""

import html
import json
import re
import shutil
import subprocess

import pytest

from nao_ray import registry, rng
from nao_ray.metric import Metric
from nao_ray.report.film import render_film
from nao_ray.report.labels import op_label
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.report.tracks import tracks_of
from nao_ray.spaces.base import ArchGraph, Cell, Edge

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH to draw with"),
    pytest.mark.slow,
]
MEASURE = """<script>
addEventListener("load", () => {
const faults = [];
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument;
  const say = fault => faults.push(`${frame.title}: ${fault}`);
  for (const svg of page.querySelectorAll("svg[aria-label^=cells]")) {
    const edge = svg.getBoundingClientRect();
    const labels = [...svg.querySelectorAll("text")].map(label => [label, label.getBoundingClientRect()]);
    for (const [label, box] of labels) {
      if (box.left < edge.left || box.right > edge.right || box.top < edge.top || box.bottom > edge.bottom)
        say("outside: " + label.textContent);
      if (label.classList.contains("nr-op")) {
        const pill = label.previousElementSibling.getBoundingClientRect();
        if (box.left < pill.left + 1 || box.right > pill.right - 1)
          say("wider than its box: " + label.textContent);
      }
      for (const [other, there] of labels)
        if (other !== label && box.left < there.right && there.left < box.right
            && box.top + 2 < there.bottom && there.top + 2 < box.bottom)
          say("overlap: " + label.textContent + " / " + other.textContent);
    }
  }
  const wide = page.documentElement.scrollWidth - page.documentElement.clientWidth;
  if (wide > 0) say("the page is " + wide + " px too wide");
}
document.body.dataset.found = JSON.stringify({faults, films: [...document.querySelectorAll("iframe")].flatMap(play)});
document.body.innerHTML = "";
});
function play(frame) {  // what a film shows at the first and the last moment of each of its tracks
  const page = frame.contentDocument, track = page.getElementById("track"), at = page.getElementById("at");
  if (!at) return [];
  const shown = [];
  for (const option of track.options) {
    track.value = option.value;
    track.dispatchEvent(new Event("change"));
    for (const moment of [0, at.max]) {
      at.value = moment;
      at.dispatchEvent(new Event("input"));
      const labels = [...page.querySelectorAll(".nr-label:not(.off) text")].map(label => label.textContent).sort();
      const lines = page.querySelectorAll(".nr-edge:not(.off)").length;
      const alarm = page.getElementById("alarm");
      const charts = page.querySelectorAll("#alphas figure").length, kept = page.querySelectorAll(".kept").length;
      const genotype = page.getElementById("genotype").textContent, when = page.getElementById("when").value;
      shown.push({when, genotype, labels, lines, alarm: alarm.hidden ? "" : alarm.textContent, charts, kept});
    }
  }
  at.value = 0;
  at.dispatchEvent(new Event("input"));
  page.querySelector("#alphas svg")?.dispatchEvent(new MouseEvent("click", {clientX: 1e6}));
  const form = page.getElementById("form"), forms = [form.value];
  form.value = "lines";
  form.dispatchEvent(new Event("change"));
  forms.push(page.querySelectorAll("#alphas .curve").length, page.getElementById("scale").hidden);
  shown.push({when: page.getElementById("when").value, forms});
  return shown;
}
</script>"""


def _look(pages: dict[str, tuple[str, int]], tmp_path) -> dict:
    """What the browser finds of pages, by name, each in a window of its own width."""
    frames = "".join(  # a window is 500 px wide at least, a phone is not
        f'<iframe title="{name}" srcdoc="{html.escape(page)}" style="width:{width}px;height:900px;border:0"></iframe>'
        for name, (page, width) in pages.items()
    )
    path = tmp_path / "page.html"
    path.write_text(f'<meta charset="utf-8"><body>{frames}{MEASURE}</body>', encoding="utf-8")  # else it is guessed
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1700,900", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    found = re.search(r'data-found="(.*?)"', done.stdout)
    assert found, "the script did not run"
    return json.loads(html.unescape(found[1]))


def test_labels_of_many_cells_do_not_overlap(tmp_path):
    pictures = []
    for name in registry.names("space"):
        space = registry.load("space", name)()
        made = [
            (space.for_text(published), space.for_text(published).parse(published)) for published in space.published
        ]
        made += [(space, space.sample(rng.child(2, "browser", index))) for index in range(10)]
        pictures += [
            draw_cells(home.lower(genotype), f"cells of {genotype.key}", home.op_names) for home, genotype in made
        ]
    hostile = ["M" * 40, "\u6f22\u5b57" * 9, "</text>&amp;", "wide_\u1f9ff" * 5]
    nodes = tuple(tuple(Edge(0, op) for op in hostile[:k]) for k in (1, 4))
    pictures.append(draw_cells(ArchGraph("", (("normal", Cell(1, nodes, (1, 2))),)), "cells with hostile names"))
    style = "<style>svg{max-width:100%;height:auto}</style>"  # as the report has it
    broken = pictures[0].replace("font-size:11.5px", "font-size:24px")
    pages = {"all": (f"{style}{''.join(pictures)}", 1600), "broken": (broken, 1600)}
    faults = _look(pages, tmp_path)["faults"]
    assert [fault for fault in faults if not fault.startswith("broken: wider than its box")] == []
    assert faults, "the measure sees what is wrong"


def test_the_film_fits_its_window_and_plays(make_trainings, tmp_path):
    darts = registry.load("space", "darts_cnn")()
    phases, watched = make_trainings(20)
    tracks = tracks_of(phases, phases, watched, Metric("accuracy"))
    film = render_film("digits", tracks, darts)
    pages = {f"film {width}": (film, width) for width in (1280, 390)}
    found = _look(pages, tmp_path)
    assert found["faults"] == []
    films = found["films"]
    assert films[:5] == films[5:], "the same at both widths"
    moments = [(track, frame) for track in tracks for frame in (0, -1)]
    for (track, frame), shown in zip(moments, films[:4], strict=True):
        moment = track.frames[frame]
        cells = dict(darts.lower(darts.parse(moment.genotype)).cells).values()
        ops = [op_label(darts.op_names.get(edge.op, edge.op)) for cell in cells for node in cell.nodes for edge in node]
        assert shown == {
            "when": f"{moment.label} ({1 if frame == 0 else 20} of 20)",
            "genotype": moment.genotype,
            "labels": sorted(ops),
            "lines": len(ops) + 8,
            "alarm": f"alarm: {moment.alarm}" if moment.alarm else "",
            "charts": 28,
            "kept": 16,
        }
    assert films[4]["when"] == "epoch 20 (20 of 20)", "a click into a chart goes there"
    assert films[4]["forms"] == ["areas", 28 * 8, False]
