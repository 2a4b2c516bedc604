"""The pass that writes files: it stands on the other passes and on the layouts, so it lies behind both."""
