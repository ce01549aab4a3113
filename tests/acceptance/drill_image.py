"""The image by itself, and the pods that deploy/kubernetes/rangekv.yaml describes: rows D."""

import json
import os
import re
import shutil
import subprocess

from drill import Drill as Base
from drill import Skip, apart
from lab import DEPLOY, run
from typed import http, redis, settle, type_, until


class Drill(Base):
    def image_only(self):
        if self.lab.kind != "containers":
            raise Skip("no containers here")

    @apart
    def test_D1_small_labelled_without_a_shell(self):
        self.image_only()
        about = json.loads(run("docker", "image", "inspect", self.lab.image))[0]
        assert about["Size"] < 64 << 20, about["Size"]
        labels = about["Config"]["Labels"]
        assert labels["org.opencontainers.image.title"] == "RangeKV" and labels["org.opencontainers.image.licenses"], labels
        assert about["Config"]["Healthcheck"]["Test"] == ["CMD", "/app", "probe"], about["Config"]["Healthcheck"]
        version = type_("rangekv version").split()[1]
        assert labels["org.opencontainers.image.version"] == version, (labels, version)
        assert type_(f"docker run --rm {self.lab.image} /app version") == f"rangekv {version}"
        shell = type_(f"docker run --rm {self.lab.image} /bin/sh -c true", ok=False)
        assert shell.status != 0, shell

    @apart
    def test_D2_not_root_or_a_message(self):
        self.image_only()
        host = self.host("d2", 240)
        # A volume that the engine has made for root.
        host.run(["/app", "--address", f"{host.ip}:50051", "--data-dir", host.data])
        settle([host], keys=2)
        assert {(host.disk / "LOCK").stat().st_uid, host.disk.stat().st_uid} == {65532}
        status = open(f"/proc/{host.state()['Pid']}/status").read()
        assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", status, re.M), status
        assert re.search(r"^Groups:\s*$", status, re.M), status
        until("healthy", lambda: host.state()["Health"]["Status"] == "healthy")
        status, out = host.exec("probe")
        assert status == 0 and host.grpc in out, out
        self.lab.retire([host])
        self.hosts.remove(host)
        # Another program's directory, one that can't be written, and one of somebody else.
        foreign = self.lab.directory / "foreign"
        foreign.mkdir()
        (foreign / "letters").write_text("dear")
        for flags, words in [(f"-v {foreign}:/data/x", ["letters", "/data/x"]), (f"-v {foreign}:/data/x:ro", ["/data/x"]),
                             (f"--user 12345 -v {foreign}:/data/x", ["uid 12345", "/data/x"])]:
            refused = type_(f"docker run --rm {flags} {self.lab.image} /app start --data-dir /data/x", ok=False)
            assert refused.status != 0 and all(word in refused.err for word in words), refused
        assert foreign.stat().st_uid == 0

    @apart
    def test_D3_the_same_files_again_and_a_list_of_them(self):
        lists = []
        for name in ("one", "two"):
            root = self.lab.directory / name
            run(DEPLOY / "rootfs.sh", self.lab.binary, root)
            lists.append(type_(f"cd {root} && find . -printf '%p %m %T@ ' -exec sh -c 'test ! -f $1 || sha256sum < $1' - {{}} \\; | sort"))
            bill = json.loads((root / "sbom.spdx.json").read_text())
            listed = {file["fileName"]: file["checksums"][0]["checksumValue"] for file in bill["files"]}
            assert listed["./app"] == type_(f"sha256sum < {root}/app").split()[0]
            crates = {package["name"] for package in bill["packages"]}
            assert {"raft", "rocksdb", "tokio"} <= crates, sorted(crates)
            shutil.rmtree(root)
        assert lists[0] == lists[1]

    @apart
    def test_D4_pods_of_the_manifest(self):
        manifest = (DEPLOY / "kubernetes/rangekv.yaml").read_text()
        try:
            import yaml
            kinds = [document["kind"] for document in yaml.safe_load_all(manifest)]
            assert kinds.count("StatefulSet") == 2, kinds
        except ImportError:
            assert manifest.count("kind: StatefulSet") == 2
        sets = re.split(r"^---$", manifest, flags=re.M)
        pods = {}
        for part in sets:
            if "kind: StatefulSet" in part:
                name = re.search(r"^  name: (\S+)", part, re.M)[1]
                replicas = int(re.search(r"^  replicas: (\d+)", part, re.M)[1])
                arguments = re.findall(r"^            - (--\S+)", part, re.M)
                pods.update({f"{name}-{n}": arguments for n in range(replicas)})
        assert sorted(pods) == ["rangekv-0", "rangekv-1", "rangekv-first-0"], pods
        hosts = {pod: self.host(f"{pod}.rangekv", 230 + n) for n, pod in enumerate(pods)}
        for pod, host in hosts.items():
            # The volume belongs to the pod's group, and is mounted where the manifest says.
            os.chown(host.disk, 65532, 65532)
            arguments = [word.replace("$(POD_NAME)", pod).replace("/data/rangekv", f"{host.data}/rangekv") for word in pods[pod]]
            host.run(["/app", "start", *arguments], {"POD_NAME": pod},
                     ["--user", "65532:65532", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/run/rangekv:mode=1777"])
        hosts = list(hosts.values())
        settle(hosts, keys=4)
        until("three voters of each range", lambda: all(
            [replica["role"] for replica in r["replicas"]] == ["voter"] * 3
            for r in http(hosts[0], "/partitions")[1]["partitions"]), 60)
        for host in hosts:
            assert type_(f"curl -fsS http://{host.ip}:8080/ready")
        # The first one is like the others.
        hosts[0].kill()
        until("served without it", lambda: redis(hosts[1], "SET", "k", "8s") == "OK")

    @apart
    def test_D5_a_unit_that_systemd_reads(self):
        unit = DEPLOY / "systemd/rangekv.service"
        variables = dict(line.split("=", 1) for line in (DEPLOY / "systemd/rangekv.env").read_text().splitlines()
                         if line and not line.startswith("#"))
        # The unit's variables and flags make sense to the binary: it gets as far as the address, which is not here.
        data = self.lab.directory / "systemd"
        flags = variables.pop("RANGEKV_FLAGS").split()
        done = subprocess.run(["timeout", "10", self.lab.binary, "start", *flags], text=True, capture_output=True,
                              env={**variables, "DATA_DIR": str(data)})
        assert done.returncode == 1 and "10.0.0.11" in done.stderr, done
        if not shutil.which("systemd-analyze"):
            raise Skip("systemd is not installed; the unit's flags and variables are understood")
        copy = self.lab.directory / "rangekv.service"
        copy.write_text(unit.read_text().replace("/usr/local/bin/rangekv", "/bin/true"))
        out = run("systemd-analyze", "verify", copy, check=False)
        assert "rangekv.service" not in out, out

    @apart
    def test_D6_the_guides_say_the_same_in_both_languages(self):
        def typed(name):
            blocks = re.findall(r"^```\n(.*?)^```", (DEPLOY / name).read_text(), re.M | re.S)
            return [[line.split("  #")[0].rstrip() for line in block.splitlines()] for block in blocks]
        english, japanese = typed("README.md"), typed("README.ja.md")
        assert english == japanese and len(english) >= 6, [pair for pair in zip(english, japanese) if pair[0] != pair[1]]
        lines = [line for block in english for line in block]
        for path in {path for line in lines for path in re.findall(r"\bdeploy/[\w./-]+", line)}:
            assert (DEPLOY.parent / path).exists(), path
        # Every flag is one that the binary has.
        help_ = type_("rangekv start --help; rangekv ctl --help; docker-compose --help; docker build --help", ok=False).out
        known = set(re.findall(r"--[a-zA-Z][\w-]*", help_)) | {"--now", "--replicas"}
        start = " ".join(line for line in lines if "/app --" in line or "raftBoot" in line)
        aliases = {"--redisAddress", "--dynamoAddress", "--raftId", "--raftDataDir", "--raftBootstrapMembers", "--raftBootstrap"}
        assert set(re.findall(r"--[a-zA-Z][\w-]*", start)) <= known | aliases, start
