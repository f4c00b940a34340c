"""The page of a pool on object storage: what it shows, what it reads anew, and its notes."""

import asyncio

from _made_up_trials import MANIFEST
from aiohttp.test_utils import TestClient, TestServer

from nao_ray.bench._scale_pool import trial_rows
from nao_ray.cli.pool import make_space
from nao_ray.page import bundle, frames
from nao_ray.page.guard import HEADER, Guard
from nao_ray.page.live import LivePool
from nao_ray.page.server import make_app
from nao_ray.pool import EVENTS, PoolWriter

CONFIG = {"config": MANIFEST["config"] | {"space": "nao_cnn"}}


def test_a_pool_on_object_storage_has_a_page(url, server, monkeypatch):
    monkeypatch.setattr("nao_ray.page.live._LOOK", 0.0)
    pool = PoolWriter.create(url, CONFIG)

    async def look():
        async with TestClient(TestServer(make_app([live], Guard(None)))) as client:
            found = [frames.decode(await (await client.get("/api/pools/0/columns")).read())]
            series = found[0][0]["series"]
            pool.record_tables(trial_rows(40, 5, 100, 0), EVENTS.empty_table())
            server.requests.clear()
            later = await client.get("/api/pools/0/columns", params={"since": 40, "series": series})
            found.append(frames.decode(await later.read()))
            reads = [request for request in server.requests if "trials/" in str(request)]
            body = {"star": True, "text": "far away"}
            noted = await client.put("/api/pools/0/notes/3", json=body, headers={HEADER: "1"})
            return found, reads, await noted.json(), await (await client.get("/api/pools/0/trials/42")).json()

    with pool.acquire():
        pool.record_tables(trial_rows(0, 40, 100, 0), EVENTS.empty_table())
        live = LivePool(url, make_space)
        (first, second), reads, noted, trial = asyncio.run(look())
    assert (first[0]["rows"], second[0]["since"], second[0]["rows"]) == (40, 40, 5)
    assert second[1]["trial_id"].tolist() == [40, 41, 42, 43, 44]
    assert 0 < len(reads) <= 2, "the new part, once"
    assert noted["notes"]["3"]["text"] == "far away"
    assert trial["svg"].startswith("<svg")
    where = bundle.write_report(live.reader, live.space)
    assert where.endswith("/pools/run1/report.html")
    told = bundle.unpacked(live.reader._storage.read("report.html").decode())["responses"]
    assert told["api/pools/0/notes"] == noted
    assert told["api/pools"]["pools"][0]["url"] == url
