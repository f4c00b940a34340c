"""Pictures of cells: everything is drawn once, nothing overlaps, nothing leaves the page."""

import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nao_ray import registry, rng
from nao_ray.report.figures import CHARACTER_WIDTH, cell_text, draw_cells, loose_ends, op_label
from nao_ray.report.layout import lay_out

SPACES = registry.names("space")
NS = "{http://www.w3.org/2000/svg}"


def _graph(space: str, index: int):
    made = registry.load("space", space)()
    return made.lower(made.sample(rng.child(1, "figures", index)))


@given(space=st.sampled_from(SPACES), index=st.integers(0, 10**6))
def test_layouts_keep_boxes_apart(space, index):
    for _, cell in _graph(space, index).cells:
        layout = lay_out(cell)
        boxes = [item for layer in layout.layers for item in layer if not item.waypoint]
        assert sorted(item.state for item in boxes) == list(range(cell.inputs + len(cell.nodes) + 1))
        for layer in layout.layers:
            for above, below in itertools.pairwise(layer):
                assert below.y - below.height / 2 >= above.y + above.height / 2 + 10
            for item in layer:
                assert item.height / 2 - 1e-6 <= item.y <= layout.height - item.height / 2 + 1e-6
                assert all(source.layer == item.layer - 1 for source in item.inputs)
                assert sorted(item.rows) == list(range(len(item.inputs)))


@given(space=st.sampled_from(SPACES), index=st.integers(0, 10**6))
def test_pictures_show_every_edge_inside_its_box(space, index):
    graph = _graph(space, index)
    root = ElementTree.fromstring(draw_cells(graph, "a <b> & c"))
    assert root.find(f"{NS}title").text == "a <b> & c"
    expected = sorted(op_label(edge.op) for _, cell in graph.cells for node in cell.nodes for edge in node)
    labels = [text for text in root.iter(f"{NS}text") if "nr-op" in text.get("class")]
    assert sorted(label.text for label in labels) == expected
    tips = [path for path in root.iter(f"{NS}path") if path.get("class") == "nr-tip"]
    assert len(tips) == len(expected) + sum(len(cell.output) for _, cell in graph.cells)
    width = float(root.get("width"))
    assert all(float(rect.get("x", 0)) + float(rect.get("width")) <= width for rect in root.iter(f"{NS}rect"))
    elements = list(root.iter())
    for label in labels:  # drawn right after its pill
        pill = elements[elements.index(label) - 1]
        assert float(pill.get("width")) >= len(label.text) * CHARACTER_WIDTH
        assert float(pill.get("y")) < float(label.get("y")) < float(pill.get("y")) + float(pill.get("height"))


def test_pictures_load_nothing_and_know_the_dark():
    text = draw_cells(_graph("nao_cnn", 0))
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"href|url\(|<script|@import", text)


def test_pictures_are_reproducible():
    assert draw_cells(_graph("nao_cnn", 3)) == draw_cells(_graph("nao_cnn", 3))


@pytest.mark.parametrize(
    ("op", "label"),
    [
        ("max_pool_3x3", "max pool 3\u00d73"),
        ("conv_1x7_7x1", "conv 1\u00d77+7\u00d71"),
        ("avg_pool_2x2_padded", "avg pool 2\u00d72"),
        ("identity", "identity"),
    ],
)
def test_op_labels(op, label):
    assert op_label(op) == label


def test_text_of_a_cell():
    space = registry.load("space", "nao_cnn")()
    graph = space.lower(space.parse("NAONet-A"))
    lines = cell_text(graph.cell("normal")).splitlines()
    assert lines[0].split() == ["2", "=", "conv", "3\u00d73", "of", "c(k-2)"]
    assert lines[-1] == "out = 3, 5, 6"
    assert loose_ends(graph) == {"normal": [3, 5, 6], "reduction": [3, 4, 5, 6]}
