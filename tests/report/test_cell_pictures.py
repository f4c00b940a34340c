"""Pictures of cells: everything is drawn once, nothing overlaps, nothing leaves the page."""

import io
import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import nao_ray
from nao_ray import registry, rng
from nao_ray.errors import GenotypeError
from nao_ray.report.labels import cell_text, is_chain, is_recurrent, loose_ends, op_label
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.report.pictures.layout import lay_out
from nao_ray.report.pictures.raster import png
from nao_ray.report.pictures.style import family, text_width
from nao_ray.spaces.base import ArchGraph, Cell, Edge

SPACES = registry.names("space")
NS = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    '</title><script>alert(1)</script>"&',
    "x" * 500,
    "a\x00b\x1bc\ud800",
    "\u202etxt",
    "my.module:Wide_" + "W" * 30,
)


def _published():
    for name in SPACES:
        for published in registry.load("space", name).published:
            space = registry.load("space", name).for_text(published)
            yield published, space.lower(space.parse(published))


PUBLISHED = dict(_published())
NASNET, AMOEBANET = PUBLISHED["NASNet"], PUBLISHED["AmoebaNet"]


@st.composite
def graphs(draw):
    """Genotypes of the spaces, and cells of any form: one to four inputs, nodes without edges, edges side by side."""
    if draw(st.booleans()):
        made = registry.load("space", draw(st.sampled_from(SPACES)))()
        return made.lower(made.sample(rng.child(1, "figures", draw(st.integers(0, 10**6)))))
    inputs, count = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    ops = st.sampled_from(["sep_conv_3x3", "zero", "identity", *HOSTILE])
    nodes = tuple(
        tuple(Edge(*pair) for pair in draw(st.lists(st.tuples(st.integers(0, state - 1), ops), max_size=5)))
        for state in range(inputs, inputs + count)
    )
    output = draw(st.lists(st.integers(0, inputs + count - 1), min_size=1, max_size=4, unique=True))
    return ArchGraph("", (("normal", Cell(inputs, nodes, tuple(output))),))


@settings(max_examples=40)
@given(graph=graphs())
def test_layouts_keep_items_apart(graph):
    for _, cell in graph.cells:
        layout = lay_out(cell)
        items = [item for layer in layout.layers for item in layer]
        states = sorted(item.state for item in items if item.state is not None)
        assert states == list(range(cell.inputs + len(cell.nodes) + 1))
        routes = sorted((route.target, route.index, route.source) for route in layout.routes if route.index is not None)
        edges = [(s, k, edge.source) for s, node in enumerate(cell.nodes, cell.inputs) for k, edge in enumerate(node)]
        assert routes == edges
        assert [route.source for route in layout.routes if route.index is None] == list(cell.output)
        for layer in layout.layers:
            for above, below in itertools.pairwise(layer):
                assert below.top >= above.bottom + 8
            for item in layer:
                assert item.top >= -1e-6
                assert item.bottom <= layout.height + 1e-6
                assert all(source.layer == item.layer - 1 for source in item.inputs)


def _boxes(root, at=(0.0, 0.0)):
    """Every rect but the ground, as (left, top, right, bottom), with the text in it."""
    move = re.match(r"translate\(([\d.]+) ([\d.]+)\)", root.get("transform", ""))
    at = (at[0] + float(move[1]), at[1] + float(move[2])) if move else at
    rect, text = root.find(f"{NS}rect"), root.find(f"{NS}text")
    if root.get("class") in ("nr-box", "nr-label"):
        x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
        yield (at[0] + x, at[1] + y, at[0] + x + width, at[1] + y + height), "".join(text.itertext())
    for child in root:
        yield from _boxes(child, at)


def _check(graph, svg):
    root = ElementTree.fromstring(svg)
    assert not [node for node in root.iter() if node.tag in (f"{NS}script", "script")]
    edges = {
        f"{role}:{state}:{index}": edge
        for role, cell in graph.cells
        for state, node in enumerate(cell.nodes, cell.inputs)
        for index, edge in enumerate(node)
    }
    recurrent = [f"{role}:0:{index}" for role, cell in graph.cells if is_recurrent(cell) for index in range(2)]
    outputs = [f"{role}:out:{state}" for role, cell in graph.cells for state in cell.output]
    drawn = [group.get("data-edge") for group in root.iter(f"{NS}g") if "nr-edge" in group.get("class", "")]
    assert sorted(drawn) == sorted([*edges, *recurrent, *outputs]), (
        "each edge once; the output has lines from its states alone"
    )
    labels = [group.get("data-edge") for group in root.iter(f"{NS}g") if group.get("class") == "nr-label"]
    chains = {role for role, cell in graph.cells if is_chain(cell)}
    named = [name for name in edges if name.split(":")[0] not in chains or name.endswith(":0")]
    assert sorted(labels) == sorted(named)
    boxes = list(_boxes(root))
    width, height = float(root.get("width")), float(root.get("height"))
    for (left, top, right, bottom), text in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        if not text.startswith("ck"):  # its index is smaller
            assert text_width(text) * 11.5 / 12 <= right - left
    for (one, _), (other, _) in itertools.combinations(boxes, 2):
        assert not (one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3])


@settings(max_examples=40)
@given(graph=graphs())
def test_pictures_show_every_edge_once_and_no_boxes_overlap(graph):
    _check(graph, draw_cells(graph, "a <b> & c"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_pictures_of_published_cells(name):
    _check(PUBLISHED[name], draw_cells(PUBLISHED[name], name))


def test_states_that_are_not_concatenated_have_no_line_to_the_output():
    root = ElementTree.fromstring(draw_cells(AMOEBANET))
    lines = {group.get("data-edge") for group in root.iter(f"{NS}g")}
    assert {name for name in lines if name and ":out:" in name} == {
        *("normal:out:4", "normal:out:5", "normal:out:6"),
        *("reduction:out:3", "reduction:out:4", "reduction:out:6"),
    }


def test_what_a_picture_says():
    root = ElementTree.fromstring(draw_cells(AMOEBANET, "a <b> & c"))
    assert (root.get("role"), root.get("aria-label")) == ("img", "a <b> & c")
    assert root.find(f"{NS}title").text == "a <b> & c"
    assert "reduction cell\n" in root.find(f"{NS}desc").text
    titles = [title.text for title in root.iter(f"{NS}title")]
    assert "conv_7x1_1x7: c_{k-2} \u2192 6" in titles
    assert {"c_{k-2}", "c_{k-1}", "c_{k}", "2", "6"} <= set(titles)


def test_a_network_of_layers_is_a_column_with_arcs():
    space = registry.load("space", "enas_macro").for_text("ENAS-macro")
    root = ElementTree.fromstring(draw_cells(space.lower(space.parse("ENAS-macro"))))
    assert float(root.get("height")) > 2 * float(root.get("width")), "as wide as a phone"
    arcs = [group for group in root.iter(f"{NS}g") if "nr-arc " in group.get("class", "")]
    assert len(arcs) == sum(
        len(node) - 1 for _, cell in space.lower(space.parse("ENAS-macro")).cells for node in cell.nodes
    )


def test_a_recurrent_cell_begins_with_a_word_and_the_state_before():
    graph = PUBLISHED["ENAS-RNN-loose-ends"]
    root = ElementTree.fromstring(draw_cells(graph))
    titles = {title.text for title in root.iter(f"{NS}title")}
    assert {"x_{t}", "h_{t-1}", "0", "8", "h_{t}", "sigmoid: 0 \u2192 1", "tanh: 1 \u2192 2"} <= titles
    lines = [group.get("data-edge") for group in root.iter(f"{NS}g") if "nr-edge" in group.get("class", "")]
    assert {name for name in lines if ":out:" in name} == {"recurrent:out:7", "recurrent:out:8"}
    assert {name for name in lines if ":0:" in name} == {"recurrent:0:0", "recurrent:0:1"}
    text = cell_text(graph.cell("recurrent")).splitlines()
    assert (text[0].split(), text[1].split()) == (
        ["0", "=", "tanh", "of", "x_t,", "h_{t-1}"],
        ["1", "=", "sigmoid", "of", "0"],
    )
    assert text[-1] == "h_t = mean of 7, 8"


def test_a_chain_of_activations_is_no_network_of_layers():
    """And a cell of skips alone, of NAS-Bench-201, is not recurrent."""
    space = registry.load("space", "darts_rnn")()
    chain = space.lower(space.parse("0:tanh 1:identity 2:identity")).cell("recurrent")
    assert (is_chain(chain), is_recurrent(chain)) == (False, True)
    bench = registry.load("space", "nas_bench_201")()
    skips = bench.lower(
        bench.parse("|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|")
    )
    assert not is_recurrent(skips.cell("normal"))


def test_edges_that_carry_nothing_are_dashed_and_operations_are_called_as_the_space_calls_them():
    space = registry.load("space", "nas_bench_201")()
    genotype = space.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|")
    root = ElementTree.fromstring(draw_cells(space.lower(genotype), names=space.op_names))
    dashed = [g.get("data-edge") for g in root.iter(f"{NS}g") if "nr-none" in g.get("class", "")]
    assert dashed == ["normal:2:0", "normal:3:0", "normal:3:1"]
    labels = [text.text for text in root.iter(f"{NS}text") if "nr-op" in text.get("class")]
    assert sorted(labels) == ["avg pool 3\u00d73", "none", "none", "none", "nor conv 3\u00d73", "skip connect"]


def test_pictures_load_nothing_and_know_the_dark():
    text = draw_cells(NASNET)
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"href|url\(|<script|@import", text)
    assert text == draw_cells(NASNET)


def test_png():
    picture = Image.open(io.BytesIO(png(draw_cells(NASNET)))).convert("L")
    root = ElementTree.fromstring(draw_cells(NASNET))
    assert picture.size == (2 * int(root.get("width")), 2 * int(root.get("height")))
    assert picture.getpixel((picture.width // 2, 4)) == 255, "a ground of its own, the light one"
    dark = sum(picture.histogram()[:64])
    wordless = re.sub(r"<text.*?</text>", "", draw_cells(NASNET))
    assert dark > 5000 > sum(Image.open(io.BytesIO(png(wordless))).convert("L").histogram()[:64]), "the words are there"


def test_draw_is_public():
    assert nao_ray.draw("DARTS_V2", space="darts_cnn").count(">skip connect</text>") == 5
    with pytest.raises(GenotypeError, match="did you mean DARTS_V2"):
        nao_ray.draw("DARTS_V3", space="darts_cnn")


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


def test_kinds_of_operations():
    names = [
        "conv_1x1",
        "nor_conv_3x3",
        "sep_conv_3x3",
        "dil_conv_3x3",
        "max_pool_3x3",
        "none",
        "skip_connect",
        "m:Gate",
        "identity",
        "tanh",
    ]
    kinds = ["conv", "conv", "sep", "dil", "max", "zero", "id", "id", "id", "conv"]
    assert [family(name) for name in names] == kinds


def test_text_of_a_cell():
    space = registry.load("space", "nao_cnn")()
    graph = space.lower(space.parse("NAONet-A"))
    lines = cell_text(graph.cell("normal")).splitlines()
    assert lines[0].split() == ["2", "=", "conv", "3\u00d73", "of", "c_{k-2}"]
    assert lines[-1] == "out = 3, 5, 6"
    assert loose_ends(graph) == {"normal": [3, 5, 6], "reduction": [3, 4, 5, 6]}


def test_the_same_cell_is_laid_out_once():
    """Laying out was four fifths of a picture, and a quarter of a report."""
    cell = Cell(2, ((Edge(0, "conv_1x1"), Edge(1, "identity")),), (2,))
    assert lay_out(cell) is lay_out(Cell(2, ((Edge(0, "conv_1x1"), Edge(1, "identity")),), (2,)))
