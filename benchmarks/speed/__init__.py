"""How long each step takes, as ratios against a peer in the same run."""
