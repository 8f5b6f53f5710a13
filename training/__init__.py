"""What trainings of the pack share: state on disk, learning rates, averages, the loop itself."""
