"""A real Slurm on this machine: munged, slurmctld and a slurmd for each node, in one folder.

``python tests/engines/slurm_cluster.py COMMAND...`` starts one, runs a command in it (a shell
where none is given) and stops it.
"""

import ctypes
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
#: Seconds until its daemons have to answer, and until its processes have to be gone.
_START, _STOP = 30.0, 10.0
_PR_SET_PDEATHSIG = 1

_CONF = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,default_queue_depth=10000
SlurmdParameters=config_overrides
ReturnToService=2
MaxArraySize={array}
MaxJobCount=50000
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs={cpus} \
RealMemory={memory}
PartitionName=normal Nodes=ALL Default=YES PriorityTier=5 PreemptMode=OFF DefaultTime=60
PartitionName=short Nodes=ALL MaxTime=1 PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def why_none() -> str:
    """Return why no Slurm can be started here, or an empty string."""
    lacking = [name for name in (*DAEMONS, "sbatch", "srun") if _program(name) is None]
    how = "apt-get install slurm-wlm munge"
    return f"{', '.join(lacking)} not installed: {how}" if lacking else ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class SlurmCluster:
    """A Slurm of several nodes on this machine, from entering to leaving the block.

    Its partitions are ``normal``; ``short`` with a limit of a minute; ``low``, whose jobs are sent
    back to the queue by those of ``high``.

    Args:
        folder: Of everything it writes; short, as a socket's path is at most 107 bytes long.
        nodes: How many.
        cpus: Of each node.
        memory: Of each node, in MB.
        array: One more than the largest index of an array job.
        grace: Seconds between the signal to a preempted job and its end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 2,
        cpus: int = 1,
        memory: int = 4000,
        array: int = 10_001,
        grace: int = 30,
    ) -> None:
        self.folder, self.nodes = folder, [f"node{number + 1}" for number in range(nodes)]
        self.conf = folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        self._daemons: list[subprocess.Popen[bytes]] = []
        for name in ("state", *(f"spool/{node}" for node in self.nodes)):
            (folder / name).mkdir(parents=True, exist_ok=True)
        controller, *ports = _free_ports(nodes + 1)
        text = _CONF.format(
            host=socket.gethostname(),
            folder=folder,
            user=getpass.getuser(),
            controller=controller,
            nodes=nodes,
            ports="[" + ",".join(map(str, ports)) + "]",
            cpus=cpus,
            memory=memory,
            array=array,
            grace=grace,
        )
        self.conf.write_text(text)

    def __enter__(self) -> "SlurmCluster":
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        names = ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed")
        places = [f"--{option}={self.folder}/munge.{end}" for option, end in names]
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *places)
        self._wait(lambda: (self.folder / "munge.sock").exists())
        self._daemon("slurmctld", "-D")
        for node in self.nodes:
            self._daemon("slurmd", "-D", "-N", node)
        self._wait(self._all_idle)

    def _daemon(self, name: str, *arguments: str) -> None:
        program = _program(name)
        assert program is not None, why_none()
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons.append(
                subprocess.Popen(
                    [program, *arguments],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=_die_with_parent,
                )
            )

    def _all_idle(self) -> bool:
        shown = self.run("sinfo", "-h", "-N", "-p", "normal", "-o", "%T", check=False)
        return shown.split() == ["idle"] * len(self.nodes)

    def _wait(self, ready) -> None:
        end = time.monotonic() + _START
        while not ready():
            dead = [daemon.args[0] for daemon in self._daemons if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                said = (path.read_text(errors="replace") for path in self.folder.glob("*.out"))
                raise RuntimeError(f"Slurm did not start ({dead or 'time'}): {' '.join(said)}")
            time.sleep(0.05)

    def run(self, *command: str, check: bool = True) -> str:
        """Return what one of Slurm's programs prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def _stop(self) -> None:
        """Kill the daemons, steps and jobs; each may start others until it is gone."""
        end = time.monotonic() + _STOP
        while (left := self.processes()) and time.monotonic() < end:
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            for daemon in self._daemons:
                daemon.poll()
            time.sleep(0.05)
        if left:
            raise RuntimeError(f"processes of Slurm are left: {left}")

    def processes(self) -> list[int]:
        """Return the daemons, steps and jobs that are alive: their environment names its file."""
        mark = f"SLURM_CONF={self.conf}".encode()
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                process = int(environment.parent.name)
                if mark in environment.read_bytes().split(b"\0") and process != os.getpid():
                    found.append(process)
        return found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def main() -> int:
    """Run a command within a Slurm of two nodes, and return its exit code."""
    if why := why_none():
        print(why, file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        SlurmCluster(Path(folder)) as cluster,
    ):
        command = sys.argv[1:] or [os.environ.get("SHELL", "sh")]
        return subprocess.run(command, env=cluster.environment).returncode


if __name__ == "__main__":
    sys.exit(main())
