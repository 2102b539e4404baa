"""Where tokens are delivered."""
