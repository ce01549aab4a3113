"""Hosts with addresses of their own on a private network, one node each: containers of the real
image where a Docker Engine runs, else network namespaces. Everything is named `rangekv-test-…` or
`rk…`, and removed at the end.

A test sees no difference: it starts, stops, kills, pauses and cuts off hosts, and types
commands on the machine that runs them, which reaches every host.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEPLOY = ROOT / "deploy"

# Where slow.py listens, and which packets are for it; its own are marked.
RELAY = 15001
TO_STORES = ["OUTPUT", "-p", "tcp", "--dport", "50051", "-m", "mark", "!", "--mark", "1"]


class Unavailable(Exception):
    """This machine can't have such hosts; the message says why."""


class Skip(Exception):
    """This row can't be tried here; says why."""


def run(*command, check=True, timeout=60, **more):
    """Runs a program; its output as text."""
    done = subprocess.run(
        [str(word) for word in command], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=timeout, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


class Lab:
    """Hosts on one private network."""

    def __init__(self, binary):
        self.binary = pathlib.Path(binary)
        self.tag = f"rangekv-test-{os.getpid()}"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="rangekv-test-"))
        self.hosts = {}
        self.networks = 0

    def host(self, drill, name, number):
        """A host `name` at the `number`th address of the network; nothing runs on it yet."""
        host = self.Host(self, f"{drill}-{name}", name, f"{self.prefix}.{number}")
        self.hosts[host.label] = host
        return host

    def retire(self, hosts):
        """Ends hosts and forgets them."""
        for host in hosts:
            host.remove()
            self.hosts.pop(host.label, None)

    def close(self):
        self.retire(list(self.hosts.values()))
        shutil.rmtree(self.directory, ignore_errors=True)


class Host:
    """One machine of the network, and the node on it."""

    def __init__(self, lab, label, name, ip):
        self.lab, self.label, self.name, self.ip = lab, label, name, ip
        self.relay = None
        self.disk = lab.directory / label
        self.disk.mkdir()

    def __repr__(self):
        return self.name

    @property
    def grpc(self):
        return f"{self.ip}:50051"

    def wipe(self):
        """Empties the data directory."""
        for entry in self.disk.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def refuse(self, *others, both=True):
        """Drops what comes from `others`, and with `both` what goes to them."""
        for other in others:
            self.in_network("iptables", "-A", "INPUT", "-s", other.ip, "-j", "DROP")
            if both:
                self.in_network("iptables", "-A", "OUTPUT", "-d", other.ip, "-j", "DROP")

    def lose(self, share, *others):
        """Loses a random share, 0 to 1, of the packets that come from `others`."""
        for other in others:
            self.in_network("iptables", "-A", "INPUT", "-s", other.ip, "-m", "statistic",
                            "--mode", "random", "--probability", str(share), "-j", "DROP")

    def slow(self, delay, jitter=0.0, rate=0):
        """Holds back what goes to the stores of other hosts and what comes back, by so many seconds each way."""
        self.relay = subprocess.Popen(
            [*self.network(), sys.executable, "-B", HERE / "slow.py", str(RELAY), str(delay), str(jitter), str(rate)],
            stdout=subprocess.PIPE, text=True)
        assert self.relay.stdout.readline() == "listening\n", f"{self}: no relay"
        self.in_network("iptables", "-t", "nat", "-A", *TO_STORES, "-j", "REDIRECT", "--to-ports", str(RELAY))
        # Connections that are there already are not redirected: they end, and are made anew.
        self.in_network("iptables", "-A", *TO_STORES, "-j", "REJECT", "--reject-with", "tcp-reset")

    def heal(self):
        """Lets everything through again."""
        self.in_network("iptables", "-F")
        if self.relay:
            self.in_network("iptables", "-t", "nat", "-D", *TO_STORES, "-j", "REDIRECT", "--to-ports", str(RELAY))
            self.end_relay()

    def end_relay(self):
        if self.relay:
            self.relay.kill()
            self.relay.wait()
            self.relay.stdout.close()
            self.relay = None

    def in_network(self, *command):
        """Runs a program of this machine in the host's network."""
        return run(*self.network(), *command)


class ContainerHost(Host):
    """A container of the image."""

    @property
    def data(self):
        """The data directory as the node sees it."""
        return f"/var/lib/{self.name}"

    @property
    def container(self):
        return f"{self.lab.tag}-{self.label}"

    def run(self, arguments, environment=(), flags=(), image=None):
        """`docker run` for the first time, as the guides type it."""
        variables = [word for name, value in dict(environment).items() for word in ("-e", f"{name}={value}")]
        run("docker", "run", "-d", "--name", self.container, "--restart", "unless-stopped",
            "--network", self.lab.tag, "--ip", self.ip, "--network-alias", self.name,
            "-v", f"{self.disk}:{self.data}", *variables, *flags, image or self.lab.image, *arguments)

    def try_(self, arguments, environment=(), timeout=20):
        """Runs it to its end: exit status and output."""
        variables = [word for name, value in dict(environment).items() for word in ("-e", f"{name}={value}")]
        done = subprocess.run(
            ["docker", "run", "--rm", "--name", self.container, "--network", self.lab.tag, "--ip", self.ip,
             *variables, self.lab.image, *arguments],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        return done.returncode, done.stdout

    def replace(self, arguments, image=None):
        """A new container on the same data, of another image perhaps."""
        run("docker", "rm", "-f", self.container)
        self.run(arguments, image=image)

    def start(self):
        """Again, with the same arguments."""
        run("docker", "start", self.container)

    def stop(self):
        """SIGTERM; exit status and seconds."""
        began = time.monotonic()
        run("docker", "stop", "--time", "20", self.container)
        return self.state()["ExitCode"], time.monotonic() - began

    def kill(self):
        run("docker", "kill", self.container)

    def pause(self):
        run("docker", "pause", self.container)

    def resume(self):
        run("docker", "unpause", self.container)

    def state(self):
        return json.loads(run("docker", "inspect", "-f", "{{json .State}}", self.container))

    def running(self):
        return self.state()["Running"]

    def logs(self):
        return run("docker", "logs", self.container)

    def exec(self, *arguments):
        """Runs the binary once more beside the node: exit status and output."""
        done = subprocess.run(["docker", "exec", self.container, "/app", *arguments],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        return done.returncode, done.stdout

    def network(self):
        """What runs a program of this machine in the host's network."""
        return ["nsenter", "-t", str(self.state()["Pid"]), "-n"]

    def remove(self):
        self.end_relay()
        run("docker", "rm", "-f", "-v", self.container, check=False)
        if self.disk.is_mount():
            run("umount", "--lazy", self.disk)
        # Its files belong to the image's user.
        shutil.rmtree(self.disk, ignore_errors=True)


class Containers(Lab):
    """Containers on a network of their own."""

    Host = ContainerHost
    kind = "containers"

    def __init__(self, binary):
        if not shutil.which("docker"):
            raise Unavailable("docker is not installed")
        if subprocess.run(["docker", "info"], capture_output=True, timeout=30).returncode != 0:
            raise Unavailable("no Docker Engine answers")
        if not shutil.which("nsenter"):
            raise Unavailable("nsenter is not installed")
        super().__init__(binary)
        self.remove_leftovers()
        self.image = f"{self.tag}:latest"
        try:
            run(DEPLOY / "image.sh", self.binary, self.image, timeout=300)
            for third in range(256):
                self.prefix = f"10.231.{third}"
                made = subprocess.run(
                    ["docker", "network", "create", "--subnet", f"{self.prefix}.0/24", self.tag],
                    capture_output=True, text=True, timeout=60)
                if made.returncode == 0:
                    break
                if "overlap" not in made.stderr.lower():
                    raise Unavailable(f"no network can be made: {made.stderr.strip()}")
        except AssertionError as error:
            self.close()
            raise Unavailable(f"the image can't be built: {error}") from None

    def remove_leftovers(self):
        """What runs that were killed have left behind: their names hold their process ids."""
        for kind, listing in (("container", "{{.Names}}"), ("network", "{{.Name}}")):
            listed = ["docker", kind, "ls", "--filter", "name=rangekv-test-", "--format", listing]
            for name in run(*listed, *(["-a"] if kind == "container" else [])).split():
                pid = name.split("-")[2].split("_")[0]
                if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                    run("docker", kind, "rm", *(["-f", "-v"] if kind == "container" else []), name, check=False)

    def prepare(self, binary, name):
        """An image of another binary."""
        image = f"{self.tag}:{name}"
        run(DEPLOY / "image.sh", binary, image, timeout=300)
        return image

    def close(self):
        super().close()
        run("docker", "network", "rm", self.tag, check=False)
        # By name: another run's image may be the very same one under another name.
        images = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", self.tag, check=False).split()
        if images:
            run("docker", "image", "rm", *images, check=False)


class NamespaceHost(Host):
    """A network namespace, and a process in it."""

    def __init__(self, lab, label, name, ip):
        super().__init__(lab, label, name, ip)
        self.process = None
        lab.attach(self)

    @property
    def data(self):
        return str(self.disk)

    @property
    def namespace(self):
        return f"{self.lab.tag}-{self.label}"

    @property
    def log(self):
        return self.lab.directory / f"{self.label}.log"

    def _command(self, arguments, environment, binary=None):
        arguments = [str(word) for word in arguments]
        assert arguments[0] == "/app", arguments
        self.lab.name_hosts(self)
        command = ["ip", "netns", "exec", self.namespace, str(binary or self.lab.binary), *arguments[1:]]
        return command, {"PATH": os.environ["PATH"], **dict(environment)}

    def run(self, arguments, environment=(), flags=(), image=None):
        self.command = self._command(arguments, environment, image)
        self.start()

    def replace(self, arguments, image=None):
        self.run(arguments, image=image)

    def try_(self, arguments, environment=(), timeout=20):
        command, variables = self._command(arguments, environment)
        done = subprocess.run(command, env=variables, text=True, cwd=self.disk, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout)
        return done.returncode, done.stdout

    def start(self):
        command, variables = self.command
        self.process = subprocess.Popen(command, env=variables, cwd=self.disk, stdout=self.log.open("a"),
                                        stderr=subprocess.STDOUT)

    def _signal(self, number):
        # `ip netns exec` becomes the node's process.
        self.process.send_signal(number)

    def stop(self):
        began = time.monotonic()
        self._signal(signal.SIGTERM)
        return self.process.wait(20), time.monotonic() - began

    def kill(self):
        self._signal(signal.SIGKILL)
        self.process.wait(20)

    def pause(self):
        self._signal(signal.SIGSTOP)

    def resume(self):
        self._signal(signal.SIGCONT)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def logs(self):
        return self.log.read_text() if self.log.exists() else ""

    def exec(self, *arguments):
        return self.try_(["/app", *arguments], timeout=60)

    def network(self):
        return ["ip", "netns", "exec", self.namespace]

    def remove(self):
        self.end_relay()
        if self.running():
            self._signal(signal.SIGCONT)
            self.kill()
        if self.disk.is_mount():
            run("umount", "--lazy", self.disk)
        run("ip", "netns", "del", self.namespace, check=False)
        shutil.rmtree(f"/etc/netns/{self.namespace}", ignore_errors=True)
        shutil.rmtree(self.disk, ignore_errors=True)


class Namespaces(Lab):
    """Network namespaces on a bridge."""

    Host = NamespaceHost
    kind = "namespaces"

    def __init__(self, binary):
        if os.geteuid() != 0:
            raise Unavailable("network namespaces need root")
        for program in ("ip", "iptables"):
            if not shutil.which(program):
                raise Unavailable(f"{program} is not installed")
        super().__init__(binary)
        self.bridge = f"rk{os.getpid() % 10**7}"
        self.attached = 0
        try:
            run("ip", "link", "add", self.bridge, "type", "bridge")
        except AssertionError as error:
            shutil.rmtree(self.directory)
            raise Unavailable(str(error)) from None
        taken = run("ip", "-4", "addr")
        self.prefix = next(f"10.232.{n}" for n in range(256) if f" 10.232.{n}." not in taken)
        run("ip", "addr", "add", f"{self.prefix}.1/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        # Where bridged packets are filtered, too, as beside a Docker Engine.
        run("iptables", "-I", "FORWARD", "-i", self.bridge, "-j", "ACCEPT")

    def attach(self, host):
        self.attached += 1
        outside = f"{self.bridge}-{self.attached}"[:15]
        run("ip", "netns", "add", host.namespace)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        run("ip", "link", "set", outside, "master", self.bridge, "up")
        host.in_network("ip", "addr", "add", f"{host.ip}/24", "dev", "eth0")
        host.in_network("ip", "link", "set", "eth0", "up")
        host.in_network("ip", "link", "set", "lo", "up")

    def prepare(self, binary, name):
        """Another binary, as it is."""
        return binary

    def name_hosts(self, host):
        """Gives it, and those that are there already, the names of all hosts, as a container network does."""
        pathlib.Path("/etc/netns", host.namespace).mkdir(parents=True, exist_ok=True)
        lines = [f"{other.ip} {other.name}" for other in self.hosts.values()]
        for other in self.hosts.values():
            names = pathlib.Path("/etc/netns", other.namespace)
            if names.is_dir():
                (names / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def close(self):
        super().close()
        run("iptables", "-D", "FORWARD", "-i", self.bridge, "-j", "ACCEPT", check=False)
        run("ip", "link", "del", self.bridge, check=False)


def open_lab(binary, kind):
    """The best lab that this machine can have; Unavailable says why there is none."""
    reasons = []
    for lab in (Containers, Namespaces):
        if kind in ("auto", lab.kind):
            try:
                return lab(binary), reasons
            except Unavailable as error:
                reasons.append(f"{lab.kind}: {error}")
    raise Unavailable("; ".join(reasons))
