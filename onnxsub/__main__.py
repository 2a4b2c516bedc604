"""`python -m onnxsub`."""

from __future__ import annotations

from onnxsub.cli.main import main

if __name__ == "__main__":
    main()
