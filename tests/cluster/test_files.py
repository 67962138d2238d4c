"""The files of cluster/: what can be checked without a cloud."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT

CLUSTER = ROOT / "cluster"


@pytest.mark.parametrize("name", ["aws", "gcp", "local"])
def test_the_autoscaler_accepts_the_cluster_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((CLUSTER / f"{name}.yaml").read_text()))
    validate_config(config)
    broken = config | {"max_workers": "many"}
    with pytest.raises(Exception, match="many"):
        validate_config(broken)
    if name != "local":
        worker = config["available_node_types"]["gpu_worker"]
        assert worker["resources"]["GPU"] >= 1 and 0 <= worker["min_workers"] <= worker["max_workers"]


@pytest.mark.parametrize("name", ["aws", "gcp", "local"])
def test_every_node_installs_the_project_where_the_login_shell_finds_it(name: str) -> None:
    config = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    (remote, local), *_ = config["file_mounts"].items()
    assert local == "." and "**/.venv" in config["rsync_exclude"]
    commands = "\n".join(config["setup_commands"])
    assert f"cd ~/{Path(remote).name} " in commands and "-c constraints.txt" in commands and "[cluster]" in commands
    assert "~/.bashrc" in commands and "~/.profile" in commands
    assert f"ray submit cluster/{name}.yaml run.py train" in (CLUSTER / f"{name}.yaml").read_text()
    for command in config["setup_commands"] + config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_rayjob_has_what_its_definition_requires() -> None:
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = set()
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            images.add(container["image"])
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["limits"] == container["resources"]["requests"]
        assert isinstance(group["rayStartParams"], dict)
    assert len(images) == 1
    for group in spec["workerGroupSpecs"]:
        assert group["groupName"] and group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert spec["rayVersion"] == pinned


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "local.yaml", "rayjob.yaml", "slurm.sh"])
def test_the_command_lines_are_those_of_run(name: str) -> None:
    """Every flag after `run.py train` or `sbatch … train` exists."""
    import run

    text = (CLUSTER / name).read_text().replace("\\\n#", "")
    line = next(part for part in text.splitlines() if re.search(r"(run\.py|slurm\.sh) train ", part))
    words = re.split(r"(?:run\.py|slurm\.sh) ", line)[1].replace('"', "").split()
    parsed = run._parser().parse_args(words)
    assert parsed.dataset == "emoji" and parsed.num_gpus_per_env_runner == 0.5


def test_shell_syntax() -> None:
    for script in CLUSTER.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert script.stat().st_mode & 0o100
