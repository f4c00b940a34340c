"""Pictures and page in a real browser, with its fonts: no label leaves its box, nothing overlaps or is cut off."""

import html
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from nao_ray import registry, rng
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.report.render import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH to draw with"),
    pytest.mark.slow,
]
MEASURE = """<script>
addEventListener("load", () => {
const page = document.querySelector("iframe").contentDocument;
const faults = [];
for (const svg of page.querySelectorAll("svg[aria-label^=cells]")) {
  const edge = svg.getBoundingClientRect();
  const labels = [...svg.querySelectorAll("text")].map(label => [label, label.getBoundingClientRect()]);
  for (const [label, box] of labels) {
    if (box.left < edge.left || box.right > edge.right || box.top < edge.top || box.bottom > edge.bottom)
      faults.push("outside: " + label.textContent);
    if (label.classList.contains("nr-op")) {
      const pill = label.previousElementSibling.getBoundingClientRect();
      if (box.left < pill.left + 1 || box.right > pill.right - 1)
        faults.push("wider than its box: " + label.textContent);
    }
    for (const [other, there] of labels)
      if (other !== label && box.left < there.right && there.left < box.right
          && box.top + 2 < there.bottom && there.top + 2 < box.bottom)
        faults.push("overlap: " + label.textContent + " / " + other.textContent);
  }
}
const wide = page.documentElement.scrollWidth - page.documentElement.clientWidth;
if (wide > 0) faults.push("the page is " + wide + " px too wide");
document.body.innerHTML = "";
document.body.dataset.faults = JSON.stringify({faults, labels: page.title});
});
</script>"""


def _faults(page: str, tmp_path, width: int) -> list[str]:
    path = tmp_path / "page.html"  # in a frame: a window is 500 px wide at least, a phone is not
    style = f"width:{width}px;height:900px;border:0"
    path.write_text(f'<body><iframe srcdoc="{html.escape(page)}" style="{style}"></iframe>{MEASURE}</body>')
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width + 100},900", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'data-faults="(.*?)"', done.stdout)
    assert found, "the script did not run"
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&"))["faults"]


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
    style = "<style>svg{max-width:100%;height:auto}</style>"  # as the report has it
    assert _faults(f"<html><body>{style}{''.join(pictures)}</body></html>", tmp_path, 1600) == []


def test_the_measure_sees_an_overlap(tmp_path):
    space = registry.load("space", "nao_cnn")()
    picture = draw_cells(space.lower(space.parse("NAONet-A")), "cells of NAONet-A")
    broken = picture.replace("font-size:11.5px", "font-size:24px")
    assert any("wider than its box" in fault for fault in _faults(f"<body>{broken}</body>", tmp_path, 1600))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_with_an_audit_fits_its_window(width, shared_trials, shared_fits, manifest, space, tmp_path):
    assert _faults(render(manifest, shared_trials, shared_fits, 0, space), tmp_path, width) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window(width, make_trials, fits, manifest, space, tmp_path):
    page = render(manifest, make_trials(60, failed=5), fits, 2, space)
    assert _faults(page, tmp_path, width) == []
    assert _faults(render(manifest, make_trials(0), pd.DataFrame(), 0, space), tmp_path, width) == []
