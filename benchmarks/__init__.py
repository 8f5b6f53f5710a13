"""Speed: ratios against named baselines, one command each."""
