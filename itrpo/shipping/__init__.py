"""From a trained policy to a file that acts without itrpo: its guards, its format, and the proof of each file."""
