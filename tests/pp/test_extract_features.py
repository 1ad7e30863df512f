"""Features from any encoder: closed forms on the patches, order, resuming, what is written, and what is refused."""

from __future__ import annotations

import signal

import anndata as ad
import numpy as np
import pytest
import torch
from forks import in_fork, killed
from safetensors.torch import save_file
from torch import nn

import hist2scrna as h2s
from hist2scrna.pp import extract_features

PX, UM = 32, 64.0  # of images at 2 um a pixel: patches are cut, not resampled


def whole(make_section, library: str = "s0", **options) -> ad.AnnData:
    """A section whose coordinates are whole pixels."""
    adata = make_section(library, **options)
    adata.obsm["spatial"] = np.round(adata.obsm["spatial"])
    return adata


def shuffled(make_section) -> ad.AnnData:
    """Two sections whose spots are mixed."""
    sections = [whole(make_section, name, seed=seed, n_spots=30) for seed, name in enumerate(("s0", "s1"))]
    adata = ad.concat(sections, uns_merge="unique")
    return adata[np.random.default_rng(3).permutation(adata.n_obs)].copy()


def sliced(adata: ad.AnnData) -> np.ndarray:
    """The patches of all spots, by slicing the images."""
    patches = []
    for library, (x, y) in zip(adata.obs["library_id"], adata.obsm["spatial"].astype(int), strict=True):
        pixels = adata.uns["spatial"][library]["images"]["hires"]
        patches.append(pixels[y - PX // 2 : y + PX // 2, x - PX // 2 : x + PX // 2])
    return np.stack(patches)


def mean_color(patches: torch.Tensor) -> torch.Tensor:
    return patches.mean(dim=(2, 3))


class Counted:
    """Mean colors, with a record of the batches; fails in one of them if told to."""

    def __init__(self, fail_in: int | None = None, factor: float = 1.0) -> None:
        self.batches: list[int] = []
        self.fail_in = fail_in
        self.factor = factor

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(patches))
        if len(self.batches) == self.fail_in:
            raise OSError("the disk is gone")
        return self.factor * torch.cat([mean_color(patches), patches.std(dim=(2, 3))], dim=1)


class Network(nn.Module):
    """Convolution, norm and dropout: its output depends on the mode."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, width, 8, stride=8)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.5)
        self.modes: list[bool] = []

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        return self.drop(self.norm(self.convolve(patches))).mean(dim=(2, 3))


def network(seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network()


def extract(adata, encoder, **options):
    settings = {"library_key": "library_id", "patch_um": UM, "patch_px": PX, "progress": False}
    return extract_features(adata, encoder, **settings | options)


# -- values -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_mean_color_is_that_of_the_sliced_patches_in_the_order_of_the_spots(make_section, batch_size) -> None:
    adata = shuffled(make_section)
    extract(adata, mean_color, batch_size=batch_size)
    features = adata.obsm["X_mean_color"]
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, sliced(adata).mean(axis=(1, 2)) / 255, rtol=1e-5)


def test_images_are_read_one_after_the_other(make_section) -> None:
    adata = shuffled(make_section)
    truth = sliced(adata).mean(axis=(1, 2)) / 255
    seen: list[np.ndarray] = []
    extract(adata, lambda patches: seen.append(mean_color(patches).numpy()) or mean_color(patches), batch_size=7)
    order = [int(np.abs(truth - color).sum(axis=1).argmin()) for color in np.concatenate(seen)]
    assert sorted(order) == list(range(adata.n_obs))
    assert adata.obs["library_id"].iloc[order].is_monotonic_increasing


def test_colors_are_normalized_as_told(make_section) -> None:
    adata = whole(make_section)
    mean, std = (0.7, 0.6, 0.5), (0.1, 0.2, 0.4)
    extract(adata, lambda patches: patches.flatten(1), normalize=(mean, std))
    expected = (sliced(adata) / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(
        adata.obsm["X_encoder"], expected.transpose(0, 3, 1, 2).reshape(adata.n_obs, -1), atol=1e-5
    )
    np.testing.assert_array_equal(adata.uns["X_encoder"]["mean"], mean)
    np.testing.assert_array_equal(adata.uns["X_encoder"]["std"], std)


def test_a_module_gives_what_it_gives_in_eval_mode_and_is_put_back(make_section) -> None:
    adata, module = whole(make_section), network()
    module.norm.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    extract(adata, module)
    assert module.modes and not any(module.modes)
    assert [part.training for part in module.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module.eval()
    with torch.no_grad():
        patches = torch.from_numpy(sliced(adata).transpose(0, 3, 1, 2).astype(np.float32) / 255)
        expected = module(patches).numpy()
    np.testing.assert_allclose(adata.obsm["X_Network"], expected, atol=1e-5)
    assert not adata.obsm["X_Network"].std(axis=0).min() == 0


def test_a_module_is_put_back_after_a_failure(make_section) -> None:
    module = network()
    module.forward = lambda patches: 1 / 0
    with pytest.raises(ZeroDivisionError):
        extract(whole(make_section), module)
    assert all(part.training for part in module.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_module_is_used_on_the_gpu_and_comes_back(make_section) -> None:
    adata, module = whole(make_section), network()
    extract(adata, module, key_added="gpu", precision="32-true")
    assert next(module.parameters()).device.type == "cpu"
    extract(adata, module, key_added="cpu", accelerator="cpu")
    np.testing.assert_allclose(adata.obsm["gpu"], adata.obsm["cpu"], atol=1e-3)


def test_lower_precision_is_near_and_is_written_as_float32(make_section) -> None:
    adata, module = whole(make_section), network()
    extract(adata, module, key_added="full")
    extract(adata, module, key_added="mixed", precision="bf16-mixed")
    assert adata.obsm["mixed"].dtype == np.float32
    assert not np.array_equal(adata.obsm["mixed"], adata.obsm["full"])
    np.testing.assert_allclose(adata.obsm["mixed"], adata.obsm["full"], atol=0.05)
    assert adata.uns["mixed"]["precision"] == "bf16-mixed"


def test_a_module_in_half_precision_is_given_what_it_reads(make_section) -> None:
    adata, module = whole(make_section), network().to(torch.bfloat16)
    extract(adata, module)
    assert np.isfinite(adata.obsm["X_Network"]).all()
    assert module.convolve.weight.dtype == torch.bfloat16


def test_the_patch_is_one_and_a_half_spots_unless_told(make_section) -> None:
    adata = whole(make_section)
    extract(adata, mean_color, patch_um=None, patch_px=None)
    about = adata.uns["X_mean_color"]
    assert (about["patch_um"], about["patch_px"]) == (1.5 * 36 * 2, 224)
    assert about["um_per_px"] == pytest.approx(108 / 224)
    assert about["scale_from"] == "metadata"


# -- what is written --------------------------------------------------------------------------------------------------
def test_what_is_written_survives_a_file(make_section, tmp_path) -> None:
    adata = whole(make_section)
    extract(adata, network(), key_added="features")
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.obsm["features"], adata.obsm["features"])
    about = back.uns["features"]
    assert about["encoder"] == "Network"
    assert about["license"] == "unknown"
    assert about["n_features"] == 5
    assert about["version"] == h2s.__version__
    assert len(about["weights_sha256"]) == 64
    assert {key for key in about if np.size(about[key]) != 1} == {"mean", "std"}


def test_copy_leaves_the_original(make_section) -> None:
    adata = whole(make_section)
    before = set(adata.obsm), set(adata.uns)
    found = extract(adata, mean_color, copy=True)
    assert (set(adata.obsm), set(adata.uns)) == before
    assert found.obsm["X_mean_color"].shape == (adata.n_obs, 3)
    assert extract(adata, mean_color) is None


def test_what_is_in_the_cache_is_not_encoded_again(make_section, tmp_path, monkeypatch) -> None:
    section = whole(make_section, n_spots=20)
    plain = extract_features(section, "morphology", copy=True, progress=False).obsm["X_morphology"]
    monkeypatch.setattr(h2s.settings, "cache_dir", tmp_path)
    h2s.tl.fit(section, model="ridge", encoder="morphology", progress=False)
    assert len(list((tmp_path / "features").iterdir())) == 1

    def not_read(*_: object) -> None:
        raise AssertionError("a patch was read again")

    monkeypatch.setattr("hist2scrna.images.patches.PatchSource.cut", not_read)
    found = extract_features(section, "morphology", copy=True, progress=False)
    np.testing.assert_allclose(found.obsm["X_morphology"], plain, atol=1e-5)
    assert found.uns["X_morphology"]["n_features"] == plain.shape[1]


def test_weights_are_told_apart(make_section) -> None:
    adata = whole(make_section)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        extract(adata, network(seed), key_added=name)
    same, again, other = (adata.uns[name]["weights_sha256"] for name in "abc")
    assert same == again != other


@pytest.mark.parametrize("model", ["ridge", "hist2scrna-lightweight"])
def test_models_on_features_train_and_predict_with_them(model, tmp_path) -> None:
    from hist2scrna.datasets import simulate

    train, test = simulate("small", n_sections=2, seed=1, n_spots=60, n_genes=12)
    for adata in (train, test):
        extract_features(adata, Counted(), key_added="X_colors", patch_px=32, progress=False)
    options = {} if model == "ridge" else {"preset": "tiny", "training": {"max_epochs": 2}, "progress": False}
    fitted = h2s.tl.fit(train, model=model, features_key="X_colors", **options)
    fitted.save(tmp_path / "model")
    predicted = h2s.tl.predict(test, tmp_path / "model", progress=False)
    mean = predicted.layers["hist2scrna_mean"]
    assert mean.shape == test.shape
    assert np.isfinite(mean).all()
    assert mean.std(axis=0).max() > 0


# -- resuming ---------------------------------------------------------------------------------------------------------
def test_an_interrupted_run_goes_on_where_it_stopped(make_section, tmp_path) -> None:
    adata = shuffled(make_section)
    extract(adata, Counted(), key_added="whole", batch_size=8)
    failing = Counted(fail_in=6)
    with pytest.raises(OSError, match="the disk is gone"):
        extract(adata, failing, key_added="resumed", batch_size=8, store=tmp_path / "store")
    assert "resumed" not in adata.obsm and "resumed" not in adata.uns
    resumed = Counted()
    extract(adata, resumed, key_added="resumed", batch_size=8, store=tmp_path / "store")
    np.testing.assert_array_equal(adata.obsm["resumed"], adata.obsm["whole"])
    assert failing.batches == [8, 8, 8, 8, 8, 8]
    # One patch to compare, then the 20 spots of 60 that were left.
    assert resumed.batches == [1, 8, 8, 4]
    assert not isinstance(adata.obsm["resumed"], np.memmap)


def test_a_run_may_go_on_in_smaller_batches_and_with_moved_weights(make_section, tmp_path, monkeypatch) -> None:
    adata = whole(make_section)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        save_file(network().state_dict(), tmp_path / folder / "network.safetensors")
    extract(adata, network(), key_added="whole", weights=tmp_path / "here")
    sizes: list[int] = []

    def fail_third(patches):
        sizes.append(len(patches))
        if len(sizes) == 3:
            raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        encode = Network.forward
        patched.setattr(Network, "forward", lambda self, patches: fail_third(patches) or encode(self, patches))
        with pytest.raises(OSError, match="the disk is gone"):
            extract(adata, network(), weights=tmp_path / "here", store=tmp_path / "store", batch_size=16)
    extract(adata, network(), key_added="resumed", weights=tmp_path / "there", store=tmp_path / "store", batch_size=3)
    assert sizes == [16, 16, 8]
    np.testing.assert_allclose(adata.obsm["resumed"], adata.obsm["whole"], atol=1e-6)


def test_a_finished_store_is_read_back(make_section, tmp_path) -> None:
    adata = whole(make_section)
    extract(adata, Counted(), store=tmp_path / "store", key_added="first")
    again = Counted()
    extract(adata, again, store=tmp_path / "store", key_added="second")
    assert again.batches == [1]
    np.testing.assert_array_equal(adata.obsm["first"], adata.obsm["second"])


def _moved(adata):
    adata.obsm["spatial"][3, 0] += 1


def _repainted(adata):
    pixels = adata.uns["spatial"]["s0"]["images"]["hires"]
    adata.uns["spatial"]["s0"]["images"]["hires"] = 255 - pixels


def _nothing(adata):
    pass


@pytest.mark.parametrize(
    ("change", "encoder", "options", "message"),
    [
        (_moved, mean_color, {}, "coordinates"),
        (_repainted, mean_color, {}, "patches"),
        (_nothing, mean_color, {"patch_um": 80.0}, r"patch_um 64\.0 there, 80\.0 here"),
        (_nothing, mean_color, {"patch_px": 48}, "patch_px 32 there, 48 here"),
        (_nothing, mean_color, {"mpp": 1.0}, "patches"),
        (_nothing, mean_color, {"precision": "bf16-mixed"}, "precision"),
        (_nothing, mean_color, {"normalize": ((0.5,) * 3, (0.5,) * 3)}, "mean"),
        (_nothing, Counted(), {}, "encoder 'mean_color' there, 'Counted' here"),
        (lambda a: a.obsm.update(spatial=a.obsm["spatial"][::-1].copy()), mean_color, {}, "coordinates"),
    ],
)
def test_a_store_of_another_run_is_refused(make_section, tmp_path, change, encoder, options, message) -> None:
    adata = whole(make_section)
    extract(adata, mean_color, store=tmp_path / "store")
    held = (tmp_path / "store" / "features.npy").read_bytes()
    change(adata)
    with pytest.raises(ValueError, match=f"begun with other settings.*{message}"):
        extract(adata, encoder, store=tmp_path / "store", key_added="other", **options)
    assert "other" not in adata.obsm
    assert (tmp_path / "store" / "features.npy").read_bytes() == held


def test_a_store_of_a_function_that_has_changed_is_refused(make_section, tmp_path) -> None:
    adata = whole(make_section)
    extract(adata, Counted(), store=tmp_path / "store")
    with pytest.raises(ValueError, match=r"begun with another encoder or image: spot 's0_0'"):
        extract(adata, Counted(factor=1.2), store=tmp_path / "store")


def test_a_store_of_a_module_with_other_weights_is_refused(make_section, tmp_path) -> None:
    adata = whole(make_section)
    extract(adata, network(0), store=tmp_path / "store")
    with pytest.raises(ValueError, match="weights_sha256"):
        extract(adata, network(1), store=tmp_path / "store")


def test_a_folder_of_something_else_is_left_alone(make_section, tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds no manifest\.json"):
        extract(whole(make_section), mean_color, store=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("file", ["manifest.json", "features.npy"])
def test_a_damaged_store_is_refused(make_section, tmp_path, file) -> None:
    adata = whole(make_section)
    extract(adata, mean_color, store=tmp_path / "store")
    (tmp_path / "store" / file).write_bytes(b"{ garbage")
    with pytest.raises(ValueError, match=rf"{file}' is damaged.*Delete the folder"):
        extract(adata, mean_color, store=tmp_path / "store")


def test_a_store_that_was_killed_at_its_first_file_is_begun_again(make_section, tmp_path, monkeypatch) -> None:
    store = tmp_path / "store"

    def act() -> None:
        monkeypatch.setattr("os.replace", killed)
        extract(whole(make_section), mean_color, store=store)

    assert in_fork(act) == -signal.SIGKILL
    assert [path.suffix for path in store.iterdir()] == [".partial"]
    extract(whole(make_section), mean_color, store=store)
    assert sorted(path.name for path in store.iterdir()) == ["checksums.npy", "features.npy", "manifest.json"]


def test_a_row_that_was_half_written_is_made_again(make_section, tmp_path) -> None:
    adata = whole(make_section)
    extract(adata, Counted(), store=tmp_path / "store", key_added="whole")
    rows = np.load(tmp_path / "store" / "features.npy", mmap_mode="r+")
    # One row cut off, one altered by the disk.
    rows[7, 2:] = np.nan
    rows[9, 0] += 1
    rows.flush()
    del rows
    again = Counted()
    extract(adata, again, store=tmp_path / "store", key_added="again")
    assert again.batches == [1, 2]
    np.testing.assert_allclose(adata.obsm["again"], adata.obsm["whole"], rtol=1e-6)


# -- weights of a module ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
def test_a_module_is_filled_from_a_file_as_a_copy(make_section, tmp_path, suffix) -> None:
    adata, file = whole(make_section), tmp_path / f"weights{suffix}"
    saved = network(1).state_dict()
    save_file(saved, file) if suffix == ".safetensors" else torch.save(saved, file)
    given = network(0)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    extract(adata, given, weights=file, key_added="filled")
    extract(adata, given, weights=tmp_path, key_added="by_folder")
    extract(adata, network(1), key_added="expected")
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())
    np.testing.assert_array_equal(adata.obsm["filled"], adata.obsm["expected"])
    np.testing.assert_array_equal(adata.obsm["by_folder"], adata.obsm["expected"])
    assert adata.uns["filled"]["weights"] == str(file)


def _missing(state):
    del state["convolve.bias"]


def _left_over(state):
    state["head.weight"] = torch.zeros(2, 2)


def _reshaped(state):
    state["convolve.bias"] = torch.zeros(9)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, r"1 missing \(convolve\.bias\)"),
        (_left_over, r"1 not of this network \(head\.weight\)"),
        (_reshaped, r"1 of another shape \(convolve\.bias is \(9,\), expected \(5,\)\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(make_section, tmp_path, spoil, message) -> None:
    state = network().state_dict()
    spoil(state)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        extract(whole(make_section), network(), weights=tmp_path)


class _Malicious:
    def __reduce__(self):
        return print, ("code in the file was run",)


def test_code_in_a_file_of_weights_is_not_run(make_section, tmp_path, capsys) -> None:
    torch.save({"convolve.bias": _Malicious()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="cannot be read as weights only"):
        extract(whole(make_section), network(), weights=tmp_path / "a.pt")
    assert "was run" not in capsys.readouterr().out


# -- refused ----------------------------------------------------------------------------------------------------------
def _nan_for_white(patches):
    found = mean_color(patches)
    found[found[:, 1] == found[:, 1].max()] = torch.nan
    return found


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (lambda p: p, ValueError, r"\(32, d\) for 32 patches, found \(32, 3, 32, 32\)"),
        (lambda p: p.mean(dim=(0, 2, 3)), ValueError, r"found \(3,\)"),
        (lambda p: p.mean(dim=(2, 3))[:-1], ValueError, r"found \(31, 3\)"),
        (lambda p: (p, p), TypeError, "return a tensor.*found tuple"),
        (lambda p: p.mean(dim=(2, 3)).numpy(), TypeError, "return a tensor.*found ndarray"),
        (42, TypeError, "function, a torch.nn.Module or a name.*found int"),
    ],
)
def test_what_is_no_encoder_of_patches_is_refused(make_section, encoder, error, message) -> None:
    adata = whole(make_section)
    before = set(adata.obsm), set(adata.uns)
    with pytest.raises(error, match=message):
        extract(adata, encoder)
    assert (set(adata.obsm), set(adata.uns)) == before


def test_a_width_that_changes_is_refused(make_section) -> None:
    with pytest.raises(ValueError, match="returned 8 numbers a patch, and 32 for patches before"):
        extract(whole(make_section), lambda p: p.new_ones(len(p), len(p)))


def test_nan_is_refused_by_the_name_of_the_spot(make_section) -> None:
    adata = whole(make_section)
    greens = sliced(adata)[..., 1].mean(axis=(1, 2))
    with pytest.raises(ValueError, match=rf"NaN or infinite.*1 of 40 patches.*'s0_{greens.argmax()}'"):
        extract(adata, _nan_for_white, batch_size=64)
    assert "X__nan_for_white" not in adata.obsm


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` to be a whole number of at least 1, found 0"),
        ({"precision": "half"}, ValueError, r"`precision` to be one of.*'half'"),
        ({"accelerator": "tpu"}, ValueError, "`accelerator`.*'tpu'"),
        ({"patch_px": 0}, ValueError, "`patch_px`.*positive, found 0"),
        ({"patch_um": -3.0}, ValueError, "`patch_um`.*-3"),
        ({"normalize": ((1, 2, 3), (1, 0, 1))}, ValueError, "`normalize`.*positive"),
        ({"normalize": "imagenet"}, ValueError, "`normalize`.*'imagenet'"),
        ({"weights": "a.pt"}, ValueError, "this function brings its own"),
        ({"spatial_key": "xy"}, KeyError, "'xy' not found in adata.obsm"),
        ({"library_key": "slide"}, KeyError, "'slide' not found in adata.obs"),
        ({"image": "nowhere.png"}, FileNotFoundError, "nowhere.png"),
    ],
)
def test_bad_arguments_say_what_is_wrong(make_section, options, error, message) -> None:
    with pytest.raises(error, match=message):
        extract(whole(make_section), mean_color, **options)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: folder / "none.pt", FileNotFoundError, "No file or folder of weights"),
        (lambda folder: folder, FileNotFoundError, "No file of weights"),
        (lambda folder: _touch(folder, "a.pt", "b.pt"), ValueError, r"2 files of weights: \['a.pt', 'b.pt'\]"),
        (lambda folder: _touch(folder, "a.h5") / "a.h5", ValueError, "to end in one of"),
        (lambda folder: _touch(folder, "a.safetensors"), ValueError, "cannot be read as weights only"),
    ],
)
def test_weights_that_are_not_there_are_named(make_section, tmp_path, make, error, message) -> None:
    with pytest.raises(error, match=message):
        extract(whole(make_section), network(), weights=make(tmp_path))


def _touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"nothing")
    return folder


def test_model_keeps_encoder_and_license_and_warns_of_others(tmp_path):
    (section,) = h2s.datasets.simulate("small", n_spots=30, n_genes=10)
    section.obsm["X_a"] = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    section.uns["X_a"] = {"encoder": "uni", "license": "CC-BY-NC-ND", "weights_sha256": "12ab"}
    model = h2s.tl.fit(section, model="ridge", features_key="X_a", library_key="library_id", progress=False)
    again = h2s.TrainedModel.load(model.save(tmp_path / "m"))
    assert again.training["features"] == {"encoder": "uni", "license": "CC-BY-NC-ND", "weights_sha256": "12ab"}
    assert "by uni (license: CC-BY-NC-ND)" in repr(again)
    section.uns["X_a"]["encoder"] = "virchow"
    with pytest.warns(UserWarning, match="encoder virchow, those in training had uni"):
        again.predict(section, copy=True, progress=False)
