"""A cluster on this machine that grows and shrinks by Ray's own autoscaler, with the provider Ray tests itself with."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import _forks
import psutil
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

_STORE = 80 * 2**20
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"

_EMPTY = [f"{who}_commands" for who in ("initialization", "setup", "head_setup", "worker_setup")]
_EMPTY += [
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
]


class AutoscaledCluster:
    """A head without CPUs, and up to `most` nodes that each hold one worker with a GPU.

    `ray.cluster_utils.AutoscalingCluster` would end every other Ray of this machine, and reads a file that the wheel
    lacks; as an "external" provider its fake nodes need none.
    """

    def __init__(self, most: int, *, v2: bool) -> None:
        self.temp = Path(tempfile.mkdtemp(prefix="nao", dir="/tmp"))  # sockets need short paths
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.address = f"{ray.util.get_node_ip_address()}:{port}"
        provider = {"type": "external", "module": _PROVIDER, "gcs_address": self.address}
        if v2:
            provider |= {"launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID}
        else:
            provider |= {"use_node_id_as_ip": True}  # all nodes have one address
        node = {
            "resources": {"CPU": 1, "GPU": 1, "object_store_memory": _STORE},
            "node_config": {},
            "max_workers": most,
        }
        config = {
            "cluster_name": "fake",
            "max_workers": most,
            "idle_timeout_minutes": 0.05,
            "provider": provider | {"disable_node_updaters": True, "use_internal_ips": True},
            "head_node_type": FAKE_HEAD_NODE_TYPE,
            "auth": {},
            "docker": {},
            "upscaling_speed": 1.0,
            "file_mounts": {},
            "file_mounts_sync_continuously": False,
            **{key: [] for key in _EMPTY},
            "available_node_types": {
                FAKE_HEAD_NODE_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": node | {"min_workers": 0},
            },
        }
        (self.temp / "cluster.json").write_text(json.dumps(config))
        variables = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_TMPDIR": str(self.temp)}
        if v2:
            variables |= {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID}
            variables |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}
        words = ["start", "--head", f"--port={port}", f"--temp-dir={self.temp}", "--num-cpus=0", "--num-gpus=0"]
        words += [f"--autoscaling-config={self.temp}/cluster.json", f"--object-store-memory={_STORE}"]
        words += ["--include-dashboard=false", "--disable-usage-stats"]
        command = [str(_forks.environment_of_stand_ins() / "bin" / "ray"), *words]
        subprocess.run(command, check=True, env=os.environ | variables, stdout=subprocess.DEVNULL, timeout=600)

    @staticmethod
    def nodes() -> int:
        """Nodes that are alive, besides the head."""
        return sum(node["Alive"] for node in ray.nodes()) - 1

    def close(self) -> None:
        """End what was started, and nothing else."""
        for process in psutil.process_iter():
            try:
                mine = any(str(self.temp) in word for word in (*process.cmdline(), *process.environ().values()))
                if mine and process.pid != os.getpid():
                    process.kill()
            except psutil.Error:
                continue
        shutil.rmtree(self.temp, ignore_errors=True)
