"""Images and words: Persian text, image regions, a decoder with attention, search, scores, a command."""
