"""Processes as /proc shows them."""

import pathlib


def state(pid):
    """R, S, T, ...; "" if there is no such process."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def lives(pid):
    return state(pid) not in ("", "Z", "X")
