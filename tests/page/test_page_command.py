"""`nao-ray page`: what it listens on, and with which token."""

import socket

import pytest

from nao_ray.cli.app import main
from nao_ray.page import server

TOKEN = "a-token-of-some-length"


@pytest.fixture
def call(monkeypatch, capsys):
    """`call(words)`: exit code, what the server was given, what was said; the server ends as by Ctrl-C."""
    given = {}

    async def serve(pools, gate, host, port, ready):
        given.update(pools=[pool.reader.url for pool in pools], token=gate.token, host=host, port=port)
        ready("http://somewhere/")
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.delenv("NAO_RAY_PAGE_TOKEN", raising=False)

    def run(*words):
        given.clear()
        with pytest.raises(SystemExit) as left:
            main(["page", *map(str, words)])
        return left.value.code, dict(given), capsys.readouterr()

    return run


def test_it_is_loopback_and_without_a_token_unless_told_otherwise(call, searched, made_up):
    code, given, said = call(searched, made_up, searched)
    assert code == 0
    assert given == {"pools": [str(searched), str(made_up)], "token": None, "host": "127.0.0.1", "port": 8270}
    assert said.out == "http://somewhere/\nCtrl-C ends the page\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "cluster-head", "192.0.2.7"])
def test_elsewhere_a_token_is_made_each_time(call, searched, host):
    tokens = {call(searched, "--host", host)[1]["token"] for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_token_of_ones_own(call, searched, host, monkeypatch):
    assert call(searched, "--host", host, "--token", TOKEN)[1]["token"] == TOKEN
    assert len(call(searched, "--host", host, "--token", "new")[1]["token"]) >= 32
    code, given, said = call(searched, "--host", host, "--token", "short")
    assert (code, given) == (2, {})
    assert "16 at least" in said.err
    monkeypatch.setenv("NAO_RAY_PAGE_TOKEN", TOKEN)
    assert call(searched, "--host", host)[1]["token"] == TOKEN


def test_what_cannot_be_shown_is_said_at_once(call, searched, tmp_path):
    code, given, said = call(searched, tmp_path / "none")
    assert (code, given) == (2, {})
    assert "there is no pool at" in said.err


def test_a_port_that_is_taken(searched, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as left:
            main(["page", str(searched), "--port", str(port)])
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1, port {port}" in said
    assert "--port" in said
