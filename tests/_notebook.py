"""Notebooks without Jupyter: their code cells are run here, and what they show is written down as Jupyter would.

`python tests/_notebook.py docs/tour.ipynb` runs a notebook in a new folder and writes its outputs anew.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path


def read(path):
    """A notebook, its cells' sources as texts."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def source_of(cell):
    return "".join(cell["source"])


def run(source, names):
    """Outputs of a cell: what it printed, the figures it drew, the value of its last line."""
    from matplotlib import pyplot

    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    value = None if source.rstrip().endswith(";") else value
    outputs = [{"output_type": "stream", "name": "stdout", "text": out.getvalue()}] if out.getvalue() else []
    if value is not None:
        data = {"text/plain": repr(value)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_()
        outputs.append({"output_type": "execute_result", "data": data, "metadata": {}})
    for number in pyplot.get_fignums():
        target = io.BytesIO()
        pyplot.figure(number).savefig(target, format="png", dpi=90, metadata={"Software": None})
        data = {"image/png": base64.b64encode(target.getvalue()).decode(), "text/plain": "<Figure>"}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return outputs


def write(path):
    notebook, names = read(path), {}
    target = Path(path).resolve()
    folder = os.path.realpath(tempfile.mkdtemp())
    os.chdir(folder)
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        outputs = run(source_of(cell), names)
        for output in outputs:
            if output["output_type"] == "execute_result":
                output["execution_count"] = count
        shown = json.loads(json.dumps(outputs).replace(f"{folder}/", ""))  # no page tells where it was made
        cell |= {"outputs": shown, "execution_count": count}
    target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"
    write(sys.argv[1])
