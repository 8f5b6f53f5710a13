"""The Quality Representation Module: vectors from timestep and prompt for a DiT's modulation."""
