"""Names stay in their folder, SQL reads the pool alone, and no secret is recorded."""

import json
import shutil
from pathlib import Path

import pytest

from nao_ray import registry
from nao_ray._pool.storage import open_storage
from nao_ray._pool.weights import keep_weights, read_weights
from nao_ray.addresses import has_credentials, masked
from nao_ray.cli.app import main
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, PoolError
from nao_ray.page.bundle import unpacked
from nao_ray.pool import PoolReader, PoolWriter

CONFIG = """
name: tiny
seed: 1
space: nao_cnn_small
task: synthetic
evaluator: {name: closed_form, noise: 0.01}
strategy: random_search
budget: {trials: 3}
"""
IMAGES = CONFIG.replace("task: synthetic", "task: {name: cifar10, path: 'PATH'}")
SECRET = "hush-Hush-4711"
LEAKY = [
    f"s3://KEYID:{SECRET}@bucket/pool",
    f"S3://KEYID:{SECRET}@bucket/pool",
    f"s3://KEYID:{SECRET}/with/slashes@bucket/pool",
    f"s3://bucket/pool?region=eu-central-1&secret_key={SECRET}",
    f"https://{SECRET}@data.example.org/cifar10.parquet",
    f"https://data.example.org/cifar10.parquet?X-Amz-Signature={SECRET}",
    f"abfs://container@account.dfs.core.windows.net/pool?sig={SECRET}",
    f"az://container/pool?account_key={SECRET}",
]
CLEAN = [
    "s3://bucket/pool",
    "s3://bucket/pool?endpoint_override=localhost:9000&region=eu-central-1&scheme=http",
    "gs://anonymous@bucket/pool",
    "abfs://container@account.dfs.core.windows.net/pool",
    "hdfs://namenode:8020/pool@home",
    "pools/a:b@c?token=d",
    "/data/cifar10.parquet",
]


# -- credentials --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", LEAKY)
def test_an_address_with_credentials_is_refused_wherever_it_stands(address, tmp_path):
    assert has_credentials(address)
    assert SECRET not in masked(address)
    with pytest.raises(ConfigError, match=r"task\.path: .* holds credentials") as caught:
        RunConfig.parse(IMAGES.replace("PATH", address))
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match=r"task\.path"):
        RunConfig.parse(IMAGES, (f"task.path={address}",))
    with pytest.raises(PoolError, match="holds credentials") as refused:
        PoolWriter.create(address, {})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("address", CLEAN)
def test_other_addresses_pass(address):
    assert not has_credentials(address)
    assert RunConfig.parse(IMAGES.replace("PATH", address)).task.settings["path"] == address


def test_the_command_line_names_the_address_without_its_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    for words in (
        ["search", "tiny.yaml", "--pool", LEAKY[0], "--in-process"],
        ["pool", LEAKY[0]],
        ["report", LEAKY[3]],
    ):
        with pytest.raises(SystemExit) as left:
            main(words)
        out, err = capsys.readouterr()
        assert left.value.code == 2
        assert "holds credentials" in err
        assert len(err.splitlines()) == 1
        assert SECRET not in out + err


def test_nothing_of_the_environment_is_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "WANDB_API_KEY", "NAO_RAY_ANYTHING"):
        monkeypatch.setenv(name, SECRET)
    Path("tiny.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit) as left:
        main(["search", "tiny.yaml", "--in-process"])
    assert left.value.code == 0
    assert SECRET not in "".join(capsys.readouterr())
    written = [path for path in Path("pools/tiny").rglob("*") if path.is_file()]
    assert {"run.yaml", "report.html"} <= {path.name for path in written}
    assert len([path for path in written if path.suffix == ".parquet"]) > 2
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in json.dumps(unpacked(Path("pools/tiny/report.html").read_text()))


# -- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "..", ".", ".hidden", "/etc/x", "~/x", "", "a\n", "a\0b", "s3://b", "x" * 101]
)
def test_the_name_of_a_run_cannot_leave_the_folder_of_pools(name):
    with pytest.raises(ConfigError, match="name: "):
        RunConfig.parse(CONFIG, (f"name={name!r}",))


@pytest.mark.parametrize(
    "name", ["../../os", "os", "base", "images", "images.parquet", "digits.py", "nao_ray.tasks.digits"]
)
def test_only_a_component_can_be_loaded(name):
    with pytest.raises(ConfigError, match="no task is named"):
        registry.load("task", name)


@pytest.mark.parametrize("version", ["../trials/x", "/etc/x", "..", ".x", "a/b", "", "a\0"])
def test_a_version_of_weights_cannot_leave_the_pool(version, tmp_path):
    from contextlib import nullcontext

    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "run.yaml").touch()
    storage = open_storage(tmp_path / "pool")
    (tmp_path / "x.safetensors").write_bytes(b"other")
    with pytest.raises(PoolError):
        keep_weights(storage, version, b"weights", nullcontext)
    with pytest.raises(PoolError):
        read_weights(storage, version)
    assert sorted(path.name for path in tmp_path.rglob("*.safetensors")) == ["x.safetensors"]


# -- SQL ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A pool, and files beside it that SQL must not reach."""
    folder = tmp_path_factory.mktemp("sql")
    (folder / "tiny.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit):
        main(["search", str(folder / "tiny.yaml"), "--pool", str(folder / "pool"), "--in-process"])
    (folder / "secret.csv").write_text(f"word\n{SECRET}\n")
    (folder / "secret.json").write_text(f'[{{"word": "{SECRET}"}}]')
    shutil.copy(next((folder / "pool" / "trials").glob("*.parquet")), folder / "secret.parquet")
    return folder


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('{0}/secret.csv')",
        "SELECT * FROM '{0}/secret.csv'",
        "SELECT * FROM sniff_csv('{0}/secret.csv')",
        "SELECT * FROM read_json('{0}/secret.json')",
        "SELECT * FROM read_text('{0}/secret.csv')",
        "SELECT * FROM read_blob('{0}/secret.csv')",
        "SELECT * FROM read_parquet('{0}/secret.parquet')",
        "SELECT * FROM read_parquet('{0}/pool/trials/*.parquet')",
        "SELECT * FROM parquet_metadata('{0}/secret.parquet')",
        "SELECT * FROM glob('{0}/*')",
        "SELECT * FROM query('SELECT * FROM read_text(''{0}/secret.csv'')')",
        "WITH x AS (SELECT * FROM read_csv('{0}/secret.csv')) SELECT * FROM x",
        "SELECT (SELECT content FROM read_text('{0}/secret.csv')) FROM trials",
        "COPY trials TO '{0}/out.csv'",
        "COPY (SELECT 1) TO '{0}/out.parquet'",
        "EXPLAIN ANALYZE COPY trials TO '{0}/out.csv'",
        "EXPORT DATABASE '{0}/out'",
        "IMPORT DATABASE '{0}'",
        "ATTACH '{0}/out.db' AS other",
        "INSTALL httpfs",
        "INSTALL '{0}/x.duckdb_extension'",
        "LOAD '{0}/x.duckdb_extension'",
        "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
        "CREATE TEMP TABLE x AS SELECT * FROM trials",
        "INSERT INTO trials SELECT * FROM trials",
        "DELETE FROM trials",
        "UPDATE trials SET state = 'COMPLETED'",
        "PREPARE p AS SELECT * FROM read_text('{0}/secret.csv')",
        "CALL enable_logging()",
        "SET lock_configuration = false",
        "RESET enable_external_access",
        "PRAGMA enable_profiling",
        "SELECT 1; COPY trials TO '{0}/out.csv'",
    ],
)
def test_sql_reads_the_pool_and_nothing_else(finished, query):
    before = sorted(finished.rglob("*"))
    with pytest.raises(PoolError, match=r"^sql: ") as caught:
        PoolReader.open(str(finished / "pool")).sql(query.format(finished))
    assert SECRET not in str(caught.value)
    assert "No such file" not in str(caught.value), "what is there is refused, not missed"
    assert sorted(finished.rglob("*")) == before
