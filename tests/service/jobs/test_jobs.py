"""Jobs with a stand-in for Ray's client: ids, patience, exit codes, refusals."""

import re
import zipfile
from types import SimpleNamespace

import pytest
import requests
from ray.exceptions import AuthenticationError

from nao_ray.cli import jobs as cli_jobs
from nao_ray.cli.app import main
from nao_ray.errors import ClusterError, RunError
from nao_ray.service.jobs import client as jobs
from nao_ray.service.jobs import server as job_server
from nao_ray.service.jobs.client import Jobs, describe, ending, exit_code

ADDRESS = "http://head:8265"


class Client:
    """A job server: jobs end when their log has been read."""

    def __init__(self, *known, chunks=("one\n", "two\n"), ends=("SUCCEEDED", 0)):
        self.known = {job.submission_id: job for job in known}
        self.chunks, self.ends = chunks, ends
        self.submitted, self.stopped, self.errors = [], [], []

    def _maybe_fail(self):
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error

    def list_jobs(self):
        return list(self.known.values())

    def submit_job(self, **asked):
        self._maybe_fail()
        if asked["submission_id"] in self.known:
            raise RuntimeError(
                "Request failed with status code 500: Traceback\nValueError: x already exists. Use y.\n."
            )
        self.submitted.append(asked)
        self.known[asked["submission_id"]] = job(asked["submission_id"], "RUNNING", metadata=asked["metadata"])

    async def tail_job_logs(self, job_id):
        for chunk in self.chunks:
            yield chunk
            self._maybe_fail()
        self._end(job_id, *self.ends)

    def _end(self, job_id, status, code):
        vars(self.known[job_id]).update(status=status, driver_exit_code=code)

    def get_job_info(self, job_id):
        if job_id not in self.known:
            raise RuntimeError("Request failed with status code 404: Job x does not exist.")
        return self.known[job_id]

    def get_job_logs(self, job_id):
        return "".join(self.chunks)

    def stop_job(self, job_id):
        self.stopped.append(job_id)
        self._end(job_id, "STOPPED", None)


def job(job_id, status, *, code=None, start=1, metadata=None, **more):
    fields = {
        "message": "",
        "end_time": None,
        "entrypoint": "python -m nao_ray",
        "runtime_env": {"working_dir": "gcs://x"},
    }
    metadata = describe(job_id.rpartition("-")[0], "/p", detach=False) if metadata is None else metadata
    given = {"submission_id": job_id, "status": status, "driver_exit_code": code, "start_time": start}
    return SimpleNamespace(**{**fields, **given, "metadata": metadata, **more})


def over(client, **more):
    """Its jobs; time passes only while one waits."""
    now = [0.0]
    return Jobs(client, ADDRESS, sleep=lambda s: now.__setitem__(0, now[0] + s), clock=lambda: now[0], **more)


def _raise(error):
    raise error


# -- handing in ---------------------------------------------------------------------------------------------


def test_a_job_goes_on_under_the_next_number():
    client = Client(job("a-1", "STOPPED"), job("b-1", "RUNNING"))
    assert over(client).submit("a", "python x", "w.zip", describe("a", "/p", detach=True)) == "a-2"
    (asked,) = client.submitted
    assert asked["metadata"].pop("submission")
    assert asked["metadata"] == {"nao_ray": "a", "pool": "/p", "detached": "yes"}
    assert asked["runtime_env"] == {"working_dir": "w.zip", "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}


def test_an_id_that_is_taken_meanwhile_is_left_to_the_other():
    client = Client()
    client.list_jobs = list
    client.known["a-1"] = job("a-1", "RUNNING")
    assert over(client).submit("a", "python x", "w.zip", {}) == "a-2"


@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "listed late"])
def test_a_job_whose_answer_is_lost_is_handed_in_once(is_listed):
    """It was refused, and the same command made a second job, which the pool of the first refused."""
    client = Client()
    take = client.submit_job

    def answer_is_lost(**asked):
        take(**asked)
        raise requests.ConnectionError("reset by peer")

    client.submit_job = answer_is_lost
    if not is_listed:
        client.list_jobs = list
    assert over(client).submit("a", "python x", "w.zip", describe("a", "/p", detach=False)) == "a-1"
    assert len(client.submitted) == 1


def test_where_no_answer_comes_it_is_said_that_the_job_may_be_there():
    client = Client()
    client.errors = [requests.ConnectionError("reset by peer")] * 100
    with pytest.raises(ClusterError, match=r"does not answer .*; nao-ray status a tells whether it took the job"):
        over(client).submit("a", "python x", "w.zip", {})


def test_a_head_whose_agent_is_not_up_yet_is_waited_for_but_not_for_ever():
    not_yet = RuntimeError("Request failed with status code 500: No available agent to submit job, try later..")
    client = Client()
    client.errors = [not_yet] * 5
    assert over(client).submit("a", "python x", "w.zip", {}) == "a-1"
    client.errors = [not_yet] * 1000
    with pytest.raises(ClusterError, match=r"refuses: .*No available agent"):
        over(client).submit("b", "python x", "w.zip", {})
    assert 60 <= 1000 - len(client.errors) <= 65


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AuthenticationError("no"), "asks for a token: set RAY_AUTH_MODE=token"),
        (RuntimeError("Request failed with status code 413: Maximum size."), "refuses: .*413"),
        (requests.ConnectionError("no route"), "does not answer"),
    ],
)
def test_what_a_cluster_says_becomes_one_line(error, told, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    client = Client()
    client.errors = [error] * 100
    with pytest.raises(ClusterError, match=told):
        over(client).submit("a", "python x", "w.zip", {})


def test_a_wrong_token_is_told_by_its_source_not_by_its_value(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter2")
    client = Client()
    client.errors = [AuthenticationError("hunter2 is wrong")]
    with pytest.raises(ClusterError, match="refuses the token of RAY_AUTH_TOKEN") as told:
        over(client).submit("a", "python x", "w.zip", {})
    assert "hunter2" not in str(told.value)


# -- following ----------------------------------------------------------------------------------------------


def test_a_log_is_written_once_although_the_connection_breaks():
    client, said = Client(job("a-1", "RUNNING"), chunks=("one\n", "two\nthr", "ee\n")), []
    client.errors = [None, requests.ConnectionError("gone"), RuntimeError("WebSocket connection closed unexpectedly")]
    assert exit_code(over(client).follow("a-1", said.append)) == 0
    assert "".join(said) == "one\ntwo\nthree\n"


def test_patience_begins_when_the_server_falls_silent_however_long_the_log_was_followed():
    client, now, said = Client(job("a-1", "RUNNING")), [0.0], []
    client.errors = [None, requests.ConnectionError("gone"), requests.ConnectionError("still")]
    jobs = Jobs(client, ADDRESS, sleep=lambda s: None, clock=lambda: now[0])
    assert jobs.follow("a-1", lambda text: (said.append(text), now.__setitem__(0, now[0] + 3600))).status == "SUCCEEDED"
    assert said == ["one\n", "two\n"]


def test_a_server_that_stays_away_ends_the_following_not_the_job():
    client = Client(job("a-1", "RUNNING"))
    client.get_job_info = client.tail_job_logs = lambda _: _raise(requests.ConnectionError("gone"))
    with pytest.raises(RunError, match="the job may go on: nao-ray logs a-1"):
        over(client).follow("a-1", str)


def test_a_new_head_does_not_know_the_job():
    client = Client()
    client._end = lambda *_: None
    with pytest.raises(RunError, match="its head was restarted; the same command goes on"):
        over(client).follow("a-1", str)


@pytest.mark.parametrize(
    ("status", "code", "expected", "told"),
    [
        ("SUCCEEDED", 0, 0, "done"),
        ("FAILED", 1, 1, "exit code 1"),
        ("FAILED", 2, 2, "exit code 2"),
        ("FAILED", 130, 130, "stopped; the same command goes on"),
        ("STOPPED", None, 130, "stopped; the same command goes on"),
        ("FAILED", -9, 1, "killed by signal 9"),
        ("FAILED", 137, 1, "killed by signal 9"),
        ("FAILED", 127, 1, "no program python: give --python"),
        ("FAILED", None, 1, "failed: the reason; the same command goes on"),
    ],
)
def test_exit_codes_pass_through(status, code, expected, told):
    client = Client(job("a-1", "RUNNING", message="Traceback\n  the reason.\n"), ends=(status, code))
    view = over(client).follow("a-1", str)
    assert exit_code(view) == expected
    assert told in ending(view)


# -- looking up and stopping --------------------------------------------------------------------------------


def test_a_job_is_found_by_id_by_name_and_as_the_last_one():
    jobs = over(Client(job("a-2", "RUNNING", start=2), job("a-1", "FAILED"), job("b-1", "RUNNING", start=3)))
    assert [view.job_id for view in jobs.all()] == ["a-1", "a-2", "b-1"]
    assert jobs.find("a").job_id == "a-2"
    assert jobs.find("a-1").job_id == "a-1"
    assert jobs.find(None).job_id == "b-1"
    with pytest.raises(ClusterError, match="has no job c; known: a, b"):
        jobs.find("c")


def test_jobs_of_others_are_not_shown():
    known = over(Client(job("x-1", "RUNNING", metadata={}), job("y-1", "RUNNING"))).all()
    assert [view.job_id for view in known] == ["y-1"]
    driver = job("z-1", "RUNNING")
    driver.submission_id = None
    jobs = over(SimpleNamespace(list_jobs=lambda: [driver]))
    assert jobs.all() == []
    with pytest.raises(ClusterError, match="no job of nao-ray; known: none"):
        jobs.find(None)


def test_a_detached_search_without_its_driver_is_told_from_one_that_is_over():
    client = Client(job("a-1", "FAILED"), job("a-2", "FAILED", start=2), job("b-1", "FAILED", start=3))
    views = over(client, searching=lambda: frozenset({"a"})).all()
    assert [view.status for view in views] == ["FAILED", "DETACHED", "FAILED"]
    assert [view.is_over for view in views] == [True, False, True]


def test_stop_takes_the_only_one_that_runs():
    client = Client(job("a-1", "SUCCEEDED"), job("b-1", "RUNNING"))
    assert over(client).stop(None).status == "STOPPED"
    assert client.stopped == ["b-1"]
    assert over(client).stop("a").status == "SUCCEEDED"
    assert client.stopped == ["b-1"]
    with pytest.raises(ClusterError, match="no job of nao-ray runs"):
        over(client).stop(None)
    with pytest.raises(ClusterError, match="2 jobs run, name the one to stop: a-1, b-1"):
        over(Client(job("a-1", "RUNNING"), job("b-1", "PENDING"))).stop(None)


def _there(client):
    """Names of the detached searches; a job that ends one is over when its log has been read."""
    there, tail = set(), client.tail_job_logs

    async def ended(job_id):
        there.clear()
        async for chunk in tail(job_id):
            yield chunk

    client.tail_job_logs = ended
    return there


def test_stop_ends_a_detached_search_from_within_its_cluster():
    client = Client(job("a-1", "FAILED", entrypoint="/opt/py -m nao_ray search"))
    there = _there(client)
    there.add("a")
    ended_view = over(client, searching=lambda: frozenset(there)).stop("a")
    assert (ended_view.job_id, ended_view.status) == ("a-1", "STOPPED")
    (asked,) = client.submitted
    assert asked["entrypoint"] == "/opt/py -m nao_ray end-detached a"
    assert asked["runtime_env"]["working_dir"] == "gcs://x"
    assert asked["metadata"].keys() == {"submission"}
    assert client.stopped == []


def test_stop_by_the_id_of_an_older_watcher_ends_the_search():
    detached = describe("a", "/p", detach=True)
    client = Client(job("a-1", "RUNNING", metadata=detached), job("a-2", "RUNNING", start=2, metadata=detached))
    there = _there(client)
    there.add("a")
    assert over(client, searching=lambda: frozenset(there)).stop("a-1").status == "STOPPED"
    assert client.stopped == ["a-1"]
    assert [asked["submission_id"] for asked in client.submitted] == ["stop-a-1"]
    assert not there


def test_stop_ends_a_search_that_its_driver_starts_meanwhile():
    client = Client(job("a-1", "RUNNING", metadata=describe("a", "/p", detach=True)))
    there, stop_job = _there(client), client.stop_job
    client.stop_job = lambda job_id: (there.add("a"), stop_job(job_id))
    assert over(client, searching=lambda: frozenset(there)).stop(None).status == "STOPPED"
    assert client.submitted[0]["entrypoint"].endswith("end-detached a")
    assert not there


def test_stop_of_a_job_that_only_shares_its_name_leaves_the_search():
    client = Client(job("a-1", "RUNNING"), job("a-2", "RUNNING", start=2, metadata=describe("a", "/p", detach=True)))
    assert over(client, searching=lambda: frozenset({"a"})).stop("a-1").status == "STOPPED"
    assert client.submitted == []


def test_a_search_that_cannot_be_ended_is_said():
    client = Client(job("a-1", "FAILED"), chunks=("no room\n",), ends=("FAILED", 1))
    with pytest.raises(RunError, match="cannot end the detached search a: no room"):
        over(client, searching=lambda: frozenset({"a"})).stop("a")


# -- the server's address -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("127.0.0.1:8265", "http://127.0.0.1:8265"),
        ("https://head/ray/", "https://head/ray"),
        ("http://head:1", "http://head:1"),
    ],
)
def test_an_address_may_lack_its_scheme(given, found):
    assert job_server._http(given) == found


def test_an_address_of_something_else_is_refused():
    with pytest.raises(ClusterError, match=r"ray://head:10001 is no address of a job server: give .* http://HOST:8265"):
        job_server.connect("ray://head:10001")


def test_the_given_address_counts_not_rays_variables(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:1")
    with pytest.raises(ClusterError, match=r"no Ray job server at http://127\.0\.0\.1:9: start a cluster"):
        job_server.connect("127.0.0.1:9")
    assert job_server.os.environ["RAY_ADDRESS"] == "http://elsewhere:1"


# -- the commands -------------------------------------------------------------------------------------------


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """`call(client, "submit", ...)` -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(client, *words):
        monkeypatch.setattr(jobs, "connect", lambda address: over(client))
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=left.value.code, out=out, err=err)

    return run


@pytest.mark.usefixtures("fresh_modules")
def test_submit_carries_the_modules_that_the_config_names(call, tmp_path):
    (tmp_path / "numpy.py").touch()
    (tmp_path / "mine.py").write_text(
        "from nao_ray.strategies.random_search import RandomSearch as R\nclass Own(R): pass"
    )
    config = "{name: own, space: nao_cnn_small, evaluator: closed_form, strategy: mine:Own, budget: {trials: 1}}"
    (tmp_path / "own.yaml").write_text(config)
    carried = []

    class Server(Client):
        def submit_job(self, **asked):
            with zipfile.ZipFile(asked["runtime_env"]["working_dir"]) as archive:
                carried.extend(archive.namelist())
            super().submit_job(**asked)

    done = call(Server(), "submit", "own.yaml", "--installed")
    assert done.code == 0
    assert "carries own.yaml and mine, " in done.out
    assert carried == ["own.yaml", "mine.py"]


def test_submit_says_what_it_does_and_leaves_with_the_exit_code(call, tmp_path):
    client = Client(ends=("FAILED", 2))
    done = call(client, "submit", "smoke", "--set", "budget.trials=2")
    (asked,) = client.submitted
    assert asked["submission_id"].startswith("smoke-")
    assert f"--pool {tmp_path}/pools/smoke --wait 60 --set budget.trials=2" in asked["entrypoint"]
    lines = done.out.splitlines()
    assert lines[0] == f"job     {asked['submission_id']} at {ADDRESS}"
    assert lines[1] == f"pool    {tmp_path}/pools/smoke"
    assert lines[2].startswith("carries nao_ray ")
    assert lines[2].endswith(" kB")
    assert lines[3:] == ["one", "two"]
    assert done.err == f"nao-ray: {asked['submission_id']}: ended with exit code 2\n"
    assert done.code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["submit", "nonsense"], "presets: .*digits"),
        (["submit", "smoke", "--set", "budget.trails=3"], "unknown key budget.trails"),
        (["submit", "smoke", "--pool", "s3://KEY:SECRET@bucket/x"], "holds credentials"),
        (["submit"], "CONFIG"),
        (["search", "smoke", "--detach"], "--detach needs a cluster that stays"),
        (["search", "smoke", "--detach", "--in-process"], "choose one of --detach and --in-process"),
    ],
)
def test_mistakes_never_reach_the_cluster(call, words, told):
    client = Client()
    done = call(client, *words)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert re.search(told, done.err), done.err
    assert client.submitted == []


def test_an_interrupted_follower_says_how_to_go_on(call, monkeypatch):
    client = Client()
    client.errors = [None, KeyboardInterrupt()]
    done = call(client, "submit", "smoke")
    (asked,) = client.submitted
    where = f"{asked['submission_id']} --address {ADDRESS}"
    assert done.code == 130
    assert f"the job goes on; nao-ray logs {where} -f follows it, nao-ray stop {where} ends it" in done.err
    assert client.stopped == []


def test_status_logs_and_stop(call):
    client = Client(job("a-1", "FAILED", code=1), job("a-2", "RUNNING", start=1_700_000_000_000))
    shown = call(client, "status").out.splitlines()
    assert shown[0].split() == [
        "job",
        "status",
        "exit_code",
        "detached",
        "started_at",
        "ended_at",
        "trials",
        "epochs",
        "best",
        "left",
        "pool",
    ]
    assert [line.split()[:2] for line in shown[2:]] == [["a-1", "FAILED"], ["a-2", "RUNNING"]]
    assert '"job": "a-2", "status": "RUNNING", "exit_code": null' in call(client, "status", "a", "--json").out
    assert call(client, "logs").out == "one\ntwo\n"
    assert call(client, "stop").out == "a-2: stopped; the same command goes on\n"
    assert call(client, "logs", "b").code == 2
    assert call(Client(), "status").out == f"no jobs of nao-ray at {ADDRESS}\n"
    assert cli_jobs.INTERRUPTED == 130
