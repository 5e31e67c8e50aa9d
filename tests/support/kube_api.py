"""A real API server of Kubernetes with the controllers of Deployments and autoscalers: pods are made, and none runs."""

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast

import yaml

from relay.store.guard import end_with_parent
from tests.support.ports import free_port

Object = dict[str, Any]

_TOKEN = "kube-test"
_PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}


class Refused(Exception):
    """The API server refused a request; the text is its reason."""


class KubeApi:
    """One API server in a directory, and requests to it as an administrator."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._url = f"https://127.0.0.1:{free_port()}"
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE  # of its own certificate, on this machine
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def kubeconfig(self) -> Path:
        return self._directory / "kubeconfig"

    def start(self) -> None:
        """Start etcd and the API server; `is_ready` tells when they answer."""
        etcd, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._spawn(
            "etcd",
            f"--data-dir={self._directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )
        self._write_credentials()
        key = self._directory / "accounts.key"
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--secure-port={self._url.rpartition(':')[2]}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/108",
            f"--cert-dir={self._directory / 'certificates'}",
            f"--token-auth-file={self._directory / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kube-test",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
        )

    def start_controllers(self) -> None:
        """Start the controllers, once the API server answers."""
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--controllers=deployment-controller,replicaset-controller,horizontal-pod-autoscaler-controller",
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def is_ready(self) -> bool:
        for process in self._processes:
            assert process.poll() is None, f"a program ended: see the logs in {self._directory}"
        try:
            self._request("GET", "/readyz")
        except (OSError, Refused):
            return False
        return True

    def close(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def get(self, kind: str, name: str, namespace: str = "chat", version: str = "apps/v1") -> Object:
        """Raises: Refused."""
        return self._request("GET", self._path(kind, version, namespace, name))

    def pods(self, release: str) -> set[str]:
        """Return the names of a release's nodes that are not being deleted."""
        query = f"?labelSelector=app.kubernetes.io/component=relay,app.kubernetes.io/instance={release}"
        found = self._request("GET", f"/api/v1/namespaces/chat/pods{query}")["items"]
        return {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def apply(self, item: Object, *, dry_run: bool = False) -> Object:
        """Apply one object on the server, which checks every field of it. Raises: Refused."""
        metadata = item["metadata"]
        path = self._path(item["kind"], item["apiVersion"], metadata.get("namespace", "chat"), metadata["name"])
        query = "?fieldManager=kube-test&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self._request("PATCH", path + query, item, "application/apply-patch+yaml")

    def try_pod(self, name: str, spec: Object, namespace: str) -> None:
        """Ask if a pod would be admitted. Raises: Refused."""
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self._request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)

    def scale(self, name: str, replicas: int) -> None:
        """Set the number of a Deployment's pods, as an autoscaler does."""
        path = self._path("Deployment", "apps/v1", "chat", name) + "/scale"
        self._request("PATCH", path, {"spec": {"replicas": replicas}}, "application/merge-patch+json")

    def is_served(self, group: str) -> bool:
        try:
            self._request("GET", f"/apis/{group}")
        except Refused:
            return False
        return True

    def _request(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind, "Accept": "application/json"}
        request = urllib.request.Request(self._url + path, data=data, headers=headers, method=method)  # noqa: S310 - https
        try:
            with urllib.request.urlopen(request, timeout=60, context=self._tls) as response:  # noqa: S310 - as above
                text = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.read().decode()) from None
        return cast("Object", json.loads(text)) if text[:1] == b"{" else {}

    @staticmethod
    def _path(kind: str, version: str, namespace: str, name: str) -> str:
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        place = "" if kind in {"Namespace", "CustomResourceDefinition"} else f"/namespaces/{namespace}"
        return f"{root}{place}/{_PLURALS.get(kind, kind.lower() + 's')}/{name}"

    def _spawn(self, program: str, *words: str) -> None:
        with (self._directory / f"{program}.log").open("wb") as log:
            process = subprocess.Popen(
                [program, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - so that even a killed test run leaves no server behind
            )
        self._processes.append(process)

    def _write_credentials(self) -> None:
        (self._directory / "tokens.csv").write_text(f"{_TOKEN},admin,1,system:masters\n")
        make = ["openssl", "genpkey", "-algorithm", "RSA", "-out", str(self._directory / "accounts.key")]
        subprocess.run(make, check=True, capture_output=True)
        name = {"name": "kube-test"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{**name, "cluster": {"server": self._url, "insecure-skip-tls-verify": True}}],
            "users": [{**name, "user": {"token": _TOKEN}}],
            "contexts": [{**name, "context": {"cluster": "kube-test", "user": "kube-test"}}],
            "current-context": "kube-test",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))
        self.kubeconfig.chmod(0o600)
