"""Latents that come from a file, whatever a person put there; clusters of them."""

import io
import threading

import numpy as np
import pytest
import torch

from midsentence import UserError, latent
from midsentence.latent import read_latents


@pytest.mark.parametrize(
    "line",
    ['"123"', "12", "[1, true", '{"x": [1]}', "[[1]]", "[1" + "0" * 400 + "]", "[" * 100_000],
)
def test_a_line_that_is_no_latent_is_named(tmp_path, line):
    path = tmp_path / "z.jsonl"
    path.write_text(f'[1, 2]\n{{"z": [3, 4.5]}}\n{line}\n')
    with pytest.raises(UserError, match=r"z\.jsonl:3: expected"):
        read_latents(str(path))
    path.write_text('[1, 2]\n \n{"z": [3, 4.5]}\n\n')
    assert read_latents(str(path)).tolist() == [[1, 2], [3, 4.5]]


def test_standard_input_is_called_so(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n\nnothing\n")))
    with pytest.raises(UserError, match="standard input:3: expected"):
        read_latents("-")


def test_an_array_that_is_no_array_is_refused(tmp_path):
    path = tmp_path / "z.npy"
    path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        read_latents(str(path))
    for held, said in ((np.zeros((0, 3)), "no latents"), (np.array([["a"]]), "cannot be read")):
        np.save(path, held)
        with pytest.raises(UserError, match=said):
            read_latents(str(path))
    np.save(path, np.array([1.0, 2.0]))
    assert read_latents(str(path)).tolist() == [[1, 2]]


def test_clusters_leave_everybody_s_random_numbers_alone():
    points = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    wanted = latent.kmeans(points, 9, seed=5)[0]
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            torch.manual_seed(1)
            torch.rand(3)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert all(torch.equal(latent.kmeans(points, 9, seed=5)[0], wanted) for _ in range(20))
    finally:
        stop.set()
        thread.join()
