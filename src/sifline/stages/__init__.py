"""One module per stage: decisions are pure functions, effects sit at the edge."""
