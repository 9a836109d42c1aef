"""k8s/: every object fits the schema of its kind with no unknown field, the overlays build, and all pods follow our rules."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"
VERSION = "1.34"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
Object = dict[str, Any]


def read(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="module", params=OVERLAYS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """The objects that kustomize builds from an overlay, with new secrets."""
    program = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    if shutil.which(program[0]) is None:
        pytest.skip("overlays were not built: neither kustomize nor kubectl is installed")
    copy = tmp_path_factory.mktemp("k8s") / "k8s"
    shutil.copytree(K8S, copy)
    overlay = copy / "overlays" / str(request.param)
    secrets = subprocess.run([str(copy / "make-secrets.sh")], capture_output=True, text=True, check=True).stdout
    (overlay / "secrets.env").write_text(secrets)
    done = subprocess.run([*program, str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


@pytest.mark.parametrize("file", sorted((K8S / "base").glob("*.yaml")), ids=lambda path: path.name)
def test_base_objects_fit_their_schema(file: Path) -> None:
    objects = [o for o in read(file.read_text()) if o["kind"] != "Kustomization"]
    for thing in objects:
        kubernetes_validate.validate(thing, VERSION, strict=True)


def test_the_schema_check_is_strict() -> None:
    thing = read((K8S / "base" / "api.yaml").read_text())[2]
    thing["spec"]["template"]["spec"]["containers"][0]["imagePullPolciy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(thing, VERSION, strict=True)


def test_every_file_of_the_base_is_used() -> None:
    listed = yaml.safe_load((K8S / "base" / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(p.name for p in (K8S / "base").glob("*.yaml") if p.name != "kustomization.yaml")


def test_built_objects_fit_their_schema(built: list[Object]) -> None:
    assert {o["kind"] for o in built} >= {"Namespace", "StatefulSet", "Deployment", "Secret", "NetworkPolicy"}
    for thing in built:
        kubernetes_validate.validate(thing, VERSION, strict=True)


def test_pods_are_closed(built: list[Object]) -> None:
    for name, pod in pods(built):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "memory" in container["resources"]["limits"], name
            assert ":" in container["image"], f"{name}: no version"


def test_every_container_is_probed(built: list[Object]) -> None:
    for name, pod in pods(built):
        for container in pod["containers"]:
            assert "livenessProbe" in container, name
            served = container.get("ports")
            assert bool(served) == ("readinessProbe" in container), name
            if container["image"].startswith("nanochat-"):  # a database that is away restarts none of our processes
                assert container["livenessProbe"] != container["readinessProbe"], name
                assert container["readinessProbe"]["httpGet"]["path"] == "/ready", name


def test_names_that_are_referred_to_exist(built: list[Object]) -> None:
    names = {(o["kind"], o["metadata"]["name"]) for o in built}
    for name, pod in pods(built):
        assert ("ServiceAccount", pod["serviceAccountName"]) in names, name
        volumes = {v["name"] for v in pod["volumes"]} | {"data"}  # `data` comes from volumeClaimTemplates
        for volume in pod["volumes"]:
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in names, name
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert {m["name"] for m in container.get("volumeMounts", [])} <= volumes, name
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in names, name
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    assert ("Secret", variable["valueFrom"]["secretKeyRef"]["name"]) in names, name


def test_services_and_budgets_select_pods(built: list[Object]) -> None:
    labels = [o["spec"]["template"]["metadata"]["labels"] for o in built if o["kind"] in {"Deployment", "StatefulSet"}]
    for thing in built:
        if thing["kind"] in {"Service", "PodDisruptionBudget"}:
            wanted = thing["spec"]["selector"]
            wanted = wanted.get("matchLabels", wanted)
            assert any(wanted.items() <= have.items() for have in labels), thing["metadata"]["name"]


def test_no_update_and_no_autoscaler_ends_training(built: list[Object]) -> None:
    train = next(o for o in built if o["kind"] == "StatefulSet" and o["metadata"]["name"] == "worker-train")
    template = train["spec"]["template"]
    assert train["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert template["spec"]["terminationGracePeriodSeconds"] >= 600
    assert template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert any(v.get("emptyDir", {}).get("medium") == "Memory" for v in template["spec"]["volumes"])
    assert not [o for o in built if "Autoscaler" in o["kind"]]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    for thing in objects:
        if thing["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield thing["metadata"]["name"], thing["spec"]["template"]["spec"]
