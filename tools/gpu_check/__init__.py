"""The parts of tools/gpu_check.sh that are Python: a chat, loading and unloading, speed, and the table."""
