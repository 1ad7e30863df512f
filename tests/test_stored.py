"""Files that crash or stall the library that reads them: each is met in another process, and named."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pytest
import zarr
from scipy import sparse
from sections import section

from hist2scrna import stored, tl
from hist2scrna.benchmarking.arguments import read_dataset
from hist2scrna.cli.reading import read_one

CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
# Five seconds, should the limit not hold.
NEVER_ENDS = (
    "import resource, sys, time\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n"
    "end = time.process_time() + 5\nwhile time.process_time() < end: pass"
)


@pytest.fixture(autouse=True)
def none_is_known(files_are_sound, monkeypatch) -> None:
    monkeypatch.setattr(stored, "_sound", set())


@pytest.fixture(params=["s.h5ad", "s.zarr"])
def path(request, tmp_path):
    place = tmp_path / request.param
    adata = section()
    adata.write_h5ad(place, compression="gzip") if place.suffix == ".h5ad" else adata.write_zarr(place)
    return place


@pytest.mark.parametrize("code", [CRASHES, NEVER_ENDS], ids=["crash", "no end"])
@pytest.mark.parametrize("read", [read_one, read_dataset])
def test_a_reader_that_dies_in_its_own_process_is_an_error_here(path, tmp_path, monkeypatch, code, read) -> None:
    (tmp_path / "dies.py").write_text(code)
    monkeypatch.setattr(stored, "REHEARSAL", tmp_path / "dies.py")
    with pytest.raises(ValueError, match=rf"{path.name}' is damaged: (HDF5|Zarr) crashed on it \(signal \d+\), in a "):
        read(path)


def test_a_program_that_waits_for_ever_is_ended(path, tmp_path, monkeypatch) -> None:
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setattr(stored, "REHEARSAL", tmp_path / "waits.py")
    monkeypatch.setattr(stored, "SECONDS", 1)
    monkeypatch.setattr(stored, "WALL", 1)
    with pytest.raises(ValueError, match="did not come to its end, in a process of its own"):
        read_one(path)


def test_a_file_is_read_through_once_as_long_as_it_is_the_same(path, monkeypatch) -> None:
    started = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *given, **named: (started.append(given), run(*given, **named))[1])
    for _ in range(2):
        np.testing.assert_array_equal(read_one(path).X.toarray(), section().X.toarray())
    assert len(started) == 1
    adata = ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)
    adata.X = adata.X * 2
    adata.write_h5ad(path) if path.suffix == ".h5ad" else adata.write_zarr(path)
    np.testing.assert_array_equal(read_one(path).X.toarray(), 2 * section().X.toarray())
    assert len(started) == 2


def test_every_value_is_read(path, tmp_path) -> None:
    """Whoever reads a file through meets what is wrong anywhere in it: here, each chunk in turn is unreadable.

    The program ends well even so; what it met is counted by replacing what swallows it.
    """
    code = stored.REHEARSAL.read_text().replace("with suppress(Exception):", "with told():")
    told = "from contextlib import contextmanager\n\n@contextmanager\ndef told():\n    try:\n        yield\n"
    told += "    except Exception as error:\n        print('met', type(error).__name__)\n\n"
    (tmp_path / "program.py").write_text(code.replace("BLOCK_BYTES =", told + "BLOCK_BYTES =", 1))

    def met() -> int:
        command = [sys.executable, "-P", str(tmp_path / "program.py"), str(path), "20"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("met")

    assert met() == 0
    if path.suffix == ".h5ad":
        with h5py.File(path, "r") as file:
            chunked: list[tuple[int, int]] = []

            def visit(_, item) -> None:
                if isinstance(item, h5py.Dataset) and item.chunks is not None and item.compression:
                    info = [item.id.get_chunk_info(i) for i in range(item.id.get_num_chunks())]
                    chunked.extend((chunk.byte_offset, chunk.size) for chunk in info)

            file.visititems(visit)
        content = path.read_bytes()
        assert len(chunked) > 2
        for at, size in chunked[::2]:
            path.write_bytes(content[:at] + b"\xff" * size + content[at + size :])
            assert met() > 0
    else:
        arrays = [item for _, item in zarr.open_group(path, mode="r").members(max_depth=None)]
        names = [path / item.path for item in arrays if isinstance(item, zarr.Array)]
        chunks = [
            file
            for name in names
            for file in name.rglob("*")
            if file.is_file() and not file.name.startswith((".z", "zarr"))
        ]
        assert len(chunks) > 5
        for chunk in chunks[::4]:
            content = chunk.read_bytes()
            chunk.write_bytes(b"\xff" * len(content))
            assert met() > 0, chunk
            chunk.write_bytes(content)


@pytest.mark.parametrize("damage", [lambda x: x.indices.__setitem__(3, 999), lambda x: x.indptr.__setitem__(2, 10**6)])
def test_sparse_matrices_that_point_outside_are_refused(tmp_path, damage) -> None:
    adata = section()
    matrix = sparse.csr_matrix(adata.X)
    damage(matrix)
    adata.X = matrix
    with pytest.raises(ValueError, match=r"adata\.X is a damaged sparse matrix: .*\. Read or write it again"):
        tl.fit(adata, model="ridge", features_key="spatial", progress=False)
    path = tmp_path / "s.h5ad"
    section().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][...] = matrix.indices
        file["X/indptr"][...] = matrix.indptr
    with pytest.raises(ValueError, match=r"s\.h5ad' is damaged.*adata\.X is a damaged sparse matrix"):
        read_one(path)
