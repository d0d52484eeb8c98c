"""`dev.py bench`: speed and memory of the pack beside other ways to do the same job, in one run."""
