"""The cluster of docker-compose.cluster.yml, its very files, on this machine and without containers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import requests

from tests.support.certificates import make_certificate
from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.nginx import Nginx
from tests.support.orthanc_client import StatusError, resource
from tests.support.orthanc_server import CONFIGS, OrthancServer, load_configuration
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL, index_plugin, postgresql_is_installed

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]

# Of each line of nginx.
WHO = "log_format who '$uri $status $upstream_addr';"


@dataclass(frozen=True)
class Site:
    """``nodes`` behind ``nginx``, whose log has a line for each request."""

    nodes: list[OrthancServer]
    nginx: Nginx
    port: int

    def served(self, path: str) -> Counter[str]:
        """The nodes that have answered requests of that path, and how many."""
        rows = [line.split() for line in self.nginx.access_log.splitlines()]
        return Counter(row[2].rpartition(":")[2] for row in rows if path in row[0])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        database = stack.enter_context(PostgreSQL())
        nodes = [node(folder, f"orthanc-{number}", database) for number in (1, 2, 3)]
        for one in nodes:
            stack.callback(one.remove)
            one.start()
        text, port = (CONFIGS / "nginx-cluster.conf").read_text(), free_port()
        text = text.replace(
            "listen 8042;", f"listen 127.0.0.1:{port}; access_log {folder}/nginx/access.log who;"
        )
        for one in nodes:
            text = text.replace(f"{one.name}:8042", f"127.0.0.1:{one.http_port}")
        assert "8042" not in text
        nginx = stack.enter_context(Nginx(folder / "nginx", "orthancs", http=WHO + text))
        yield Site(nodes, nginx, port)


def node(folder: Path, name: str, database: PostgreSQL) -> OrthancServer:
    """One of the file's Orthancs, with this machine's ports and folders."""
    configuration = load_configuration(CONFIGS / "orthanc-cluster.json")
    section = configuration["PostgreSQL"]
    with psycopg.connect(database.uri, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'orthanc'").fetchone():
            connection.execute("CREATE ROLE orthanc LOGIN PASSWORD 'orthanc'")
            connection.execute("CREATE DATABASE orthanc OWNER orthanc")
    section.update(Host="127.0.0.1", Port=database.port)
    configuration.update(StorageDirectory=str(folder / "storage"), RemoteAccessAllowed=False)
    ((user, password),) = configuration["RegisteredUsers"].items()
    return OrthancServer(
        name,
        folder / name,
        configuration=configuration,
        plugins=[index_plugin()],
        user=user,
        password=password,
        environment={"NODE": name},
    )


def test_it_is_one_peer_of_which_every_node_takes_part(site: Site, make_server: MakeServer) -> None:
    a = make_server("a", configuration={"Transfers": {"BucketSize": 64}})
    ((user, password),) = site.nodes[0].configuration["RegisteredUsers"].items()
    a.configuration["OrthancPeers"]["Cluster"] = {
        "Url": f"http://127.0.0.1:{site.port}/",
        "Username": user,
        "Password": password,
    }
    a.start()
    studies = {one["ParentStudy"] for one in a.upload_all(ct_study(20, size=256))}
    job = a.wait_for_job(a.send([resource("Study", one) for one in studies], "Cluster")["ID"])
    assert job["State"] == "Success", job
    for one in site.nodes:
        assert one.md5s() == a.md5s()
    assert len(site.served("/transfers/v2/push/")) == 3


def test_each_node_has_its_own_name(site: Site) -> None:
    for one in site.nodes:
        assert f"of the cluster, {one.name}, at http://" in one.log


def test_a_wrong_password_of_the_database_is_one_sentence_in_the_log(make_server: MakeServer) -> None:
    with PostgreSQL("s3cret") as database:
        cluster = {"ConnectionUri": database.uri.replace("s3cret", "guessed")}
        server = make_server("a", configuration={"Transfers": {"Cluster": cluster}}).start()
        (line,) = [one for one in server.log.splitlines() if "password authentication failed" in one]
        assert "the transfers plugin is not loaded" in line
        assert "guessed" not in server.log
        assert "Traceback" not in server.log


def test_a_node_that_does_not_share_its_staging_directory_is_told_so(make_server: MakeServer) -> None:
    with PostgreSQL() as database:
        first, second = (
            make_server(
                name,
                configuration={
                    "Transfers": {"Cluster": {"ConnectionUri": database.uri, "NodeName": name}},
                },
            )
            for name in ("one", "two")
        )
        first.start()
        second.start(timeout=120)  # it waits for a minute
        (line,) = [one for one in second.log.splitlines() if "not loaded" in one]
        staging = second.configuration["StorageDirectory"]
        assert "of node one, which runs, is not in StagingDirectory" in line
        assert staging in line
        assert "set SharedStaging of Cluster to false" in line
        assert first.get("transfers/status?limit=1")["Missing"] == []
        with pytest.raises(StatusError, match="404"):
            second.get("transfers/status")


@pytest.mark.parametrize("verified", [True, False])
def test_nodes_reach_each_other_by_https_with_the_password_of_the_client(
    tmp_path: Path, verified: bool
) -> None:
    certificate = make_certificate(tmp_path)
    known = certificate if verified else make_certificate(tmp_path, "other")
    with ExitStack() as stack:
        database = stack.enter_context(PostgreSQL())
        nodes = [node(tmp_path, f"orthanc-{number}", database) for number in (1, 2)]
        proxies = []
        for one in nodes:
            stack.callback(one.remove)
            # Orthanc 1.10.1 with HTTPS of its own dies with OpenSSL 3.
            tls = stack.enter_context(Nginx(tmp_path / f"tls-{one.name}", one, certificate=certificate))
            proxies.append(tls)
            one.configuration["Transfers"]["Cluster"]["Address"] = tls.url
            one.configuration.update(HttpsCACertificates=str(known), HttpsVerifyPeers=verified)
            one.start()
        owner, asked = nodes
        empty = {"Compression": "none", "Instances": [], "Buckets": []}
        path = owner.post("transfers/push", empty)["Path"].strip("/")
        unknown = requests.post(f"{asked.url}{path}/commit", auth=("demo", "guessed"), timeout=60)
        assert unknown.status_code == 401
        assert asked.post(f"{path}/commit") == {}
        assert f"POST /{path}/commit" in proxies[0].access_log
