"""From a trained policy to a file that acts where itrpo is not installed: guards, formats, and the proof of each file."""
