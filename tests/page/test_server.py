"""Every path of the page's server over real pools, and who is refused."""

import asyncio
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from aiohttp.test_utils import TestClient, TestServer

from nao_ray.cli.pool import make_space
from nao_ray.page import frames, live, server
from nao_ray.page.guard import CONTENT_POLICY, HEADER, Guard
from nao_ray.page.live import LivePool
from nao_ray.page.static_files import static_files
from nao_ray.pool import PoolReader

WRITES = {HEADER: "1"}
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def pools(searched, made_up):
    return [LivePool(str(searched), make_space), LivePool(str(made_up), make_space)]


def ask(pools, method, path, *, gate=None, **options):
    """One request to a server of its own; what came back, read to its end."""

    async def once():
        test_server = TestServer(server.make_app(pools, gate or Guard(None)))
        async with TestClient(test_server) as client:
            answer = await client.request(method, path, allow_redirects=False, **options)
            return SimpleNamespace(
                status=answer.status, headers=answer.headers, body=await answer.read(), cookies=answer.cookies
            )

    return asyncio.run(once())


def told(pools, path, method="GET", **options):
    """The JSON of an answer that must be a good one."""
    answer = ask(pools, method, path, **options)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def refused(pools, path, method="GET", **options):
    """Status and line of an answer that must be none."""
    answer = ask(pools, method, path, **options)
    assert answer.status >= 400
    assert set(json.loads(answer.body)) == {"error"}
    assert "\n" not in json.loads(answer.body)["error"]
    return answer.status, json.loads(answer.body)["error"]


# -- what is told -------------------------------------------------------------------------------------------


def test_the_pools(pools, searched):
    found = told(pools, "/api/pools")
    assert found["live"] is True
    assert [pool["id"] for pool in found["pools"]] == ["0", "1"]
    first = found["pools"][0]
    assert (first["url"], first["name"], first["space"]) == (str(searched), "tiny", "nao_cnn_small")
    assert (first["strategy"], first["evaluator"], first["budget_trials"]) == ("regularized_evolution", "faulty", 30)
    assert first["metric"] == {"name": "accuracy", "label": "validation accuracy", "unit": "", "more_is_better": True}
    assert ["budget", "30 trials"] in first["facts"]
    assert first["error"] is None


def test_columns_and_map_are_frames(pools):
    header, found = frames.decode(ask(pools, "GET", "/api/pools/0/columns").body)
    assert header["total"] == 30
    assert found["trial_id"].tolist() == list(range(30))
    again, _ = frames.decode(ask(pools, "GET", f"/api/pools/0/columns?since=30&series={header['series']}").body)
    assert (again["since"], again["rows"]) == (30, 0)
    header, found = frames.decode(ask(pools, "GET", "/api/pools/1/map").body)
    rows = pd.read_parquet(pools[1].reader.url + "/trials").set_index("trial_id")
    shown = rows[rows["embedding"].notna() & rows["valid_accuracy"].notna()]
    assert sorted(found["trial_id"]) == sorted(shown.index)
    points = np.stack(shown.loc[found["trial_id"], "embedding"].to_list())
    points -= points.mean(axis=0)
    left, scale, _ = np.linalg.svd(points, full_matrices=False)
    for axis, name in enumerate("xy"):
        expected = left[:, axis] * scale[axis]
        sign = np.sign(expected @ found[name])
        np.testing.assert_allclose(found[name], sign * expected, atol=1e-5)
    np.testing.assert_allclose(header["explained"], scale[:2] ** 2 / (scale**2).sum(), rtol=1e-6)


def test_how_the_search_stands(pools, searched):
    found = told(pools, "/api/pools/0/status")
    counts = PoolReader.open(searched).counts()
    assert (found["completed"], found["failed"]) == (counts.completed, counts.failed)
    assert found["best"] == {"trial_id": counts.best_trial_id, "value": counts.best_score}
    assert found["driver"]["state"] == "none"
    assert sum(found["failures"].values()) == counts.failed > 0
    assert found["running_trials"] == []


def test_the_report_names_the_best_and_what_failed(pools, searched):
    found = told(pools, "/api/pools/0/report")
    best = PoolReader.open(searched).best(20)
    assert [row["trial"] for row in found["best"]] == [str(number) for number in best["trial_id"]]
    assert found["best"][0]["genotype"] == best["genotype"].iloc[0]
    assert {row["kind"] for row in found["failures"]} == {"error", "nan"}
    assert ["config.budget.trials", "30"] in found["manifest"]
    assert found["film"] == "film/0"
    page = ask(pools, "GET", "/film/0")
    assert b"nao_ray film" in page.body
    assert "script-src 'unsafe-inline'" in page.headers["Content-Security-Policy"]  # the page's own is narrower


def test_texts_of_some_trials(pools, searched):
    rows = PoolReader.open(searched).trials().set_index("trial_id")
    failed = int(rows.index[rows["state"] == "FAILED"][0])
    found = told(pools, f"/api/pools/0/texts?ids=1,{failed},999")
    assert set(found) == {"1", str(failed)}
    assert found["1"]["genotype"] == rows["genotype"][1]
    assert found[str(failed)]["message"] == rows["failure_message"][failed]
    assert told(pools, "/api/pools/0/texts") == {}
    many = ",".join(map(str, range(live.TEXTS + 1)))
    assert refused(pools, f"/api/pools/0/texts?ids={many}") == (400, "501 ids: 500 at most")


def test_a_trial_with_its_cells_curve_and_log(pools, searched):
    rows = PoolReader.open(searched).trials().set_index("trial_id")
    child = int(rows.index[rows["source_trial_id"].notna()][0])
    found = told(pools, f"/api/pools/0/trials/{child}")
    assert found["row"]["source_trial_id"] == rows["source_trial_id"][child]
    assert found["row"]["genotype"] == rows["genotype"][child]
    assert found["svg"].startswith("<svg ")
    for edge in found["edges"]:
        assert f'data-edge="{edge}"' in found["svg"]
    assert found["text"].startswith("normal cell\n")
    failed = rows.index[rows["failure_kind"] == "error"]
    logs = told(pools, f"/api/pools/0/trials/{failed[0]}")["logs"]
    assert len(logs) == 1
    assert "Traceback" in logs[0]
    curve = told(pools, "/api/pools/1/trials/7")["curve"]
    assert len(curve) == 8
    status, why = refused(pools, "/api/pools/0/trials/999")
    assert (status, why.endswith("has no finished trial 999")) == (404, True), why


def test_two_architectures_side_by_side(pools, searched):
    rows = PoolReader.open(searched).trials().set_index("trial_id")
    child = int(rows.index[rows["source_trial_id"].notna()][-1])
    parent = int(rows["source_trial_id"][child])
    found = told(pools, f"/api/compare?a=0:{parent}&b=0:{child}")
    assert (found["a"]["trial_id"], found["b"]["trial_id"]) == (parent, child)
    differing = {
        name for name in found["a"]["edges"] | found["b"]["edges"]
        if found["a"]["edges"].get(name) != found["b"]["edges"].get(name)
    }  # fmt: skip
    assert differing
    assert {*found["only_a"], *found["only_b"]} == differing
    assert found["sentence"].startswith(f"{len(differing)} of ")
    same = told(pools, "/api/compare?a=0:1&b=0:1")
    assert (same["only_a"], same["only_b"]) == ([], [])
    assert same["sentence"] == "The two architectures are the same."
    assert refused(pools, "/api/compare?a=0:1&b=1")[0] == 400
    assert refused(pools, "/api/compare?a=0:1&b=0:999")[0] == 404
    assert refused(pools, "/api/compare?a=0:1&b=7:1") == (404, "there is no pool 7; there are 2")


# -- SQL and downloads --------------------------------------------------------------------------------------


def sql(pools, query, pool=1):
    return ask(pools, "POST", f"/api/pools/{pool}/sql", json={"query": query}, headers=WRITES)


def test_a_query_gives_its_first_rows(pools, monkeypatch):
    found = json.loads(sql(pools, "SELECT trial_id, valid_accuracy AS v, asked_at FROM trials ORDER BY trial_id").body)
    assert found["columns"] == ["trial_id", "v", "asked_at"]
    assert (len(found["rows"]), found["truncated"]) == (300, False)
    assert found["rows"][0][2].startswith("2026-01-01T")
    monkeypatch.setattr(live, "SQL", live.Limits(rows=10, seconds=30))
    order = "trial_id % 7 DESC, concat('ü;', 1e6 + trial_id)"
    query = f"WITH t AS (FROM trials) SELECT trial_id FROM t ORDER BY {order}; -- (first;"
    expected = sorted(range(300), key=lambda k: (-(k % 7), k))[:10]
    assert json.loads(sql(pools, query).body)["rows"] == [[k] for k in expected]
    found = json.loads(sql(pools, "SELECT * FROM trials").body)
    assert (len(found["rows"]), found["total"], found["truncated"]) == (10, 10, True)
    assert json.loads(sql(pools, "SELECT 'nan'::DOUBLE, 1/0").body)["rows"] == [[None, None]]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('FILE')",
        "SELECT * FROM read_text('FILE')",
        "SELECT * FROM 'FILE'",
        "SELECT * FROM glob('/*')",
        "COPY trials TO 'FILE.out'",
        "SELECT 1; COPY trials TO 'FILE.out'",
        "ATTACH 'FILE.db'",
        "INSTALL httpfs",
        "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
        "SET enable_external_access = true",
        "SELECT getenv('HOME')",
        "PRAGMA database_list",
        "EXPORT DATABASE 'FILE.out'",
        "DELETE FROM trials",
        "CREATE TABLE x AS SELECT 1",
        "SELECT * FROM pools",
    ],
)
def test_a_query_reaches_nothing_but_the_pool(pools, tmp_path, query):
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nhush,4711\n")
    answer = sql(pools, query.replace("FILE", str(secret)))
    assert answer.status == 400, answer.body
    assert b"hush" not in answer.body
    assert json.loads(answer.body)["error"].startswith("sql: ")
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_a_query_that_takes_too_long_is_stopped(pools, monkeypatch):
    monkeypatch.setattr(live, "SQL", live.Limits(rows=10, seconds=0.2))
    answer = sql(pools, "SELECT count(*) FROM range(10000000000) a, range(1000000000) b WHERE a.range * b.range = 7")
    assert answer.status == 400
    assert json.loads(answer.body) == {"error": "sql: stopped after 0.2 s; ask for less"}


@pytest.mark.parametrize("ids", [None, [3, 5, 29, 12345], []])
def test_downloads_hold_the_selected_trials_whole(pools, searched, ids):
    rows = PoolReader.open(searched).trials(ids=ids).set_index("trial_id")
    wanted = {"headers": WRITES, "json": {"format": "parquet", "ids": ids}}
    answer = ask(pools, "POST", "/api/pools/0/download", **wanted)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="trials.parquet"'
    found = pd.read_parquet(io.BytesIO(answer.body)).set_index("trial_id")
    pd.testing.assert_frame_equal(found.loc[rows.index], rows, check_dtype=False)
    assert len(found) == len(rows)
    wanted["json"]["format"] = "csv"
    text = ask(pools, "POST", "/api/pools/0/download", **wanted)
    assert text.headers["Content-Security-Policy"] == CONTENT_POLICY
    table = pd.read_csv(io.BytesIO(text.body))
    assert table["trial_id"].tolist() == sorted(rows.index)
    assert table.columns.tolist() == ["trial_id", *rows.columns]
    for number, ops in zip(table["trial_id"], table["normal_ops"], strict=True):
        assert json.loads(ops) == list(rows["normal_ops"][number])


@pytest.mark.parametrize(
    "body", [{"format": "xlsx"}, {"format": "csv", "ids": "1"}, {"format": "csv", "ids": [True]}, []]
)
def test_other_downloads_are_refused(pools, body):
    assert refused(pools, "/api/pools/0/download", "POST", headers=WRITES, json=body)[0] == 400


# -- notes --------------------------------------------------------------------------------------------------


def test_notes_are_written_beside_the_pool_alone(searched, tmp_path):
    url = tmp_path / "pool"
    shutil.copytree(searched, url)
    before = {path: path.read_bytes() for path in url.rglob("*") if path.is_file()}
    pools = [LivePool(str(url), make_space)]
    assert told(pools, "/api/pools/0/notes") == {"notes": {}}
    found = told(pools, "/api/pools/0/notes/3", "PUT", headers=WRITES, json={"star": True, "text": "<b>look</b>"})
    assert found["notes"]["3"]["text"] == "<b>look</b>"
    assert told(pools, "/api/pools/0/notes") == found
    after = {path: path.read_bytes() for path in url.rglob("*") if path.is_file()}
    assert {path.name for path in after.keys() - before.keys()} - {".lock"} == {"notes.json"}
    assert {path: after[path] for path in before} == before
    for body in ({"star": 1}, {"text": None}, {"text": "x" * 10_001}):
        assert refused(pools, "/api/pools/0/notes/3", "PUT", headers=WRITES, json=body)[0] == 400
    assert told(pools, "/api/pools/0/notes") == found


def test_a_pool_that_cannot_be_written_says_so(pools, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nao_ray._pool.local.os.replace", full)
    status, line = refused(pools, "/api/pools/0/notes/3", "PUT", headers=WRITES, json={"star": True, "text": ""})
    assert status == 403
    assert "notes.json" in line


# -- who is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8270", "127.0.0.1.evil.example", "10.0.0.7:8270", ""])
def test_a_page_whose_name_leads_here_is_refused(pools, host):
    for path in ("/", "/api/pools", "/static/page.js", "/nothing"):
        assert refused(pools, path, headers={"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8270", "[::1]:8270", "127.8.9.1"])
def test_loopback_has_many_names(pools, host):
    assert told(pools, "/api/pools", headers={"Host": host})["live"]


def test_with_a_token_nothing_is_told_without_it(pools):
    gate = Guard(TOKEN)
    for path in ("/", "/api/pools", "/api/pools/0/columns", "/static/page.js", "/film/0", "/nothing", "/?token=wrong"):
        assert refused(pools, path, gate=gate)[0] == 401
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Cookie": "nao_ray_page=wrong"}):
        assert refused(pools, "/api/pools", gate=gate, headers=headers)[0] == 401
    assert refused(pools, f"/api/pools?token={TOKEN}", gate=gate)[0] == 401  # it is for the first page alone
    assert told(pools, "/api/pools", gate=gate, headers={"Authorization": f"Bearer {TOKEN}"})["live"]
    assert told(pools, "/api/pools", gate=gate, headers={"Host": "cluster:1", "Cookie": f"nao_ray_page={TOKEN}"})[
        "live"
    ]


def test_the_address_with_the_token_becomes_a_cookie(pools):
    answer = ask(pools, "GET", f"/?token={TOKEN}", gate=Guard(TOKEN))
    assert (answer.status, answer.headers["Location"]) == (303, "./")
    cookie = answer.cookies["nao_ray_page"]
    assert (cookie.value, cookie["httponly"], cookie["samesite"]) == (TOKEN, True, "Lax")
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_tokens_are_compared_in_constant_time(monkeypatch):
    seen = []
    monkeypatch.setattr("nao_ray.page.guard.hmac.compare_digest", lambda a, b: seen.append((a, b)) or a == b)
    assert Guard(TOKEN).knows(TOKEN)
    assert not Guard(TOKEN).knows("ä")
    assert seen == [(TOKEN.encode(), TOKEN.encode()), ("ä".encode(), TOKEN.encode())]
    assert not Guard(None).knows("")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({**WRITES, "Origin": "http://evil.example"}, 403),
        ({**WRITES, "Origin": "null"}, 403),
        ({**WRITES, "Content-Type": "text/plain"}, 415),
    ],
)
def test_what_a_form_of_another_page_could_send_is_refused(pools, headers, status):
    body = json.dumps({"query": "SELECT 1", "format": "csv", "star": True})
    requests = (("POST", "/api/pools/0/sql"), ("POST", "/api/pools/0/download"), ("PUT", "/api/pools/0/notes/1"))
    for method, path in requests:
        sent = {"Content-Type": "application/json", **headers}
        assert refused(pools, path, method, data=body, headers=sent)[0] == status
    assert not Path(pools[0].reader.url, "notes.json").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/",
        "/api/pools/0/trials/..%2f..",
        "/api/pools/../../etc/passwd",
        "/api/pools/7/columns",
        "/api/pools/-1/columns",
        "/api/pools/0/columns?since=-1",
        "/api/pools/0/columns?since=1e9",
        "/run.yaml",
        "/api/pools/0/logs/../run.yaml",
    ],
)
def test_there_is_nothing_else_to_be_had(pools, path):
    answer = ask(pools, "GET", path)
    assert answer.status in (400, 404)
    assert set(json.loads(answer.body)) == {"error"}
    assert b"import" not in answer.body


def test_every_answer_forbids_what_the_page_does_not_need(pools):
    for path in ("/", "/api/pools", "/nothing", "/api/pools/0/columns"):
        headers = ask(pools, "GET", path).headers
        assert headers["Content-Security-Policy"] == CONTENT_POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


def test_a_damaged_pool_is_told_and_the_others_are_shown(searched, made_up, tmp_path):
    url = tmp_path / "pool"
    shutil.copytree(searched, url)
    pools = [LivePool(str(url), make_space), LivePool(str(made_up), make_space)]
    for part in (url / "trials").glob("*.parquet"):
        part.write_bytes(part.read_bytes()[:-50])
    status, line = refused(pools, "/api/pools/0/columns")
    assert status == 400
    assert "is damaged" in line
    errors = [pool["error"] for pool in told(pools, "/api/pools")["pools"]]
    assert errors == [line, None]


def test_what_nobody_thought_of_is_no_trace(pools, monkeypatch, caplog):
    monkeypatch.setattr(LivePool, "status", lambda self: 1 / 0)
    assert refused(pools, "/api/pools/0/status") == (500, "the server failed at this; its log says how")
    assert "ZeroDivisionError" in caplog.text


# -- serving ------------------------------------------------------------------------------------------------


def serve_once(gate, host, port=0):
    """The address that is told."""
    addresses = []

    async def some():
        def ready(address):
            addresses.append(address)
            raise asyncio.CancelledError

        await server.serve([], gate, host, port, ready)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(some())
    return addresses[0]


def test_only_a_server_with_a_token_listens_beyond_loopback():
    assert serve_once(Guard(None), "127.0.0.1").startswith("http://127.0.0.1:")
    assert serve_once(Guard(TOKEN), "127.0.0.1").endswith(f"/?token={TOKEN}")
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ValueError, match="a token is needed"):
            asyncio.run(server.serve([], Guard(None), host, 0, print))


def test_the_server_shows_the_files_of_the_page(pools, tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("<p>page")
    (tmp_path / "page.js").write_text("let x;")
    (tmp_path / "notes.py").write_text("import os")
    monkeypatch.setattr(server, "static_files", lambda: static_files(tmp_path))
    assert ask(pools, "GET", "/").body == b"<p>page"
    answer = ask(pools, "GET", "/static/page.js")
    assert (answer.body, answer.headers["Content-Type"]) == (b"let x;", "text/javascript; charset=utf-8")
    assert refused(pools, "/static/notes.py")[0] == 404
