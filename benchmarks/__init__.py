"""Programs that measure Loupe: run by hand, never by the test suite."""
