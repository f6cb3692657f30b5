"""A package of somebody else's with an optimiser, as an installer leaves it in a folder."""

from pathlib import Path

from hpc_hpo.optimizers.registry import GROUP


def distribution(folder: Path, package: str, code: str, name: str, attribute: str) -> Path:
    """Install `package` 1.2, one module of this code, into a folder that is to be put on the
    path; its `attribute` is the optimiser `name`."""
    about = folder / f"{package}-1.2.dist-info"
    about.mkdir(parents=True)
    (folder / f"{package}.py").write_text(code)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.2\n"
    )
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {package}:{attribute}\n")
    return folder
