"""The gate: whether a new model is as robust as the released one, sample by sample, on the run folders of `onnxsub robustness`."""
