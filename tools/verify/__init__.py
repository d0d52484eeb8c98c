"""`dev.py verify`: self-checks, speed, memory and the paper's ablation on a machine and checkpoint of one's own."""
