"""Memory across runs: lessons are drawn from a trace, checked, merged, kept, and the most relevant are shown again."""
