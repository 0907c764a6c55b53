"""Speed and memory as ratios, each measured in one run. ``python -m bench [NAME …] [--quick]``."""
