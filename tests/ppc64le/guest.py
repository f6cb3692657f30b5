"""A Debian for ppc64le on this machine, whose programs run under qemu's user-mode emulation.

The root is extracted and never installed: no maintainer script runs, which would take ten minutes
under emulation, so what they do that is needed here is done by `_finish`. proot takes the place of
chroot and of the kernel's binfmt_misc; it needs no root.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

#: Debian's packages of the programs.
PROGRAMS = {
    "qemu-ppc64le-static": "qemu-user-static",
    "mmdebstrap": "mmdebstrap",
    "proot": "proot",
    "zstd": "zstd",
    "apt-get": "apt",
}
#: The release whose Python has this one's minor version: Parsl wants both ends to have the same.
SUITES = {(3, 11): "bookworm"}
PACKAGES = [
    "base-files", "coreutils", "dash", "bash", "libc-bin", "python3", "python3-numpy",
    "python3-h5py", "python3-mpi4py", "openmpi-bin", "python3-zmq", "python3-psutil",
    "python3-requests", "python3-setproctitle", "python3-sortedcontainers",
]  # fmt: skip
#: Installed into the root as wheels for any architecture, in this Python's versions.
WHEELS = ["parsl", "typeguard", "typing-extensions", "dill", "filelock", "tblib"]
TRIPLE = "powerpc64le-linux-gnu"
#: The last thing a guest prints: proot's exit status is 0 when its program dies by a signal.
SENTINEL = "the-guest-has-ended:"
_USERS = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/tmp:/bin/bash\n"
_GROUPS = "root:x:0:\nuser:x:1000:\n"


def missing() -> str:
    """What is not here, as a sentence; "" when all is there."""
    absent = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install {' '.join(absent)} arch-test"
    if sys.version_info[:2] not in SUITES:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in SUITES)
        return f"needs Python {wanted}, of which Debian has a build for ppc64le"
    if not mirror():
        return f"needs a mirror of Debian {suite()} among this machine's apt sources"
    return ""


def suite() -> str:
    """Debian's release for this Python."""
    return SUITES[sys.version_info[0], sys.version_info[1]]


def mirror() -> str:
    """The mirror of that release which this machine's own apt uses; "" = none."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(RELEASE) $(CODENAME)",
         "Created-By: Packages"],
        capture_output=True, text=True,
    )  # fmt: skip
    for line in listed.stdout.splitlines():
        words = line.split()
        if words[1:2] == ["main"] and suite() in words[2:]:
            return words[0]
    return ""


class NoMirror(Exception):
    """The root could not be fetched."""


def cached_root(folder: Path, cache: Path) -> Path:
    """Unpack the root into `folder`, or make it and keep it as an archive in `cache`.

    Raises:
        NoMirror: it could not be fetched.
    """
    packages = " ".join([suite(), *PACKAGES, *(f"{name}=={version(name)}" for name in WHEELS)])
    key = hashlib.sha256((packages + Path(__file__).read_text()).encode()).hexdigest()[:16]
    archive = cache / f"ppc64le-{key}.tar.zst"
    root = folder / "root"
    root.mkdir(parents=True)
    if archive.exists():
        subprocess.run(["tar", "-C", root, "--zstd", "-xf", archive], check=True)
        return root
    _fetch(root)
    _finish(root)
    cache.mkdir(parents=True, exist_ok=True)
    half = archive.with_suffix(f".{os.getpid()}.half")
    subprocess.run(["tar", "-C", root, "-I", "zstd -3 -T0", "-cf", half, "."], check=True)
    half.rename(archive)
    return root


def _fetch(root: Path) -> None:
    """Extract Debian's packages and this Python's pure ones into `root`."""
    made = subprocess.run(
        ["mmdebstrap", "--arch=ppc64el", "--variant=extract", f"--include={','.join(PACKAGES)}",
         suite(), str(root), mirror()],
        capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode != 0:
        raise NoMirror(f"mmdebstrap could not make a root for ppc64le:\n{made.stderr[-2000:]}")
    made = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:",
         "--platform=any", "--target", str(root / "opt/site"),
         *(f"{name}=={version(name)}" for name in WHEELS)],
        capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode != 0:
        raise NoMirror(f"pip could not fetch Parsl's wheels:\n{made.stderr[-2000:]}")


def _finish(root: Path) -> None:
    """What the packages' maintainer scripts would have done."""
    libraries = root / "usr/lib" / TRIPLE
    for name in ("blas", "lapack"):
        (libraries / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
    for name in ("mpirun", "mpiexec"):
        (root / "usr/bin" / name).symlink_to(f"{name}.openmpi")
    (root / "etc/passwd").write_text(_USERS)
    (root / "etc/group").write_text(_GROUPS)
    # Under a name that leads to the guest's Python, for scripts that Parsl may start.
    script = root / "opt/site/bin/process_worker_pool.py"
    lines = script.read_text().splitlines(keepends=True)
    script.write_text("".join(["#!/usr/bin/python3\n", *lines[1:]]))
    # Bytecode has no architecture, and compiling under emulation is slow.
    for folder in (root / "usr/lib/python3", *(root / "usr/lib").glob("python3.*"), root / "opt"):
        compileall.compile_dir(
            str(folder), quiet=2, stripdir=str(root), workers=0, maxlevels=20,
        )  # fmt: skip
    run(root, ["/sbin/ldconfig"])


def add_package(root: Path, source: Path) -> None:
    """Install this package as a wheel into the guest, beside Parsl."""
    site = root / "opt/site"
    wheels, copy = root / "wheels", root / "source"
    # A copy, because setuptools leaves its build folder in the source.
    for name in ("hpc_hpo", "site_configs"):
        shutil.copytree(source / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(source / name, copy / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels),
         str(copy)],
        check=True,
    )  # fmt: skip
    (wheel,) = wheels.glob("hpc_hpo-*.whl")
    assert wheel.name.endswith("-none-any.whl"), f"{wheel.name} is for one architecture"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target",
         str(site), str(wheel)],
        check=True,
    )  # fmt: skip
    compileall.compile_dir(str(site / "hpc_hpo"), quiet=2, stripdir=str(root))


def argv(root: Path, command: list[str], bound: list[Path] | None = None) -> list[str]:
    """The command that runs `command` in the guest.

    Args:
        bound: folders of the host that the guest sees at the same place.
    """
    binds = [word for path in bound or [] for word in ("-b", str(path))]
    # A variable of the block's supervisor must come through, so the environment is passed on
    # and only what belongs to the host is replaced.
    return [
        "proot", "-q", "qemu-ppc64le-static", "-r", str(root), "-b", "/proc", "-b", "/dev",
        "-b", "/sys", "-b", "/etc/hosts", "-b", "/etc/resolv.conf", *binds, "-w", "/",
        "/usr/bin/env", "-u", "PYTHONHOME", "-u", "VIRTUAL_ENV", "-u", "LD_LIBRARY_PATH",
        "-u", "SLURM_CONF", "PATH=/opt/site/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "PYTHONPATH=/opt/site", "HOME=/tmp", "TMPDIR=/tmp", "LC_ALL=C.UTF-8", "QEMU_CPU=power9",
        # Two ranks also where there is one core.
        "OMPI_MCA_rmaps_base_oversubscribe=1", "OMPI_ALLOW_RUN_AS_ROOT=1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
        *command,
    ]  # fmt: skip


def run(
    root: Path, command: list[str], bound: list[Path] | None = None, timeout: float = 110
) -> str:
    """Run a command in the guest to its end; what it printed.

    Raises:
        AssertionError: it did not end with status 0.
    """
    watched = ["/bin/bash", "-c", f'"$@"; echo {SENTINEL} $?', "_", *command]
    done = subprocess.run(
        argv(root, watched, bound), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=timeout,
    )  # fmt: skip
    text, _, status = done.stdout.rpartition(SENTINEL)
    assert status.strip() == "0", f"{shlex.join(command)}: {done.stdout[-3000:]}"
    return text


def write_python(root: Path, folder: Path, bound: list[Path]) -> Path:
    """A program that is the guest's Python, called from the host or from within the guest.

    Both sides have it at the same path, so that what the host puts into a job script, and what
    a process of the guest starts from it, is one program.
    """
    program = folder / "ppc64le-python"
    inside = shlex.join(argv(root, ["/usr/bin/python3"], [folder, *bound]))
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$(uname -m)" = ppc64le ]; then exec /usr/bin/python3 "$@"; fi\n'
        f'exec {inside} "$@"\n'
    )
    program.chmod(0o755)
    return program
