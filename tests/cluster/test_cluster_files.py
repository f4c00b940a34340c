"""The files in cluster/: each passes the schema of what reads it, pins what we run on, and opens nothing by itself."""

import json
import platform
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

import nao_ray
from nao_ray.service.jobs.packing import LEASE_WAIT_SECONDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster"
ALL = sorted(path for path in FOLDER.rglob("*") if path.is_file())
FILES = [path for path in ALL if path.parent.name != "grafana"]  # a board starts nothing
SCRIPTS = [path for path in FILES if path.suffix == ".sh"]
CLOUDS = [FOLDER / "aws.yaml", FOLDER / "gcp.yaml"]
KUBERNETES = FOLDER / "kubernetes"
RAY = re.search(r"^ray\[.*\]==([\d.]+)", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)[1]
PYTHON = re.search(r'^python_version = "([\d.]+)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]


def _name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def _documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def _cluster_spec() -> dict:
    return _documents("raycluster.yaml")[0]["spec"]


# -- every file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "Dockerfile"], ids=_name)
def test_each_file_says_first_what_to_change_and_what_is_open(path):
    lines = path.read_text().splitlines()
    start = "\n".join(
        lines[: next(i for i, line in enumerate(lines) if line.startswith(("set -", "cluster_", "apiV")))]
    )
    assert "---- change here" in start
    for word in ("pool", "token", "firewall"):
        assert re.search(rf"\b{word}\b", start, flags=re.IGNORECASE), word


@pytest.mark.parametrize("path", ALL, ids=_name)
def test_no_file_holds_a_secret_or_binds_to_every_address(path):
    text = path.read_text()
    assert re.findall(r"\b[0-9a-f]{32,}\b", text) == []
    assert re.findall(r"(?i)(?:password|secret|token|key)\s*[:=]\s*[\"'][^\"'${]{6,}[\"']", text) == []
    assert "RAY_AUTH_TOKEN=" not in text
    assert "0.0.0.0" not in text
    assert "RAY_AUTH_MODE=disabled" not in text


def test_versions_are_those_of_the_requirements():
    assert re.search(r"^RAY_VERSION=(\S+)", (FOLDER / "machine.sh").read_text(), flags=re.MULTILINE)[1] == RAY
    assert re.search(r"^PYTHON_VERSION=(\S+)", (FOLDER / "machine.sh").read_text(), flags=re.MULTILINE)[1] == PYTHON
    assert re.search(r"^FROM python:([\d.]+)-", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)[1] == PYTHON
    major, minor = PYTHON.split(".")
    for path in CLOUDS:
        (check,) = yaml.safe_load(path.read_text())["setup_commands"]
        assert f'found == ("{RAY}", ({major}, {minor}))' in check
    assert _cluster_spec()["rayVersion"] == RAY
    for path in FILES:
        assert set(re.findall(r"nao-ray:([\d.]+\d)", path.read_text())) <= {nao_ray.__version__}, path


# -- shell --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCRIPTS, ids=_name)
def test_scripts_parse_and_stop_at_the_first_error(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\nset -euo pipefail\n" in path.read_text()


def test_scripts_pass_shellcheck():
    if shutil.which("shellcheck") is None:
        pytest.skip("the package shellcheck is not installed")
    done = subprocess.run(["shellcheck", *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["hosts.sh", "slurm.sh"])
def test_scripts_start_ray_through_machine_sh_in_token_mode(name):
    text = (FOLDER / name).read_text()
    assert "machine.sh" in text
    assert "RAY_AUTH_MODE=token" in text
    assert "ray start" not in text


def test_machine_sh_starts_ray_in_token_mode_with_the_dashboard_on_loopback():
    text = (FOLDER / "machine.sh").read_text()
    assert "export RAY_AUTH_MODE=token" in text
    assert "--dashboard-host=127.0.0.1" in text


@pytest.mark.parametrize("words", [[], ["sideways"], ["up", "nowhere"]])
def test_mistakes_are_one_line_and_exit_code_2(words, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        ["bash", str(FOLDER / "machine.sh"), *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.fullmatch(r"machine\.sh: .*\n", done.stderr)


@pytest.mark.parametrize("found", ["2.9.0 3.11", f"{RAY}0 3.11", f"{RAY} 3.9", f"{RAY} 3.10"])
def test_machine_sh_refuses_another_ray_and_an_older_python(found, tmp_path):
    for name, body in (("ray", "exit 0"), ("python3", f"echo {found}")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", str(FOLDER / "machine.sh"), "up"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"Ray {RAY} on Python {PYTHON} or later is expected here; found: {found}\n" in done.stderr
    assert not (tmp_path / ".ray" / "auth_token").exists()


def _fake_ray(folder: Path, python: str, ray: str) -> dict[str, str]:
    """An environment with a Ray that is a script, and without `ps`."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "chmod", "dirname", "env", "grep", "mkdir", "nohup", "rm", "setsid", "sleep", "sort"):
        (tools / name).symlink_to(shutil.which(name))
    for name in ("tail", "tr", "uname"):
        (tools / name).symlink_to(shutil.which(name))
    for name, body in (("ray", ray), ("python3", f"echo {python}")):
        (tools / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (tools / name).chmod(0o755)
    return {"PATH": str(tools), "HOME": str(folder)}


def _machine(environment: dict[str, str], word: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(FOLDER / "machine.sh"), word], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("python", [f"{RAY} {PYTHON}", f"{RAY} 3.13"])
def test_machine_sh_needs_no_ps_and_keeps_its_state_by_host(python, tmp_path):
    environment = _fake_ray(tmp_path, python, "echo Ray runtime started; while :; do sleep 0.1; done")
    state = tmp_path / ".ray" / f"nao_ray-{platform.node()}"
    try:
        assert _machine(environment, "up").stdout.startswith("Ray is up, process ")
        assert _machine(environment, "up").stdout.startswith("Ray is up already, process ")
        assert _machine(environment, "status").returncode == 0
        assert (state / "pid").is_file()
    finally:
        done = _machine(environment, "down")
    assert (done.stdout, done.stderr) == ("Ray is down\n", "")
    assert _machine(environment, "status").returncode == 1


def test_machine_sh_does_not_take_an_earlier_output_for_its_own(tmp_path):
    environment = _fake_ray(tmp_path, f"{RAY} {PYTHON}", "echo no port is free; exit 1")
    state = tmp_path / ".ray" / f"nao_ray-{platform.node()}"
    state.mkdir(parents=True)
    (state / "output").write_text("Ray runtime started\n")
    done = _machine(environment, "up")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "no port is free"
    assert f"Ray did not start; its output is in {state}/output" in done.stderr
    assert not (state / "pid").exists()


def test_hosts_sh_tells_each_host_its_settings_whatever_it_is_to_do(tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/bash\ncat >/dev/null\necho "$*" >>{tmp_path}/told\n')
    ssh.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "SSH": str(ssh), "HEAD": "h", "WORKERS": "w"}
    environment |= {"HEAD_SETTINGS": "STATE_DIR=/a", "WORKER_SETTINGS": "STATE_DIR=/b"}
    for word in ("status", "down"):
        (tmp_path / "told").unlink(missing_ok=True)
        subprocess.run(["bash", str(FOLDER / "hosts.sh"), word], env=environment, capture_output=True, check=True)
        worker, head = (tmp_path / "told").read_text().splitlines()
        assert (worker[:2], head[:2]) == ("w ", "h ")
        assert "STATE_DIR=/b bash" in worker
        assert "STATE_DIR=/a bash" in head


def test_what_is_restarted_by_itself_waits_for_the_lease_of_the_driver_before():
    (job,) = _documents("rayjob.yaml")
    slurm = (FOLDER / "slurm.sh").read_text()
    for command in (job["spec"]["entrypoint"], re.search(r"nao-ray search (?!CONFIG).*&$", slurm, re.MULTILINE)[0]):
        assert f"--wait {LEASE_WAIT_SECONDS}" in command


def test_machine_sh_leaves_a_process_alone_that_has_the_number_of_its_own(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            (tmp_path / "pid").write_text(f"{other.pid}\n")
            environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "STATE_DIR": str(tmp_path)}
            done = subprocess.run(
                ["bash", str(FOLDER / "machine.sh"), "down"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout) == (0, "Ray is not up\n")
            assert other.poll() is None
        finally:
            other.kill()


# -- ray up -------------------------------------------------------------------------------------------------


def _prepared(config: dict) -> dict:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("path", CLOUDS, ids=_name)
def test_ray_up_takes_the_file(path):
    config = _prepared(yaml.safe_load(path.read_text()))
    kinds = config["available_node_types"]
    head = kinds.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert [kind["resources"]["GPU"] for kind in kinds.values()] == [1, 1]
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in kinds.values())
    assert sum(kind["max_workers"] for kind in kinds.values()) == config["max_workers"]
    spot = [kind["node_config"] for kind in kinds.values() if kind["labels"]["ray.io/market-type"] == "spot"]
    assert len(spot) == 1
    market = spot[0].get("InstanceMarketOptions") or spot[0]["scheduling"]
    assert market in ({"MarketType": "spot"}, market | {"provisioningModel": "SPOT"})


@pytest.mark.parametrize("path", CLOUDS, ids=_name)
def test_ray_up_refuses_a_misspelt_key(path):
    config = yaml.safe_load(path.read_text())
    config["upscaling_sped"] = config.pop("upscaling_speed")
    with pytest.raises(jsonschema.ValidationError, match="upscaling_sped"):
        _prepared(config)


@pytest.mark.parametrize("path", CLOUDS, ids=_name)
def test_nodes_of_a_cloud_start_in_token_mode_and_keep_to_their_network(path):
    config = yaml.safe_load(path.read_text())
    starts = [
        command
        for kind in ("head", "worker")
        for command in config[f"{kind}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["provider"]["use_internal_ips"] is True
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


# -- Kubernetes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("raycluster.yaml", "RayCluster"), ("rayjob.yaml", "RayJob")])
def test_kuberay_takes_the_file(name, kind, data_folder):
    schema = data_folder.parent / "reference" / "kuberay" / f"schema_{kind}.json"
    if not schema.is_file():
        pytest.skip(f"no schema of KubeRay at {schema}")
    (document,) = _documents(name)
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    assert [error.message for error in validator.iter_errors(document)] == []
    spec = document["spec"].get("rayClusterSpec", document["spec"])
    spec["workerGroupSpecs"][0]["minReplica"] = spec["workerGroupSpecs"][0].pop("minReplicas")
    assert any("minReplica" in error.message for error in validator.iter_errors(document))


def test_the_job_brings_the_cluster_of_the_other_file():
    (job,) = _documents("rayjob.yaml")
    assert job["spec"]["rayClusterSpec"] == _cluster_spec()


def test_the_rules_that_kuberay_checks_beyond_its_schema():
    spec = _cluster_spec()
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert all("restartPolicy" not in group["template"]["spec"] for group in groups)
    assert all({"labels", "resources"}.isdisjoint(group["rayStartParams"]) for group in groups)
    assert "redis-password" not in spec["headGroupSpec"]["rayStartParams"]
    assert spec["gcsFaultToleranceOptions"]["redisPassword"].keys() == {"valueFrom"}
    job = _documents("rayjob.yaml")[0]["spec"]
    assert job["backoffLimit"] > 0
    assert "clusterSelector" not in job
    assert job["shutdownAfterJobFinishes"] is True


def test_the_entrypoint_of_the_job_is_a_command_of_ours():
    words = _documents("rayjob.yaml")[0]["spec"]["entrypoint"].split()
    assert words[:2] == ["nao-ray", "search"]
    pool = words[words.index("--pool") + 1]
    heads = _cluster_spec()["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert any(pool.startswith(mount["mountPath"] + "/") for mount in heads)


def test_what_the_cluster_refers_to_is_in_base():
    base = {(document["kind"], document["metadata"]["name"]): document for document in _documents("base.yaml")}
    spec = _cluster_spec()
    host, port = spec["gcsFaultToleranceOptions"]["redisAddress"].split(":")
    assert base["Service", host]["spec"]["ports"] == [{"port": int(port)}]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                claim = base["PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]]
                assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        assert pod["securityContext"]["runAsNonRoot"] is True
    policies = [document for (kind, _), document in base.items() if kind == "NetworkPolicy"]
    covered = [policy["spec"]["podSelector"]["matchLabels"] for policy in policies]
    assert covered == [{"ray.io/is-ray-node": "yes"}, base["Service", host]["spec"]["selector"]]
    assert not {kind for kind, _ in base} & {"Ingress", "Gateway", "HTTPRoute"}
    assert all(
        service["spec"].get("type", "ClusterIP") == "ClusterIP"
        for (kind, _), service in base.items()
        if kind == "Service"
    )
