"""Whether a file is on another machine's disk, where SQLite's write-ahead log does not work.

The log's index is memory that the processes of one machine share (https://sqlite.org/wal.html).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

_NETWORK = {
    *("9p", "acfs", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs"),
    *("gpfs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3"),
    *("smbfs", "sshfs", "webdav"),
    # A virtual machine's folders are its host's.
    *("prl_fs", "vboxsf", "virtiofs", "vmhgfs"),
}
# What is mounted by a program may be anything; these keep to the machine.
_LOCAL_PROGRAMS = {"fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.ntfs-3g"}


class Mount(Protocol):
    """A mounted file system, as psutil names its parts."""

    @property
    def mountpoint(self) -> str: ...
    @property
    def fstype(self) -> str: ...
    @property
    def opts(self) -> str: ...


def is_network_drive(path: Path | str) -> bool:
    """Whether `path`, which need not exist yet, is on a network drive or may be."""
    path = os.path.realpath(path)
    if path.startswith("\\\\") and not path.startswith("\\\\?\\"):  # \\server\share of Windows
        return True
    import psutil  # type: ignore[import-untyped]  # slow, and only needed here

    return is_mounted_from_network(path, psutil.disk_partitions(all=True))


def is_mounted_from_network(path: str, mounts: Iterable[Mount]) -> bool:
    """Whether the innermost of `mounts` that holds the absolute `path` is a network drive."""
    holding = [mount for mount in mounts if _holds(mount.mountpoint, path)]
    if not holding:
        return False
    # Of two at one place the later hides the earlier.
    mount = max(reversed(holding), key=lambda mount: len(mount.mountpoint))
    kind = mount.fstype.lower()
    of_a_program = kind.startswith("fuse.") and kind not in _LOCAL_PROGRAMS
    return kind in _NETWORK or of_a_program or "remote" in mount.opts.split(",")


def _holds(mountpoint: str, path: str) -> bool:
    folder = os.path.normcase(mountpoint)
    folder = folder if folder.endswith(os.sep) else folder + os.sep
    return (os.path.normcase(path) + os.sep).startswith(folder)
