"""On network drives a journal does without the write-ahead log."""

import os
from collections import namedtuple

import psutil
import pytest

from comfyui_calibri.calibri import journal_file, network_drives
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.network_drives import is_mounted_from_network, is_network_drive

from .exact_run import ExactEvaluator, Interrupted, rows, run, same

Mount = namedtuple("Mount", "mountpoint fstype opts")
ROOT = os.path.abspath(os.sep)
HOME = os.path.join(ROOT, "home")


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("nfs4", True),
        ("cifs", True),
        ("9p", True),
        ("fuse.sshfs", True),
        ("fuse.unheard-of", True),
        ("ext4", False),
        ("fuseblk", False),
        ("fuse.mergerfs", False),
        ("NTFS", False),
        ("apfs", False),
    ],
)
def test_the_kind_of_the_innermost_mount_decides(kind, network):
    other = "ext4" if network else "nfs"
    mounts = [
        Mount(HOME, kind, "rw"),
        Mount(ROOT, other, "rw"),
        Mount(os.path.join(HOME, "inner"), other, "rw"),
    ]
    assert is_mounted_from_network(os.path.join(HOME, "user", "journal.sqlite"), mounts) == network
    assert is_mounted_from_network(os.path.join(HOME, "inner", "x"), mounts) != network
    assert is_mounted_from_network(os.path.join(ROOT, "homes", "x"), mounts) != network


def test_a_mount_over_another_hides_it():
    mounts = [Mount(HOME, "ext4", "rw"), Mount(HOME, "nfs", "rw")]
    assert is_mounted_from_network(os.path.join(HOME, "x"), mounts)


def test_windows_says_remote_in_its_options():
    assert is_mounted_from_network(os.path.join(HOME, "x"), [Mount(ROOT, "NTFS", "rw,remote")])


def test_a_share_by_its_name_is_a_network_drive(monkeypatch):
    monkeypatch.setattr(network_drives.os.path, "realpath", str)
    assert is_network_drive(r"\\server\share\journal.sqlite")


def test_this_machine_is_asked(tmp_path, monkeypatch):
    mounts = [Mount(str(tmp_path.parent), "nfs", "rw")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts if all else [])
    assert is_network_drive(tmp_path / "not" / "there")


def test_a_journal_there_waits_for_the_disk_and_resumes(tmp_path, monkeypatch):
    outcome = run(tmp_path / "whole.sqlite")
    path = tmp_path / "run.sqlite"
    with pytest.raises(Interrupted):
        run(path, ExactEvaluator(stop_at=5))  # with a write-ahead log, then the folder is moved
    monkeypatch.setattr(journal_file, "is_network_drive", lambda path: True)
    with Journal.open(path) as journal:
        database = journal._database
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert database.execute("PRAGMA synchronous").fetchone()[0] == 2
        with Journal.read(path) as reader:
            assert reader.evaluations()
    assert same(run(path), outcome)
    assert rows(path) == rows(tmp_path / "whole.sqlite")
