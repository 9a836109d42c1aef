"""`nanochat doctor`: finds what keeps this machine from running the platform, and says what to do about it."""
