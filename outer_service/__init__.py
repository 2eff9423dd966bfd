"""The outer loop: campaigns that supervise runs, research sessions that write mechanisms, and the library of both."""
