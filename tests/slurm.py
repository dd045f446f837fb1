"""A Slurm of one node that lives in a folder: for tests of what is submitted to it.

``one_node`` starts Debian's ``munged``, ``slurmctld`` and ``slurmd`` (``apt-get install
slurm-wlm munge``) as this user, on free ports, with a key and a socket of their own: it
neither needs nor touches a Slurm that the machine belongs to. The node has more CPUs
than there are, and GPUs that are none, so that the commands of the docs run.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
# Debian has the first three where PATH of a user does not look.
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

CONFIGURATION = """\
ClusterName=one
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
CryptoType=crypto/munge
# A task that is requeued waits until the credential of its first start has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=localhost CPUs={cpus} Gres=gpu:{cpus} State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class UnavailableError(Exception):
    """There is no Slurm on this machine, or it does not start; says which and why."""


@contextlib.contextmanager
def one_node(*, cpus=4, seconds=30.0):
    """Starts a Slurm, and ends it.

    Args:
      cpus: of the node, and its GPUs, whatever the machine has.
      seconds: to wait until the node is idle.

    Yields:
      The environment of its clients, ``SLURM_CONF`` and ``PATH``.

    Raises:
      UnavailableError: a program is missing, or ends, or the node is not idle in time.
    """
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if missing:
        raise UnavailableError(f"{missing[0]} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket is in it
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _write(folder, cpus)
        conf = str(folder / "slurm.conf")
        munge = ("munged", "--foreground", "--force", *_munge_files(folder))
        _start(stack, folder, environment, munge)
        _wait(folder, (folder / "munge.socket").exists, seconds)
        _start(stack, folder, environment, ("slurmctld", "-D", "-f", conf))
        _start(
            stack, folder, environment, ("slurmd", "-D", "-N", "localhost", "-f", conf)
        )
        _wait(folder, lambda: _is_idle(environment), seconds)
        yield environment


def client(environment, *command):
    """What a program of Slurm prints; empty where it fails."""
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    ).stdout


def _write(folder, cpus):
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    text = CONFIGURATION.format(
        user=getpass.getuser(),
        controller=_free_port(),
        node=_free_port(),
        folder=folder,
        cpus=cpus,
    )
    (folder / "slurm.conf").write_text(text)
    for i in range(cpus):  # a GPU is a file to Slurm
        (folder / f"gpu{i}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{cpus - 1}]\n")


def _munge_files(folder):
    names = {"key-file": "key", "socket": "socket", "pid-file": "pid"}
    names |= {"log-file": "log", "seed-file": "seed"}
    return [f"--{option}={folder / 'munge'}.{end}" for option, end in names.items()]


def _free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def _start(stack, folder, environment, command):
    """Starts a daemon, which ends with the stack."""
    with open(folder / f"{command[0]}.out", "wb") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    stack.callback(_end, process)


def _end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_idle(environment):
    return "State=IDLE" in client(environment, "scontrol", "show", "node", "localhost")


def _wait(folder, ready, seconds):
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            said = "; ".join(
                f"{path.name}: {lines[-1]}"
                for path in sorted((*folder.glob("*.out"), *folder.glob("*.log")))
                if (lines := path.read_text(errors="replace").split("\n")[:-1])
            )
            raise UnavailableError(f"no Slurm in {seconds:g} s: {said}")
        time.sleep(0.1)
