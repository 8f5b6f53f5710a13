"""A tiny text-to-image DiT that ComfyUI loads with its stock nodes, and the code that trains it."""
