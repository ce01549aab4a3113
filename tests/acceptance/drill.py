"""What drills have in common."""

from lab import Skip  # noqa: F401

LOG_LINES_SHOWN = 8


def apart(method):
    """Marks a row on which no later row builds."""
    method.apart = True
    return method


class Drill:
    """One cluster and the rows that are tried on it."""

    def __init__(self, lab, options):
        self.lab, self.options = lab, options
        self.hosts = []
        self.setup()

    @property
    def name(self):
        return type(self).__module__.removeprefix("drill_")

    def setup(self):
        """Before the first row."""

    def host(self, name, number):
        host = self.lab.host(self.name, name, number)
        self.hosts.append(host)
        return host

    def show(self):
        """After a failure: the end of each log."""
        for host in self.hosts:
            try:
                lines = host.logs().splitlines()[-LOG_LINES_SHOWN:]
            except AssertionError as error:
                lines = [str(error)]
            print(f"──── {host}", *lines, sep="\n    ", flush=True)

    def close(self):
        self.lab.retire(self.hosts)
