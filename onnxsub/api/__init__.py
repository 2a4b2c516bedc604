"""The calls of the Python API: models and anchors as people have them, options as keywords, batches as tables.

`keywords.py` (options from keywords), `question.py` (model and anchors to queries), `answer.py` (a query, an anchor or a batch, the
same for all), `calls.py` and `one.py` (the calls), `rows.py` and `table.py` (answers about a batch), `stored.py` and `runs.py`
(run folders), `progress.py`, `callable_module.py` (names that are calls and packages at once). `onnxsub/__init__.py` exports them.
"""
