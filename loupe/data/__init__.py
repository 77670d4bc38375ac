"""From a source of photos and captions to train, val and test examples, with an audit of what was found on the way."""
