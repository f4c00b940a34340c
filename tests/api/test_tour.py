"""docs/tour.ipynb: its cells run, and show what the page shows."""

import ast
from pathlib import Path

import _notebook
import pytest

from nao_ray.api import drivers

TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"
CELLS = [cell for cell in _notebook.read(TOUR)["cells"] if cell["cell_type"] == "code"]


def test_it_was_executed_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    shown = [output for cell in CELLS for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 3
    assert sum("data:image/svg+xml" in "".join(output.get("data", {}).get("text/html", "")) for output in shown) >= 2
    assert "/tmp" not in TOUR.read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_cells_run_and_show_what_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drivers.Process, "_started", {})
    names = {}
    for cell in CELLS:
        source = _notebook.source_of(cell).replace('"budget.trials": 16', '"budget.trials": 8')
        ast.parse(source)
        outputs = _notebook.run(source.replace("finished >= 6", "finished >= 2"), names)
        kinds, written = (
            [(each["output_type"], sorted(each.get("data", ()))) for each in found]
            for found in (outputs, cell["outputs"])
        )
        assert kinds == written, source
    assert len(names["pool"].trials()) == 8
    assert names["search"].state == "done"
    names["study"].close()
    drivers.Process._started.popitem()[1]._process.wait()
