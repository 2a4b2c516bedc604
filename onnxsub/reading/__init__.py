"""From a file as it was exported to the form that is analysed: one float input, one tensor of scores, the default operator set.

The form is an ONNX model of its own (`Canonical.proto`), and it is the file itself where nothing has to be changed. The file
keeps the last word: `Own` says which of its tensors decides a class, `Feed` how it is given an input.

`choice.py` (which output, what stands behind the scores), `ml.py` (operators of ai.onnx.ml), `integers.py` (inputs of whole
numbers), `batch.py` (no batch axis, or a fixed one), `canonical.py` (all of them in order), `graphs.py` (small tools).
"""

from __future__ import annotations

from onnxsub.reading.batch import Feed
from onnxsub.reading.canonical import Canonical, Reading, canonical
from onnxsub.reading.choice import Own

__all__ = ["Canonical", "Feed", "Own", "Reading", "canonical"]
