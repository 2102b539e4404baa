"""The planner, walked exhaustively: every history of a small world, up to a bound that is said."""
