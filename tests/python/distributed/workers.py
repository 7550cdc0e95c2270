"""Starts several workers of one training, each in its own process, and waits for their results."""

import socket
import subprocess
import sys

import numpy as np

from processes import environment

#: Whatever hangs, the tests end.
SECONDS = 400


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def run(script, number, folder, *arguments, **settings):
    """Run `python SCRIPT INDEX FOLDER ARGUMENT...` for each worker at once.

    Args:
        script: path of a program that writes an .npz file, FOLDER/INDEX.npz.
        number: int, how many workers.
        folder: path of a folder.
        *arguments: str.
        **settings: str, variables of the environment.

    Returns:
        (list of dicts of arrays, list of what each worker printed)
    """
    logs = [folder / f"{i}.log" for i in range(number)]
    processes = []
    try:
        for i, log in enumerate(logs):
            command = [sys.executable, script, str(i), str(folder), *arguments]
            with log.open("w") as output:
                processes.append(
                    subprocess.Popen(
                        command,
                        env=environment(**settings),
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        for process, log in zip(processes, logs):
            try:
                status = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                status = f"no end in {SECONDS} s"
            assert status == 0, f"{status}: {log.read_text(errors='replace')[-3000:]}"
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = [log.read_text(errors="replace") for log in logs]
    return [dict(np.load(folder / f"{i}.npz")) for i in range(number)], said
