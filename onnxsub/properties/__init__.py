"""Properties of a network: VNN-LIB text read and written, witnesses judged and printed."""

from __future__ import annotations

from onnxsub.properties.fit import check_fits, shaped_like
from onnxsub.properties.least import as_least_network
from onnxsub.properties.load import load_property, parse_property
from onnxsub.properties.property import Case, Clause, Property
from onnxsub.properties.robustness import fed_box, robustness_property
from onnxsub.properties.rows import RowSet, as_margin_network, row_set
from onnxsub.properties.witness import read_witness, vnncomp_word, witness_text
from onnxsub.properties.write import write_property

__all__ = [
    "Case",
    "Clause",
    "Property",
    "RowSet",
    "as_least_network",
    "as_margin_network",
    "check_fits",
    "fed_box",
    "load_property",
    "parse_property",
    "read_witness",
    "robustness_property",
    "row_set",
    "shaped_like",
    "vnncomp_word",
    "witness_text",
    "write_property",
]
