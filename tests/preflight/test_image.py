"""OCI layouts, OCI and docker archives, SIF images: the label is a claim."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.preflight import image, scan, squashfs
from tests.preflight.conftest import SUMMIT, Scan, places
from tests.preflight.objects import X86, blob, docker, elf, oci, sif, tar

BAD, GOOD = elf(X86), elf()
GOOD_LAYER, BAD_LAYER = tar({"usr/bin/good": GOOD}), tar({"usr/bin/tool": BAD})


def layout(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("make", [oci, docker])
def test_that_an_image_for_the_site_fits(look: Scan, make, mode: str) -> None:
    assert look(tar(make("ppc64le", [GOOD_LAYER]), mode), "i.tar") == []


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("make", [oci, docker])
def test_that_an_image_whose_label_lies_is_refused_with_the_file_s_name(
    look: Scan, make, mode: str
) -> None:
    found = look(tar(make("ppc64le", [GOOD_LAYER, BAD_LAYER]), mode), "i.tar")
    (place,) = places(found)
    assert place.endswith("!usr/bin/tool") and found[0].found == "x86_64"


@pytest.mark.parametrize("make", [oci, docker])
def test_that_an_image_for_another_architecture_is_refused_by_its_config(look: Scan, make) -> None:
    (row,) = look(tar(make("amd64", [GOOD_LAYER]), "w"), "i.tar")
    assert row.found == "an image for amd64" and "linux/ppc64le" in row.remedy


def test_that_an_oci_layout_is_a_folder_as_well(tmp_path: Path) -> None:
    assert scan([layout(tmp_path / "good", oci("ppc64le", [GOOD_LAYER]))], SUMMIT) == []
    (row,) = scan([layout(tmp_path / "lies", oci("ppc64le", [BAD_LAYER]))], SUMMIT)
    assert row.where.endswith(blob(BAD_LAYER)[0] + "!usr/bin/tool")
    (row,) = scan([layout(tmp_path / "other", oci("amd64", [GOOD_LAYER]))], SUMMIT)
    assert row.found == "an image for amd64"


def test_that_stale_blobs_do_not_count(look: Scan, tmp_path: Path) -> None:
    config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
    stale = {blob(config)[0]: config, blob(BAD_LAYER)[0]: BAD_LAYER}
    files = oci("ppc64le", [GOOD_LAYER], stale=stale)
    assert look(tar(files, "w"), "i.tar") == []
    assert scan([layout(tmp_path / "l", files)], SUMMIT) == []


def many(*platforms: tuple[str, bytes]) -> dict[str, bytes]:
    """An image for several platforms, as one index of manifests."""
    files: dict[str, bytes] = {}
    entries = []
    for name, layer in platforms:
        one = oci(name, [layer], platform=name)
        entries += json.loads(one["index.json"])["manifests"]
        files |= one
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    path, digest = blob(index)
    outer = {"manifests": [{"digest": digest, "mediaType": "application/vnd.oci.image.index.v1"}]}
    return files | {path: index, "index.json": json.dumps(outer).encode()}


def test_that_of_an_image_for_many_platforms_only_the_site_s_counts(look: Scan) -> None:
    assert look(tar(many(("amd64", BAD_LAYER), ("ppc64le", GOOD_LAYER)), "w"), "i.tar") == []
    lies = look(tar(many(("amd64", GOOD_LAYER), ("ppc64le", BAD_LAYER)), "w"), "i.tar")
    assert [p.rpartition("!")[2] for p in places(lies)] == ["usr/bin/tool"]
    (row,) = look(tar(many(("amd64", BAD_LAYER), ("arm64", GOOD_LAYER)), "w"), "i.tar")
    assert row.found == "an image for amd64 and arm64"


@pytest.mark.parametrize(
    "marks",
    [
        {"platform": {"architecture": "unknown", "os": "unknown"}},
        {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
    ],
)
def test_that_attestations_beside_an_image_are_no_images(look: Scan, marks) -> None:
    for claim, found in (("ppc64le", []), ("amd64", ["an image for amd64"])):
        files = oci(claim, [GOOD_LAYER], platform=claim)
        index = json.loads(files["index.json"])
        index["manifests"].append({"digest": "sha256:" + "0" * 64, **marks})
        files["index.json"] = json.dumps(index).encode()
        assert [row.found for row in look(tar(files, "w"), "i.tar")] == found


def test_that_a_config_behind_a_right_platform_is_read_too(look: Scan) -> None:
    (row,) = look(tar(oci("amd64", [GOOD_LAYER], platform="ppc64le"), "w"), "i.tar")
    assert row.found == "an image for amd64" and "blobs/" in row.where


@pytest.mark.parametrize(
    "above",
    [
        {"usr/bin/tool": GOOD},
        {"usr/bin/.wh.tool": b""},
        {"usr/.wh.bin": b""},
        {"usr/bin/.wh..wh..opq": b""},
    ],
)
def test_that_what_an_upper_layer_replaces_or_removes_does_not_count(
    look: Scan, above: Mapping[str, bytes]
) -> None:
    assert look(tar(oci("ppc64le", [BAD_LAYER, tar(above)]), "w"), "i.tar") == []
    under = look(tar(oci("ppc64le", [tar(above), BAD_LAYER]), "w"), "i.tar")
    assert len(places(under)) == 1


def test_that_a_layer_s_own_libc_is_the_one_that_counts(look: Scan) -> None:
    new = elf(glibc=["GLIBC_2.39"])
    assert look(tar(oci("ppc64le", [tar({"usr/bin/x": new})]), "w"), "i.tar") == []
    pages = tar(oci("ppc64le", [tar({"usr/bin/x": elf(align=4096)})]), "w")
    assert [row.kind for row in look(pages, "i.tar")] == ["pages"]


def test_that_a_docker_layer_stored_as_a_link_is_followed(tmp_path: Path, look: Scan) -> None:
    files = docker("ppc64le", [tar({"usr/bin/tool": BAD}, "w")])
    (layer,) = [name for name in files if name.endswith("layer.tar")]
    folder = layout(tmp_path / "d", files)
    other = folder / ("0" * 64) / "layer.tar"
    other.parent.mkdir()
    (folder / layer).rename(other)
    (folder / layer).symlink_to(f"../{'0' * 64}/layer.tar")
    subprocess.run(["tar", "cf", tmp_path / "i.tar", "-C", folder, "."], check=True)
    assert [p.rpartition("!")[2] for p in places(scan([tmp_path / "i.tar"], SUMMIT))] == [
        "usr/bin/tool"
    ]


@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
def test_that_a_missing_blob_is_told(look: Scan, part: str) -> None:
    files = oci("ppc64le", [GOOD_LAYER])
    manifest = json.loads(files["index.json"])["manifests"][0]["digest"]
    path = "blobs/sha256/" + manifest.partition(":")[2]
    inside = json.loads(files[path])
    digests = {"manifest": manifest, "config": inside["config"]["digest"],
               "layer": inside["layers"][0]["digest"]}  # fmt: skip
    del files["blobs/sha256/" + digests[part].partition(":")[2]]
    (row,) = look(tar(files, "w"), "i.tar")
    assert row.kind == "damaged" and "is missing" in row.found


def test_that_a_document_that_is_not_its_digest_s_is_told(look: Scan) -> None:
    files = oci("amd64", [GOOD_LAYER])
    lying = next(n for n, c in files.items() if n.startswith("blobs") and b'"amd64"' in c)
    files[lying] = files[lying].replace(b"amd64", b"ppc64le")
    assert [row.kind for row in look(tar(files, "w"), "i.tar")] == ["damaged"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["manifests", "digest", "config", "layers", "platform", "Config",
                         "Layers", "architecture", "annotations", "mediaType"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(json_values, json_values)
def test_that_documents_of_any_shape_are_findings_and_no_crash(one, other) -> None:
    documents = {
        "index.json": json.dumps(one).encode(),
        "manifest.json": json.dumps(other).encode(),
    }
    names = {*documents, "oci-layout"}
    image.is_image(documents, names)
    image.follow(documents, names, "i", SUMMIT)


@pytest.mark.parametrize(
    ("header", "primary", "parts"),
    [
        ("06", "06", []),
        ("02", "02", ["header", "primary partition"]),
        ("06", "02", ["primary partition"]),
        ("02", "06", ["header"]),
        ("05", "05", ["header", "primary partition"]),
    ],
)
def test_that_a_sif_s_header_and_partition_are_held_against_the_site(
    look: Scan, header: str, primary: str, parts: list[str]
) -> None:
    found = [row for row in look(sif(header, primary), "i.sif") if row.level == "wrong"]
    assert [row.where.partition(" (")[2].rstrip(")") for row in found] == parts


def test_that_a_sif_for_amd64_is_refused_with_its_name(look: Scan) -> None:
    row = look(sif("02", "02"), "torch.sif")[0]
    assert "torch.sif" in row.where
    assert (row.found, row.needed) == ("x86_64", "ppc64le") and "--arch ppc64le" in row.remedy


def test_that_a_sif_without_a_system_is_told(look: Scan) -> None:
    assert "no primary partition" in [row.found for row in look(sif("06", None))]


@pytest.mark.parametrize("cut", [60, 127, 200, 712])
def test_that_a_cut_sif_is_told(look: Scan, cut: int) -> None:
    assert look(sif("06", "06")[:cut])[0].kind == "damaged"


def squashed(folder: Path, files: Mapping[str, bytes]) -> bytes:
    if shutil.which("mksquashfs") is None or shutil.which("unsquashfs") is None:
        if os.environ.get("HPC_HPO_NEEDS_SQUASHFS"):
            pytest.fail("needs mksquashfs: apt-get install squashfs-tools")
        pytest.skip("needs mksquashfs: apt-get install squashfs-tools")
    layout(folder / "root", files)
    made = folder / "made.sqfs"
    subprocess.run(["mksquashfs", folder / "root", made, "-quiet", "-no-progress"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return made.read_bytes()


def test_that_the_files_of_a_sif_are_looked_at_though_its_label_is_right(
    look: Scan, tmp_path: Path
) -> None:
    files = {"usr/bin/good": GOOD, "opt/a b/*[x].so": BAD, "etc/x": b"text" * 30}
    files |= {f"usr/lib/{n}": GOOD for n in range(squashfs.BATCH + 5)}
    content = squashed(tmp_path, files)
    assert places(look(sif("06", "06", content), "lies.sif")) == ["opt/a b/*[x].so"]


def test_that_a_sif_s_damaged_squashfs_is_told(look: Scan, tmp_path: Path) -> None:
    content = squashed(tmp_path, {"usr/bin/good": os.urandom(300_000)})
    rows = look(sif("06", "06", content[:1000]), "cut.sif")
    assert [row.level for row in rows] == ["not checked"] and "unsquashfs" in rows[0].found


def test_that_without_unsquashfs_the_files_count_as_not_checked(
    look: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squashfs, "PROGRAM", "no-such-unsquashfs")
    (row,) = look(sif("06", "06", b"hsqs" * 50), "i.sif")
    assert row.level == "not checked" and "squashfs-tools" in row.remedy
