"""The showers of the job fastcalogan: their physics, their files, and how they are compared."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.scripts import JOBS, scripts

MODULES = ("voxels", "showers", "chi2", "make_data")
BINNING = JOBS / "fastcalogan" / "binning.xml"
SLICE = (0, 5)


@pytest.fixture(scope="module")
def job() -> Iterator[dict[str, ModuleType]]:
    with scripts("fastcalogan", MODULES) as modules:
        yield modules


def generate(job, pid, momentum, events, eta=SLICE, seed=1):
    """Energies in MeV (events, voxels), and the binning."""
    binning = job["voxels"].load_binning(BINNING, pid, eta)
    rng = np.random.default_rng(seed)
    return job["showers"].generate(binning, eta, momentum, events, rng)[:, 2:], binning


def mean_depth(job, pid, momentum, events=4000, eta=SLICE):
    """Mean depth of the energy in radiation lengths, from the layers' middles."""
    energies, binning = generate(job, pid, momentum, events, eta)
    borders, layers = job["showers"].DEPTH_X0, job["showers"].LAYERS
    depth = total = 0.0
    for layer, columns in zip(binning.layers, binning.columns(), strict=True):
        number = layers.index(layer.id)
        seen = energies[:, columns].sum()
        depth += seen * (borders[number] + borders[number + 1]) / 2
        total += seen
    return depth / total


# Physics


def test_that_lead_and_argon_mix_to_what_the_papers_formulas_give(job) -> None:
    medium = job["showers"].CALORIMETER
    # Worked out by hand from hep-ex/0001020, section 3.1, and the PDG's constants.
    lead, argon = 0.153 * 11.35, 0.42 * 1.396
    share = lead / (lead + argon)
    x0 = 1 / (share / 6.37 + (1 - share) / 19.55)
    assert medium.x0 == pytest.approx(x0)
    assert medium.z == pytest.approx(82 * share + 18 * (1 - share))
    assert medium.critical == pytest.approx(
        x0 * (share * 7.43 / 6.37 + (1 - share) * 32.84 / 19.55)
    )
    # ATLAS's accordion: 47 cm are more than 22 radiation lengths.
    assert 1.7 < medium.x0 / medium.density < 2.2
    assert 30 < medium.moliere < 50


def test_that_a_showers_maximum_goes_deeper_by_one_radiation_length_for_each_e_fold(job) -> None:
    showers, rng = job["showers"], np.random.default_rng(5)
    for gev in (4.0, 32.0, 256.0):
        maxima = showers.draw_profiles(np.full(20_000, gev), rng).maximum
        ln_y = math.log(gev * 1e3 / showers.CALORIMETER.critical)
        spread = 1 / (-1.4 + 1.26 * ln_y)
        error = spread / math.sqrt(len(maxima))
        assert np.log(maxima).mean() == pytest.approx(math.log(ln_y - 0.812), abs=5 * error)
        assert np.log(maxima).std() == pytest.approx(spread, rel=0.03)


def test_that_maximum_and_shape_are_correlated_as_published(job) -> None:
    showers = job["showers"]
    profile = showers.draw_profiles(np.full(20_000, 50.0), np.random.default_rng(2))
    found = np.corrcoef(np.log(profile.maximum), np.log(profile.alpha))[0, 1]
    ln_y = math.log(50e3 / showers.CALORIMETER.critical)
    assert found == pytest.approx(0.705 - 0.023 * ln_y, abs=0.02)


@pytest.mark.parametrize("pid", [11, 22])
def test_that_showers_in_the_layers_grow_deeper_with_ln_e(job, pid) -> None:
    depths = [mean_depth(job, pid, momentum) for momentum in (4096, 32768, 262144)]
    steps = np.diff(depths)
    assert (steps > 0).all()
    # Three doublings are ln 8 = 2.1 radiation lengths; the layers are coarse.
    assert steps.mean() == pytest.approx(math.log(8), rel=0.5)


def test_that_photons_shower_deeper_than_electrons(job) -> None:
    # PDG: the maximum lies one radiation length deeper. The two halves of the pair, each of less
    # energy, take back a part of the 9/7 that the photon travels: about a half.
    difference = mean_depth(job, 22, 32768) - mean_depth(job, 11, 32768)
    assert 0.4 < difference < 1.3


def test_that_pairs_share_a_photons_energy_by_the_spectrum_of_pair_production(job) -> None:
    shares = job["showers"].draw_pair_shares(50_000, np.random.default_rng(3))
    # The second moment of 1 - 4/3 x (1 - x), whose integral is 7/9.
    second = (1 / 3 - 4 / 3 * (1 / 4 - 1 / 5)) / (7 / 9)
    assert shares.mean() == pytest.approx(0.5, abs=0.005)
    assert (shares**2).mean() == pytest.approx(second, abs=0.005)


@pytest.mark.parametrize("pid", [11, 22])
def test_that_energies_sum_to_that_of_the_particle_with_the_sampling_resolution(job, pid) -> None:
    for momentum in (16384, 131072):
        energies, _ = generate(job, pid, momentum, 2000)
        total = energies.sum(axis=1) / momentum
        assert total.mean() == pytest.approx(1.0, abs=0.01)
        # 10 % / sqrt(E in GeV), and a little from leakage.
        resolution = 0.10 / math.sqrt(momentum / 1024)
        assert resolution * 0.9 < total.std() < resolution * 1.5


def test_that_pions_are_seen_more_weakly_but_more_fully_the_more_energy_they_have(job) -> None:
    seen = [generate(job, 211, p, 3000)[0].sum(axis=1).mean() / p for p in (8192, 32768, 131072)]
    assert 0.6 < seen[0] < seen[1] < seen[2] < 1.0


def test_that_pions_deposit_deeper_and_fluctuate_more_than_electrons(job) -> None:
    assert mean_depth(job, 211, 32768) > 2 * mean_depth(job, 11, 32768)
    pions, electrons = (generate(job, pid, 32768, 2000)[0].sum(axis=1) for pid in (211, 11))
    assert pions.std() / pions.mean() > 3 * electrons.std() / electrons.mean()


def test_that_a_slanted_way_through_the_layers_is_longer(job) -> None:
    # At eta 1.2 the same shower ends 1.8 times nearer to the front, in layers.
    assert mean_depth(job, 11, 65536, eta=(120, 125)) < 0.8 * mean_depth(job, 11, 65536)


def test_that_no_energy_is_negative_and_equal_seeds_give_equal_showers(job) -> None:
    for pid in (22, 11, 211):
        first, second = (generate(job, pid, 256, 200, seed=7)[0] for _ in range(2))
        assert (first >= 0).all() and np.isfinite(first).all()
        assert np.array_equal(first, second)
        assert not np.array_equal(first, generate(job, pid, 256, 200, seed=8)[0])


@pytest.mark.parametrize(
    ("pid", "eta", "words"), [(13, SLICE, "pid 13"), (22, (150, 155), "the barrel alone")]
)
def test_that_the_generator_refuses_what_it_does_not_know(job, pid, eta, words) -> None:
    layer = job["voxels"].Layer(1, (0.0, 10.0), (1,))
    binning = job["voxels"].Binning(pid, (layer,))
    with pytest.raises(ValueError, match=words):
        job["showers"].generate(binning, eta, 4096, 10, np.random.default_rng(1))


def test_that_a_layer_beyond_the_barrel_is_refused_by_its_number(job) -> None:
    binning = job["voxels"].Binning(22, (job["voxels"].Layer(5, (0.0, 10.0), (1,)),))
    with pytest.raises(ValueError, match=r"layers \[5\]"):
        job["showers"].generate(binning, SLICE, 4096, 10, np.random.default_rng(1))


# Files


@pytest.fixture
def shower_file(job, tmp_path: Path) -> Path:
    """A tar of 20 and 30 photons."""
    binning = job["voxels"].load_binning(BINNING, 22, SLICE)
    rng = np.random.default_rng(1)
    tables = {
        p: job["showers"].generate(binning, SLICE, p, n, rng) for p, n in ((4096, 20), (512, 30))
    }
    return job["voxels"].write_showers(tmp_path, 22, SLICE, tables)


def rewrite(path: Path, change) -> None:
    """Replace a tar's members, {name: bytes}, by what `change` makes of them."""
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    with tarfile.open(path, "w") as tar:
        for name, text in change(members).items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))


def test_that_showers_that_were_written_are_read_back(job, shower_file: Path) -> None:
    assert shower_file.name == "pid22_eta_0_5.v02.tar"
    showers, binning = job["voxels"].read_showers(shower_file, BINNING)
    assert (showers.pid, showers.eta, list(showers.momenta)) == (22, (0, 5), [512, 4096])
    assert [x.shape for x in showers.energies] == [(30, binning.voxels), (20, binning.voxels)]
    rng = np.random.default_rng(1)
    again = job["showers"].generate(binning, SLICE, 4096, 20, rng)[:, 2:]
    assert np.allclose(showers.energies[1], again, rtol=1e-5)


def test_that_an_empty_cell_is_no_energy(job, shower_file: Path) -> None:
    def empty_a_cell(members):
        name = next(n for n in members if "_E512_" in n)
        first, rest = members[name].split(b"\n", 1)
        cells = first.split(b",")
        cells[2] = b""
        return members | {name: b",".join(cells) + b"\n" + rest}

    rewrite(shower_file, empty_a_cell)
    showers, _ = job["voxels"].read_showers(shower_file, BINNING)
    assert showers.energies[0][0, 0] == 0.0
    assert showers.energies[0].shape[0] == 30


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"1,2,3", "has 3 columns; binning.xml has 45 voxels, which with phi and eta makes 47"),
        (b",".join([b"1"] * 46 + [b"x7"]), "column 47 is not a number: 'x7'"),
        (b",".join([b"1"] * 46 + [b"nan"]), "column 47 is not a number: 'nan'"),
    ],
)
def test_that_a_bad_line_is_named_with_its_file_and_number(
    job, shower_file: Path, line: bytes, words: str
) -> None:
    def spoil(members):
        name = next(n for n in members if "_E4096_" in n)
        lines = members[name].split(b"\n")
        lines[6] = line
        return members | {name: b"\n".join(lines)}

    rewrite(shower_file, spoil)
    with pytest.raises(job["voxels"].DataError) as caught:
        job["voxels"].read_showers(shower_file, BINNING)
    assert "pid22_eta_0_5.v02.tar:pid22_E4096_eta_0_5_voxalisation.csv:7: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: {"readme.txt": b"hello"}, "holds no file whose name is like pid22_E65536"),
        (lambda m: m | {"pid11_E64_eta_0_5_voxalisation.csv": b"1"}, "more than one particle"),
        (lambda m: dict.fromkeys(m, b""), "is empty"),
    ],
)
def test_that_a_tar_without_usable_showers_is_refused(job, shower_file, change, words) -> None:
    rewrite(shower_file, change)
    with pytest.raises(job["voxels"].DataError, match=words):
        job["voxels"].read_showers(shower_file, BINNING)


def test_that_a_missing_or_cut_tar_is_named(job, shower_file: Path, tmp_path: Path) -> None:
    with pytest.raises(job["voxels"].DataError, match=r"absent\.tar: there is no such file"):
        job["voxels"].read_showers(tmp_path / "absent.tar", BINNING)
    shower_file.write_bytes(shower_file.read_bytes()[:5000])
    with pytest.raises(job["voxels"].DataError, match=r"v02\.tar: cannot be read as a tar file"):
        job["voxels"].read_showers(shower_file, BINNING)


def xml(tmp_path: Path, layers: str, root: str = "<Bins>", close: str = "</Bins>") -> Path:
    """A binning.xml whose layers begin in line 3."""
    path = tmp_path / "binning.xml"
    path.write_text(f'{root}\n<Bin pid="22" etaMin="0" etaMax="130">\n{layers}\n</Bin>\n{close}\n')
    return path


def test_that_layers_without_rings_have_no_voxels(job, tmp_path: Path) -> None:
    file = xml(
        tmp_path,
        '<Layer id="0" r_edges="0" n_bin_alpha="1"/>'
        '<Layer id="1" r_edges="0,2,4,8" n_bin_alpha="10"/>'
        '<Layer id="3" r_edges="0,5" n_bin_alpha="1"/>',
    )
    binning = job["voxels"].load_binning(file, 22, SLICE)
    assert [(layer.id, layer.voxels) for layer in binning.layers] == [(1, 30), (3, 1)]
    assert binning.columns() == [slice(0, 30), slice(30, 31)]


def test_that_fastcalogans_own_form_is_read(job, tmp_path: Path) -> None:
    file = tmp_path / "binning.xml"
    file.write_text(
        '<Bins isPolar="true" optimisedAlphaBins="true" mergeAlphaBinsInFirstRBin="true">'
        '<Particle pid="11" symmetriseAlpha="false"><EnergyRanges/>'
        '<Bin etaMin="0" etaMax="80" regionId="1">'
        '<Layer id="2" r_edges="0,2,4,8,9" n_bin_alpha="10"/></Bin>'
        '<Bin etaMin="80" etaMax="130" regionId="2">'
        '<Layer id="2" nbins="3" r_min="0" r_max="30" n_bin_alpha="1"/></Bin>'
        "</Particle></Bins>"
    )
    load = job["voxels"].load_binning
    # 2 pi r / width of the rings: 6.3 (merged to 1), 9.4, 9.4 and 53.
    assert load(file, 11, (0, 5)).layers[0].sectors == (1, 16, 16, 32)
    assert load(file, 11, (80, 85)).layers[0].r_edges == (0.0, 10.0, 20.0, 30.0)


@pytest.mark.parametrize(
    ("layers", "line", "words"),
    [
        ('<Layer id="0" r_edges="0,5,4" n_bin_alpha="1"/>', 3, "r_edges must be rising"),
        ('\n<Layer id="0" r_edges="0,x" n_bin_alpha="1"/>', 4, "found '0,x'"),
        ('<Layer id="0" r_edges="0,5"/>', 3, "needs the attribute n_bin_alpha"),
        ('<Layer id="0" r_edges="0,5" n_bin_alpha="0"/>', 3, "must be at least 1"),
        ('<Layer id="0" r_edges="0,5" n_bin_alpha="1">', 4, "not XML"),
        ('<Layer id="0" r_edges="0" n_bin_alpha="1"/>', 2, "none of its layers"),
    ],
)
def test_that_a_mistake_in_binning_xml_is_named_with_its_line(
    job, tmp_path: Path, layers: str, line: int, words: str
) -> None:
    file = xml(tmp_path, layers)
    with pytest.raises(job["voxels"].DataError) as caught:
        job["voxels"].load_binning(file, 22, SLICE)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert words in str(caught.value)


def test_that_a_particle_that_binning_xml_lacks_is_named_with_what_it_has(job) -> None:
    with pytest.raises(job["voxels"].DataError, match=r"no Bin for pid 2212.*pid 22 in eta 0"):
        job["voxels"].load_binning(BINNING, 2212, SLICE)
    with pytest.raises(job["voxels"].DataError, match=r"pid 22 in eta 200 to 205"):
        job["voxels"].load_binning(BINNING, 22, (200, 205))


def test_that_make_data_writes_a_tar_for_each_particle_and_slice(job, tmp_path: Path) -> None:
    options = ["--events", "60", "--etas", "0", "15", "--momenta", "512", "4096"]
    for folder in ("first", "second"):
        job["make_data"].main(["--folder", str(tmp_path / folder), *options])
    names = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert names == sorted(
        f"pid{pid}_eta_{low}_{low + 5}.v02.tar" for pid in (22, 11, 211) for low in (0, 15)
    )
    for name in names:
        first, second = (tmp_path / f / name for f in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_that_make_data_says_what_it_cannot_do(job, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="eta 200 to 205"):
        job["make_data"].main(["--folder", str(tmp_path), "--etas", "200"])


# chi2


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30),
    least=st.floats(1, 50),
)
def test_that_joined_bins_lose_no_entry_and_hold_enough(job, counts, least) -> None:
    first, second = (np.array(column, float) for column in zip(*counts, strict=True))
    one, other = job["chi2"].merge_low(first, second, least)
    assert (one.sum(), other.sum()) == (first.sum(), second.sum())
    assert len(one) == 1 or (one + other >= least).all()


def test_that_chi2_of_two_histograms_is_that_of_a_worked_example(job) -> None:
    # 10, 30 of 40 and 20, 20 of 40: the pooled shares are 3/8 and 5/8, so that 15 and 25 are
    # expected of both, and chi2 = 4 terms (5^2 / 15 twice, 5^2 / 25 twice).
    chi2, freedom = job["chi2"].two_histograms(np.array([10.0, 30.0]), np.array([20.0, 20.0]))
    assert chi2 == pytest.approx(2 * 25 / 15 + 2 * 25 / 25)
    assert freedom == 1


@pytest.mark.parametrize(("n", "m"), [(400, 400), (200, 800), (1000, 250)])
def test_that_chi2_follows_its_distribution_when_both_samples_are_of_one_kind(job, n, m) -> None:
    rng = np.random.default_rng(n)
    found = np.array(
        [job["chi2"].compare(rng.normal(1, 0.1, n), rng.normal(1, 0.1, m)) for _ in range(400)]
    )
    chi2, freedom = found.T
    assert (freedom > 12).all()
    # Mean and variance of chi2 are the degrees of freedom and twice them.
    error = math.sqrt(2 * freedom.mean() / len(found))
    assert chi2.mean() == pytest.approx(freedom.mean(), abs=4 * error)
    assert ((chi2 - freedom) / np.sqrt(2 * freedom)).std() == pytest.approx(1.0, abs=0.15)


def test_that_chi2_grows_with_the_distance_and_never_beyond_all_entries(job) -> None:
    rng = np.random.default_rng(4)
    reference = rng.normal(1, 0.1, 500)
    ratios = [
        np.divide(*job["chi2"].compare(reference, rng.normal(1 + shift, 0.1, 2000)))
        for shift in (0.0, 0.03, 0.1, 1.0)
    ]
    assert ratios == sorted(ratios) and ratios[0] < 2 and ratios[1] > 2
    chi2, freedom = job["chi2"].compare(reference, np.zeros(2000))
    assert chi2 <= 2500 and freedom >= 1


def test_that_samples_of_one_value_can_be_compared(job) -> None:
    assert job["chi2"].compare(np.ones(50), np.ones(200)) == (0.0, 0)
    chi2, freedom = job["chi2"].compare(np.ones(50), np.zeros(200))
    assert (chi2, freedom) == (pytest.approx(250), 1)
