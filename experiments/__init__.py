"""Evidence: the scripts that make the tables and figures of docs/."""
