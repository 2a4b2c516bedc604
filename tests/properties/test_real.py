"""The open VNN-LIB files of VNN-COMP 2021: all parse, fit their network and come back exactly (every tenth by default)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxsub.model import Model, load_model
from onnxsub.properties import check_fits, load_property, parse_property, write_property
from tests.properties.tools import same

# folder, network, files, inputs, clauses, rows of the first clause
FAMILIES = [
    ("cifar10_resnet21", "resnet_2b", 48, 3072, 9, 1),
    ("marabou21", "cifar10_small", 24, 3072, 1, 9),
    ("mnistfc21", "mnist-net_256x2", 30, 784, 9, 1),
    ("oval21_2021", "cifar_base_kw", 10, 3072, 9, 1),
]


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(10, id="one-in-ten")])
@pytest.mark.parametrize(("folder", "network", "count", "inputs", "clauses", "rows"), FAMILIES, ids=[f[0] for f in FAMILIES])
def test_open_files_parse_fit_and_round_trip(
    data_dir: Path, every: int, folder: str, network: str, count: int, inputs: int, clauses: int, rows: int
) -> None:
    files = sorted((data_dir / "vnnlib" / folder).glob("*.vnnlib.gz"))
    if not files:
        pytest.skip(f"no properties in {data_dir / 'vnnlib' / folder}")
    assert len(files) == count
    model: Model = load_model(data_dir / "nets" / f"{network}.onnx")
    for i, file in enumerate(files):
        p = load_property(file, model)
        assert (p.inputs, p.outputs, p.version, len(p.cases), p.clauses) == (inputs, 10, "1.0", 1, clauses)
        case = p.cases[0]
        assert (case.lower <= case.upper).all()
        assert np.isfinite(case.lower).all()
        assert np.isfinite(case.upper).all()
        assert case.clauses[0].A.shape == (rows, 10)
        assert not case.clauses[0].strict.any()
        if i % every:
            continue
        assert same(p, parse_property(write_property(p, "1.0")))
        if i % 10 == 0:  # the text of version 2.0 is made from the same pieces
            again = parse_property(write_property(p, "2.0"))
            assert same(p, again)
            check_fits(again, model)
